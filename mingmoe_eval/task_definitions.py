"""Task definitions as files have them: lm-eval's YAMLs, and entries that make their tasks.

The YAML files are read here without lm-eval, whose import alone takes seconds and whose own index
passes over a file that does not parse: there, a typo shows as "task not found".
"""

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.facts_files import FACTS_FILE, entry_and_faults, facts_and_faults
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.record_files import EXAM_SUFFIXES
from mingmoe_eval.records import TaskSettings
from mingmoe_eval.suites.form import ENDINGS
from mingmoe_eval.yaml_files import read_yaml

if TYPE_CHECKING:
    from mingmoe_eval.exams.exam_files import ExamFile


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """A task, or a group of tasks (then `members` names them)."""

    name: str
    path: Path
    output_type: str = ""
    num_fewshot: int | None = None
    members: tuple[str, ...] = ()
    settings: TaskSettings = field(default_factory=TaskSettings)
    weight_by_size: bool = False
    exam: "ExamFile | None" = None
    """The questions themselves, where the task is a file of the user's."""
    benchmark: Benchmark | None = None
    """The entry that makes the task, where no YAML of lm-eval's does."""
    sources: tuple[Path, ...] = ()
    """The files that define it: its own, and those that it includes."""

    @property
    def is_group(self) -> bool:
        """True for a group over other tasks."""
        return bool(self.members)

    @property
    def is_bundled(self) -> bool:
        """Whether it comes with this package."""
        return self.path.is_relative_to(tasks_dir())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the files that define it."""
        digest = hashlib.sha256()
        for path in self.sources or (self.path,):
            digest.update(path.read_bytes())
        return digest.hexdigest()


def definitions_below(folder: Path) -> tuple[list[TaskDefinition], list[str]]:
    """Every definition below a folder, and what is wrong with files that give none."""
    found: list[TaskDefinition] = []
    offences: list[str] = []
    entries: list[tuple[Path, Benchmark]] = []
    asked_by_yaml: set[str] = set()
    for path in _yaml_files(folder):
        if path.name == FACTS_FILE:
            benchmarks, faults = facts_and_faults(path)
            entries += [(path, one) for one in benchmarks]
            offences += [f"{path}: {fault}" for fault in faults]
            continue
        if path.name.startswith("_"):
            continue  # a base that others include, not a task
        try:
            config, sources = _with_includes(path, ())
            if "suite" in config or "parts" in config:
                entries.append((path, _entry_of(config, path)))
                continue
            found.append(_definition(path, config, sources))
            if isinstance(kwargs := config.get("dataset_kwargs"), dict):
                asked_by_yaml.add(str(kwargs.get("benchmark", "")))
        except (OSError, ValueError) as error:
            offences.append(f"{path}: {error}")
    for path, entry in entries:
        if entry.name in asked_by_yaml:
            continue
        if fault := _why_it_makes_no_task(entry):
            offences.append(f"{path}: {entry.name}{fault}")
        else:
            found += tasks_of_entry(path, entry)
    return found, offences


def _why_it_makes_no_task(entry: Benchmark) -> str:
    if fault := name_fault(entry.name):
        return f": {fault}"
    if entry.suite != "choice" and not entry.prompts_that_ask:
        return (
            f".prompt: suite {entry.suite} has no wording of its own: write the text that asks, "
            "with {{ field }} for what a record has"
        )
    if entry.suite == "choice" and entry.language is None and entry.part(None).file is None:
        return ".language: zh or en is needed, for the wording of the prompt"
    return ""


def tasks_of_entry(path: Path, entry: Benchmark) -> Iterator[TaskDefinition]:
    """The tasks that an entry makes by itself, one a form."""
    for form in entry.forms:
        what = {"direct": "", "letters": "letter log-likelihoods", "cot": "reasoning first"}[form]
        yield TaskDefinition(
            name=entry.name + ENDINGS[form],
            path=path,
            output_type="multiple_choice" if form == "letters" else "generate_until",
            num_fewshot=entry.num_fewshot,
            settings=TaskSettings(
                suite=entry.suite,
                version=entry.version,
                form=form,
                metric=entry.metric,
                profile=entry.profile,
                chance=entry.chance,
                access=entry.access,
                language=entry.language or "",
                description=", ".join(filter(None, (entry.description or entry.suite, what))),
            ),
            benchmark=entry,
        )


def name_fault(name: str) -> str:
    """Why a task cannot be called so; "" where it can."""
    if len(name.encode()) > 100:
        return "a task's name has at most 100 bytes"
    if not name or re.search(r"[\s,*?\[\]/\\\x00-\x1f\x7f=]", name) or name[0] in "-_.":
        return (
            "a task's name begins with a letter or a digit, and has no blank, comma, slash, = "
            "or sign of a pattern (* ? [ ]) in it"
        )
    if any(name.casefold().endswith(suffix) for suffix in EXAM_SUFFIXES):
        return "it would be taken for a file of questions: leave the suffix out"
    return ""


_PASSED_OVER = {"node_modules", "__pycache__", "site-packages"}


def _yaml_files(folder: Path) -> list[Path]:
    """What may define tasks; not what tools keep in hidden folders."""
    return sorted(
        path
        for path in folder.rglob("*.yaml")
        if not any(
            part.startswith(".") or part in _PASSED_OVER
            for part in path.relative_to(folder).parts[:-1]
        )
    )


def _entry_of(config: Mapping[str, Any], path: Path) -> Benchmark:
    """An entry that has a file to itself: `task` is its name, the rest as in `_data.yaml`."""
    name = config.get("task")
    if not isinstance(name, str):
        raise ValueError("`task:` has to name it, with a text")
    facts = {key: value for key, value in config.items() if key != "task"}
    entries, faults = entry_and_faults(name, facts, path.parent)
    if faults:
        raise ValueError("; ".join(faults))
    return entries[0]


def _definition(path: Path, config: Mapping[str, Any], sources: Sequence[Path]) -> TaskDefinition:
    task = config.get("task")
    name = task if isinstance(task, str) else config.get("group")
    if not isinstance(name, str):
        raise ValueError(
            "neither `task:` nor `group:` names it (the name of a file that others include "
            "begins with _)"
        )
    if isinstance(task, list) and any(not isinstance(member, str) for member in task):
        raise ValueError("task: a group's members are names; give each of them a file of its own")
    aggregate = config.get("aggregate_metric_list") or [{}]
    if not isinstance(aggregate, list) or not isinstance(aggregate[0], dict):
        raise ValueError("aggregate_metric_list: a list of mappings is expected")
    kwargs = config.get("dataset_kwargs") or {}
    if not isinstance(kwargs, dict) or not isinstance(kwargs.get("benchmark", ""), str):
        raise ValueError("dataset_kwargs: a mapping is expected, and a name as its `benchmark`")
    return TaskDefinition(
        name=name,
        path=path,
        output_type=str(config.get("output_type", "")),
        num_fewshot=config.get("num_fewshot"),
        members=tuple(task) if isinstance(task, list) else (),
        settings=settings_of(config.get("metadata") or {}),
        weight_by_size=bool(aggregate[0].get("weight_by_size", False)),
        sources=tuple(sources),
    )


def settings_of(metadata: Any) -> TaskSettings:
    """A definition's `metadata`, every key known and every value of its type.

    Without a suite the task is lm-eval's to score, and its metadata are its author's own.

    Raises:
        ValueError: a key is unknown, or a value of another type.
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
        if "suite" not in metadata:  # what a foreign task calls `labels` or `form` is its own
            version = metadata.get("version")
            return TaskSettings(version=version if isinstance(version, int | float | str) else "")
        what, _, key = str(error).partition(" - at `$")
        raise ValueError(f"metadata{key.rstrip('`')}: {what}") from error


def _with_includes(path: Path, including: tuple[Path, ...]) -> tuple[dict[str, Any], list[Path]]:
    """One file with what it includes, whose keys its own override, as lm-eval has it."""
    here = path.resolve()
    if here in including:
        names = " includes ".join(one.name for one in (*including, here))
        raise ValueError(f"it includes itself: {names}")
    loaded = read_yaml(path)
    if not isinstance(loaded, dict):
        raise ValueError("not a mapping")
    includes = loaded.pop("include", [])
    listed = [includes] if isinstance(includes, str) else includes
    if not isinstance(listed, list) or any(not isinstance(name, str) for name in listed):
        raise ValueError("include: a file's name, or a list of them, is expected")
    merged: dict[str, Any] = {}
    sources = [path]
    for name in listed:
        config, files = _with_includes(path.parent / name, (*including, here))
        merged |= config
        sources += files
    # lm-eval replaces a nested mapping whole; so do we, or the catalogue would tell another story.
    return merged | loaded, sources
