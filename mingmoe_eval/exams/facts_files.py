"""Reading the `_data.yaml` beside tasks: every fault of a file is found and told with its place."""

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.exams.benchmarks import Benchmark, Part
from mingmoe_eval.hub import HubSet
from mingmoe_eval.json_files import shown
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.record_files import EXAM_SUFFIXES, SUFFIXES
from mingmoe_eval.suites.form import Fault
from mingmoe_eval.yaml_files import read_yaml

FACTS_FILE = "_data.yaml"
"""Its underscore tells lm-eval, and our own catalogue, that it is no task of lm-eval's."""

_T = TypeVar("_T")


def benchmark_named(name: str, folders: Sequence[Path] = ()) -> Benchmark:
    """The benchmark that a task's `benchmark: NAME` means, of ours or of other folders.

    Raises:
        DataError: no facts file has it, or one cannot be read.
    """
    known = {**benchmarks(), **{one.name: one for folder in folders for one in facts_below(folder)}}
    if name not in known:
        raise DataError(f"no {FACTS_FILE} describes a benchmark {name!r}: {', '.join(known)}")
    return known[name]


def benchmarks(folder: Path | None = None) -> Mapping[str, Benchmark]:
    """Every benchmark whose facts stand below a folder (default: that of the bundled tasks).

    Raises:
        DataError: a file is no YAML, or says something that cannot be; every fault is listed.
    """
    return _bundled() if folder is None else {one.name: one for one in facts_below(folder)}


@functools.cache
def _bundled() -> Mapping[str, Benchmark]:
    return {one.name: one for one in facts_below(tasks_dir())}


def facts_below(folder: Path) -> Iterator[Benchmark]:
    """The entries of every facts file below a folder.

    Raises:
        DataError: as `benchmarks` does.
    """
    for path in sorted(folder.rglob(FACTS_FILE)):
        entries, faults = facts_and_faults(path)
        if faults:
            raise DataError(offence_list(f"{path} has faults:", faults))
        yield from entries


def facts_and_faults(path: Path) -> tuple[list[Benchmark], list[str]]:
    """The entries of one file that can be used, and what is wrong with the others."""
    try:
        named = read_yaml(path)
    except ValueError as error:
        return [], [str(error)]
    if not isinstance(named, dict) or not named:
        kind = type(named).__name__
        return [], [f"Expected `object`, entries by their names such as `ward:`, and not a {kind}"]
    entries: list[Benchmark] = []
    faults: list[str] = []
    for name, values in named.items():
        if not isinstance(name, str):
            faults.append(f"{name!r}: a name is a text: write it in quotes")
            continue
        made, wrong = entry_and_faults(name, values, path.parent)
        entries += made
        faults += wrong
    return entries, faults


def entry_and_faults(name: str, values: Any, folder: Path) -> tuple[list[Benchmark], list[str]]:
    """One entry, one benchmark a subject, and what is wrong with it; `folder` has its files."""
    entry, faults = _entry(name, values, folder)
    if entry is None or faults:
        return [], [f"{place}: {words}" for place, words in _below(name, faults)]
    return list(_by_subject(entry)) if entry.subjects else [entry], []


def _entry(name: str, values: Any, folder: Path) -> tuple[Benchmark | None, list[Fault]]:
    """One entry, with its files beside it."""
    if isinstance(values, dict) and "name" in values:
        return None, [("name", "the entry's own key is its name: leave this out")]
    entry, faults = _record(Benchmark, {**values, "name": name} if _is_mapping(values) else values)
    # Also of an entry that has other faults: whoever mends those wants to know now.
    for place, part in _parts_of(values):
        of_exam = not _is_mapping(values) or values.get("suite", "choice") == "choice"
        suffixes = EXAM_SUFFIXES if of_exam else SUFFIXES
        faults += _below(place, _faults_of_part(part, folder, suffixes))
    if entry is None:
        return None, faults
    faults += entry.faults()
    if isinstance(entry.shots, str) and entry.shots not in entry.parts:
        listed = ", ".join(entry.parts)
        faults.append(("shots", f"from {entry.shots!r}, which is no part ({listed})"))
    if not entry.parts:
        faults.append(("parts", "no parts: `parts: {test: {file: NAME}}` names a file"))
    beside = msgspec.structs.replace(
        entry,
        folders=entry.folders or (name,),
        parts={key: _beside(part, folder, key) for key, part in entry.parts.items()},
        shots=_beside(entry.shots, folder, "dev") if isinstance(entry.shots, Part) else entry.shots,
    )
    return beside, faults


def _parts_of(values: Any) -> Iterator[tuple[str, Part]]:
    """Those parts of an entry, and its own shots, that can be read, with their places."""
    if not _is_mapping(values):
        return
    parts = values.get("parts")
    named = [(f"parts.{key}", part) for key, part in parts.items()] if _is_mapping(parts) else []
    for place, raw in (*named, ("shots", values.get("shots"))):
        part, _ = _record(Part, raw) if _is_mapping(raw) else (None, [])
        if part is not None:
            yield place, part


def _faults_of_part(part: Part, folder: Path, suffixes: Sequence[str]) -> Iterator[Fault]:
    if part.file is not None and part.files:
        yield "file", "it lies beside this file, and `files` lie below --data-dir: one of the two"
    if part.file is None and not part.files and part.hub is None:
        yield (
            "file",
            "there are no records: name a file beside this one, `files` below --data-dir, or a "
            "place on the `hub`",
        )
    for field in ("file", "sample"):
        name = getattr(part, field)
        if name is not None and not os.path.isfile(folder / name):  # noqa: PTH113  a name may be too long for `Path` to ask
            there = sorted(p.name for p in folder.iterdir() if p.is_file())
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(there[:12])}"
            yield field, f"no file {name} beside this one; {hint}"
        elif name is not None and Path(name).suffix.lower() not in suffixes:
            yield field, f"{name}: records of this suite come as {', '.join(suffixes)}"


def _beside(part: Part, folder: Path, called: str) -> Part:
    return msgspec.structs.replace(
        part,
        # What only the hub has may lie below --data-dir too, called as the part is.
        files=part.files or (() if part.file else (called,)),
        file=str(folder / part.file) if part.file else None,
        sample=str(folder / part.sample) if part.sample else None,
    )


def _record(cls: type[_T], values: Any) -> tuple[_T | None, list[Fault]]:
    """A record of values from a file, and every fault that keeps it from being made."""
    if not _is_mapping(values):
        return None, [("", f"a mapping is expected, not {shown(values)}")]
    known = get_type_hints(cls, include_extras=True)
    faults: list[Fault] = []
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            faults.append(_unknown(name, known))
            continue
        made[name], inner = _value(name, value, known[name])
        faults += _below(name, inner)
    faults += [(name, "it is missing") for name in _required(cls) if name not in values]
    return (None, faults) if faults else (cls(**made), [])


def _value(name: str, value: Any, wanted: Any) -> tuple[Any, list[Fault]]:
    """A field's value; records within records are read field by field, to find all their faults."""
    if name == "parts" and _is_mapping(value):
        read = {str(key): _record(Part, part) for key, part in value.items()}
        faults = [fault for key, (_, found) in read.items() for fault in _below(key, found)]
        return {key: part for key, (part, _) in read.items()}, faults
    if name in _NESTED and _is_mapping(value):
        return _record(_NESTED[name], value)
    try:
        return msgspec.convert(value, wanted), []
    except (msgspec.ValidationError, RecursionError) as error:
        return None, [_in_words(error, value, wanted)]


_NESTED: Mapping[str, type[Any]] = {"shots": Part, "hub": HubSet}


def _below(place: str, faults: Iterable[Fault]) -> list[Fault]:
    return [(f"{place}.{inner}" if inner else place, words) for inner, words in faults]


def _unknown(key: Any, known: Mapping[str, Any]) -> Fault:
    names = sorted(known.keys() - {"name"})
    close = difflib.get_close_matches(str(key), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    return str(key), f"no such field; {hint}"


def _in_words(error: Exception, value: Any, wanted: Any) -> Fault:
    """What is wrong with a value of another kind: msgspec's words, and what would be right."""
    if isinstance(error, RecursionError):
        return "", "it is nested too deeply"
    what, _, where = str(error).partition(" - at `")
    hint = ""
    if "`str`" in what and "got `bool`" in what:
        hint = "; YAML reads yes, no, on and off as true and false: write them in quotes"
    elif "Invalid enum value" in what:
        hint = f"; there are {', '.join(_words_of(wanted))}"
    field = re.sub(r"^key` in `|[`$]", "", where).removeprefix(".")
    return field, f"{what}{'' if hint[:7] == '; there' else f', {shown(value)}'}{hint}"


def _words_of(wanted: Any) -> list[str]:
    """The words that a type allows."""
    if get_origin(wanted) is Literal:
        return [word for word in get_args(wanted) if word]
    return [word for part in get_args(wanted) for word in _words_of(part)]


def _required(cls: type[Any]) -> list[str]:
    if dataclasses.is_dataclass(cls):
        absent = dataclasses.MISSING
        return [
            f.name
            for f in dataclasses.fields(cls)
            if f.default is absent and f.default_factory is absent
        ]
    return [f.name for f in msgspec.structs.fields(cls) if f.required]


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _by_subject(family: Benchmark) -> Iterator[Benchmark]:
    """One benchmark a subject; its official rows are those of the part that is tested."""
    tested = next(iter(family.parts))
    for subject, rows in family.subjects.items():
        parts = {name: _of_subject(part, subject) for name, part in family.parts.items()}
        parts[tested] = msgspec.structs.replace(parts[tested], rows=rows)
        shots = family.shots
        yield msgspec.structs.replace(
            family,
            name=family.name.replace("{subject}", subject),
            parts=parts,
            shots=_of_subject(shots, subject) if isinstance(shots, Part) else shots,
            tags={**family.tags, "subject": subject},
            subject=subject,
        )


def _of_subject(part: Part, subject: str) -> Part:
    hub = part.hub
    if hub is not None:
        config = hub.config and hub.config.replace("{subject}", subject)
        hub = HubSet(id=hub.id, split=hub.split, config=config, files=hub.files)
    files = tuple(name.replace("{subject}", subject) for name in part.files)
    return msgspec.structs.replace(part, files=files, hub=hub)
