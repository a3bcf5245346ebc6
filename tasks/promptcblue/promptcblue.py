"""What the PromptCBLUE tasks' YAML files refer to: loading docs, and scoring for stock lm-eval.

`data_dir`, `sample`, `split` and `profile` come from the command line (stock lm-eval:
`--metadata '{"data_dir": "..."}'`); `task_dataset` from each task's YAML.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mingmoe_eval.data_sources import Docs, Source, records_of
from mingmoe_eval.errors import DataError, MissingDataError, UsageError, offence_list
from mingmoe_eval.promptcblue import scoring
from mingmoe_eval.promptcblue.catalogue import Answer, CblueTask, is_named, task_named
from mingmoe_eval.promptcblue.doc_records import conversion_mark, docs_of
from mingmoe_eval.promptcblue.measures import Comparison, measure_of
from mingmoe_eval.promptcblue.submission import gold_faults, read_sheet
from mingmoe_eval.records import Response, TaskSettings

logger = logging.getLogger(__name__)

SPLITS = ("test", "dev", "train")
MING_QUESTIONS, MING_GOLD = "CBLUE", "CBLUE_structured.json"
TEST_ROWS = {"CHIP-CTC": 1060, "IMCS-V2-DAC": 800, "KUAKE-QIC": 660}
"""Records of test A where they are not 600."""


def load(
    *,
    task_dataset: str,
    data_dir: str | None = None,
    sample: bool = False,
    split: str | None = None,
    **_: Any,
) -> dict[str, Docs]:
    """The records of one task as "test", whatever their split is called."""
    if sample and split is not None:
        raise UsageError(f"--sample and --split {split}: the invented sample has no splits")
    if split not in (None, *SPLITS):
        raise UsageError(f"PromptCBLUE has no split {split!r}; it has {', '.join(SPLITS)}")
    task, split = task_named(task_dataset), split or "test"
    source = records_of("promptcblue", _stems(task, split), data_dir=data_dir, sample=sample)
    rows = [(row.number, row.fields) for row in source.rows]
    gold = _ming_gold(task, source)
    docs = docs_of(task, rows, name=source.path, gold=gold, split=split)
    if not docs:
        raise MissingDataError(f"{source.path} has no record of {task_dataset}")
    notes, marks = _notes(docs), _marks(task, split, source, docs)
    for note in notes:
        logger.info("%s: %s", task_dataset, note)
    for mark in marks:  # stock lm-eval has no other place for them
        logger.warning("%s: not the benchmark: %s", task_dataset, mark)
    return {"test": Docs(docs, source=source, notes=notes, marks=marks)}


def _stems(task: CblueTask, split: str) -> list[str]:
    """All tasks in one file, one file a task, or MING's file of questions."""
    own = [split, f"{split}/{task.name}", f"{task.name}/{split}", f"{task.name}_{split}"]
    return [*own, MING_QUESTIONS] if split == "test" else own


def _ming_gold(task: CblueTask, source: Source) -> list[tuple[str, Answer]]:
    """Ids and answers that MING keeps in a file of their own, beside the questions."""
    path = Path(source.path).with_name(MING_GOLD)
    if source.kind != "data-dir" or not path.is_file():
        return []
    sheet = read_sheet(path, "gold", "official")
    if task.name not in sheet.entries:
        return []
    if faults := [*sheet.faults, *gold_faults(sheet, [task])]:
        raise DataError(offence_list(f"{path} cannot be used as gold", list(map(str, faults))))
    return [(str(e.raw["sample_id"]), e.raw["answer"]) for e in sheet.entries[task.name]]


def _notes(docs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the numbers should know."""
    empty = sum(not doc["target"].strip() for doc in docs)
    return [f"{empty:,} of {len(docs):,} records have an empty target"] if empty else []


def _marks(task: CblueTask, split: str, source: Source, docs: Sequence[Any]) -> list[str]:
    """Why the docs are not PromptCBLUE's; splits and the invented sample are marked for the run.

    MING's own copy of the test set has its own size, which is not published.
    """
    own = (row.fields for row in source.rows if is_named(task, row.fields.get("task_dataset")))
    marks = list(dict.fromkeys(mark for row in own if (mark := conversion_mark(row))))
    official = TEST_ROWS.get(task.name, 600)
    of_ming = Path(source.path).stem == MING_QUESTIONS
    if source.kind != "sample" and split == "test" and not of_ming and len(docs) != official:
        marks.append(f"{len(docs):,} records, where test A has {official:,}")
    return marks


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """What one reply adds to the corpus metric."""
    score = scoring.score_doc(doc, Response(text=str(results[0])), TaskSettings())
    return {
        "score": {
            "task_dataset": doc["task_dataset"],
            "value": score.value,
            "counts": dict(score.counts),
            "gold": scoring.expected(doc),
            "answered": score.answered or "",
        }
    }


def corpus_score(items: Sequence[Mapping[str, Any]]) -> float:
    """The official main metric over all docs of a task."""
    task = task_named(items[0]["task_dataset"])
    measure = measure_of(task)
    comparisons = [
        measure.compare(item["gold"], item["answered"])
        if task.default_label
        else Comparison(score=item["value"], counts=item["counts"])
        for item in items
    ]
    return measure.corpus(comparisons)[measure.main.name]
