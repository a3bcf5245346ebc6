"""The docs of an exam task as lm-eval loads them, and scoring for stock lm-eval users.

`benchmark` names an entry of a `_data.yaml`; `data_dir`, `sample`, `split` and `partial`,
`permute_options` and `limit` come from the command line (stock lm-eval: `--metadata
'{"data_dir": "...", "permute_options": "cyclic"}'`; its accuracy is then over all orders).
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from mingmoe_eval.data_sources import Docs, Source, UnusableRow, records_of
from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.exams import scoring
from mingmoe_eval.exams.benchmarks import Benchmark, Part
from mingmoe_eval.exams.conversion import convert, join_key, rows_of_exam
from mingmoe_eval.exams.exam_files import ExamFile, read_exam_file
from mingmoe_eval.exams.facts_files import benchmark_named
from mingmoe_eval.exams.option_orders import OptionOrders, can_be_reordered, with_orders
from mingmoe_eval.exams.records import docs_of, stem_key
from mingmoe_eval.record_files import Row
from mingmoe_eval.records import Response, TaskSettings
from mingmoe_eval.suites.conversion import docs_of_records

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the user wants records to come from."""

    data_dir: str | None
    sample: bool


def load(
    *,
    benchmark: str | Benchmark,
    data_dir: str | None = None,
    sample: bool = False,
    split: str | None = None,
    partial: bool = False,
    permute_options: str | None = None,
    limit: int | None = None,
    include_path: Sequence[str] = (),
    form: str = "",
    **_: Any,
) -> dict[str, Docs]:
    """The docs under test as "test", whatever their split is called; worked examples as "dev".

    `include_path` names the folders, beside that of the bundled tasks, whose `_data.yaml` may have
    the benchmark; `form` is the form of a task that no YAML defines.
    """
    chosen = (
        benchmark_named(benchmark, [Path(folder) for folder in include_path])
        if isinstance(benchmark, str)
        else benchmark
    )
    if sample and split is not None:
        raise UsageError(f"--sample and --split {split}: the invented sample has no splits")
    place = Place(data_dir, sample)
    try:
        tested = _tested_docs(chosen, chosen.part(split), place)
    except MissingDataError as error:
        if chosen.subject is None or partial:
            raise
        raise MissingDataError(
            f"{chosen.name}: {error}; or --partial, to run only the subjects that are there"
        ) from error
    if form == "letters":
        _refuse_several_right(chosen, tested)
    if permute_options is not None:
        tested = _in_several_orders(tested, OptionOrders.named(permute_options), limit)
    for note in tested.notes:
        logger.info("%s: %s", chosen.name, note)
    return {"test": tested, "dev": _worked_examples(chosen, place, tested)}


def _refuse_several_right(chosen: Benchmark, docs: Docs) -> None:
    if several := sum(not doc["single"] for doc in docs):
        raise DataError(
            f"{chosen.name}_ll: letters are compared where each question has one right option; "
            f"{several:,} of these {len(docs):,} may have several. Write `declares: nothing` in "
            f"its entry, and this form goes; {chosen.name} and {chosen.name}_cot ask them all"
        )


def load_exam_file(
    exam: ExamFile,
    *,
    data_dir: str | None = None,
    sample: bool = False,
    split: str | None = None,
    permute_options: str | None = None,
    limit: int | None = None,
    **_: Any,
) -> dict[str, Docs]:
    """The docs of an exam that is a file, as `load` gives those of a benchmark."""
    idle = {"--data-dir": data_dir, "--sample": sample, "--split": split}
    if given := [option for option, value in idle.items() if value]:
        raise UsageError(f"{exam.path} is all of its exam: leave {', '.join(given)} out")
    source = _source_of(exam)
    unusable = [UnusableRow(number, reason) for number, reason in exam.converted.unusable]
    docs = Docs(docs_of(exam.converted.questions), source=source, unusable=unusable)
    tested = Docs(docs, source=source, unusable=unusable, notes=_notes(docs))
    if permute_options is not None:
        tested = _in_several_orders(tested, OptionOrders.named(permute_options), limit)
    return {"test": tested, "dev": Docs()}


def _tested_docs(chosen: Benchmark, part: Part, place: Place) -> Docs:
    docs, source = _docs_and_source(chosen, part, place)
    return Docs(
        docs,
        source=source,
        unusable=docs.unusable,
        notes=_notes(docs),
        marks=_marks(chosen, part, source, docs),
    )


def _docs_and_source(chosen: Benchmark, part: Part, place: Place) -> tuple[Docs, Source]:
    if part.file is None or place.sample or chosen.suite != "choice":
        source = _source(chosen, part, place)
        return _docs(chosen, source), source
    # Read as an exam that the command names: whatever its columns are called.
    exam = exam_beside(chosen, Path(part.file))
    source = _source_of(exam)
    told = msgspec.structs.replace(
        exam.benchmark,
        name=chosen.name,
        tags=chosen.tags,
        tag_fields={**exam.benchmark.tag_fields, **chosen.tag_fields},
    )
    return _docs(told, source), source


def exam_beside(chosen: Benchmark, file: Path) -> ExamFile:
    """The exam in a file beside its entry, which may say what its columns are called.

    Raises:
        DataError: it cannot be read, or its columns are not clear.
    """
    try:
        return read_exam_file(file, chosen.fields, keep=list(chosen.tag_fields.values()))
    except (DataError, UsageError) as error:  # which speaks of the command's own option
        option = r"--columns ('?)(\w+)=(.+?)\1(?=[\s;.)]|$)"
        words = re.sub(option, r"`fields: {\2: \3}`", str(error))
        raise DataError(f"{chosen.name}: {words.replace('--columns', 'fields')}") from error


def _source_of(exam: ExamFile) -> Source:
    return Source(
        kind="data-dir", path=str(exam.path), fingerprint=exam.fingerprint, rows=exam.rows
    )


def _in_several_orders(docs: Docs, orders: OptionOrders, limit: int | None) -> Docs:
    """The first `limit` questions, each under several option orders."""
    chosen = docs[:limit]
    fixed = sum(not can_be_reordered(doc) for doc in chosen)
    note = f"{fixed} of {len(chosen)} questions are asked in their own order alone: an option "
    note += "speaks of others, or there is but one"
    return Docs(
        with_orders(chosen, orders),
        source=docs.source,
        unusable=docs.unusable,
        notes=[*docs.notes, *([note] if fixed else [])],
        marks=docs.marks,
    )


def _source(chosen: Benchmark, part: Part, place: Place) -> Source:
    source = _whole(chosen, part, place)
    source = source.with_rows(_rows_of(chosen, source))
    if chosen.subject is not None:
        source = _of_subject(chosen.subject, source)
    if not part.key_files or place.data_dir is None:
        return source
    try:
        key = _read(chosen, part.key_files, part, place)
    except MissingDataError:
        return source  # the records may carry their key; if not, converting them says what to do
    return source.joined_with(key, join_key(source.rows, key.rows, part, name=key.path))


def _rows_of(chosen: Benchmark, source: Source) -> list[Row]:
    """The rows that are this benchmark's, of a file that holds more and says which is which."""
    rows = rows_of_exam(source.rows, chosen, name=source.path)
    kept = [
        row
        for row in rows
        if all(row.fields.get(name, value) == value for name, value in chosen.rows_where.items())
    ]
    if not kept:
        wanted = ", ".join(f"{name} is {value}" for name, value in chosen.rows_where.items())
        raise DataError(f"{source.path} has no row of which {wanted}")
    return kept


def _of_subject(subject: str, source: Source) -> Source:
    """The rows of one subject, where a file holds several and says so."""
    kept = source.with_rows(
        row for row in source.rows if row.fields.get("subject", subject) == subject
    )
    if not kept.rows:
        raise DataError(f"{source.path} has no row whose subject is {subject}")
    return kept


def _whole(chosen: Benchmark, part: Part, place: Place) -> Source:
    """The records of a part: of one file, or of the files that make it up, numbered through."""
    if not part.blocks or place.data_dir is None:
        return _read(chosen, part.files, part, place)
    first, *others = (
        _read(chosen, [name.replace("{block}", block) for name in part.files], part, place)
        for block in part.blocks
    )
    for other in others:
        rows = [*first.rows, *other.rows]
        numbered = (Row(number, row.fields) for number, row in enumerate(rows, 1))
        first = first.joined_with(other, numbered)
    return first


def _read(chosen: Benchmark, files: Sequence[str], part: Part, place: Place) -> Source:
    return records_of(
        chosen.folders,
        files,
        data_dir=place.data_dir,
        sample=place.sample,
        sample_file=part.sample,
        file=part.file,
        hub=part.hub,
        header=chosen.header,
    )


def _docs(chosen: Benchmark, source: Source) -> Docs:
    if chosen.suite != "choice":
        return docs_of_records(chosen, source)
    converted = convert(_with_roles(chosen, source.rows), chosen, name=source.path)
    unusable = [UnusableRow(number, reason) for number, reason in converted.unusable]
    return Docs(docs_of(converted.questions), source=source, unusable=unusable)


def _with_roles(chosen: Benchmark, rows: Sequence[Row]) -> Sequence[Row]:
    """Rows whose fields are called as data sets call them, where the entry says what they hold.

    Not those of a file of its own, whose columns were found already.
    """
    called = {name: _CALLED.get(role, role) for role, name in chosen.fields.items()}
    if not called:
        return rows
    return [
        Row(row.number, {called.get(name, name): value for name, value in row.fields.items()})
        for row in rows
    ]


_CALLED = {"type": "question_type"}


def _notes(docs: Docs) -> list[str]:
    """What was left out of the data, and what in them two readers could take differently."""
    notes = []
    if docs.unusable:
        listed = "; ".join(map(str, docs.unusable[:5]))
        more = ", ..." if len(docs.unusable) > 5 else ""
        notes.append(f"rows left out as unusable: {len(docs.unusable)} ({listed}{more})")
    if twice := sum(_has_equal_options(doc) for doc in docs):
        notes.append(f"{twice} of {len(docs):,} questions have two options of the same text")
    return notes


def _has_equal_options(doc: Mapping[str, Any]) -> bool:
    """A reader of texts cannot tell such options apart, and a letter beside one may be either."""
    texts = [" ".join(text.split()) for text in doc.get("options", {}).values()]
    return len(set(texts)) < len(texts)


def _marks(chosen: Benchmark, part: Part, source: Source, docs: Docs) -> list[str]:
    """Why the docs are not the benchmark's: a part of them, more than them, or others.

    The invented sample is marked as such for the whole run.
    """
    if source.kind == "sample":
        return []
    marks = []
    if part.rows is not None and len(source.rows) != part.rows:
        marks.append(f"{len(source.rows):,} rows, where the official part has {part.rows:,}")
    most = max(len(doc.get("options", ())) for doc in docs)
    if chosen.most_options is not None and most < chosen.most_options:
        marks.append(f"at most {most} options, where the exam has {chosen.most_options}")
    return marks


def _worked_examples(chosen: Benchmark, place: Place, tested: Docs) -> Docs:
    """Docs of another part to show before the question, none of them under test in any wording.

    Empty where there are none: that matters only to those who ask for shots, and is said then.
    """
    shots = chosen.examples
    if shots is None or not _has_place(shots, place):
        return Docs()
    try:
        examples, source = _docs_and_source(chosen, shots, place)
    except MissingDataError:
        return Docs()
    under_test = {stem_key(doc) for doc in tested}
    return Docs([doc for doc in examples if stem_key(doc) not in under_test], source=source)


def _has_place(part: Part, place: Place) -> bool:
    if place.sample:
        return part.sample is not None
    return place.data_dir is not None or part.hub is not None or part.file is not None


def process_letter(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Metrics of a reply that was asked for as letters alone."""
    return _metrics(doc, Response(text=str(results[0])), "direct")


def process_reasoning(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Metrics of a reply that reasons first."""
    return _metrics(doc, Response(text=str(results[0])), "cot")


def process_likelihoods(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Metrics of one log-likelihood for each option; NaN, never a letter, if one is not finite."""
    values = tuple(float(result[0]) for result in results)
    return _metrics(doc, Response(log_likelihoods=values), "letters")


def _metrics(
    doc: Mapping[str, Any], response: Response, form: Literal["direct", "letters", "cot"]
) -> dict[str, float]:
    if not response.finite:
        return {"acc": math.nan, "score": math.nan}
    settings = TaskSettings(suite="choice", form=form)
    value = scoring.score_doc(doc, response, settings).value
    return {"acc": value, "score": value}
