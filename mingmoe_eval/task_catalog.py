"""Which tasks exist, what they are, and whether every definition loads."""

import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from mingmoe_eval.errors import (
    DataError,
    RunStoreError,
    UnknownTaskError,
    UsageError,
    offence_list,
)
from mingmoe_eval.locations import plugin_folders, tasks_dir
from mingmoe_eval.records import JsonDict, Run, TaskSettings
from mingmoe_eval.suites.form import ENDINGS
from mingmoe_eval.task_definitions import TaskDefinition, definitions_below


@dataclass(frozen=True)
class Selection:
    """What some names stand for: the leaf tasks to run, and the groups to fold afterwards."""

    leaves: tuple[TaskDefinition, ...]
    groups: tuple[TaskDefinition, ...]
    foreign: tuple[str, ...] = ()
    """Names that are not ours: lm-eval's built-in tasks, if it knows them."""


@dataclass(frozen=True)
class TaskCatalog:
    """Every task and group below one folder."""

    definitions: Mapping[str, TaskDefinition]

    @cached_property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.definitions)

    @cached_property
    def _by_folded_name(self) -> dict[str, str]:
        return {name.casefold(): name for name in self.definitions}

    def found(self, name: str) -> str | None:
        """The task of that name, whatever its case; None where there is none."""
        return name if name in self.definitions else self._by_folded_name.get(name.casefold())

    def meant_by(self, name: str) -> list[str]:
        """The tasks that people know by another name, in its form: `MedQA_ll` is `usmle_ll`."""
        plain, ending = name.casefold(), ""
        for form in ("_ll", "_cot"):
            if plain.endswith(form):
                plain, ending = plain.removesuffix(form), form
        plain = _letters_and_digits(plain)
        called = [
            (
                names.index(plain),
                f"{task}{ending}" if f"{task}{ending}" in self.definitions else task,
            )
            for task, definition in self.definitions.items()
            if plain in (names := [*map(_letters_and_digits, definition.settings.also_called)])
        ]
        if called:  # a benchmark's own name stands first in the task that most people mean
            return [task for _, task in sorted(called)]
        # CMeEE, CMeEE-V2: a part of a name is enough where it is no common word.
        parts = [
            task
            for task in self.names
            if len(plain) > 3 and plain in _letters_and_digits(task) and task.endswith(ending)
        ]
        return [task for task in parts if ending or not task.endswith(("_ll", "_cot"))][:3]

    def unknown(self, name: str, others: Iterable[str] = ()) -> UnknownTaskError:
        """That there is no such task, with those that may be meant; `others` are known as well."""
        return UnknownTaskError(name, [*self.names, *others], meant=self.meant_by(name))

    def scores(self, name: str) -> bool:
        """Whether a suite of ours scores the task of that name; else its scores are lm-eval's."""
        return name in self.definitions and bool(self.definitions[name].settings.suite)

    def settings_in(self, run: Run, task: str) -> TaskSettings | None:
        """How a task of a run is scored: as its definition says; an exam that is a file has none.

        None for tasks of lm-eval's own, which keep its scores.
        """
        if task in self.definitions:
            return self.definitions[task].settings if self.scores(task) else None
        if run.results[task].suite != "choice":
            return None
        form = run.provenance.get("tasks", {}).get(task, {}).get("form", "direct")
        return TaskSettings(suite="choice", version=1.0, form=form)

    def remembering(self, run: Run) -> "TaskCatalog":
        """The same with the tasks of a run whose definitions are not here, as the run has them."""
        absent = [name for name in run.results if name not in self.definitions]
        kept = {
            **run.provenance.get("tasks", {}),
            **run.provenance.get("groups", {}),
        }
        remembered = {
            name: definition
            for name in absent
            if (definition := _remembered(run, name, kept.get(name, {}))) is not None
        }
        return TaskCatalog({**self.definitions, **remembered})

    def leaves_of(self, name: str) -> list[str]:
        """The leaf tasks below a name, in the order of the definitions, each once."""
        definition = self.definitions[name]
        if not definition.is_group:
            return [name]
        return list(dict.fromkeys(leaf for m in definition.members for leaf in self.leaves_of(m)))

    def select(
        self,
        patterns: Sequence[str],
        *,
        foreign: bool = False,
        columns: Mapping[str, str] | None = None,
    ) -> Selection:
        """The tasks that names, group names, globs and paths of exam files stand for.

        A name that is not here raises UnknownTaskError; with `foreign` it passes on to lm-eval.
        `columns` says which columns of exam files hold what.
        """
        chosen: list[str] = []
        outside: list[str] = []
        files: list[TaskDefinition] = []
        several = sum(_is_exam_file(pattern) for pattern in patterns) > 1
        for pattern in patterns:
            if (file := self._exam_file(pattern, columns, one_of_several=several)) is not None:
                files.append(file)
                continue
            matched = self._matching(pattern)
            if not matched and (not foreign or _is_glob(pattern)):
                raise self.unknown(pattern)
            chosen += matched
            outside += [] if matched else [pattern]
        leaves = dict.fromkeys(leaf for name in chosen for leaf in self.leaves_of(name))
        groups = dict.fromkeys(g for name in chosen for g in self._groups_below(name))
        if columns and not files:
            raise UsageError("--columns is about files of questions: --tasks names none")
        lacking = [file.exam.lacking for file in files if file.exam]
        if columns and (of_none := frozenset.intersection(*lacking)):
            listed = ", ".join(f"{role}={columns[role]}" for role in sorted(of_none))
            raise UsageError(f"--columns {listed}: none of the {len(files)} files has it")
        return Selection(
            (*(self.definitions[name] for name in leaves), *files),
            tuple(self.definitions[name] for name in groups),
            tuple(outside),
        )

    def _exam_file(
        self, pattern: str, columns: Mapping[str, str] | None, *, one_of_several: bool
    ) -> TaskDefinition | None:
        """A file of questions as a task, named after it; None for a name that is no path.

        Raises:
            UsageError: a task of that name exists, or letters are to be compared where a question
                has several right ones.
        """
        if not _is_exam_file(pattern):
            return None
        from mingmoe_eval.exams.exam_files import read_exam_file, split_form

        place = split_form(pattern)
        assert place is not None
        path, form = place
        exam = read_exam_file(path, columns, one_of_several=one_of_several)
        ending = ENDINGS[form]
        name = exam.name + ending
        if name in self.definitions:
            raise UsageError(f"{path}: {name} is a task of ours; give the file another name")
        several = sum(not question.single for question in exam.converted.questions)
        if form == "letters" and several:
            raise UsageError(
                f"{path}{ending}: letters are compared where each question has one right option; "
                f"{several} of these may have several; use {path}"
            )
        return TaskDefinition(
            name=name,
            path=path,
            settings=TaskSettings(
                suite="choice",
                # 1.1: no blank before a letter compared in Chinese; 1.2: "单选", "A1型题", "A|C";
                # 1.3: cases in a column, or a line, of their own; "肝；胰" as an answer.
                version=1.3,
                form=form,
                language=exam.language,
                description=f"{path.name}: " + "; ".join(exam.found),
            ),
            exam=exam,
        )

    def _matching(self, pattern: str) -> list[str]:
        if (name := self.found(pattern)) is not None:
            return [name]
        if not _is_glob(pattern):
            return []
        return [n for n in self.names if fnmatch.fnmatchcase(n.casefold(), pattern.casefold())]

    def _groups_below(self, name: str) -> Iterator[str]:
        """The groups at and below a name, children first."""
        for member in self.definitions[name].members:
            yield from self._groups_below(member)
        if self.definitions[name].is_group:
            yield name


@functools.cache
def load_catalog(folder: Path | None = None) -> TaskCatalog:
    """Read every definition below `folder` (default: the bundled ones).

    Raises:
        DataError: listing each file that does not parse, each name used twice, and each group
            member that does not exist. A task never vanishes without a word.
    """
    return _catalog_of([folder or tasks_dir()])


def open_catalog(include_path: Sequence[str | Path] = ()) -> TaskCatalog:
    """The bundled definitions with those of `plugin_folders`.

    Those are read again at each call: somebody may be writing them.

    Raises:
        DataError: as `load_catalog` does; also a name that two folders have.
        UsageError: a folder is not there.
    """
    folders = plugin_folders(include_path)
    return _catalog_of([*folders], load_catalog()) if folders else load_catalog()


def _catalog_of(folders: Sequence[Path], beside: TaskCatalog | None = None) -> TaskCatalog:
    definitions = dict(beside.definitions) if beside else {}
    offences: list[str] = []
    seen: set[tuple[Path, str]] = set()
    for folder in folders:
        found, faults = definitions_below(folder)
        offences += faults
        for definition in found:
            if (key := (definition.path.resolve(), definition.name)) in seen:
                continue  # one folder lies in another
            seen.add(key)
            if taken := definitions.get(definition.name):
                whose = "of ours" if beside and taken.is_bundled else f"of {taken.path}"
                offences.append(
                    f"{definition.path}: the name {definition.name!r} is taken by a task {whose}; "
                    "give it another"
                )
            definitions[definition.name] = definition
    # A member that a fault has kept away is not missing.
    offences = offences or _missing_members(definitions.values())
    if offences:
        many = "1 fault" if len(offences) == 1 else f"{len(offences)} faults"
        raise DataError(offence_list(f"{many} in the task definitions", offences))
    return TaskCatalog(definitions)


def _remembered(run: Run, name: str, facts: Mapping[str, Any]) -> TaskDefinition | None:
    """A task as `definition_facts` told a run of it; None where the run was told nothing."""
    known = facts.get("definition")
    if not isinstance(known, Mapping):
        return None
    try:
        settings = msgspec.convert(known.get("settings", {}), TaskSettings)
    except msgspec.ValidationError as error:
        raise RunStoreError(f"provenance of {name}: definition: {error}") from error
    return TaskDefinition(
        name=name,
        path=Path(str(known.get("path", ""))),
        members=run.results[name].members,  # which loading has held against the results
        settings=settings,
        weight_by_size=known.get("weight_by_size") is True,
    )


def definition_facts(definition: TaskDefinition) -> JsonDict:
    """What a run keeps of a definition that is not ours, so that it can be scored without it."""
    if definition.is_bundled:
        return {}
    facts: JsonDict = {
        "path": str(definition.path),
        "fingerprint": definition.fingerprint,
        "settings": definition.settings.to_json(),
    }
    if definition.is_group:
        facts["weight_by_size"] = definition.weight_by_size
    return {"definition": facts}


def _missing_members(definitions: Iterable[TaskDefinition]) -> list[str]:
    known = {d.name for d in definitions}
    return [
        f"{d.path}: member {member!r} is not defined"
        for d in definitions
        for member in d.members
        if member not in known
    ]


def _letters_and_digits(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _is_exam_file(pattern: str) -> bool:
    """Whether a name is that of a file of questions."""
    if "." not in pattern:  # most names: what reads exams is not imported for them
        return False
    from mingmoe_eval.exams.exam_files import split_form

    return split_form(pattern) is not None


def _is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")
