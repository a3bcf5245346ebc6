"""An explanation as lines for a console, as Markdown and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mingmoe_eval.comparison.output import markdown_table, plain
from mingmoe_eval.explanation.explain import CellVerdict, ColumnExplanation, Explanation
from mingmoe_eval.metrics.showing import interval_shown, shown, with_interval
from mingmoe_eval.records import JsonDict, MetricValue

READING_HEADINGS = ("read as", "this run % [95 % interval]", "questions", "the source's way")
_CELL_HEADINGS = (
    *("published model", "printed % [95 % interval]", "this run's difference"),
    *("verdict", "why"),
)


def headline(one: Explanation) -> str:
    """Which run stands beside which table."""
    return f"{one.run} beside {one.citation}"


def list_lines(column: ColumnExplanation) -> Iterator[str]:
    """Over which questions the published numbers and the run's are."""
    for fit in column.lists:
        text = f"{fit.list.name}, {fit.list.questions:,} questions: {fit.fitting} of {fit.cells} "
        text += "printed cells are whole numbers of right answers"
        if not fit.tells:
            yield f"{text}, which says nothing: nearly every such number is"
        else:
            yield f"{text}; by chance {100 * fit.by_chance:.1f} % of numbers are"
    if column.over is not None:
        yield f"the published numbers are over {column.over.name} ({column.over.questions:,})"
    parts = ", ".join(f"{name} {questions:,}" for name, questions in column.run_over.items())
    yield f"this run has {with_interval(column.own)} % over {column.own.n:,} questions: {parts}"
    if column.bounds is not None:
        low, high = (shown(bound, "share", decimals=2) for bound in column.bounds)
        assert column.over is not None  # bounds are over that list
        yield (
            f"over {column.over.name} it would have from {low} to {high} %, whatever it would "
            "answer to what it lacks"
        )


def reading_rows(column: ColumnExplanation) -> list[tuple[str, ...]]:
    """The run's number under every way of reading."""
    return [
        (
            reading.mode,
            _percent(reading.value),
            f"{reading.value.n:,}",
            "yes" if reading.of_the_source else "",
        )
        for reading in column.readings
    ]


def cell_table(column: ColumnExplanation) -> list[tuple[str, ...]]:
    """Each published cell beside the run, with the verdict; headings first.

    And why, unless that is the same of every cell.
    """
    told = shared_reasons(column)
    rows = [
        (
            cell.model,
            f"{cell.printed} {_interval(cell.published)}".rstrip(),
            _difference(cell),
            cell.outcome,
            "; ".join(reason for reason in cell.reasons if reason not in told),
        )
        for cell in column.cells
    ]
    last = None if any(row[-1] for row in rows) else -1
    return [row[:last] for row in (_CELL_HEADINGS, *rows)]


def shared_reasons(column: ColumnExplanation) -> list[str]:
    """The reasons that every cell of the column has, to be told once."""
    first, *others = [cell.reasons for cell in column.cells] or [()]
    return [reason for reason in first if all(reason in reasons for reasons in others)]


def reason_lines(column: ColumnExplanation) -> list[str]:
    """The same as lines."""
    whose = "why" if len(column.cells) == 1 else "of every cell"
    return [f"{whose}: {reason}" for reason in shared_reasons(column)]


def protocol_lines(one: Explanation, column: ColumnExplanation) -> Iterator[str]:
    """How the source asked, what nobody knows of it, and what a rerun needs."""
    said = one.protocol
    known = (("form", said.form), ("prompt", said.prompt), ("decoding", said.decoding))
    for name, value in known:
        if value:
            yield f"{name} of the source: {value}"
    if said.note:
        yield f"known {said.note}"
    if column.unknown:
        yield f"not stated: {'; '.join(column.unknown)}"
    for command in column.rerun:
        yield f"to compare: {command}"


def explanation_json(explanations: Sequence[Explanation]) -> JsonDict:
    """Everything, for machines; shares as fractions."""
    return {"explanations": [_table_json(one) for one in explanations]}


def explanation_markdown(explanations: Sequence[Explanation]) -> str:
    """One page."""
    lines: list[str] = []
    for one in explanations:
        lines += [f"## {plain(headline(one))}", ""]
        for column in one.columns:
            lines += [f"### {plain(column.title)} (form {column.form})", ""]
            lines += [f"- {plain(line)}" for line in list_lines(column)]
            headings, *rows = cell_table(column)
            lines += ["", *markdown_table(headings, rows), ""]
            lines += [f"- {plain(line)}" for line in reason_lines(column)]
            lines += ["", *markdown_table(READING_HEADINGS, reading_rows(column)), ""]
            lines += [f"- {plain(line)}" for line in protocol_lines(one, column)]
            lines.append("")
    return "\n".join(lines)


def _percent(value: MetricValue) -> str:
    return f"{shown(value.value, 'share', decimals=2)} {_interval(value)}".rstrip()


def _interval(value: MetricValue | None) -> str:
    return "" if value is None else interval_shown(value.interval, "share", decimals=2)


def _difference(cell: CellVerdict) -> str:
    if cell.difference is None:
        return ""
    number = shown(cell.difference.value, "share", decimals=2, signed=True)
    return f"{number} {interval_shown(cell.difference.interval, 'share', decimals=2, signed=True)}"


def _table_json(one: Explanation) -> JsonDict:
    data = asdict(one)
    for column, written in zip(one.columns, data["columns"], strict=True):
        for fit, as_dict in zip(column.lists, written["lists"], strict=True):
            as_dict["list"]["questions"] = fit.list.questions
        if column.over is not None:
            written["over"]["questions"] = column.over.questions
    return data
