"""`mingmoe-eval report` and `table`: runs as a page to look at, and as a paper's table."""

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
    hashed: Annotated[
        bool,
        typer.Option(
            "--hashed-docs",
            help="To share results on a secret exam: a hash in place of each question, and no text "
            "of questions, options, keys or replies.",
        ),
    ] = False,
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
    pass_rule: Annotated[
        list[str] | None,
        typer.Option(help="Would it pass? A rule's name (jmle2026) or file: docs/pass_rules.md."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="What to call tasks and models: NAME=TEXT,NAME=TEXT or a file of them (YAML, "
            "JSON); may be given several times."
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            help="What a million tokens of prompt and of reply cost, 0.5,1.5, or a JSON file with "
            "a price for each run or model; default: as each run was told."
        ),
    ] = None,
) -> None:
    """One self-contained page about one to eight runs; it opens with the network off.

    Example: mingmoe-eval report reports/ming-7b reports/ours -o comparison.html
    """
    from mingmoe_eval.cli.exits import say
    from mingmoe_eval.comparison import kinds_named
    from mingmoe_eval.labels import read_labels
    from mingmoe_eval.pass_rules import rule_named
    from mingmoe_eval.report import render_report
    from mingmoe_eval.run_store import load_curve, load_overlap, load_run

    path = output or (runs[0] / "report.html" if len(runs) == 1 else Path("comparison.html"))
    written = render_report(
        [load_run(run) for run in runs],
        path,
        baseline=baseline - 1,
        with_docs=docs,
        hashed=hashed,
        pass_rules=list(map(rule_named, pass_rule or ())),
        language=language.value,
        figures=figures,
        allow=kinds_named(allow or ()),
        overlaps=[load_overlap(run) for run in runs],
        curves=[load_curve(run) for run in runs],
        labels=read_labels(labels or ()),
        price=price,
        told=lambda text: say(f"note: {text}"),
    )
    print(written)


class Format(StrEnum):
    """The markup of a table."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"


class Form(StrEnum):
    """Which form of the tasks a table shows."""

    direct = "direct"
    cot = "cot"
    letters = "letters"


class Doubt(StrEnum):
    """What stands behind each number."""

    none = "none"
    interval = "interval"
    stderr = "stderr"


def table(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, one row each.")],
    format_: Annotated[Format, typer.Option("--format", help="Markup.")] = Format.markdown,
    layout: Annotated[
        str, typer.Option(help="ming-nlp, ming-exams, medcare, pharmacist or generic (every task).")
    ] = "generic",
    published: Annotated[
        str | None,
        typer.Option(help="Published results to cite, by comma, such as huatuogpt2,apollo."),
    ] = None,
    form: Annotated[
        Form, typer.Option(help="Form of the exam tasks; a layout never mixes forms.")
    ] = Form.direct,
    doubt: Annotated[Doubt, typer.Option(help="What stands behind each number.")] = Doubt.none,
    decimals: Annotated[int, typer.Option(help="Of our numbers.", min=0, max=6)] = 1,
    baseline: Annotated[
        int, typer.Option(help="Which run the others are tested against, from 1; 0: none.", min=0)
    ] = 1,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A kind of difference between runs that does not forbid testing them."),
    ] = None,
    allow_marked: Annotated[
        bool,
        typer.Option("--allow-marked", help="Let in runs on samples or on parts of the data."),
    ] = False,
    pass_rule: Annotated[
        list[str] | None,
        typer.Option(help="Would it pass? A rule's name (jmle2026) or file: docs/pass_rules.md."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Only these tasks' columns, by comma: names or globs.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Only these columns, in this order: keys, headings or globs, by comma."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Only the published rows of these models: parts of names, by comma."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="What to call models, tasks and columns: NAME=TEXT,NAME=TEXT or a file of them "
            "(YAML, JSON); may be given several times."
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Columns of what a right answer cost, by comma: tokens, seconds, money, and "
            "parameters (the active ones)."
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(help="For money: as --price of `run`; default: as each run was told."),
    ] = None,
    caption: Annotated[
        str, typer.Option(help="What the caption begins with, in place of the layout's title.")
    ] = "",
    label: Annotated[str, typer.Option(help=r"LaTeX's \\label, such as tab:exams.")] = "",
    width: Annotated[
        float,
        typer.Option(
            help="LaTeX: the text's width in points; wider tables are split. Two columns of ACL "
            "have 455, of IEEE 516.",
            min=150,
        ),
    ] = 345.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")
    ] = None,
) -> None:
    """A paper's table from runs, with published rows beside them where asked for.

    Best bold, second best underlined; marks of significance come from paired tests, which the
    caption names. Refuses incomplete runs, and marked ones unless allowed.
    Example: mingmoe-eval table reports/ours --layout pharmacist --published huatuogpt2
    """
    from mingmoe_eval.cli.console import write_page
    from mingmoe_eval.comparison import kinds_named
    from mingmoe_eval.labels import read_labels
    from mingmoe_eval.paper_table import TableSpec, as_text, make_table
    from mingmoe_eval.pass_rules import rule_named
    from mingmoe_eval.run_store import load_run

    spec = TableSpec(
        layout=layout,
        form=form.value,
        published=_listed(published),
        doubt=doubt.value,
        decimals=decimals,
        baseline=baseline - 1 if baseline else None,
        allow=kinds_named(allow or ()),
        allow_marked=allow_marked,
        pass_rules=tuple(map(rule_named, pass_rule or ())),
        tasks=_listed(tasks),
        columns=_listed(columns),
        rows=_listed(rows),
        labels=read_labels(labels or ()),
        costs=_listed(cost) or (("money",) if price else ()),
        price=price,
        caption=caption,
        label=label,
        width=width,
    )
    text = as_text(make_table([load_run(run) for run in runs], spec), format_.value)
    if output is None:
        print(text, end="")
    else:
        write_page(output, text)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))
