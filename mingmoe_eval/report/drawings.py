"""Which charts a report has: the runs' numbers turned into points and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.report import charts
from mingmoe_eval.report.charts import Palette, Point, Spread
from mingmoe_eval.report.libraries import Chart, can_draw, svg, write_figure
from mingmoe_eval.report.view import Column, Compared, Row
from mingmoe_eval.routing.view import Routing

OfRun = tuple[Column, Routing]
"""What the routers of a run did, and the run."""


def result_points(rows: Sequence[Row], shown: Sequence[Column]) -> list[Point]:
    """The main metric of every task and run, of those that are shares: one axis, one unit."""
    return [
        Point(
            row=row.name,
            series=_label(column),
            value=cell.metric.value,
            interval=cell.metric.interval,
            colour=column.position,
            reference=row.chance,
        )
        for row in rows
        for column, cell in zip(shown, row.cells, strict=True)
        if cell and cell.metric.n and cell.metric.unit == "share"
    ]


def difference_points(compared: Sequence[Compared]) -> list[Point]:
    """The difference from the baseline of every task and candidate, of those that are shares."""
    return [
        Point(
            row=task,
            series=_label(one.column),
            value=leaf.paired.difference,
            interval=leaf.paired.interval,
            colour=one.column.position,
        )
        for one in compared
        if one.comparison
        for task, leaf in one.comparison.tasks.items()
        if leaf.unit == "share"
    ]


def loads(column: Column, one: Routing) -> list[Spread]:
    """Each expert's share of a task's tokens: the mean over layers, and how far layers differ."""
    return [
        Spread(
            panel=task,
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


def in_page(
    results: Sequence[Point], differences: Sequence[Point], routing: Sequence[OfRun]
) -> dict[str, Markup]:
    """The page's charts as SVG; without those that have no point or nothing to draw with."""
    if not can_draw():
        return {}
    drawn = _charts(results, differences, routing, charts.IN_PAGE)
    # Vega escapes every text that it puts into an SVG; a test plants markup to hold it to that.
    return {name: Markup(svg(chart)) for name, chart in drawn.items()}


def write_figures(
    folder: Path,
    results: Sequence[Point],
    differences: Sequence[Point],
    routing: Sequence[OfRun],
) -> None:
    """Write every chart as PDF, SVG and Vega-Lite.

    Raises:
        RunStoreError: the folder cannot be written.
    """
    drawn = _charts(results, differences, routing, charts.ON_PAPER)
    for column, one in routing:
        drawn[f"routing_{column.position}"] = charts.heat_map(
            one.tasks, charts.ON_PAPER, row_title="task", column_title="expert"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in drawn.items():
            write_figure(chart, folder, name)
    except OSError as error:
        raise RunStoreError(f"cannot write figures to {folder}: {error.strerror}") from error


def _charts(
    results: Sequence[Point],
    differences: Sequence[Point],
    routing: Sequence[OfRun],
    palette: Palette,
) -> dict[str, Chart]:
    kinds: Mapping[str, tuple[Sequence[Point], Chart]] = {
        "results": (results, charts.bars(results, palette)),
        "differences": (differences, charts.forest(differences, palette)),
    }
    drawn = {name: chart for name, (points, chart) in kinds.items() if points}
    for column, one in routing:
        if spreads := loads(column, one):
            drawn[f"load_{column.position}"] = charts.panels(
                spreads, palette, value_title="share of tokens", place_title="expert"
            )
    return drawn


def _label(column: Column) -> str:
    """A chart travels alone: a run's marks travel with it."""
    return f"{column.label} ({', '.join(column.marks)})" if column.marks else column.label
