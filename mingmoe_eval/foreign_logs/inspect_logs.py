"""Logs of inspect_ai, `.eval` and `.json` (log format 2), as inspect_ai 0.3 writes them.

An `.eval` file is a zip of `header.json` and one JSON a sample and epoch. Present releases
(0.3.285) compress with zstd, which Python's own zipfile cannot read before 3.14; pyarrow can.
"""

import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.foreign_logs.log import Imported, LoggedDoc, LoggedTask, contradictions, run_of
from mingmoe_eval.json_files import JsonFault, parse
from mingmoe_eval.records import Finish, JsonDict, RunSpec

_ZSTD = 93
# What zipfile and zlib raise of bytes that are none of theirs, encrypted or of another kind.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError),
    *(LookupError, ValueError, AttributeError, TypeError),
)
_LARGEST = 2**31
"""Bytes of one member: a header that promises more would fill the memory."""
_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""inspect_ai's own (scorer/_metric.py): correct, partially so, incorrect, no answer."""
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Its other words for right and wrong, in whatever case."""
_FINISH: Mapping[str, Finish] = {"stop": "stop", "max_tokens": "length", "model_length": "length"}


def is_here(place: Path) -> bool:
    """Whether a file, or a folder of files, is logs of inspect_ai."""
    return bool(_files(place))


def read(place: Path) -> list[Imported]:
    """The logs at a place, those of one model together; of a task that was run twice the newest.

    Raises:
        RunStoreError: a log is damaged, or states a number that its samples do not give.
    """
    by_model: dict[str, list[tuple[Path, JsonDict]]] = {}
    for file in _files(place):
        log = _log(file)
        by_model.setdefault(str(log["eval"].get("model", "unknown")), []).append((file, log))
    return [_imported(model, logs) for model, logs in by_model.items()]


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return [file for file in sorted(place.iterdir()) if file.is_file() and _is_log(file)]
    return [place] if _is_log(place) else []


def _is_log(file: Path) -> bool:
    if file.suffix == ".eval":
        return True
    if file.suffix != ".json":
        return False
    with file.open("rb") as beginning:
        head = beginning.read(4096)
    return b'"eval"' in head and b'"version"' in head and b'"status"' in head


def _imported(model: str, logs: Sequence[tuple[Path, JsonDict]]) -> Imported:
    tasks: dict[str, LoggedTask] = {}
    limits: dict[str, int | None] = {}
    left_out: list[str] = []
    offences: list[str] = []
    newest: JsonDict = {}
    for file, log in sorted(
        logs, key=lambda pair: str(pair[1]["eval"].get("created")), reverse=True
    ):
        name = str(log["eval"].get("task") or file.stem)
        if name in tasks:
            left_out.append(f"{name}: {file.name} has it too, from before")
            continue
        try:
            task = _task(name, log)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunStoreError(f"{file} is not as inspect_ai writes it ({reason})") from error
        if log.get("status") != "success":
            left_out.append(f"{name}: whatever came after {file.name} ended as {log.get('status')}")
        if task.docs:
            tasks[name], limits[name], newest = task, _limit(log), newest or log
            offences += [f"{file.name}, {fault}" for fault in contradictions(task)]
        else:
            left_out.append(f"{name}: {file.name} has no samples (--no-log-samples, or a failure)")
    if offences:
        raise RunStoreError(offence_list("logs of inspect_ai contradict themselves", offences))
    # A limit of some logs alone is a mark of their tasks; one of all of them is the run's.
    distinct = set(limits.values())
    of_all = distinct.pop() if len(distinct) == 1 else None
    for task_name, limit in limits.items():
        if limit not in (None, of_all):
            marks = (*tasks[task_name].marks, f"first {limit} docs")
            tasks[task_name] = replace(tasks[task_name], marks=marks)
    version = newest.get("eval", {}).get("packages", {}).get("inspect_ai")
    name = model.replace("/", "-")
    spec = RunSpec(model=model, tasks=tuple(tasks), limit=of_all)
    provenance = {
        "imported_from": "inspect_ai",
        "packages": {"inspect_ai": version},
        "created": str(newest.get("eval", {}).get("created", "")),
        "model": {"engine": "inspect_ai", "name": model},
    }
    return Imported(
        name=name,
        model=model,
        source=f"inspect_ai {version}",
        run=run_of([*tasks.values()], name=name, spec=spec, provenance=provenance)
        if tasks
        else None,
        left_out=tuple(left_out),
    )


def _task(name: str, log: Mapping[str, Any]) -> LoggedTask:
    """The first scorer's values are the score; the epochs of a sample are repeats of one doc."""
    scores = (log.get("results") or {}).get("scores") or []
    scorers = [str(score["name"]) for score in scores]
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for sample in log.get("samples") or []:
        by_id.setdefault(str(sample["id"]), []).append(sample)
    docs = [
        _doc(number, repeat, sample, scorers)
        for number, epochs in enumerate(by_id.values())
        for repeat, sample in enumerate(epochs)
    ]
    config = log["eval"].get("config") or {}
    reducers = config.get("epochs_reducer") or ["mean"]
    # Other reducers and metrics make other numbers than the mean, which nobody can hold against it.
    stated = {
        str(score["name"]): float(score["metrics"]["accuracy"]["value"])
        for score in scores
        if "accuracy" in (score.get("metrics") or {}) and [*reducers] == ["mean"]
    }
    shots = (log["eval"].get("task_args") or {}).get("fewshot", 0)
    return LoggedTask(
        name=name,
        docs=docs,
        stated=stated,
        version=str(log["eval"].get("task_version", "")),
        num_fewshot=shots if type(shots) is int and shots >= 0 else 0,
        marks=tuple(_marks(log, len(by_id))),
    )


def _marks(log: Mapping[str, Any], docs: int) -> Iterator[str]:
    """Why these are not all samples of the data set, besides a limit."""
    config, data_set = log["eval"].get("config") or {}, log["eval"].get("dataset") or {}
    if config.get("sample_id"):
        yield "samples chosen by their ids"
    asked = len(data_set.get("sample_ids") or ())
    if not asked and not config.get("limit") and not config.get("sample_id"):
        asked = data_set.get("samples") or 0
    if docs < asked:
        yield f"{docs:,} of {asked:,} samples, for the run was not finished"


def _doc(number: int, repeat: int, sample: Mapping[str, Any], scorers: Sequence[str]) -> LoggedDoc:
    attached = sample.get("attachments") or {}
    scores = sample.get("scores") or {}
    given = {name: _value((scores.get(name) or {}).get("value")) for name in (*scorers, *scores)}
    values = {name: value for name, value in given.items() if value is not None}
    output = sample.get("output") or {}
    choices = output.get("choices") or [{}]
    usage = output.get("usage") or {}
    main = next(iter(values), None)
    answered = scores[main].get("answer") if main else None
    target = sample.get("target")
    error = sample.get("error")
    failure = error.get("message", "") if isinstance(error, dict) else str(error or "")
    return LoggedDoc(
        position=number,
        doc={
            "id": str(sample["id"]),
            "question": _text(sample.get("input"), attached),
            **({"choices": sample["choices"]} if sample.get("choices") else {}),
            "target": target,
            **({"metadata": sample["metadata"]} if sample.get("metadata") else {}),
        },
        prompt=_prompt(sample.get("messages") or sample.get("input"), attached),
        expected=", ".join(map(str, target)) if isinstance(target, list) else str(target),
        reply=_resolved(str(output.get("completion") or ""), attached),
        answered=None if answered is None else str(answered),
        values=values,
        failure=failure,
        finish=_FINISH.get(str(choices[0].get("stop_reason")), "none"),
        prompt_tokens=max(int(usage.get("input_tokens") or 0), 0),
        generated_tokens=max(int(usage.get("output_tokens") or 0), 0),
        repeat=repeat,
    )


def _value(value: Any) -> float | None:
    """A score as inspect_ai's own `value_to_float` has it; None for one of another kind.

    Of what cannot be read its program makes 0, with a warning; here such a sample has no score.
    """
    if isinstance(value, str):
        if (said := _VALUES.get(value, _WORDS.get(value.lower()))) is not None:
            return said
        with contextlib.suppress(ValueError):
            return float(value) if math.isfinite(float(value)) else None
        return None
    return float(value) if isinstance(value, bool | int | float) else None


def _prompt(messages: Any, attached: Mapping[str, Any]) -> str:
    """What was asked, without what was answered."""
    if not isinstance(messages, list):
        return _text(messages, attached)
    asked = [m for m in messages if isinstance(m, dict) and m.get("role") != "assistant"]
    return "\n\n".join(_text(message.get("content"), attached) for message in asked)


def _text(content: Any, attached: Mapping[str, Any]) -> str:
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict))
        return "\n".join(_text(p.get("text", p.get("content", "")), attached) for p in parts)
    return _resolved(str(content or ""), attached)


def _resolved(text: str, attached: Mapping[str, Any]) -> str:
    """Long texts stand once, beside the messages that name them."""
    mark = "attachment://"
    return str(attached.get(text.removeprefix(mark), text)) if text.startswith(mark) else text


def _limit(log: Mapping[str, Any]) -> int | None:
    limit = ((log.get("eval") or {}).get("config") or {}).get("limit")
    if isinstance(limit, list):  # from, to
        limit = limit[-1] - limit[0] if len(limit) == 2 else None
    return limit if type(limit) is int and limit > 0 else None


def _log(file: Path) -> JsonDict:
    try:
        log = _unzipped(file) if file.suffix == ".eval" else parse(file.read_bytes())
        if not isinstance(log, dict) or not isinstance(log.get("eval"), dict):
            raise JsonFault("it has no `eval`")
    except OSError as error:
        raise RunStoreError(f"{file} cannot be read: {error.strerror or error}") from error
    except (JsonFault, *_DAMAGED) as error:
        raise RunStoreError(f"{file} is no log of inspect_ai: {error}") from error
    return log


def _unzipped(file: Path) -> JsonDict:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if "header.json" not in names:
            raise JsonFault("it has no header.json, as logs that were never finished")
        log = _member(archive, "header.json")
        if not isinstance(log, dict):
            raise JsonFault("its header.json is no object")
        samples = [n for n in names if n.startswith("samples/") and n.endswith(".json")]
        log["samples"] = [_member(archive, name) for name in samples]
        ids = [
            str(i) for i in ((log.get("eval") or {}).get("dataset") or {}).get("sample_ids") or ()
        ]
        order = {name: position for position, name in enumerate(ids)}
        log["samples"].sort(key=lambda s: (order.get(str(s["id"]), len(order)), s.get("epoch", 1)))
    return log


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    info = archive.getinfo(name)
    if info.file_size > _LARGEST:
        raise JsonFault(f"{name} has {info.file_size:,} bytes")
    if info.compress_type != _ZSTD:
        return parse(archive.read(name))
    import pyarrow  # type: ignore[import-untyped]

    # The local header is 30 bytes and two lengths of what follows it (zip specification, 4.3.7).
    assert archive.fp is not None
    archive.fp.seek(info.header_offset)
    name_length, extra_length = struct.unpack("<HH", archive.fp.read(30)[26:30])
    archive.fp.seek(info.header_offset + 30 + name_length + extra_length)
    packed = archive.fp.read(info.compress_size)
    try:
        with pyarrow.input_stream(pyarrow.BufferReader(packed), compression="zstd") as stream:
            return parse(stream.read(info.file_size))
    except (OSError, pyarrow.ArrowException) as error:
        raise JsonFault(f"{name} cannot be unpacked: {error}") from error
