"""Which docs of which tasks were found in training data, and a run's scores without them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.overlap.search import SearchRules, search
from mingmoe_eval.overlap.texts import Item, TrainingText, item_of
from mingmoe_eval.records import (
    DocIds,
    JsonDict,
    MetricValue,
    Run,
    Sample,
    TaskResult,
    TaskSettings,
    fingerprint,
)
from mingmoe_eval.task_catalog import open_catalog

_SCHEMA_VERSION = 1

Doc = Mapping[str, Any]

_SIDES = ("all", "unseen", "seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDoc:
    """One doc that stands in training data: how much of it, and in which record."""

    doc_id: str
    exact: bool
    share: float
    place: str
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOverlap:
    """What was found of one task's docs.

    `docs_fingerprint` tells which docs these were: a page must not show what was found of others.
    """

    docs: int
    docs_fingerprint: str
    too_general: int
    seen: tuple[SeenDoc, ...]

    @property
    def exact(self) -> int:
        """Docs that stand in training data word by word."""
        return sum(doc.exact for doc in self.seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What was found of every task, and how it was looked for."""

    training: TrainingText
    rules: SearchRules
    tasks: Mapping[str, TaskOverlap]

    def to_json(self) -> JsonDict:
        """A plain dict without any text of doc or record: it may be passed on."""
        return {
            "schema_version": _SCHEMA_VERSION,
            "training": {
                "files": dict(self.training.fingerprints),
                "records": len(self.training.texts),
            },
            "rules": asdict(self.rules),
            "tasks": {
                task: {
                    "docs": found.docs,
                    "docs_fingerprint": found.docs_fingerprint,
                    "too_general": found.too_general,
                    "seen": len(found.seen),
                    "exact": found.exact,
                    "seen_docs": [asdict(doc) for doc in found.seen],
                }
                for task, found in self.tasks.items()
            },
        }


def by_id(docs: Iterable[Doc]) -> dict[str, Doc]:
    """Docs under the ids that a run gives them."""
    ids = DocIds()
    return {ids.next(fingerprint(doc)): doc for doc in docs}


def find_overlap(
    docs: Mapping[str, Mapping[str, Doc]],
    training: TrainingText,
    rules: SearchRules | None = None,
) -> Overlap:
    """Look for every doc of some tasks in training data.

    Args:
        docs: The docs by task, then by id: those of `by_id`, or those of a run's samples.
        training: Where to look.
        rules: What counts as found.
    """
    rules = rules or SearchRules()
    places: dict[Item, int] = {}
    items = {
        task: [places.setdefault(item_of(doc), len(places)) for doc in of_task.values()]
        for task, of_task in docs.items()
    }
    found = search(list(places), training.texts, rules)
    matches = {match.item: match for match in found.matches}
    tasks = {}
    for task, of_task in items.items():
        tasks[task] = TaskOverlap(
            docs=len(of_task),
            docs_fingerprint=fingerprint(sorted(docs[task])),
            too_general=sum(item in found.too_general for item in of_task),
            seen=tuple(
                SeenDoc(
                    doc_id=doc_id,
                    exact=match.exact,
                    share=match.share,
                    place=training.places[match.record],
                    records=match.records,
                )
                for doc_id, item in zip(docs[task], of_task, strict=True)
                if (match := matches.get(item))
            ),
        )
    return Overlap(training=training, rules=rules, tasks=tasks)


def scores_with_and_without(
    run: Run, overlap: Overlap, *, refused: Callable[[str], None] = lambda text: None
) -> dict[str, dict[str, MetricValue]]:
    """A run's main metrics over all docs, those not seen in training, and those seen.

    Args:
        run: The run, with its samples.
        overlap: What was found of its tasks' docs.
        refused: Told of each task or group that cannot be scored on a part of its docs, and why.

    Returns:
        By task and group, then by `all`, `unseen` and `seen`; a part without docs is left out.
    """
    seen = {task: {doc.doc_id for doc in found.seen} for task, found in overlap.tasks.items()}
    results = {
        "all": dict(run.results),
        "unseen": _results(run, lambda s: s.doc_id not in seen.get(s.task, ()), refused),
        "seen": _results(run, lambda s: s.doc_id in seen.get(s.task, ()), lambda text: None),
    }
    return {
        task: {side: results[side][task].main for side in _SIDES if task in results[side]}
        for task in run.results
        if task in results["unseen"] or task in results["seen"]
    }


def _results(
    run: Run, keep: Callable[[Sample], bool], refused: Callable[[str], None]
) -> dict[str, TaskResult]:
    """The run's tasks and groups over some of its samples."""
    catalog = open_catalog().remembering(run)
    results: dict[str, TaskResult] = {}
    kept: dict[str, list[Sample]] = {}
    for task, samples in run.samples.items():
        if (settings := catalog.settings_in(run, task)) is None:
            refused(f"{task}: lm-eval's own tasks keep its scores")
        elif some := [sample for sample in samples if keep(sample) and not sample.variant]:
            kept[task] = some
            results[task] = scoring.fold_task(task, some, _as_run(settings, run, task))
    groups = [
        catalog.definitions[name]
        for name, result in run.results.items()
        if result.is_group and name in catalog.definitions
    ]
    ready = [group for group in groups if set(catalog.leaves_of(group.name)) & set(results)]
    return {**results, **scoring.fold_groups(catalog, ready, results, kept, refused=refused)}


def _as_run(settings: TaskSettings, run: Run, task: str) -> TaskSettings:
    """The task's settings as the run, perhaps a rescored one, had them."""
    of_run = run.provenance.get("tasks", {}).get(task, {})
    return settings.in_run(
        reading=of_run.get("reading"),
        profile=of_run.get("profile"),
        permute_options=run.spec.permute_options,
        coverage=run.spec.coverage,
    )
