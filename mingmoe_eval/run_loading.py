"""What lies in a run folder, read and checked as a whole: once, for every verb that reads a run.

Whatever is wrong is named with its file, line and field here, and never becomes a record that fails
later and elsewhere.
"""

import dataclasses
import gc
import importlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from mingmoe_eval.errors import MingMoeError, RunStoreError, offence_list
from mingmoe_eval.json_files import (
    JsonFault,
    as_record,
    lone_surrogate,
    parse_lines,
    read_object,
    shown,
)
from mingmoe_eval.provenance import Provenance
from mingmoe_eval.records import SCHEMA_VERSION, JsonDict, Run, RunSpec, Sample, TaskResult
from mingmoe_eval.scoring import described, metric_of

RUN_FILE = "run.json"
UNFINISHED_FILE = "run.unfinished.json"
OVERLAP_FILE = "overlap.json"
"""What of the run's docs was found in training data; `mingmoe-eval overlap --run` writes it."""
CURVE_FILE = "thought_budgets.json"
"""The run's score against the budget of thought; `mingmoe-eval budget` writes it."""
_WORDS_OF_THE_MODEL = frozenset({"response", "answered", "reading", "failure"})
"""Fields of a sample that may hold half a character: what a model or a server said is kept."""
_DOC_TYPES = {
    "choice": ("mingmoe_eval.exams.records", "Doc"),
    "number": ("mingmoe_eval.suites.number", "Doc"),
    "labels": ("mingmoe_eval.suites.labels", "Doc"),
    "tuples": ("mingmoe_eval.suites.tuples", "Doc"),
    "text": ("mingmoe_eval.suites.text", "Doc"),
    "promptcblue": ("mingmoe_eval.promptcblue.catalogue", "Doc"),
}
"""Imported when a run needs one: most verbs are about one suite."""


class _Summary(msgspec.Struct):
    """What `run.json` must hold, and of which type; what else it holds repeats some of that."""

    name: str
    spec: JsonDict
    provenance: JsonDict
    results: dict[str, JsonDict]
    counts: dict[str, JsonDict]
    tasks: dict[str, JsonDict]
    timing: dict[str, Annotated[float, msgspec.Meta(ge=0)]]
    routing: JsonDict | None = None
    parent: str | None = None
    missing_tasks: tuple[str, ...] = ()


def load_run(folder: str | Path, *, samples: bool = True) -> Run:
    """Read a finished run; `samples=False` leaves the samples on disk.

    Raises:
        RunStoreError: no finished run is there, a file is damaged, or the schema is another one.
    """
    path = Path(folder)
    data = _read_summary(path)
    try:
        run = without_samples(data)
    except MingMoeError as error:
        raise RunStoreError(f"{path / RUN_FILE} is damaged or hand-edited: {error}") from error
    if not samples:
        return run
    loaded = {name: load_samples(path, name, suite=one.suite) for name, one in run.leaves.items()}
    _refuse_lost_samples(path, run, loaded)
    _refuse_uncountable_samples(path, run, loaded)
    return dataclasses.replace(run, samples=loaded)


def load_overlap(folder: str | Path) -> JsonDict | None:
    """What `overlap --run` found of a run's docs; None where nobody has looked.

    Raises:
        RunStoreError: the file cannot be read.
    """
    file = Path(folder) / OVERLAP_FILE
    return read_object(file, RunStoreError) if file.is_file() else None


def load_curve(folder: str | Path) -> JsonDict | None:
    """The run's score against the budget of thought; None where `budget` has not made it.

    Raises:
        RunStoreError: the file cannot be read.
    """
    file = Path(folder) / CURVE_FILE
    return read_object(file, RunStoreError) if file.is_file() else None


def load_samples(folder: str | Path, task: str, *, suite: str = "") -> list[Sample]:
    """One task's samples; `suite` says what their docs must hold.

    Raises:
        RunStoreError: the file is missing, or some of its lines cannot be read (each is listed).
    """
    path = Path(folder) / "samples" / samples_file_name(task)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunStoreError(f"{path} cannot be read: {error.strerror}") from error
    return samples_in(data, task, suite=suite, of=path)


def samples_in(data: bytes, task: str, *, suite: str, of: str | Path) -> list[Sample]:
    """The same of a file's content; `of` is what a message calls it.

    Raises:
        RunStoreError: some lines cannot be read (each is listed).
    """
    # Looking for half characters takes long, and they can only come from such an escape.
    may_be_halved = b"\\ud" in data or b"\\uD" in data
    expected = doc_type(suite)
    samples: dict[tuple[int, int], Sample] = {}
    offences = []
    with _no_collection():
        for line, value in parse_lines(data):
            try:
                sample = _sample(value, task, may_be_halved=may_be_halved)
                as_record(expected, sample.doc, of="Sample.doc")
                if (place := (sample.repeat, sample.position)) in samples:
                    raise RunStoreError(f"Sample.position: {sample.position} comes twice")
                samples[place] = sample
            except MingMoeError as error:
                offences.append(f"line {line}: {error}")
    if offences:
        raise RunStoreError(offence_list(f"{of} is damaged", offences))
    return list(samples.values())


def doc_type(suite: str) -> Any:
    """What a suite reads of a doc; a task that lm-eval scores has docs of any kind."""
    module, name = _DOC_TYPES.get(suite, ("mingmoe_eval.records", "JsonDict"))
    return getattr(importlib.import_module(module), name)


def _read_summary(path: Path) -> JsonDict:
    file = path / RUN_FILE
    if (path / UNFINISHED_FILE).exists() and not file.exists():
        raise RunStoreError(
            f"{path} is an unfinished run; finish it with "
            f"`mingmoe-eval run --resume {shlex.quote(str(path))}`"
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


def without_samples(data: JsonDict) -> Run:
    """The run that `run.json` describes, whose samples are elsewhere.

    Raises:
        MingMoeError: naming the field that is not as it has to be.
    """
    summary = as_record(_Summary, data, of="")
    as_record(Provenance, summary.provenance, of="provenance")
    if place := lone_surrogate(data):
        raise RunStoreError(f"{place}: half a character (a lone surrogate)")
    _check_routing(summary.routing)
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


def _check_routing(facts: JsonDict | None) -> None:
    if facts is None:
        return
    from mingmoe_eval.routing.view import RoutingFacts, read_routing

    as_record(RoutingFacts, facts, of="routing")
    try:
        read_routing(facts)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        # Its types are right by now; lists of unlike lengths, for instance, are left.
        raise RunStoreError(f"routing: {type(error).__name__}: {error}") from error


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


def _refuse_uncountable_samples(
    path: Path, run: Run, samples: Mapping[str, Sequence[Sample]]
) -> None:
    """Each sample holds what its task's score is made of, which its metric knows."""
    for task, of_task in samples.items():
        name = (result := run.results[task]).metrics[result.main_metric].metric
        counted = any(name in sample.counts or sample.score is not None for sample in of_task)
        if not name or not (result.suite or counted):
            continue  # lm-eval's own number, of which it keeps no count a doc
        count_doc, offences = metric_of(result).count, []
        for sample in of_task:
            if sample.status != "failed":
                try:
                    count_doc(sample)
                except (LookupError, TypeError, ValueError) as error:
                    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                    offences.append(f"doc {sample.position}: Sample.counts: {what}")
        if offences:
            file = path / "samples" / samples_file_name(task)
            raise RunStoreError(offence_list(f"{file} is damaged", offences))


def samples_file_name(task: str) -> str:
    """A task's own file; a name from outside can neither leave the folder nor share a file."""
    return quote(task, safe="").replace(".", "%2E") + ".jsonl"
