"""`mingmoe-eval overlap`: which test questions stand in training data."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mingmoe_eval.cli.include_path import IncludePath, folders_said
from mingmoe_eval.errors import MissingDataError, UsageError

if TYPE_CHECKING:
    from mingmoe_eval.overlap import Overlap
    from mingmoe_eval.records import MetricValue, Run

Docs = Mapping[str, Mapping[str, Mapping[str, Any]]]
Scores = Mapping[str, Mapping[str, "MetricValue"]]


def overlap(
    train: Annotated[
        list[Path],
        typer.Option(help="Training records: .jsonl, .json, .csv or .parquet; may be repeated."),
    ],
    tasks: Annotated[
        str | None, typer.Option(help="Task, group or glob names, by comma; default: the run's.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="A run folder: its docs are looked for, its scores shown without them."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Local data: DIR/<data set>/<split>.jsonl and the like.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Use the small invented sample.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Another split than the official test split.")
    ] = None,
    include_path: IncludePath = None,
    threshold: Annotated[
        float, typer.Option(help="Share of a question that one record must hold.")
    ] = 0.6,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write what was found to a file, or - .")
    ] = None,
) -> None:
    """Find exact and near duplicates of test questions in training data.

    With --run, also the run's scores without the questions that were found; RUN/overlap.json keeps
    both. Example: mingmoe-eval overlap --train data.jsonl --tasks cmexam --data-dir data/
    """
    from mingmoe_eval.cli.console import write_json
    from mingmoe_eval.overlap import (
        SearchRules,
        find_overlap,
        read_training,
        scores_with_and_without,
    )
    from mingmoe_eval.run_store import OVERLAP_FILE, load_run
    from mingmoe_eval.run_store import write_json as write_whole

    if not 0 < threshold <= 1:
        raise UsageError(f"--threshold {threshold} is no share: above 0, and at most 1")
    if run is not None and (data_dir or sample or split):
        raise UsageError("--run brings its own docs: leave --data-dir, --sample and --split out")
    if missing := [str(file) for file in train if not file.exists()]:
        raise MissingDataError(f"--train: there is no {', '.join(missing)}")
    loaded = load_run(run) if run is not None else None
    place = {
        "data_dir": str(data_dir) if data_dir else None,
        "sample": sample,
        "split": split,
        "include_path": folders_said(include_path),
    }
    docs = _docs_of_run(loaded, tasks) if loaded else _docs_of(tasks, place)
    training = read_training(train)
    _say(f"looking for {sum(map(len, docs.values()))} docs in {len(training.texts)} records")
    found = find_overlap(docs, training, SearchRules(threshold=threshold))
    scores: Scores = scores_with_and_without(loaded, found, refused=_say) if loaded else {}
    result = {**found.to_json(), "scores": _as_json(scores)}
    if run is not None:
        write_whole(run / OVERLAP_FILE, result)
        _say(f"the report shows this too: mingmoe-eval report {shlex.quote(str(run))}")
    if json_to is not None:
        write_json(result, json_to)
    if json_to != "-":
        _print(found, scores)


def _docs_of(tasks: str | None, place: dict[str, Any]) -> Docs:
    from mingmoe_eval.harness.tasks import load_tasks
    from mingmoe_eval.overlap import by_id
    from mingmoe_eval.records import RunSpec
    from mingmoe_eval.task_catalog import open_catalog

    if tasks is None:
        raise UsageError("--tasks or --run must be given: which docs are to be looked for?")
    names = _names(tasks)
    spec = RunSpec(model="", tasks=names, **place)
    selection = open_catalog(spec.include_path).select(names, foreign=True)
    loaded, _ = load_tasks(selection, spec)
    return {task.name: by_id(task.docs) for task in loaded}


def _docs_of_run(run: "Run", tasks: str | None) -> Docs:
    from mingmoe_eval.errors import UnknownTaskError

    names = _names(tasks) if tasks else tuple(run.samples)
    for name in names:
        if name not in run.samples:
            raise UnknownTaskError(name, run.samples)
    # The same question under another order of its options is no other question.
    return {name: {s.doc_id: s.doc for s in run.samples[name] if not s.variant} for name in names}


def _names(tasks: str) -> tuple[str, ...]:
    return tuple(name for name in tasks.replace(" ", "").split(",") if name)


def _as_json(scores: Scores) -> dict[str, Any]:
    return {
        task: {side: value.to_json() for side, value in sides.items()}
        for task, sides in scores.items()
    }


def _print(found: "Overlap", scores: Scores) -> None:
    from mingmoe_eval.cli.console import print_table
    from mingmoe_eval.metrics.showing import with_interval

    headings = ["docs", "found", "of these word by word", "too general to judge"]
    sides = {"all": "score", "unseen": "without them", "seen": "on them alone"}
    rows = []
    for task in dict.fromkeys([*found.tasks, *scores]):
        of_task = found.tasks.get(task)
        counts = (
            [of_task.docs, len(of_task.seen), of_task.exact, of_task.too_general] if of_task else []
        )
        values = [scores.get(task, {}).get(side) for side in sides] if scores else []
        cells = [str(count) for count in counts] if counts else [""] * len(headings)
        rows.append((task, *cells, *(with_interval(v) if v else "" for v in values)))
    shown = ["task", *headings, *(sides.values() if scores else ())]
    print_table("test questions in training data", shown, rows)


def _say(text: str) -> None:
    from mingmoe_eval.cli.exits import say

    say(f"note: {text}")
