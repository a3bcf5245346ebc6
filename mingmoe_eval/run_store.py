"""A run folder: `run.json`, `samples/<task>.jsonl` and the pages made from them.

Every file is written beside its place and moved into it, so that a reader sees a whole file or
none. Until a run is finished its folder holds only samples and `run.unfinished.json`, which names
what to resume; `run.json` comes last and makes it a run.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.records import SCHEMA_VERSION, JsonDict, Run, RunSpec, Sample, TaskResult

RUN_FILE = "run.json"
UNFINISHED_FILE = "run.unfinished.json"


def save_run(run: Run, folder: str | Path) -> Path:
    """Write a whole run; refuses a folder that already holds one.

    Raises:
        RunStoreError: the folder holds a run, or cannot be written.
    """
    path = open_folder(folder)
    for task, samples in run.samples.items():
        save_samples(path, task, samples)
    return finish(path, run)


def open_folder(folder: str | Path, *, resume: bool = False) -> Path:
    """Make a run folder ready for writing.

    Raises:
        RunStoreError: the folder holds something already (unless resuming an unfinished run), or
            cannot be written.
    """
    path = Path(folder)
    if (path / RUN_FILE).exists():
        raise RunStoreError(f"{path} already holds a finished run; choose another --name")
    if not resume and path.exists() and any(path.iterdir()):
        raise RunStoreError(
            f"{path} is not empty; choose another --name, or continue it with `--resume {path}`"
        )
    with _told(path):
        (path / "samples").mkdir(parents=True, exist_ok=True)
    return path


def discard_if_bare(folder: Path) -> None:
    """Remove the folder of a run that stopped before it had a single answer."""
    answered = [*(folder / "samples").glob("*"), *folder.glob("*.sqlite*")]
    if not answered and not (folder / RUN_FILE).exists():
        (folder / UNFINISHED_FILE).unlink(missing_ok=True)
        (folder / "samples").rmdir()
        folder.rmdir()


def save_samples(folder: Path, task: str, samples: Iterable[Sample]) -> Path:
    """Write one task's samples, whole or not at all."""
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
        "marks": list(run.spec.marks),
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
    tasks = data["tasks"]
    results = {
        name: TaskResult.from_json(
            {**tasks[name], "metrics": data["results"][name], "counts": data["counts"][name]}
        )
        for name in tasks
    }
    leaves = [name for name, result in results.items() if not result.is_group]
    return Run(
        name=data["name"],
        spec=RunSpec.from_json(data["spec"]),
        provenance=data["provenance"],
        results=results,
        samples={task: load_samples(path, task) for task in leaves} if samples else {},
        timing=data["timing"],
        routing=data["routing"],
        parent=data["parent"],
        missing_tasks=tuple(data["missing_tasks"]),
    )


def load_samples(folder: str | Path, task: str) -> list[Sample]:
    """One task's samples.

    Raises:
        RunStoreError: the file is missing, or some of its lines cannot be read (each is listed).
    """
    path = Path(folder) / "samples" / _file_name(task)
    samples, offences = [], []
    for number, line in enumerate(_lines(path), start=1):
        try:
            samples.append(Sample.from_json(json.loads(line)))
        except (json.JSONDecodeError, TypeError, AttributeError, RunStoreError) as error:
            offences.append(f"line {number}: {error}")
    if offences:
        raise RunStoreError(offence_list(f"{path} is damaged", offences))
    return samples


def unfinished_spec(folder: str | Path) -> RunSpec:
    """What an unfinished run was asked for.

    Raises:
        RunStoreError: the folder holds no unfinished run.
    """
    path = Path(folder)
    if (path / RUN_FILE).exists():
        raise RunStoreError(f"{path} is finished; there is nothing to resume")
    file = path / UNFINISHED_FILE
    if not file.is_file():
        raise RunStoreError(f"{path} holds no unfinished run ({UNFINISHED_FILE} is not there)")
    return RunSpec.from_json(_read_json(file)["spec"])


def write_json(path: Path, value: Any) -> Path:
    """Write strict JSON, whole or not at all."""
    return _write(path, [_dumps(value, indent=1), "\n"])


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write strict JSON Lines, whole or not at all."""
    return _write(path, (_dumps(row) + "\n" for row in rows))


def _read_summary(path: Path) -> JsonDict:
    file = path / RUN_FILE
    if (path / UNFINISHED_FILE).exists() and not file.exists():
        raise RunStoreError(
            f"{path} is an unfinished run; finish it with `mingmoe-eval run --resume {path}`"
        )
    if not file.is_file():
        raise RunStoreError(f"{path} is not a run folder ({RUN_FILE} is not there)")
    data = _read_json(file)
    if data.get("schema_version") != SCHEMA_VERSION:
        raise RunStoreError(
            f"{file} has schema version {data.get('schema_version')!r}, this version of "
            f"mingmoe-eval reads {SCHEMA_VERSION}: use the version that wrote it"
        )
    expected = ("spec", "provenance", "results", "counts", "tasks", "timing", "name")
    if missing := [key for key in expected if key not in data]:
        raise RunStoreError(f"{file} lacks {', '.join(missing)}; it is damaged or hand-edited")
    return {"routing": None, "parent": None, "missing_tasks": [], **data}


def _read_json(file: Path) -> JsonDict:
    try:
        data = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunStoreError(f"{file} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise RunStoreError(f"{file} is not a JSON object")
    return data


def _lines(path: Path) -> Iterator[str]:
    try:
        # Not splitlines(): a response may hold U+2028, which is no line end in JSON Lines.
        yield from (line for line in path.read_text("utf-8").split("\n") if line)
    except (OSError, UnicodeDecodeError) as error:
        raise RunStoreError(f"{path} cannot be read: {error}") from error


def _file_name(task: str) -> str:
    """A task's own file; a name from outside can neither leave the folder nor share a file."""
    return quote(task, safe="").replace(".", "%2E") + ".jsonl"


def _dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity as words, lone surrogates escaped, so that any reader can."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, indent=indent)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(v) for v in value]
    return value


def _write(path: Path, chunks: Iterable[str]) -> Path:
    """Write beside the place, make it durable, move it in: a whole file or none."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
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
        raise RunStoreError(
            f"cannot write {path}: {error.strerror}; free some space or choose another "
            "--output. Answers computed so far are kept: the same command continues from them"
        ) from error
