"""Charts of the report, each from one definition: SVG inside the page, PDF and SVG for a paper.

Altair and vl-convert come with the extra `report`; without them a page has its tables only. The
charts in the page are drawn beforehand, so that the page needs no chart library, no `eval` and no
network; every mark carries its numbers as a label for screen readers and tooltips.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mingmoe_eval.errors import UsageError

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a chart."""

    ink: str
    faint: str
    series: tuple[str, ...]


# In the page, colours follow its light or dark style; on paper they are Okabe and Ito's, which
# readers with any colour vision can tell apart.
IN_PAGE = Palette("var(--ink)", "var(--line)", tuple(f"var(--s{n})" for n in range(8)))
ON_PAPER = Palette(
    "#111111",
    "#cccccc",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#555555"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one series, with its interval where it has one."""

    row: str
    series: str
    value: float
    interval: tuple[float, float] | None
    colour: int = 0
    """Which of the palette's series colours; the same in every chart of a page."""
    reference: float | None = None
    """A level to mark beside the value, such as what guessing would score."""


def available() -> bool:
    """Whether the libraries that draw are installed."""
    return all(importlib.util.find_spec(name) for name in ("altair", "vl_convert"))


def require() -> None:
    """Refuse when the libraries that draw are absent.

    Raises:
        UsageError: they are; says what to install.
    """
    if not available():
        raise UsageError("charts need two more libraries: pip install 'mingmoe-eval[report]'")


def bars(points: Sequence[Point], palette: Palette) -> "alt.LayerChart":
    """Grouped bars with intervals, one row a task, one bar a series; values are fractions."""
    import altair as alt

    scale = alt.Scale(domain=[0, 100])
    base = _base(points, palette)
    width = base.mark_bar(opacity=0.85).encode(
        x=alt.X("value:Q", title="%", scale=scale), color=_colour(points, palette)
    )
    reach = base.mark_rule(color=palette.ink, strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
    guess = base.mark_tick(color=palette.ink, thickness=1, size=14).encode(x="reference:Q")
    return _styled(alt.layer(width, reach, guess), palette)


def forest(points: Sequence[Point], palette: Palette) -> "alt.LayerChart":
    """Differences with intervals around zero, one row a task; values are fractions."""
    import altair as alt

    base = _base(points, palette)
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(
        color=palette.ink, strokeDash=[4, 3]
    ).encode(x="zero:Q")
    title = "difference in percentage points"
    reach = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title, axis=alt.Axis(tickCount=8)), x2="high:Q", color=_colour(points, palette)
    )
    dot = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("value:Q", title=title), color=_colour(points, palette)
    )
    return _styled(alt.layer(zero, reach, dot), palette)


def heat_map(
    rows: Mapping[str, Sequence[float]], palette: Palette, *, row_title: str, column_title: str
) -> "alt.LayerChart":
    """A grid of shares: one row a name, one column a number."""
    import altair as alt

    values = [
        {"row": name, "column": column, "share": share, "label": f"{name}, {column}: {share:.3f}"}
        for name, shares in rows.items()
        for column, share in enumerate(shares)
    ]
    cells = (
        alt.Chart(alt.Data(values=values))
        .mark_rect()
        .encode(
            x=alt.X("column:O", title=column_title),
            y=alt.Y("row:N", title=row_title, sort=list(rows)),
            color=alt.Color("share:Q", title="share", scale=alt.Scale(scheme="viridis")),
            description="label:N",
        )
    )
    return _styled(alt.layer(cells), palette)


def svg(chart: "alt.LayerChart") -> str:
    """The chart as an SVG element."""
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(chart.to_dict())
    return text


def write_figure(chart: "alt.LayerChart", folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg` and `<name>.pdf`."""
    import vl_convert

    spec = chart.to_dict()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg", folder / f"{name}.pdf"]
    paths[0].write_text(vl_convert.vegalite_to_svg(spec), "utf-8")
    paths[1].write_bytes(vl_convert.vegalite_to_pdf(spec))
    return paths


def _base(points: Sequence[Point], palette: Palette) -> "alt.Chart":
    import altair as alt

    rows = list(dict.fromkeys(point.row for point in points))
    series = list(dict.fromkeys(point.series for point in points))
    y = alt.Y("row:N", title=None, sort=rows, axis=alt.Axis(labelLimit=280))
    encoded = alt.Chart(alt.Data(values=[_datum(point) for point in points]), width=520)
    if len(series) == 1:
        return encoded.encode(y=y, description="label:N").properties(height=alt.Step(22))
    return encoded.encode(
        y=y, yOffset=alt.YOffset("series:N", sort=series), description="label:N"
    ).properties(height=alt.Step(14))


def _datum(point: Point) -> dict[str, Any]:
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
        "label": label,
    }


def _colour(points: Sequence[Point], palette: Palette) -> "alt.Color":
    import altair as alt

    colours = {point.series: palette.series[point.colour] for point in points}
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    legend = alt.Legend(orient="top", title=None, labelLimit=400, columnPadding=30)
    return alt.Color("series:N", scale=scale, legend=legend if len(colours) > 1 else None)


def _styled(chart: "alt.LayerChart", palette: Palette) -> "alt.LayerChart":
    styled: alt.LayerChart = (
        chart.configure(
            background="transparent",
            font="Arial, 'Liberation Sans', sans-serif",
            # A browser may set the labels wider than they were measured here.
            padding={"left": 30, "right": 30, "top": 5, "bottom": 5},
        )
        .configure_axis(
            labelColor=palette.ink,
            titleColor=palette.ink,
            gridColor=palette.faint,
            tickColor=palette.faint,
            domainColor=palette.faint,
            labelFontSize=12,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor=palette.ink, titleColor=palette.ink, labelFontSize=12)
        .configure_view(stroke=None)
    )
    return styled
