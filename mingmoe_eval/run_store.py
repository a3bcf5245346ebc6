"""A run folder: `run.json`, `samples/<task>.jsonl` and the pages made from them.

Every file is written beside its place and moved into it, so that a reader sees a whole file or
none. Until a run is finished its folder holds only samples and `run.unfinished.json`, which names
what to resume; `run.json` comes last and makes it a run. One that is finished but incomplete can be
resumed too, so that its failed docs are asked again.

The folder is its user's: notes, links, an editor's files and folders may lie in it, and nothing is
ever removed but what was written here, by its exact name.
"""

import contextlib
import dataclasses
import gc
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from mingmoe_eval.errors import MingMoeError, RunStoreError, offence_list
from mingmoe_eval.json_files import (
    JsonFault,
    as_record,
    dumps,
    lone_surrogate,
    parse_lines,
    read_object,
    shown,
)
from mingmoe_eval.provenance import Provenance
from mingmoe_eval.records import SCHEMA_VERSION, JsonDict, Run, RunSpec, Sample, TaskResult
from mingmoe_eval.scoring import described

RUN_FILE = "run.json"
UNFINISHED_FILE = "run.unfinished.json"
OVERLAP_FILE = "overlap.json"
"""What of the run's docs was found in training data; `mingmoe-eval overlap --run` writes it."""
STORE_FILE = "responses.sqlite"
"""Answers so far, where they are kept beside the run; SQLite puts up to three files beside it."""
_LOCK_FILE = ".mingmoe-eval.lock"
_LEFT_OVER = re.compile(r"\..+\.\d+\.mingmoe-eval")
"""What `_write` calls a file that it has not finished; see there."""
_WORDS_OF_THE_MODEL = frozenset({"response", "answered", "reading", "failure"})
"""Fields of a sample that may hold half a character: what a model or a server said is kept."""


class _Summary(msgspec.Struct):
    """What `run.json` must hold, and of which type; what else it holds repeats some of that."""

    name: str
    spec: JsonDict
    provenance: JsonDict
    results: dict[str, JsonDict]
    counts: dict[str, JsonDict]
    tasks: dict[str, JsonDict]
    timing: dict[str, float]
    routing: JsonDict | None = None
    parent: str | None = None
    missing_tasks: tuple[str, ...] = ()


def save_run(run: Run, folder: str | Path) -> Path:
    """Write a whole run; refuses a folder that already holds one.

    Raises:
        RunStoreError: the folder holds a run, or cannot be written.
    """
    with claim(folder) as path:
        for task, samples in run.samples.items():
            save_samples(path, task, samples)
        return finish(path, run)


@contextmanager
def claim(folder: str | Path, *, resume: bool = False) -> Iterator[Path]:
    """Make a run folder ready for writing, and keep other processes out of it meanwhile.

    The claim ends with the process, however that ends. On a file system without locks, as some
    cluster disks are, it only looks.

    Raises:
        RunStoreError: the folder holds something already (unless resuming a run that is unfinished
            or incomplete), another process is writing it, or it cannot be written.
    """
    path = open_folder(folder, resume=resume)
    with _locked(path):
        _refuse_finished(path, resume=resume)  # by a process that was quicker
        for place in (path, path / "samples", path / "lm_eval"):
            _sweep(place)
        yield path


def open_folder(folder: str | Path, *, resume: bool = False) -> Path:
    """Make a run folder ready for writing.

    Raises:
        RunStoreError: the folder holds something already (unless resuming a run that is unfinished
            or incomplete), or cannot be written.
    """
    path = refuse_taken(folder, resume=resume)
    with _told(path):
        (path / "samples").mkdir(parents=True, exist_ok=True)
    return path


def refuse_taken(folder: str | Path, *, resume: bool = False) -> Path:
    """Refuse, with nothing written yet, a folder that no run can go into; gives its path.

    Raises:
        RunStoreError: it holds something already (unless resuming a run that is unfinished or
            incomplete), or cannot be made or written.
    """
    path = Path(folder)
    _refuse_finished(path, resume=resume)
    if not resume and not _is_fresh(path):
        raise RunStoreError(
            f"{path} is not empty; choose another --name, or continue it with `--resume {path}`"
        )
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise RunStoreError(f"cannot write {path}: {nearest} is a file; choose another --output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunStoreError(f"cannot write {path}: no right to write in {nearest}")
    return path


def discard_if_bare(folder: Path) -> None:
    """Remove the folder of a run that stopped before it had a single answer."""
    answered = [*(folder / "samples").glob("*"), *folder.glob(f"{STORE_FILE}*")]
    if not answered and not (folder / RUN_FILE).exists():
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)
        (folder / _LOCK_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of the user's lies there
            (folder / "samples").rmdir()
            folder.rmdir()


def discard_answers(folder: Path) -> None:
    """Remove the answers that a run kept beside itself, once it is whole."""
    for end in ("", "-wal", "-shm", "-journal"):
        (folder / f"{STORE_FILE}{end}").unlink(missing_ok=True)


def save_samples(folder: Path, task: str, samples: Iterable[Sample]) -> Path:
    """Write one task's samples, whole or not at all.

    A run that was finished is so no longer: until `finish`, its numbers would be of other samples.
    """
    (folder / RUN_FILE).unlink(missing_ok=True)
    rows = (sample.to_json() for sample in samples)
    return write_json_lines(folder / "samples" / _file_name(task), rows)


def save_unfinished(folder: Path, spec: RunSpec) -> None:
    """Leave word of what is being run, so that it can be resumed."""
    write_json(folder / UNFINISHED_FILE, {"spec": spec.to_json()})


def finish(folder: Path, run: Run) -> Path:
    """Write `run.json`, which makes the folder a run."""
    write_json(folder / RUN_FILE, summary(run))
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)
    return folder


def summary(run: Run) -> JsonDict:
    """What `run.json` holds: everything but the samples."""
    results = {name: result.to_json() for name, result in run.results.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": run.name,
        "spec": run.spec.to_json(),
        "marks": list(run.marks),
        "incomplete": list(run.incomplete),
        "results": {name: result.pop("metrics") for name, result in results.items()},
        "counts": {name: result.pop("counts") for name, result in results.items()},
        "tasks": results,
        "timing": dict(run.timing),
        "routing": run.routing,
        "provenance": run.provenance,
        "parent": run.parent,
        "missing_tasks": list(run.missing_tasks),
    }


def load_run(folder: str | Path, *, samples: bool = True) -> Run:
    """Read a finished run; `samples=False` leaves the samples on disk.

    Raises:
        RunStoreError: no finished run is there, a file is damaged, or the schema is another one.
    """
    path = Path(folder)
    data = _read_summary(path)
    try:
        run = _without_samples(data)
    except MingMoeError as error:
        raise RunStoreError(f"{path / RUN_FILE} is damaged or hand-edited: {error}") from error
    if not samples:
        return run
    loaded = {task: load_samples(path, task) for task in run.leaves}
    _refuse_lost_samples(path, run, loaded)
    return dataclasses.replace(run, samples=loaded)


def load_overlap(folder: str | Path) -> JsonDict | None:
    """What `overlap --run` found of a run's docs; None where nobody has looked.

    Raises:
        RunStoreError: the file cannot be read.
    """
    file = Path(folder) / OVERLAP_FILE
    return read_object(file, RunStoreError) if file.is_file() else None


def load_samples(folder: str | Path, task: str) -> list[Sample]:
    """One task's samples.

    Raises:
        RunStoreError: the file is missing, or some of its lines cannot be read (each is listed).
    """
    path = Path(folder) / "samples" / _file_name(task)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunStoreError(f"{path} cannot be read: {error.strerror}") from error
    # Looking for half characters takes long, and they can only come from such an escape.
    may_be_halved = b"\\ud" in data or b"\\uD" in data
    samples: dict[int, Sample] = {}
    offences = []
    with _no_collection():
        for line, value in parse_lines(data):
            try:
                sample = _sample(value, task, may_be_halved=may_be_halved)
                if sample.position in samples:
                    raise RunStoreError(f"Sample.position: {sample.position} comes twice")
                samples[sample.position] = sample
            except MingMoeError as error:
                offences.append(f"line {line}: {error}")
    if offences:
        raise RunStoreError(offence_list(f"{path} is damaged", offences))
    return list(samples.values())


def spec_to_resume(folder: str | Path) -> RunSpec:
    """What a run was asked for that is unfinished, or finished but incomplete.

    Raises:
        RunStoreError: the folder holds no such run.
    """
    path = Path(folder)
    if (path / RUN_FILE).exists():
        _refuse_finished(path, resume=True)
        return load_run(path, samples=False).spec
    file = path / UNFINISHED_FILE
    if not file.is_file():
        raise RunStoreError(f"{path} holds no unfinished run ({UNFINISHED_FILE} is not there)")
    try:
        return RunSpec.from_json(read_object(file, RunStoreError).get("spec", {}))
    except RunStoreError as error:
        raise RunStoreError(
            f"{file} is damaged or hand-edited, so that nobody knows what to resume ({error}); "
            "start the run again under another --name"
        ) from error


def write_json(path: Path, value: Any) -> Path:
    """Write strict JSON, whole or not at all."""
    return _write(path, [dumps(value, indent=1), "\n"])


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write strict JSON Lines, whole or not at all."""
    return _write(path, (dumps(row) + "\n" for row in rows))


def _sweep(place: Path) -> None:
    """Remove the files that a killed process was writing."""
    for entry in place.iterdir() if place.is_dir() else ():
        if _LEFT_OVER.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
            entry.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    file = path / _LOCK_FILE
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunStoreError(
            f"another process is writing {path}; wait for it, or choose another --name"
        ) from error
    except NotImplementedError:
        pass
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _refuse_finished(path: Path, *, resume: bool) -> None:
    """Refuse a folder with a run, unless that one is to be resumed and has failed docs to ask."""
    if not (path / RUN_FILE).exists():
        return
    if not resume:
        raise RunStoreError(f"{path} already holds a finished run; choose another --name")
    run = load_run(path, samples=False)
    if not run.incomplete:
        raise RunStoreError(f"{path} is finished and complete; there is nothing to resume")
    if run.parent or "imported_from" in run.provenance:
        raise RunStoreError(f"{path} was made from other results; resume the run that gave them")


def _is_fresh(path: Path) -> bool:
    """Whether nothing is there, or only what a process leaves that is killed as it begins."""
    if not path.is_dir():
        return not path.exists()
    begun = {"samples", _LOCK_FILE, ".lock"}  # the last is what version 0.1 called it
    return all(
        entry.name in begun or entry.name.startswith(f".{UNFINISHED_FILE}.")
        for entry in path.iterdir()
    ) and not any((path / "samples").glob("*"))


def _read_summary(path: Path) -> JsonDict:
    file = path / RUN_FILE
    if (path / UNFINISHED_FILE).exists() and not file.exists():
        raise RunStoreError(
            f"{path} is an unfinished run; finish it with `mingmoe-eval run --resume {path}`"
        )
    if not file.is_file():
        raise RunStoreError(f"{path} is not a run folder ({RUN_FILE} is not there)")
    data = read_object(file, RunStoreError)
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise RunStoreError(
            f"{file} has schema version {shown(version)}, this version of mingmoe-eval reads "
            f"{SCHEMA_VERSION}: use the version that wrote it"
        )
    return data


@contextmanager
def _no_collection() -> Iterator[None]:
    """No search for garbage meanwhile: a million new objects, all in use, take a third longer."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _sample(value: Any, task: str, *, may_be_halved: bool) -> Sample:
    """One line's sample.

    Raises:
        MingMoeError: the line is none, or one of another task, or has a field that cannot be.
    """
    if isinstance(value, JsonFault):
        raise value
    sample = Sample.from_json(value)
    if sample.task != task:
        raise RunStoreError(f"Sample.task: the file is of {task!r}, not of {shown(sample.task)}")
    if sample.status == "failed" and sample.score is not None:
        raise RunStoreError("Sample.score: a failed doc has none")
    if may_be_halved:
        ours = {name: part for name, part in value.items() if name not in _WORDS_OF_THE_MODEL}
        if place := lone_surrogate(ours):
            raise RunStoreError(f"Sample.{place}: half a character (a lone surrogate)")
    return sample


def _without_samples(data: JsonDict) -> Run:
    summary = as_record(_Summary, data, of="")
    as_record(Provenance, summary.provenance, of="provenance")
    if place := lone_surrogate(data):
        raise RunStoreError(f"{place}: half a character (a lone surrogate)")
    if not summary.tasks.keys() == summary.results.keys() == summary.counts.keys():
        raise RunStoreError("tasks, results and counts speak of different tasks")
    results = {name: described(_result(name, summary)) for name in summary.tasks}
    _refuse_broken_groups(results)
    return Run(
        name=summary.name,
        spec=RunSpec.from_json(summary.spec),
        provenance=summary.provenance,
        results=results,
        samples={},
        timing=summary.timing,
        routing=summary.routing,
        parent=summary.parent,
        missing_tasks=summary.missing_tasks,
    )


def _result(name: str, summary: _Summary) -> TaskResult:
    if summary.tasks[name].get("task") != name:
        raise RunStoreError(f"{name!r} does not describe that task")
    facts = {"metrics": summary.results[name], "counts": summary.counts[name]}
    try:
        return TaskResult.from_json({**summary.tasks[name], **facts})
    except RunStoreError as error:
        raise RunStoreError(f"{name}: {error}") from error


def _refuse_broken_groups(results: Mapping[str, TaskResult]) -> None:
    """A group's members are all there, and none of them stands, however far down, for itself."""
    members = {member for result in results.values() for member in result.members}
    if absent := sorted(members - results.keys()):
        raise RunStoreError(f"a group names {', '.join(absent)}, of which nothing is there")
    groups = {name: set(result.members) for name, result in results.items() if result.is_group}
    while ready := [name for name, below in groups.items() if not below & groups.keys()]:
        for name in ready:
            del groups[name]
    if groups:
        raise RunStoreError(f"the groups {', '.join(sorted(groups))} stand for themselves")


def _refuse_lost_samples(path: Path, run: Run, samples: Mapping[str, Sequence[Sample]]) -> None:
    offences = [
        f"{task}: {len(of_task)} samples, where {RUN_FILE} speaks of {docs} docs"
        for task, of_task in samples.items()
        if len(of_task) != (docs := run.results[task].counts.docs)
    ]
    if offences:
        raise RunStoreError(offence_list(f"{path} is damaged", offences))


def _file_name(task: str) -> str:
    """A task's own file; a name from outside can neither leave the folder nor share a file."""
    return quote(task, safe="").replace(".", "%2E") + ".jsonl"


def _write(path: Path, chunks: Iterable[str]) -> Path:
    """Write beside the place, make it durable, move it in: a whole file or none.

    The name beside it is one that no editor and no user gives to a file: a process that is killed
    leaves it, and the next one removes it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.mingmoe-eval")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return path


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> RunStoreError:
    return RunStoreError(
        f"cannot write {path}: {error.strerror}; free some space or choose another "
        "--output. Answers computed so far are kept: the same command continues from them"
    )
