"""The page itself: runs in, one HTML file out."""

import contextlib
import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from mingmoe_eval import __version__
from mingmoe_eval.comparison import Comparison, compare
from mingmoe_eval.errors import IncomparableRunsError, RunStoreError, UsageError
from mingmoe_eval.records import Run
from mingmoe_eval.report import charts, view
from mingmoe_eval.report.embedding import (
    content_policy,
    data_tables_script,
    inert_json,
    json_bytes,
    packed,
)
from mingmoe_eval.report.sample_pack import FLIPPED, pack_samples, pair_docs

Language = Literal["en", "zh"]

MOST_RUNS = 8
PAGE_BYTES = 25_000_000
"""The page stays below this, so that a browser opens it at once and a mail can carry it."""
_BESIDE_SAMPLES = 1_500_000  # the library, charts and tables of a large page


@dataclass(frozen=True, slots=True)
class Change:
    """A cell's difference from the baseline."""

    difference: float
    stars: str
    test: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A candidate against the baseline, or why that was refused."""

    column: view.Column
    comparison: Comparison | None
    refusal: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.column, self.comparison, self.refusal))


def render_report(
    runs: Sequence[Run],
    path: str | Path,
    *,
    baseline: int = 0,
    with_docs: bool | None = None,
    language: Language = "en",
    figures: str | Path | None = None,
    allow: frozenset[str] = frozenset(),
) -> Path:
    """Write one self-contained page about one to eight runs.

    Args:
        runs: The runs, samples included.
        path: The HTML file to write; written whole or not at all.
        baseline: Which run the others are compared with.
        with_docs: False leaves out prompts, gold texts and responses; None leaves them out only
            for data sets that are for registered users.
        language: The language the page opens in; it holds both.
        figures: A folder for the charts as PDF and SVG; needs the extra `report`.
        allow: Kinds of difference between runs (`comparison.KINDS`) that do not forbid comparing
            them; the page names those that it passed over.

    Returns:
        The path of the page.

    Raises:
        UsageError: no run, more than eight, no such baseline, or figures without the extra.
        RunStoreError: the page or a figure cannot be written.
    """
    _check(runs, baseline)
    if figures is not None:
        charts.require()
    shown = view.columns(runs, baseline)
    compared = [
        _compared(runs[baseline], run, column, allow)
        for run, column in zip(runs, shown, strict=True)
        if not column.is_baseline
    ]
    points = _bar_points(runs, shown), _forest_points(compared)
    html = _page(runs, shown, compared, points, with_docs, language)
    if figures is not None:
        _write_figures(Path(figures), runs, shown, *points)
    return _write(Path(path), html)


def _check(runs: Sequence[Run], baseline: int) -> None:
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UsageError(f"a report shows one to {MOST_RUNS} runs, not {len(runs)}")
    if not 0 <= baseline < len(runs):
        raise UsageError(f"there is no run {baseline} among the {len(runs)} of this report")


def _compared(reference: Run, run: Run, column: view.Column, allow: frozenset[str]) -> Compared:
    try:
        return Compared(column, compare(reference, run, allow=allow), "")
    except IncomparableRunsError as error:
        return Compared(column, None, str(error))


def _page(
    runs: Sequence[Run],
    shown: Sequence[view.Column],
    compared: Sequence[Compared],
    points: tuple[list[charts.Point], list[charts.Point]],
    with_docs: bool | None,
    language: Language,
) -> str:
    tasks = {task for run in runs for task in run.samples}
    withheld = view.withheld_tasks(runs) & tasks if with_docs is None else set()
    withheld = tasks if with_docs is False else withheld
    baseline = next(column.position for column in shown if column.is_baseline)
    # Flipped docs first: they are what a reader of a comparison looks for.
    docs = sorted(pair_docs(runs, baseline), key=lambda doc: not doc.flags & FLIPPED)
    pack = pack_samples(docs, withheld_tasks=withheld, budget=PAGE_BYTES - _BESIDE_SAMPLES)
    words = _words()
    style, script, library = _template("page.css"), _template("page.js"), data_tables_script()
    context = {
        "language": language,
        "title": " · ".join(column.label for column in shown),
        "policy": content_policy([library, script], [style]),
        "style": Markup(style),
        "script": Markup(script),
        "library": Markup(library),
        "words": inert_json(words),
        "run_data": inert_json(
            {
                "labels": [column.label for column in shown],
                "marks": [column.marks for column in shown],
                "baseline": baseline,
            }
        ),
        "index": packed(json_bytes(pack.index["rows"])),
        "version": __version__,
        "columns": shown,
        "baseline": baseline,
        "comparisons": compared,
        "changes": _changes(compared),
        "charts": _drawn(points),
        "headline": view.headline(runs),
        "breakdowns": _by_task([*view.breakdowns(runs), *view.further_metrics(runs)]),
        "counts": view.task_counts(runs, shown),
        "pack": pack,
        "open_docs": sum(doc.task not in withheld for doc in docs),
        "withheld": sorted(withheld),
        "effort": view.effort(runs, shown),
        "routing": view.routing(runs, shown),
        "settings": view.settings(runs),
    }
    return _environment(words, language).get_template("page.html.j2").render(context)


def _environment(words: Mapping[str, Mapping[str, str]], language: Language) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mingmoe_eval.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )

    def word(key: str) -> str:
        return words[key][language]

    def t(key: str) -> Markup:
        return Markup('<span data-t="{}">{}</span>').format(key, word(key))

    environment.globals.update(word=word, t=t)
    environment.filters.update(
        percent=lambda value: f"{100 * value:.1f}",
        points=lambda value: f"{100 * value:+.1f}".replace("-", "−"),
        p=lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
        stars=stars,
        quantity=_quantity,
        level=lambda share: max(0, min(10, round(share * 10))),
    )
    return environment


def stars(p_value: float) -> str:
    """The marks of significance: * below 0.05, ** below 0.01, *** below 0.001."""
    return "*" * sum(p_value < bound for bound in (0.05, 0.01, 0.001))


def _quantity(value: float | None) -> str:
    if value is None:
        return "–"
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _changes(compared: Sequence[Compared]) -> dict[tuple[str, int], Change]:
    changes = {}
    for column, comparison, _ in compared:
        if comparison is None:
            continue
        for task, one in comparison.tasks.items():
            changes[task, column.position] = Change(
                one.paired.difference, stars(one.p_adjusted), one.paired.test
            )
        for task, group in comparison.groups.items():
            changes[task, column.position] = Change(group.candidate - group.baseline, "", "")
    return changes


def _by_task(parts: Sequence[view.Breakdown]) -> list[tuple[str, list[view.Breakdown]]]:
    tasks: dict[str, list[view.Breakdown]] = {}
    for part in parts:
        tasks.setdefault(part.task, []).append(part)
    return list(tasks.items())


def _bar_points(runs: Sequence[Run], shown: Sequence[view.Column]) -> list[charts.Point]:
    return [
        charts.Point(
            row.name,
            _chart_label(column),
            cell.metric.value,
            cell.metric.interval,
            column.position,
            row.chance,
        )
        for row in view.headline(runs)
        for column, cell in zip(shown, row.cells, strict=True)
        if cell and cell.metric.n
    ]


def _forest_points(compared: Sequence[Compared]) -> list[charts.Point]:
    return [
        charts.Point(
            task,
            _chart_label(column),
            one.paired.difference,
            one.paired.interval,
            column.position,
        )
        for column, comparison, _ in compared
        if comparison
        for task, one in comparison.tasks.items()
    ]


def _chart_label(column: view.Column) -> str:
    """A chart travels alone: its marks travel with it."""
    return f"{column.label} ({', '.join(column.marks)})" if column.marks else column.label


def _drawn(points: tuple[list[charts.Point], list[charts.Point]]) -> dict[str, Markup]:
    """The charts as SVG; empty where there is nothing to draw, or nothing to draw with."""
    bars, forest = points
    if not charts.available():
        return {"bars": Markup(""), "forest": Markup("")}
    return {
        "bars": Markup(charts.svg(charts.bars(bars, charts.IN_PAGE)) if bars else ""),
        "forest": Markup(charts.svg(charts.forest(forest, charts.IN_PAGE)) if forest else ""),
    }


def _write_figures(
    folder: Path,
    runs: Sequence[Run],
    shown: Sequence[view.Column],
    bars: list[charts.Point],
    forest: list[charts.Point],
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _draw_figures(folder, runs, shown, bars, forest)
    except OSError as error:
        raise RunStoreError(f"cannot write figures to {folder}: {error.strerror}") from error


def _draw_figures(
    folder: Path,
    runs: Sequence[Run],
    shown: Sequence[view.Column],
    bars: list[charts.Point],
    forest: list[charts.Point],
) -> None:
    if bars:
        charts.write_figure(charts.bars(bars, charts.ON_PAPER), folder, "results")
    if forest:
        charts.write_figure(charts.forest(forest, charts.ON_PAPER), folder, "differences")
    for column, tasks, _ in view.routing(runs, shown):
        chart = charts.heat_map(tasks, charts.ON_PAPER, row_title="task", column_title="expert")
        charts.write_figure(chart, folder, f"routing_{column.position}")


def _words() -> dict[str, dict[str, str]]:
    words = json.loads(_template("words.json"))
    return {key: {"en": english, "zh": chinese} for key, (english, chinese) in words.items()}


def _template(name: str) -> str:
    files = importlib.resources.files("mingmoe_eval.report")
    return files.joinpath("templates", name).read_text("utf-8")


def _write(path: Path, html: str) -> Path:
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate in a name has no UTF-8; as a character reference it shows as "�".
        beside.write_bytes(html.encode("utf-8", "xmlcharrefreplace"))
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise RunStoreError(f"cannot write {path}: {error.strerror}") from error
    return path
