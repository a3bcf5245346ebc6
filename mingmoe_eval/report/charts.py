"""Charts of the report, each from one Vega-Lite definition: SVG in the page, PDF and SVG on paper.

`libraries` draws them where the extra `report` is installed; else a page has its tables only. The
charts in the page are drawn beforehand, so that the page needs no chart library, no `eval` and no
network; every mark carries its numbers as a label for screen readers and tooltips.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mingmoe_eval.report.libraries import Chart

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"

# Pixels: a bar of a small panel with its gap, a panel's axis, and what fits beside each other.
_PANEL_STEP = 22
_PANEL_AXIS = 70
_PAGE_WIDTH = 1100


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a chart."""

    ink: str
    faint: str
    paper: str
    series: tuple[str, ...]


# In the page, colours follow its light or dark style; on paper they are Okabe and Ito's, which
# readers with any colour vision can tell apart.
IN_PAGE = Palette(
    "var(--ink)", "var(--line)", "var(--paper)", tuple(f"var(--s{n})" for n in range(8))
)
ON_PAPER = Palette(
    "#111111",
    "#cccccc",
    "#ffffff",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#555555"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one series, with its interval where it has one; fractions."""

    row: str
    series: str
    value: float
    interval: tuple[float, float] | None
    colour: int = 0
    """Which of the palette's series colours; the same in every chart of a page."""
    reference: float | None = None
    """A level to mark beside the value, such as what guessing would score."""
    hollow: bool = False
    """Whether a dot is only outlined."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One value of one panel, with the least and the largest of what it is the mean of; shares."""

    panel: str
    place: str
    value: float
    low: float
    high: float
    reference: float
    colour: int = 0


def bars(points: Sequence[Point], palette: Palette) -> Chart:
    """Grouped bars with intervals, one row a task, one bar a series."""
    percent = {"field": "value", "type": "quantitative", "title": "%"}
    bar = {
        "mark": {"type": "bar", "opacity": 0.85},
        "encoding": {
            "x": {**percent, "scale": {"domain": [0, 100]}},
            "color": _colour(points, palette),
        },
    }
    guess = {
        "mark": {"type": "tick", "color": palette.ink, "thickness": 1, "size": 14},
        "encoding": {"x": {"field": "reference", "type": "quantitative"}},
    }
    return _chart(points, palette, [bar, _reach({"color": palette.ink, "strokeWidth": 1.5}), guess])


def forest(points: Sequence[Point], palette: Palette, *, title: str) -> Chart:
    """Differences with intervals around zero, one row a task."""
    colour = _colour(points, palette)
    # Null: the line must not inherit a row, an offset or a label from the layers around it.
    own_place = {"y": None, "yOffset": None, "description": None}
    zero = {
        "data": {"values": [{"zero": 0}]},
        "mark": {"type": "rule", "color": palette.ink, "strokeDash": [4, 3], "aria": False},
        "encoding": {"x": {"field": "zero", "type": "quantitative", "title": title}, **own_place},
    }
    dot = {
        "mark": {"type": "point", "size": 60, "opacity": 1},
        "encoding": {
            "x": {"field": "value", "type": "quantitative"},
            "color": colour,
            "fill": {
                **colour,
                "condition": {"test": "datum.hollow", "value": palette.paper},
                "legend": None,
            },
        },
    }
    return _chart(points, palette, [zero, _reach({"strokeWidth": 2}, colour), dot])


def heat_map(
    rows: Mapping[str, Sequence[float]], palette: Palette, *, row_title: str, column_title: str
) -> Chart:
    """A grid of shares: one row a name, one column a number."""
    values = [
        {"row": name, "column": column, "share": share, "label": f"{name}, {column}: {share:.3f}"}
        for name, shares in rows.items()
        for column, share in enumerate(shares)
    ]
    return {
        "$schema": _SCHEMA,
        "data": {"values": values},
        "mark": "rect",
        "encoding": {
            "x": {"field": "column", "type": "ordinal", "title": column_title},
            "y": {"field": "row", "type": "nominal", "title": row_title, "sort": list(rows)},
            "color": {
                "field": "share",
                "type": "quantitative",
                "scale": {"scheme": "viridis"},
            },
            "description": {"field": "label"},
        },
        "config": _config(palette),
    }


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of two numbers; `y` and its interval are shares.

    `series` names it, and gives it its colour; `panel` is the small chart that it stands in.
    """

    series: str
    x: float
    y: float
    interval: tuple[float, float] | None
    colour: int = 0
    panel: str = ""
    joined: bool = False
    """Whether a line runs through it."""


def frontier(spots: Sequence[Spot], palette: Palette, *, x_title: str, y_title: str) -> Chart:
    """Runs by what they take and what they score, a line through those that none beats."""
    spread = [spot.x for spot in spots if spot.x > 0]
    # Prices and sizes differ by powers of ten; a few per cent would be crowded on such an axis.
    scale = "log" if len(spread) == len(spots) and max(spread) > 4 * min(spread) else "linear"
    x: Chart = {"field": "x", "type": "quantitative", "title": x_title}
    x["scale"] = {"type": scale, "zero": False, "nice": False, "padding": 16}
    y: Chart = {"field": "y", "type": "quantitative", "title": y_title, "scale": {"zero": False}}
    quiet = {"aria": False}
    layers: list[Chart] = [
        {
            "transform": [{"filter": "datum.joined"}],
            "mark": {
                "type": "line",
                "interpolate": "step-after",
                "strokeDash": [4, 3],
                "color": palette.ink,
                **quiet,
            },
            "encoding": {"x": x, "y": y, "order": {"field": "x"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, **quiet},
            "encoding": {
                "x": x,
                "y": {"field": "low", "type": "quantitative", "title": y_title},
                "y2": {"field": "high"},
                "color": _spot_colour(spots, palette),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {
                "x": x,
                "y": y,
                "color": _spot_colour(spots, palette),
                "description": {"field": "label"},
            },
        },
    ]
    return {
        "$schema": _SCHEMA,
        "data": {"values": [_spot_datum(spot, x_title) for spot in spots]},
        "width": 420,
        "height": 260,
        "layer": layers,
        "config": _config(palette),
    }


def curves(spots: Sequence[Spot], palette: Palette, *, x_title: str, y_title: str) -> Chart:
    """A share against a growing number, one panel a task, one line a series."""
    places = sorted({spot.x for spot in spots})
    grows = "log" if places[0] > 0 and places[-1] > 4 * places[0] else "linear"
    x: Chart = {"field": "x", "type": "quantitative", "title": x_title}
    x["scale"] = {"type": grows, "zero": False, "nice": False, "padding": 16}
    # Where something is: a scale's own ticks would name budgets that nobody tried.
    x["axis"] = {"values": places, "format": "d", "labelOverlap": True, "grid": False}
    y: Chart = {"field": "y", "type": "quantitative", "title": y_title}
    y["scale"] = {"domain": [0, 100]}
    colour = _spot_colour(spots, palette)
    quiet = {"aria": False}
    low: Chart = {"field": "low", "type": "quantitative", "title": y_title}
    return {
        "$schema": _SCHEMA,
        "data": {"values": [_spot_datum(spot, x_title) for spot in spots]},
        "facet": _panel_heads(list(dict.fromkeys(spot.panel for spot in spots)), palette),
        "columns": 3,
        "spec": {
            "width": 240,
            "height": 200,
            "layer": [
                {
                    "mark": {"type": "line", "strokeWidth": 1.5, **quiet},
                    "encoding": {"x": x, "y": y, "color": colour, "order": {"field": "x"}},
                },
                {
                    "mark": {"type": "rule", "strokeWidth": 1.5, **quiet},
                    "encoding": {"x": x, "y": low, "y2": {"field": "high"}, "color": colour},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": colour,
                        "description": {"field": "label"},
                    },
                },
            ],
        },
        "resolve": {"axis": {"x": "independent"}},
        "config": _config(palette),
    }


def reliability(spots: Sequence[Spot], palette: Palette, *, x_title: str, y_title: str) -> Chart:
    """Accuracy against confidence, one panel a task; on the diagonal both are equal."""
    hundred = {"domain": [0, 100]}
    x: Chart = {"field": "x", "type": "quantitative", "title": x_title, "scale": hundred}
    y: Chart = {"field": "y", "type": "quantitative", "title": y_title, "scale": hundred}
    colour, label = _spot_colour(spots, palette), {"field": "label"}
    quiet = {"aria": False}
    ends = {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "x"}}
    panels_of = list(dict.fromkeys(spot.panel for spot in spots))
    values = [{**_spot_datum(spot, x_title), "x": 100 * spot.x} for spot in spots]
    corners = [
        {"panel": panel, "x": end, "diagonal": end} for panel in panels_of for end in (0, 100)
    ]
    return {
        "$schema": _SCHEMA,
        "data": {"values": [*values, *corners]},
        "facet": _panel_heads(panels_of, palette),
        "columns": 3,
        "spec": {
            "width": 240,
            "height": 240,
            "layer": [
                {
                    "transform": [{"filter": "isValid(datum.diagonal)"}],
                    "mark": {"type": "line", "strokeDash": [4, 3], "color": palette.ink, **quiet},
                    "encoding": {**ends, "y": {"field": "diagonal", "type": "quantitative"}},
                },
                {
                    "transform": [{"filter": "isValid(datum.y)"}],
                    "mark": {"type": "rule", "strokeWidth": 1.5, **quiet},
                    "encoding": {
                        "x": x,
                        "y": {"field": "low", "type": "quantitative"},
                        "y2": {"field": "high"},
                        "color": colour,
                    },
                },
                {
                    "transform": [{"filter": "isValid(datum.y)"}],
                    "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": colour,
                        "description": label,
                    },
                },
            ],
        },
        "config": _config(palette),
    }


def _spot_datum(spot: Spot, x_title: str) -> Chart:
    low, high = spot.interval or (spot.y, spot.y)
    label = f"{spot.series}, {spot.panel} {x_title} {spot.x:.4g}: {100 * spot.y:.1f}"
    return {
        "series": spot.series,
        "panel": spot.panel,
        "x": spot.x,
        "y": 100 * spot.y,
        "low": 100 * low,
        "high": 100 * high,
        "joined": spot.joined,
        "label": label,
    }


def _spot_colour(spots: Sequence[Spot], palette: Palette) -> Chart:
    colours = {spot.series: palette.series[spot.colour] for spot in spots}
    legend = {"orient": "top", "title": None, "labelLimit": 400, "columns": 2, "columnPadding": 60}
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": list(colours), "range": list(colours.values())},
        "legend": legend if len(colours) > 1 else None,
    }


def panels(
    spreads: Sequence[Spread], palette: Palette, *, value_title: str, place_title: str
) -> Chart:
    """Small multiples of upright bars, each with its spread and the reference as a line."""
    names = list(dict.fromkeys(spread.panel for spread in spreads))
    places = list(dict.fromkeys(spread.place for spread in spreads))
    colour = palette.series[spreads[0].colour]
    x: Chart = {"field": "place", "type": "nominal", "title": place_title, "sort": places}
    x["axis"] = {"labelAngle": 0}
    value = {"field": "value", "type": "quantitative", "title": value_title}
    # The bar's label says all three; one on each mark would make pages of many runs large.
    line = {"color": palette.ink, "aria": False}
    layers = [
        {
            "mark": {"type": "bar", "opacity": 0.85, "color": colour},
            "encoding": {"y": value, "description": {"field": "label"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, **line},
            "encoding": {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}},
        },
        {
            # As wide as a bar's step, so that equal references join to one line.
            "mark": {"type": "tick", "thickness": 1, "size": _PANEL_STEP, **line},
            "encoding": {"y": {"field": "reference", "type": "quantitative"}},
        },
    ]
    return {
        "$schema": _SCHEMA,
        "data": {"values": [_spread_datum(spread, place_title) for spread in spreads]},
        "facet": {
            "field": "panel",
            "type": "nominal",
            "title": None,
            "sort": names,
            "header": {"labelColor": palette.ink, "labelFontSize": 12, "labelLimit": 200},
        },
        "columns": max(1, _PAGE_WIDTH // (_PANEL_STEP * len(places) + _PANEL_AXIS)),
        "spec": {
            "width": {"step": _PANEL_STEP},
            "height": 110,
            "encoding": {"x": x},
            "layer": layers,
        },
        # A shared one would also stand below the empty places of the last row.
        "resolve": {"axis": {"x": "independent"}},
        "config": _config(palette),
    }


def _panel_heads(names: Sequence[str], palette: Palette) -> Chart:
    return {
        "field": "panel",
        "type": "nominal",
        "title": None,
        "sort": list(names),
        "header": {"labelColor": palette.ink, "labelFontSize": 12, "labelLimit": 240},
    }


def _chart(points: Sequence[Point], palette: Palette, layers: Sequence[Chart]) -> Chart:
    rows = list(dict.fromkeys(point.row for point in points))
    series = list(dict.fromkeys(point.series for point in points))
    shared: Chart = {
        "y": {
            "field": "row",
            "type": "nominal",
            "title": None,
            "sort": rows,
            "axis": {"labelLimit": 280},
        },
        "description": {"field": "label"},
    }
    if len(series) > 1:
        shared["yOffset"] = {"field": "series", "sort": series}
    return {
        "$schema": _SCHEMA,
        "data": {"values": [_datum(point) for point in points]},
        "width": 520,
        "height": {"step": 22 if len(series) == 1 else 14},
        "encoding": shared,
        "layer": list(layers),
        "config": _config(palette),
    }


def _datum(point: Point) -> Chart:
    low, high = point.interval or (point.value, point.value)
    label = f"{point.row}, {point.series}: {100 * point.value:.1f}"
    if point.interval:
        label += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return {
        "row": point.row,
        "series": point.series,
        "value": 100 * point.value,
        "low": 100 * low,
        "high": 100 * high,
        "reference": None if point.reference is None else 100 * point.reference,
        "hollow": point.hollow,
        "label": label,
    }


def _spread_datum(spread: Spread, place_title: str) -> Chart:
    reach = f"[{spread.low:.3f}, {spread.high:.3f}]"
    label = f"{spread.panel}, {place_title} {spread.place}: {spread.value:.3f} {reach}"
    return {**dataclasses.asdict(spread), "label": label}


def _reach(style: Chart, colour: Chart | None = None) -> Chart:
    """The interval, from low to high."""
    ends = {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}
    encoding = ends | ({"color": colour} if colour else {})
    return {"mark": {"type": "rule", **style}, "encoding": encoding}


def _colour(points: Sequence[Point], palette: Palette) -> Chart:
    colours = {point.series: palette.series[point.colour] for point in points}
    legend = {"orient": "top", "title": None, "labelLimit": 400, "columnPadding": 60}
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": list(colours), "range": list(colours.values())},
        "legend": legend if len(colours) > 1 else None,
    }


def _config(palette: Palette) -> Chart:
    return {
        "background": "transparent",
        "font": "Arial, 'Liberation Sans', sans-serif",
        # A browser may set the labels wider than they were measured here.
        "padding": {"left": 30, "right": 30, "top": 5, "bottom": 5},
        "axis": {
            # The library describes axes in English alone; labels and captions say the same.
            "aria": False,
            "labelColor": palette.ink,
            "titleColor": palette.ink,
            "gridColor": palette.faint,
            "tickColor": palette.faint,
            "domainColor": palette.faint,
            "labelFontSize": 12,
            "titleFontWeight": "normal",
        },
        "axisX": {"tickCount": 8},
        "legend": {
            "aria": False,
            "labelColor": palette.ink,
            "titleColor": palette.ink,
            "labelFontSize": 12,
        },
        "view": {"stroke": None},
    }
