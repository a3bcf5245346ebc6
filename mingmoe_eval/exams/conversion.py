"""Rows of a file turned into questions; a row that cannot be used is reported, never mended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.options import RowFault, text_of
from mingmoe_eval.exams.question_types import QuestionType, question_type
from mingmoe_eval.exams.records import Question
from mingmoe_eval.exams.shapes import Fields, Shape, shape_of
from mingmoe_eval.exams.transcription_faults import transcription_fault
from mingmoe_eval.record_files import Row
from mingmoe_eval.records import fingerprint


@dataclass(frozen=True, slots=True)
class Converted:
    """The questions of a file, and (row number, reason) of each row that gave none."""

    questions: tuple[Question, ...]
    unusable: tuple[tuple[int, str], ...]


def convert(rows: Sequence[Row], benchmark: Benchmark, *, name: str) -> Converted:
    """Turn the rows of one file into questions.

    Args:
        rows: All rows of the file.
        benchmark: What the file is said to hold.
        name: What error messages call the file.

    Raises:
        DataError: no known shape fits, the file is another data set's, or no row can be used.
    """
    shape = shape_of(rows, name=name, keyless=benchmark.keyless)
    questions: list[Question] = []
    unusable: list[tuple[int, str]] = []
    for row in rows:
        try:
            questions.append(_question(row.fields, shape, benchmark))
        except RowFault as fault:
            unusable.append((row.number, str(fault)))
    if not questions:
        reasons = [f"line {number}: {reason}" for number, reason in unusable]
        raise DataError(offence_list(f"{name}: no row can be used. {benchmark.keyless}", reasons))
    _refuse_more_options(questions, benchmark, name)
    return Converted(tuple(questions), tuple(unusable))


def _question(fields: Fields, shape: Shape, benchmark: Benchmark) -> Question:
    stem = text_of(fields.get(shape.stem))
    if not stem:
        raise RowFault("no question text")
    options = shape.options(fields)
    kind = question_type(fields, benchmark.declares)
    answer = shape.key(fields, options)
    context = _context(fields)
    if kind.single and len(answer) > 1:
        raise RowFault(f"the key is {answer}, but the question has one right option")
    if benchmark.needs_context and not context:
        raise RowFault("no abstract to go with the question")
    if benchmark.transcribed and (fault := transcription_fault(stem, options)):
        raise RowFault(fault)
    return Question(
        question=stem,
        options=options,
        answer=answer,
        single=kind.single,
        question_type=kind.label,
        context=context,
        tags=_tags(fields, benchmark, kind),
        cluster=fingerprint(dict(options)) if kind.shares_options else None,
    )


def _context(fields: Fields) -> str:
    """PubMedQA's abstract without its conclusion; the hub has it one level down."""
    passages: Any = fields.get("CONTEXTS")
    if passages is None and isinstance(nested := fields.get("context"), Mapping):
        passages = nested.get("contexts")
    return "\n".join(text_of(passage) for passage in passages or ())


def _tags(fields: Fields, benchmark: Benchmark, kind: QuestionType) -> dict[str, str]:
    read = {tag: text_of(fields.get(field)) for tag, field in benchmark.tag_fields.items()}
    # CMExam writes 不符合, "does not apply", where an annotation has no value.
    known = {tag: text for tag, text in read.items() if text not in ("", "nan", "不符合")}
    return {**benchmark.tags, **known, **({"question_type": kind.name} if kind.name else {})}


def _refuse_more_options(questions: Sequence[Question], benchmark: Benchmark, name: str) -> None:
    """MedQA's 4-option and 5-option files share stems under other letters: never mix them up."""
    most = max(ord(letter) - ord("A") + 1 for q in questions for letter in q.options)
    if benchmark.most_options is not None and most > benchmark.most_options:
        raise DataError(
            f"{name} has {most} options a question, {benchmark.name} has {benchmark.most_options}: "
            "this is another data set's file"
        )
