"""Which tasks exist, what they are, and whether every definition loads.

The YAML files are read here without lm-eval, whose import alone takes seconds and whose own index
passes over a file that does not parse: there, a typo shows as "task not found".
"""

import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mingmoe_eval.errors import DataError, UnknownTaskError, offence_list
from mingmoe_eval.locations import tasks_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """One YAML: a task, or a group of tasks (then `members` names them)."""

    name: str
    path: Path
    description: str = ""
    output_type: str = ""
    num_fewshot: int | None = None
    members: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    weight_by_size: bool = False

    @property
    def is_group(self) -> bool:
        """True for a group over other tasks."""
        return bool(self.members)

    @property
    def suite(self) -> str:
        """Which scorer folds its samples: `choice` or `promptcblue`."""
        return str(self.metadata.get("suite", ""))


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

    def leaves_of(self, name: str) -> list[str]:
        """The leaf tasks below a name, in the order of the definitions, each once."""
        definition = self.definitions[name]
        if not definition.is_group:
            return [name]
        return list(dict.fromkeys(leaf for m in definition.members for leaf in self.leaves_of(m)))

    def select(self, patterns: Sequence[str], *, foreign: bool = False) -> Selection:
        """The tasks that names, group names and globs stand for.

        A name that is not here raises UnknownTaskError; with `foreign` it passes on to lm-eval.
        """
        chosen: list[str] = []
        outside: list[str] = []
        for pattern in patterns:
            matched = self._matching(pattern)
            if not matched and (not foreign or _is_glob(pattern)):
                raise UnknownTaskError(pattern, self.names)
            chosen += matched
            outside += [] if matched else [pattern]
        leaves = dict.fromkeys(leaf for name in chosen for leaf in self.leaves_of(name))
        groups = dict.fromkeys(g for name in chosen for g in self._groups_below(name))
        return Selection(
            tuple(self.definitions[name] for name in leaves),
            tuple(self.definitions[name] for name in groups),
            tuple(outside),
        )

    def _matching(self, pattern: str) -> list[str]:
        if pattern in self.definitions:
            return [pattern]
        return fnmatch.filter(self.names, pattern) if _is_glob(pattern) else []

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
    metadata = config.get("metadata") or {}
    return TaskDefinition(
        name=name,
        path=path,
        description=str(metadata.get("description", "")),
        output_type=str(config.get("output_type", "")),
        num_fewshot=config.get("num_fewshot"),
        members=members,
        metadata=metadata,
        weight_by_size=bool(aggregate[0].get("weight_by_size", False)),
    )


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


def _is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")
