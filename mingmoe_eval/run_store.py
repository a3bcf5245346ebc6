"""A run folder: `run.json`, `samples/<task>.jsonl` and the pages made from them.

Every file is written whole or not at all. Until a run is finished its folder holds only samples and
`run.unfinished.json`, which names what to resume; `run.json` comes last and makes it a run. One
that is finished but incomplete can be resumed too, so that its failed docs are asked again.

The folder is its user's: notes, links, an editor's files and folders may lie in it, and nothing is
ever removed but what was written here, by its exact name.
"""

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mingmoe_eval.cost import price_of, task_costs, total_cost
from mingmoe_eval.errors import MingMoeError, RunStoreError, TakenFolderError, UsageError
from mingmoe_eval.json_files import dumps, lone_surrogate, parse, read_object
from mingmoe_eval.records import SCHEMA_VERSION, JsonDict, Run, RunSpec, Sample
from mingmoe_eval.run_loading import (
    CURVE_FILE,
    OVERLAP_FILE,
    RUN_FILE,
    UNFINISHED_FILE,
    load_curve,
    load_overlap,
    load_run,
    samples_file_name,
    samples_in,
    without_samples,
)
from mingmoe_eval.whole_files import sweep, write_whole

__all__ = [
    "CURVE_FILE",
    "OVERLAP_FILE",
    "RUN_FILE",
    "SETTINGS_FILE",
    "STORE_FILE",
    "UNFINISHED_FILE",
    "claim",
    "discard_answers",
    "discard_if_bare",
    "finish",
    "load_curve",
    "load_overlap",
    "load_run",
    "open_folder",
    "refuse_taken",
    "refuse_unreadable",
    "save_run",
    "save_samples",
    "save_unfinished",
    "spec_to_resume",
    "summary",
    "write_json",
    "write_json_lines",
]

SETTINGS_FILE = "eval.yaml"
"""What a run was asked for, as the command reads it again."""
STORE_FILE = "responses.sqlite"
"""Answers so far, where they are kept beside the run; SQLite puts up to three files beside it."""
_LOCK_FILE = ".mingmoe-eval.lock"


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
            sweep(place)
        yield path


def folder_named(output: Path, name: str) -> Path:
    """A run's own folder below `output`.

    Raises:
        UsageError: the name is none of a folder there, such as one that leads out of it.
    """
    if lone_surrogate(name):
        raise UsageError(
            f"--name {name!a}: bytes that are no text here; set LC_ALL=C.UTF-8 or PYTHONUTF8=1"
        )
    if name in ("", ".", "..") or Path(name).name != name or not name.isprintable():
        raise UsageError(
            f"--name {name!r}: the name of a folder, with no path before it; --output says where "
            "run folders go"
        )
    # Files beside it have its name with a few letters more, and 255 bytes are most systems' limit.
    if len(os.fsencode(name)) > 200:
        raise UsageError(f"--name {name[:40]}...: longer than 200 bytes")
    return output / name


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
        if (path / _LOCK_FILE).exists():
            with _locked(path):  # refuses what is being written: nobody is to take that up
                pass
        raise TakenFolderError(
            f"{path} is not empty; choose another --name, or continue it with "
            f"`mingmoe-eval run --resume {shlex.quote(str(path))}`"
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
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
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
    return write_json_lines(folder / "samples" / samples_file_name(task), rows)


def refuse_unreadable(run: Run) -> None:
    """Refuse, with nothing written yet, what nobody could read again: a log may say anything.

    Raises:
        RunStoreError: naming the field.
    """
    try:
        read = without_samples(parse(dumps(summary(run)).encode()))
        for task, samples in run.samples.items():
            lines = "".join(dumps(sample.to_json()) + "\n" for sample in samples)
            samples_in(lines.encode(), task, suite=read.results[task].suite, of=task)
    except MingMoeError as error:
        raise RunStoreError(f"what was logged makes no run: {error}") from error


def save_unfinished(folder: Path, spec: RunSpec) -> None:
    """Leave word of what is being run, so that it can be resumed, and repeated."""
    write_json(folder / UNFINISHED_FILE, {"spec": spec.to_json()})
    _write(folder / SETTINGS_FILE, _settings(folder, spec))


def _settings(folder: Path, spec: RunSpec) -> Iterator[str]:
    """What is not as it is by itself, under the names of the command's options."""
    yield "# What this run was asked for. The same again, under another name:\n"
    yield f"#   mingmoe-eval run --config {shlex.quote(str(folder / SETTINGS_FILE))}\n"
    plain = RunSpec(model="", tasks=()).to_json()
    asked = {name: value for name, value in spec.to_json().items() if value != plain[name]}
    yield yaml.safe_dump(asked, allow_unicode=True, sort_keys=False, width=100)


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
        "cost": _cost(run),
        "routing": run.routing,
        "provenance": run.provenance,
        "parent": run.parent,
        "missing_tasks": list(run.missing_tasks),
    }


def _cost(run: Run) -> JsonDict:
    """What the answers of all tasks, and of each, cost; it is read off the samples again."""
    costs = task_costs(run, price_of(run))
    total = total_cost(costs.values())
    return {
        "price": run.spec.price,
        "total": total and total.to_json(),
        "tasks": {task: cost.to_json() for task, cost in costs.items()},
    }


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    file = path / _LOCK_FILE
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TakenFolderError(
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
    _tidy(path)
    if not resume:
        raise TakenFolderError(
            f"{path} already holds a finished run; choose another --name (its "
            f"page is made again by `mingmoe-eval report {shlex.quote(str(path))}`)"
        )
    run = load_run(path, samples=False)
    if not run.incomplete:
        raise TakenFolderError(
            f"{path} is finished and complete; there is nothing to resume (its page is made again "
            f"by `mingmoe-eval report {shlex.quote(str(path))}`)"
        )
    if run.parent or "imported_from" in run.provenance:
        raise RunStoreError(f"{path} was made from other results; resume the run that gave them")


def _tidy(path: Path) -> None:
    """Remove what a process leaves that is killed after its run was whole, as far as may be."""
    if not (path / _LOCK_FILE).exists():
        return
    with contextlib.suppress(MingMoeError, OSError), _locked(path):
        if not load_run(path, samples=False).incomplete:
            (path / UNFINISHED_FILE).unlink(missing_ok=True)
            discard_answers(path)


def _is_fresh(path: Path) -> bool:
    """Whether nothing is there, or only what a process leaves that is killed as it begins."""
    if not path.is_dir():
        return not path.exists()
    begun = {"samples", _LOCK_FILE, ".lock"}  # the last is what version 0.1 called it
    return all(
        entry.name in begun or entry.name.startswith(f".{UNFINISHED_FILE}.")
        for entry in path.iterdir()
    ) and not any((path / "samples").glob("*"))


def _write(path: Path, chunks: Iterable[str]) -> Path:
    with _told(path):
        return write_whole(path, chunks)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> RunStoreError:
    return RunStoreError(
        f"cannot write {path}: {error.strerror}; free some space or choose another --output"
    )
