"""The page itself: runs in, one HTML file out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mingmoe_eval import __version__
from mingmoe_eval.errors import RunStoreError, UsageError
from mingmoe_eval.labels import Labels
from mingmoe_eval.pass_rules import PassRule
from mingmoe_eval.records import JsonDict, Run
from mingmoe_eval.report import drawings, efficiency, reasoning, view
from mingmoe_eval.report.compared import Compared, changes, compare_all
from mingmoe_eval.report.embedding import (
    content_policy,
    environment,
    inert_json,
    json_bytes,
    packed,
    read_words,
    template,
)
from mingmoe_eval.report.libraries import data_tables_script, require_drawing
from mingmoe_eval.report.sample_pack import FLIPPED, SamplePack, pack_samples, pair_docs
from mingmoe_eval.report.seen_docs import DocPlaces, places_by_run, seen_docs
from mingmoe_eval.report.wording import Language, Wording
from mingmoe_eval.routing.view import read_routing
from mingmoe_eval.whole_files import write_whole

MOST_RUNS = 8
PAGE_BYTES = 25_000_000
"""The page stays below this, so that a browser opens it at once and a mail can carry it."""

_BESIDE_SAMPLES = 1_500_000  # the library and the tables of a large page, but for routing
_BYTES_PER_LOAD = 45  # one cell of a routing table


def render_report(
    runs: Sequence[Run],
    path: str | Path,
    *,
    baseline: int = 0,
    with_docs: bool | None = None,
    hashed: bool = False,
    language: Language = "en",
    figures: str | Path | None = None,
    allow: frozenset[str] = frozenset(),
    overlaps: Sequence[JsonDict | None] | None = None,
    curves: Sequence[JsonDict | None] | None = None,
    pass_rules: Sequence[PassRule] = (),
    labels: Mapping[str, str] | None = None,
    price: str | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write one self-contained page about one to eight runs.

    Args:
        runs: The runs, samples included.
        path: The HTML file to write; written whole or not at all.
        baseline: Which run the others are compared with.
        with_docs: False leaves out prompts, gold texts and responses; None leaves them out only
            for data sets that are for registered users.
        hashed: For secret exams: as with `with_docs=False`, and a hash stands for each question.
        language: The language the page opens in; it holds both.
        figures: A folder for the charts as PDF and SVG; needs the extra `report`.
        allow: Kinds of difference between runs (`comparison.KINDS`) that do not forbid comparing
            them; the page names those that it passed over.
        overlaps: Of each run what `run_store.load_overlap` gives; None: nobody has looked.
        curves: Of each run what `run_store.load_curve` gives; None: its thoughts were not cut.
        pass_rules: Rules of exams, whose verdicts the page shows.
        labels: What to call tasks and models, by their names in the runs; before what the runs
            themselves say.
        price: What tokens and time cost, in the words of `--price`; default: as each run was told.
        told: Told of what the page had to be made without.

    Returns:
        The path of the page.

    Raises:
        UsageError: no run, more than eight, no such baseline, or figures without the extra.
        RunStoreError: the page or a figure cannot be written, or an overlap or a curve is damaged.
        DrawingError: figures were asked for and cannot be drawn.
    """
    _check(runs, baseline)
    if hashed and with_docs:
        raise UsageError("--hashed-docs leaves the docs out: --with-docs asks for them")
    if figures is not None:
        require_drawing()
    names = Labels.of_runs(runs, labels)
    wording = Wording(language, names)
    shown = view.columns(runs, baseline, names)
    compared = compare_all(runs, shown, allow=allow)
    results = drawings.result_points(view.headline(runs), shown, wording)
    differences = drawings.difference_points(compared, wording)
    routing = [
        (column, found)
        for run, column in zip(runs, shown, strict=True)
        if (found := read_routing(run.routing))
    ]
    frontiers = efficiency.frontiers(runs, shown, view.effort(runs, shown), price)
    certain = efficiency.certainties(runs, shown)
    budgeted, stale = reasoning.curves(runs, shown, curves or [None] * len(runs))
    spots = {
        **drawings.spots_of(frontiers, certain, wording),
        **drawings.curves_of(reasoning.attempts(runs, shown), budgeted, wording),
    }
    drawn = drawings.in_page(results, differences, routing, wording, spots)
    if drawn.failure:
        told(f"{path} is without its charts: {drawn.failure}")
    seen = seen_docs(runs, shown, overlaps or [None] * len(runs))
    budget = PAGE_BYTES - _beside_samples(drawn.charts, routing)
    tasks = {task for run in runs for task in run.samples}
    registered = view.registered_tasks(runs) & tasks
    hidden = tasks if hashed else {True: set(), False: tasks, None: registered}[with_docs]
    samples = _samples(
        runs, baseline, hidden, budget, places_by_run(seen, len(runs)), hashed=hashed
    )
    context = {
        **_tables([view.without_texts(run, hidden) for run in runs], shown, compared),
        **_embedded(shown, samples.pack, baseline, wording),
        "language": language,
        "baseline": baseline,
        "charts": drawn.charts,
        "without_charts": drawn.failure,
        "costs": efficiency.cost_rows(runs, shown, price),
        "frontiers": frontiers,
        "certainties": certain,
        "coverages": efficiency.COVERAGES,
        "repeated": reasoning.repeated(runs, shown),
        "repeat_breakdowns": reasoning.repeat_breakdowns(runs),
        "budgeted": budgeted,
        "stale_curves": stale,
        "routing": routing,
        "seen_docs": seen,
        "verdicts": view.verdicts(runs, shown, pass_rules),
        "pack": samples.pack,
        "open_docs": samples.open_docs,
        "withheld": samples.withheld,
        "hashed": hashed,
    }
    words = read_words()
    html = (
        environment(words, wording)
        .get_template("page.html.j2")
        .render(context, words=inert_json(words))
    )
    if figures is not None:
        drawings.write_figures(Path(figures), results, differences, routing, wording, spots)
    return _write(Path(path), html)


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples that a page carries, and the tasks whose texts it leaves out."""

    pack: SamplePack
    open_docs: int
    withheld: list[str]


def _check(runs: Sequence[Run], baseline: int) -> None:
    if not 1 <= len(runs) <= MOST_RUNS:
        raise UsageError(f"a report shows one to {MOST_RUNS} runs, not {len(runs)}")
    if not 0 <= baseline < len(runs):
        raise UsageError(
            f"run number {baseline + 1} cannot be the baseline: there are {len(runs)} runs"
        )


def _beside_samples(drawn: Mapping[str, Markup], routing: Sequence[drawings.OfRun]) -> int:
    """About how many bytes the page takes without its samples."""
    loads = sum(
        len(load) for _, one in routing for grid in one.layers.values() for load in grid.values()
    )
    return _BESIDE_SAMPLES + sum(map(len, drawn.values())) + _BYTES_PER_LOAD * loads


def _samples(
    runs: Sequence[Run],
    baseline: int,
    withheld: set[str],
    budget: int,
    seen: Sequence[DocPlaces],
    *,
    hashed: bool,
) -> _Samples:
    # Flipped docs first: they are what a reader of a comparison looks for.
    docs = sorted(pair_docs(runs, baseline, seen), key=lambda doc: not doc.flags & FLIPPED)
    pack = pack_samples(docs, withheld_tasks=withheld, budget=budget, hashed=hashed)
    return _Samples(pack, sum(doc.task not in withheld for doc in docs), sorted(withheld))


def _tables(
    runs: Sequence[Run], shown: Sequence[view.Column], compared: Sequence[Compared]
) -> dict[str, Any]:
    """What the template shows as tables."""
    counts, headline = view.task_counts(runs, shown), view.headline(runs)
    return {
        "title": " · ".join(column.label for column in shown),
        "version": __version__,
        "columns": shown,
        "headline": headline,
        "first_numbers": view.first_numbers(runs[0], headline) if len(runs) == 1 else [],
        "changes": changes(compared),
        "breakdowns": view.breakdowns(runs),
        "reordered": view.reordered(runs, shown),
        "order_breakdowns": view.order_breakdowns(runs),
        "counts": counts,
        "attention": view.attention(counts),
        "attention_opens": view.attention_opens(counts),
        "comparisons": compared,
        "effort": view.effort(runs, shown),
        "settings": view.settings(runs),
    }


def _embedded(
    shown: Sequence[view.Column], pack: SamplePack, baseline: int, wording: Wording
) -> dict[str, Markup | str]:
    """Style, scripts and data, with the policy that lets nothing else run."""
    style, script, library = template("page.css"), template("page.js"), data_tables_script()
    for reading in pack.readings:  # which the explorer shows, one doc at a time
        wording.said_in_words(reading)
    runs = {
        "labels": [column.label for column in shown],
        "marks": [column.head for column in shown],
        "tasks": {name: wording.task_in_words(name) for name in pack.index["tasks"]},
        "baseline": baseline,
    }
    return {
        "policy": content_policy([library, script], [style]),
        "style": Markup(style),
        "script": Markup(script),
        "library": Markup(library),
        "run_data": inert_json(runs),
        "index": packed(json_bytes(pack.index["rows"])),
    }


def _write(path: Path, html: str) -> Path:
    try:
        # A lone surrogate in a name has no UTF-8; as a character reference it shows as "�".
        return write_whole(path, html.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise RunStoreError(f"cannot write {path}: {error.strerror}") from error
