"""Which tasks exist, what they are, and whether every definition loads.

The YAML files are read here without lm-eval, whose import alone takes seconds and whose own index
passes over a file that does not parse: there, a typo shows as "task not found".
"""

import difflib
import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from mingmoe_eval.errors import DataError, UnknownTaskError, UsageError, offence_list
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.records import Run, TaskSettings

if TYPE_CHECKING:
    from mingmoe_eval.exams.exam_files import ExamFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """One YAML: a task, or a group of tasks (then `members` names them)."""

    name: str
    path: Path
    output_type: str = ""
    num_fewshot: int | None = None
    members: tuple[str, ...] = ()
    settings: TaskSettings = field(default_factory=TaskSettings)
    weight_by_size: bool = False
    exam: "ExamFile | None" = None
    """The questions themselves, where the task is a file of the user's."""

    @property
    def is_group(self) -> bool:
        """True for a group over other tasks."""
        return bool(self.members)


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
        for pattern in patterns:
            if (file := self._exam_file(pattern, columns)) is not None:
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
        return Selection(
            (*(self.definitions[name] for name in leaves), *files),
            tuple(self.definitions[name] for name in groups),
            tuple(outside),
        )

    def _exam_file(self, pattern: str, columns: Mapping[str, str] | None) -> TaskDefinition | None:
        """A file of questions as a task, named after it; None for a name that is no path.

        Raises:
            UsageError: a task of that name exists, or letters are to be compared where a question
                has several right ones.
        """
        if "." not in pattern:  # most names: what reads exams is not imported for them
            return None
        from mingmoe_eval.exams.exam_files import read_exam_file, split_form

        if (place := split_form(pattern)) is None:
            return None
        path, form = place
        exam = read_exam_file(path, columns)
        ending = {"direct": "", "letters": "_ll", "cot": "_cot"}[form]
        name = exam.name + ending
        if name in self.definitions:
            raise UsageError(f"{path}: {name} is a task of ours; give the file another name")
        several = sum(not question.single for question in exam.converted.questions)
        if form == "letters" and several:
            raise UsageError(
                f"{path}{ending}: letters are compared where each question has one right option; "
                f"{several} of these may have several"
            )
        return TaskDefinition(
            name=name,
            path=path,
            settings=TaskSettings(
                suite="choice",
                version=1.0,
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
    definitions: dict[str, TaskDefinition] = {}
    offences: list[str] = []
    for path in sorted((folder or tasks_dir()).rglob("*.yaml")):
        if path.name.startswith("_"):
            continue  # a base that others include, not a task
        try:
            definition = _definition(path)
        except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError) as error:
            offences.append(f"{path}: {' '.join(str(error).split())}")
            continue
        if definition.name in definitions:
            offences.append(f"{path}: the name {definition.name!r} is taken by another file")
        definitions[definition.name] = definition
    offences += _missing_members(definitions.values())
    if offences:
        raise DataError(offence_list(f"{len(offences)} faults in the task definitions", offences))
    return TaskCatalog(definitions)


def _missing_members(definitions: Iterable[TaskDefinition]) -> list[str]:
    known = {d.name for d in definitions}
    return [
        f"{d.path}: member {member!r} is not defined"
        for d in definitions
        for member in d.members
        if member not in known
    ]


def _definition(path: Path) -> TaskDefinition:
    config = _read_yaml(path)
    name = config.get("task") if isinstance(config.get("task"), str) else config.get("group")
    if not isinstance(name, str):
        raise ValueError("neither `task:` nor `group:` names it")
    members = tuple(config["task"]) if isinstance(config.get("task"), list) else ()
    aggregate = config.get("aggregate_metric_list") or [{}]
    return TaskDefinition(
        name=name,
        path=path,
        output_type=str(config.get("output_type", "")),
        num_fewshot=config.get("num_fewshot"),
        members=members,
        settings=_settings(config.get("metadata") or {}),
        weight_by_size=bool(aggregate[0].get("weight_by_size", False)),
    )


def _settings(metadata: Any) -> TaskSettings:
    """A definition's `metadata`, every key known and every value of its type.

    Without a suite the task is lm-eval's to score, and its metadata are its author's own.
    """
    if not isinstance(metadata, dict):
        raise ValueError("metadata: not a mapping")
    known = {f.name for f in fields(TaskSettings)} - {"permute_options"}
    unknown = [key for key in metadata if key not in known]
    misspelt = [key for key in unknown if difflib.get_close_matches(str(key), ["suite"])]
    if unknown and ("suite" in metadata or misspelt):
        listed = ", ".join(f"metadata.{key}" for key in unknown)
        raise ValueError(f"{listed}: no such setting; there are {', '.join(sorted(known))}")
    try:
        return msgspec.convert({k: v for k, v in metadata.items() if k in known}, TaskSettings)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `$")
        raise ValueError(f"metadata{key.rstrip('`')}: {what}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    """One file with what it includes; its own keys win, as lm-eval has it."""
    loaded = yaml.load(path.read_text("utf-8"), Loader=_Loader)
    if not isinstance(loaded, dict):
        raise ValueError("not a mapping")
    includes = loaded.pop("include", [])
    merged: dict[str, Any] = {}
    for included in [includes] if isinstance(includes, str) else includes:
        merged |= _read_yaml(path.parent / included)
    # lm-eval replaces a nested mapping whole; so do we, or the catalogue would tell another story.
    return merged | loaded


# libyaml is ten times as fast as the pure Python parser, where PyYAML was built with it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]  # chosen at run time
    """Safe YAML, in which `!function module.name` stays a plain string."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


def _letters_and_digits(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")
