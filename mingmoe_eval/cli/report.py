"""`mingmoe-eval report`: one offline HTML page."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Language(StrEnum):
    """The language a page opens in."""

    en = "en"
    zh = "zh"


def report(
    runs: Annotated[list[Path], typer.Argument(help="One to eight run folders.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The page to write. Default: report.html in the run's folder; for several runs, "
            "comparison.html here.",
        ),
    ] = None,
    baseline: Annotated[
        int, typer.Option(help="Which run the others are compared with, from 1.", min=1)
    ] = 1,
    docs: Annotated[
        bool | None,
        typer.Option(
            "--with-docs/--without-docs",
            help="Whether questions, gold texts and responses are in the page. Default: all but "
            "those of data sets for registered users.",
        ),
    ] = None,
    language: Annotated[
        Language, typer.Option(help="The language that the page opens in; it holds both.")
    ] = Language.en,
    figures: Annotated[
        Path | None, typer.Option(help="Write the charts as PDF and SVG into this folder.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A kind of difference between runs that does not forbid comparing them."),
    ] = None,
) -> None:
    """One self-contained page about one to eight runs; it opens with the network off.

    Example: mingmoe-eval report reports/ming-7b reports/ours -o comparison.html
    """
    from mingmoe_eval.comparison import kinds_named
    from mingmoe_eval.report import render_report
    from mingmoe_eval.run_store import load_overlap, load_run

    path = output or (runs[0] / "report.html" if len(runs) == 1 else Path("comparison.html"))
    written = render_report(
        [load_run(run) for run in runs],
        path,
        baseline=baseline - 1,
        with_docs=docs,
        language=language.value,
        figures=figures,
        allow=kinds_named(allow or ()),
        overlaps=[load_overlap(run) for run in runs],
    )
    print(written)
