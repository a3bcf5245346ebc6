"""What of each run's docs was found in training data, as the page shows it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.metrics.uncertainty import difference_of_parts
from mingmoe_eval.records import JsonDict, MetricValue, Run, fingerprint
from mingmoe_eval.report.view import Cell, Column
from mingmoe_eval.run_store import OVERLAP_FILE

DocPlaces = Mapping[tuple[str, str], str]
"""(Task, doc) -> where it was found and how much of it; of those that were found."""

_SCORES = ("all", "unseen", "seen")


@dataclass(frozen=True, slots=True)
class SeenTask:
    """One task, or one group of tasks; the counts of a group are None.

    Attributes:
        found: How many docs were found, and how many of these word by word.
        scores: Over all docs, without those that were found, on those alone.
        change: Without those that were found, less all; its interval takes as given how many
            were found, and is there for metrics that are means over docs.
    """

    task: str
    is_group: bool
    docs: int | None
    found: int | None
    exact: int | None
    too_general: int | None
    scores: tuple[Cell | None, ...]
    change: MetricValue | None


@dataclass(frozen=True, slots=True)
class SeenDocs:
    """What was looked for in which files, and found.

    Attributes:
        files: Each file with the SHA-256 of its bytes.
        mismatches: What the findings say of docs or scores that are not this run's; if there are
            any, nothing else is to be shown.
    """

    column: Column
    files: Mapping[str, str]
    records: int
    threshold: float
    phrase_words: int
    tasks: tuple[SeenTask, ...]
    places: DocPlaces
    mismatches: tuple[str, ...]


def seen_docs(
    runs: Sequence[Run], shown: Sequence[Column], overlaps: Sequence[JsonDict | None]
) -> list[SeenDocs]:
    """The findings of those runs that have any.

    Args:
        runs: The runs, samples included.
        shown: Their columns.
        overlaps: What each run's `overlap.json` holds; None: it has none.

    Raises:
        RunStoreError: findings that are damaged or hand-edited.
    """
    return [
        _seen_docs(run, column, data)
        for run, column, data in zip(runs, shown, overlaps, strict=True)
        if data is not None
    ]


def places_by_run(seen: Sequence[SeenDocs], runs: int) -> list[DocPlaces]:
    """What each run's docs were found in; empty for a run without findings."""
    by_position = {one.column.position: one.places for one in seen}
    return [by_position.get(position, {}) for position in range(runs)]


def _seen_docs(run: Run, column: Column, data: JsonDict) -> SeenDocs:
    try:
        mismatches = tuple(_mismatches(run, data))
        tasks = {} if mismatches else data["tasks"]
        scores = {} if mismatches else data["scores"]
        return SeenDocs(
            column=column,
            files={str(name): str(digest) for name, digest in data["training"]["files"].items()},
            records=int(data["training"]["records"]),
            threshold=float(data["rules"]["threshold"]),
            phrase_words=int(data["rules"]["phrase_words"]),
            tasks=tuple(
                _task(run, name, tasks.get(name), scores.get(name, {}))
                for name in run.results
                if name in tasks or name in scores
            ),
            places={
                (task, doc["doc_id"]): f"{doc['place']} · {100 * doc['share']:.0f} %"
                for task, found in tasks.items()
                for doc in found["seen_docs"]
            },
            mismatches=mismatches,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunStoreError(
            f"{OVERLAP_FILE} of {column.label} is damaged or hand-edited ({error!r}); make it "
            "again with `mingmoe-eval overlap --run`, or remove it"
        ) from error


def _mismatches(run: Run, data: JsonDict) -> list[str]:
    """Tasks whose docs, or whose scores, are not those that the findings are about."""
    of_docs = [task for task, found in data["tasks"].items() if not _same_docs(run, task, found)]
    of_scores = [
        task
        for task, sides in data["scores"].items()
        if task not in of_docs and not _same_score(run, task, sides["all"])
    ]
    return [*of_docs, *of_scores]


def _same_docs(run: Run, task: str, found: Mapping[str, Any]) -> bool:
    ids = {sample.doc_id for sample in run.samples.get(task, ()) if not sample.variant}
    return task in run.samples and fingerprint(sorted(ids)) == found["docs_fingerprint"]


def _same_score(run: Run, task: str, stated: Mapping[str, Any]) -> bool:
    """Not the same once the run was resumed: then fewer docs had failed."""
    if task not in run.results:
        return False
    then, now = MetricValue.from_json(stated), run.results[task].main
    both_nan = math.isnan(then.value) and math.isnan(now.value)
    return then.n == now.n and (then.value == now.value or both_nan)


def _task(
    run: Run, task: str, found: Mapping[str, Any] | None, sides: Mapping[str, Any]
) -> SeenTask:
    values = {side: MetricValue.from_json(value) for side, value in sides.items()}
    cells = [values.get(side) for side in _SCORES]
    counts = found or {}
    return SeenTask(
        task=task,
        is_group=run.results[task].is_group,
        docs=counts.get("docs"),
        found=counts.get("seen"),
        exact=counts.get("exact"),
        too_general=counts.get("too_general"),
        scores=tuple(None if one is None else Cell(one, run.results[task].marks) for one in cells),
        change=_change(*cells),
    )


def _change(
    whole: MetricValue | None, unseen: MetricValue | None, seen: MetricValue | None
) -> MetricValue | None:
    """Unseen - whole. For a mean over docs that is (n seen / n) (unseen - seen)."""
    if whole is None or unseen is None or not (whole.n and unseen.n):
        return None
    value = unseen.value - whole.value
    if seen is None or not seen.n:
        return replace(whole, value=value, interval=None, interval_method="")
    share = seen.n / whole.n
    gap = difference_of_parts(unseen, seen)
    is_mean = whole.n == unseen.n + seen.n and math.isclose(value, share * gap.value, abs_tol=1e-9)
    if gap.interval is None or not is_mean:
        return replace(whole, value=value, interval=None, interval_method="")
    low, high = gap.interval
    return replace(
        whole,
        value=value,
        interval=(share * low, share * high),
        interval_method=gap.interval_method,
    )
