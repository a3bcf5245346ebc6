"""Which charts a report has: the runs' numbers turned into points and drawn."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.report import charts
from mingmoe_eval.report.charts import Palette, Point, Spot, Spread
from mingmoe_eval.report.compared import Compared
from mingmoe_eval.report.efficiency import Certainty, Place
from mingmoe_eval.report.libraries import Chart, DrawingError, can_draw, draw
from mingmoe_eval.report.phrases import in_chinese
from mingmoe_eval.report.reasoning import Attempt, Budgeted
from mingmoe_eval.report.view import Column, Row
from mingmoe_eval.report.wording import Wording
from mingmoe_eval.routing.view import Routing
from mingmoe_eval.whole_files import write_whole

_DIFFERENCE = "difference in percentage points"

# The library reads each title out in English, besides what the title says itself.
_TITLE_LABEL = re.compile(r' aria-roledescription="title" aria-label="[^"]*"')

OfRun = tuple[Column, Routing]
"""What the routers of a run did, and the run."""


def result_points(rows: Sequence[Row], shown: Sequence[Column], wording: Wording) -> list[Point]:
    """The main metric of every task and run, of those that are shares: one axis, one unit."""
    return [
        Point(
            row=wording.task_in_words(row.name),
            series=_label(column, wording),
            value=cell.metric.value,
            interval=cell.metric.interval,
            colour=column.position,
            reference=row.chance,
        )
        for row in rows
        for column, cell in zip(shown, row.cells, strict=True)
        if cell and cell.metric.n and cell.metric.unit == "share"
        if math.isfinite(cell.metric.value)
    ]


def difference_points(compared: Sequence[Compared], wording: Wording) -> list[Point]:
    """The difference from the baseline of every task and candidate, of those that are shares."""
    return [
        Point(
            row=wording.task_in_words(task),
            series=_label(one.column, wording),
            value=change.difference,
            interval=change.interval,
            colour=one.column.position,
            # Filled where the adjusted test found it, as in the tables.
            hollow=not change.stars,
        )
        for one in compared
        for task, change in one.changes.items()
        if change.unit == "share" and math.isfinite(change.difference)
    ]


RELIABILITY, ATTEMPTS, BUDGETS = "reliability", "attempts", "thought_budgets"

_AXES = {
    RELIABILITY: ("confidence in %", "accuracy in %"),
    ATTEMPTS: ("draws for a question", "right in %"),
    BUDGETS: ("tokens of thought at most", "score in %"),
    "frontier_tokens": ("generated tokens an answer", "mean score in %"),
    "frontier_seconds": ("seconds an answer", "mean score in %"),
    "frontier_money": ("cost of 1,000 answers", "mean score in %"),
    "frontier_parameters": ("active parameters in billions", "mean score in %"),
}
"""By chart of spots, what its axes are."""


_DRAWN_BY = {
    RELIABILITY: charts.reliability,
    ATTEMPTS: charts.curves,
    BUDGETS: charts.curves,
}


def spots_of(
    frontiers: Mapping[str, Sequence[Place]], certain: Sequence[Certainty], wording: Wording
) -> dict[str, list[Spot]]:
    """Runs by cost and score, and accuracy by confidence, by the chart that they stand in."""
    spots = {
        f"frontier_{kind}": [
            Spot(
                series=_label(place.column, wording),
                x=place.amount,
                y=place.score.value,
                interval=place.score.interval,
                colour=place.column.position,
                joined=place.on_frontier,
            )
            for place in places
        ]
        for kind, places in frontiers.items()
    }
    bins = [
        Spot(
            series=_label(one.column, wording),
            x=held.confidence,
            y=held.accuracy.value,
            interval=held.accuracy.interval,
            colour=one.column.position,
            panel=wording.task_in_words(one.task),
        )
        for one in certain
        for held in one.bins
    ]
    return {**spots, RELIABILITY: bins} if bins else spots


def curves_of(
    attempts: Sequence[Attempt], budgeted: Sequence[Budgeted], wording: Wording
) -> dict[str, list[Spot]]:
    """What several draws earn, and scores against budgets of thought, one panel a task.

    Of a budget only scores that are shares have a place: one axis, one unit.
    """
    kinds = {False: "one is right", True: "their vote is right"}
    drawn = [
        Spot(
            series=_label(one.column, wording),
            x=one.k,
            y=one.value.value,
            interval=one.value.interval,
            colour=one.column.position,
            panel=f"{wording.task_in_words(one.task)}: {wording.said_in_words(kinds[one.vote])}",
        )
        for one in attempts
    ]
    cut = [
        Spot(
            series=_label(one.column, wording),
            x=one.point.budget,
            y=one.point.value,
            interval=one.point.interval,
            colour=one.column.position,
            panel=wording.task_in_words(one.point.task),
        )
        for one in budgeted
        if one.point.budget is not None and one.cell.metric.unit == "share"
    ]
    return {name: spots for name, spots in ((ATTEMPTS, drawn), (BUDGETS, cut)) if spots}


def loads(column: Column, one: Routing, wording: Wording) -> list[Spread]:
    """Each expert's share of a task's tokens: the mean over layers, and how far layers differ."""
    return [
        Spread(
            panel=wording.task_in_words(task),
            place=str(expert),
            value=share,
            low=min(layer[expert] for layer in one.layers[task].values()),
            high=max(layer[expert] for layer in one.layers[task].values()),
            reference=one.even[expert],
            colour=column.position,
        )
        for task, shares in one.tasks.items()
        for expert, share in enumerate(shares)
    ]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The page's charts as SVG, or why there are none."""

    charts: Mapping[str, Markup]
    failure: str = ""


def in_page(
    results: Sequence[Point],
    differences: Sequence[Point],
    routing: Sequence[OfRun],
    wording: Wording,
    spots: Mapping[str, Sequence[Spot]],
) -> Drawn:
    """The page's charts; without those that have no point, and none with nothing to draw with.

    A page without charts says all that one with charts does: their failure fails nothing else.
    """
    if not can_draw():
        return Drawn({})
    try:
        drawn = draw(_charts(results, differences, routing, wording, spots, charts.IN_PAGE))
    except DrawingError as error:
        return Drawn({}, str(error))
    # Vega escapes every text that it puts into an SVG; a test plants markup to hold it to that.
    return Drawn({name: Markup(_TITLE_LABEL.sub("", one.svg)) for name, one in drawn.items()})


def write_figures(
    folder: Path,
    results: Sequence[Point],
    differences: Sequence[Point],
    routing: Sequence[OfRun],
    wording: Wording,
    spots: Mapping[str, Sequence[Spot]],
) -> None:
    """Write every chart as `<name>.pdf`, `.svg`, and `.vl.json`, the definition to restyle.

    Raises:
        RunStoreError: the folder cannot be written.
        DrawingError: the charts cannot be drawn here.
    """
    wanted = _charts(results, differences, routing, wording, spots, charts.ON_PAPER)
    for column, one in routing:
        wanted[f"routing_{column.position}"] = charts.heat_map(
            {wording.task_in_words(task): shares for task, shares in one.tasks.items()},
            charts.ON_PAPER,
            row_title=wording.said_in_words("task"),
            column_title=wording.said_in_words("expert"),
        )
    drawn = draw(wanted, pdf=True)
    try:
        for name, picture in drawn.items():
            definition = json.dumps(wanted[name], ensure_ascii=False, indent=1) + "\n"
            write_whole(folder / f"{name}.svg", [picture.svg])
            write_whole(folder / f"{name}.pdf", picture.pdf)
            write_whole(folder / f"{name}.vl.json", definition.encode("utf-8", "replace"))
    except OSError as error:
        raise RunStoreError(f"cannot write figures to {folder}: {error.strerror}") from error


def _charts(
    results: Sequence[Point],
    differences: Sequence[Point],
    routing: Sequence[OfRun],
    wording: Wording,
    spots: Mapping[str, Sequence[Spot]],
    palette: Palette,
) -> dict[str, Chart]:
    kinds: Mapping[str, tuple[Sequence[Point], Chart]] = {
        "results": (results, charts.bars(results, palette)),
        "differences": (
            differences,
            charts.forest(differences, palette, title=wording.said_in_words(_DIFFERENCE)),
        ),
    }
    drawn = {name: chart for name, (points, chart) in kinds.items() if points}
    for name, placed in spots.items():
        draw_spots = _DRAWN_BY.get(name, charts.frontier)
        x_title, y_title = (wording.said_in_words(text) for text in _AXES[name])
        drawn[name] = draw_spots(placed, palette, x_title=x_title, y_title=y_title)
    for column, one in routing:
        if spreads := loads(column, one, wording):
            drawn[f"load_{column.position}"] = charts.panels(
                spreads,
                palette,
                value_title=wording.said_in_words("share of tokens"),
                place_title=wording.said_in_words("expert"),
            )
    return drawn


def _label(column: Column, wording: Wording) -> str:
    """A chart travels alone: a run's marks travel with it."""
    marks = [*column.head, *([_OF_DATA] if len(column.marks) > len(column.head) else [])]
    if not marks:
        return column.label
    chinese = "，".join(in_chinese(mark) or mark for mark in marks)
    return wording.chosen(f"{column.label} ({', '.join(marks)})", f"{column.label}（{chinese}）")


_OF_DATA = "not the whole benchmark"
