"""A table as Markdown, LaTeX, CSV and HTML; no name in it can act as markup or as a formula."""

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from mingmoe_eval.paper_table.layouts import Cell, Column
from mingmoe_eval.paper_table.table import Z_95, Doubt, PaperTable, Row, TableCell

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def as_text(table: PaperTable, markup: str) -> str:
    """The table in one of FORMATS, with a line end at its end."""
    return FORMATS[markup](table)


def markdown(table: PaperTable) -> str:
    """A table of GitHub's Markdown, with caption above and notes below."""
    headings = ["Model", *(_full_heading(column, _markdown_text) for column in table.columns)]
    lines = [
        _markdown_text(table.caption),
        "",
        _piped(headings),
        _piped(["---", *("---:" for _ in table.columns)]),
    ]
    for row in table.rows:
        label = _markdown_text(row.label) + _markdown_notes(row.notes)
        lines.append(_piped([label, *(_markdown_cell(c, table.doubt) for c in row.cells)]))
    if table.footnotes:
        lines.append("")
    for number, text in enumerate(table.footnotes):
        lines.append(f"<sup>{_letter(number)}</sup> {_markdown_text(text)}  ")
    return "\n".join(lines) + "\n"


def latex(table: PaperTable) -> str:
    """A booktabs table; needs the packages booktabs and graphicx, and textcomp's symbols (T1)."""
    rows = [_latex_row(row, table.doubt) for row in table.rows]
    first_cited = next((n for n, row in enumerate(table.rows) if row.cited), 0)
    if first_cited > 0:
        rows.insert(first_cited, r"\midrule")
    notes = [
        rf"\textsuperscript{{{_letter(number)}}} {_latex_text(text)}\\"
        for number, text in enumerate(table.footnotes)
    ]
    return "\n".join(
        [
            r"% needs \usepackage[T1]{fontenc}, booktabs and graphicx; for names in Chinese,"
            " compile with xelatex and ctex",
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{_latex_text(table.caption)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            *_latex_sections(table.columns),
            " & ".join(["Model", *(_latex_text(c.heading) for c in table.columns)]) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            *([r"\par\smallskip\raggedright\footnotesize", *notes] if notes else []),
            r"\end{table*}",
            "",
        ]
    )


def csv_text(table: PaperTable) -> str:
    """Numbers at full precision, each with what the table's doubt asks for, and the notes."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    doubts = {"none": [], "interval": ["low", "high"], "stderr": ["stderr"]}[table.doubt]
    headings = []
    for column in table.columns:
        heading = _full_heading(column, str)
        headings += [heading, *(f"{heading} {doubt}" for doubt in doubts)]
    writer.writerow(map(_csv_text, ["model", *headings, "notes"]))
    for row in table.rows:
        numbers = [n for cell in row.cells for n in _csv_numbers(cell, table.doubt)]
        writer.writerow([_csv_text(row.label), *numbers, _csv_text(_csv_notes(table, row))])
    return file.getvalue()


def html_text(table: PaperTable) -> str:
    """A `<table>` with its notes; everything from outside is escaped."""
    lines = ["<table>", f"<caption>{html.escape(table.caption)}</caption>", "<thead><tr>"]
    lines.append('<th scope="col">Model</th>')
    for column in table.columns:
        lines.append(f'<th scope="col">{_full_heading(column, html.escape)}</th>')
    lines.append("</tr></thead>\n<tbody>")
    for row in table.rows:
        label = html.escape(row.label) + _html_notes(row.notes)
        cells = "".join(f"<td>{_html_cell(cell, table.doubt)}</td>" for cell in row.cells)
        lines.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    lines.append("</tbody>\n</table>")
    for number, text in enumerate(table.footnotes):
        lines.append(f"<p><sup>{_letter(number)}</sup> {html.escape(text)}</p>")
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[PaperTable], str]] = MappingProxyType(
    {"markdown": markdown, "latex": latex, "csv": csv_text, "html": html_text}
)


def _number(cell: TableCell) -> str:
    return "–" if cell.cell.amount is None else _digits(cell.cell.amount, cell.cell)


def _digits(amount: float, cell: Cell) -> str:
    """A share with its decimals, anything else to four digits that matter."""
    return f"{amount:.{cell.decimals}f}" if cell.unit == "share" else f"{amount:.4g}"


def _doubt(cell: TableCell, doubt: Doubt) -> str:
    shown = cell.cell
    if shown.interval is None or doubt == "none":
        return ""
    low, high = shown.interval
    if doubt == "interval":
        return f" [{_digits(low, shown)}, {_digits(high, shown)}]"
    return f" ± {_digits((high - low) / (2 * Z_95), shown)}"


def _letter(number: int) -> str:
    """From a to z, then aa, ab and so on."""
    head, tail = divmod(number, 26)
    return (_letter(head - 1) if head else "") + chr(ord("a") + tail)


def _letters(notes: Sequence[int]) -> str:
    return ",".join(map(_letter, notes))


def _full_heading(column: Column, escape: Callable[[str], str]) -> str:
    section = f"{column.section}: " if column.section else ""
    return escape(section + column.heading)


# --- Markdown ---


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_text(text: str) -> str:
    escaped = re.sub(r"([\\`*_{}\[\]<>|~#&$])", r"\\\1", _one_line(text))
    return re.sub(r"(https?|www)([:.])", r"\1\\\2", escaped)


def _markdown_notes(notes: Sequence[int]) -> str:
    return f"<sup>{_letters(notes)}</sup>" if notes else ""


def _markdown_cell(cell: TableCell, doubt: Doubt) -> str:
    number = _number(cell)
    number = {1: f"**{number}**", 2: f"<u>{number}</u>"}.get(cell.rank, number)
    stars = cell.cell.stars.replace("*", r"\*")
    return number + stars + _doubt(cell, doubt) + _markdown_notes(cell.notes)


# --- LaTeX ---


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _latex_sections(columns: Sequence[Column]) -> Iterator[str]:
    """The line of section headings with the rules under them; none where no column has one."""
    if not any(column.section for column in columns):
        return
    heads, rules, at = [""], [], 2
    for section, members in groupby(columns, key=lambda column: column.section):
        width = len(list(members))
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{_latex_text(section)}}}")
        if section:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    yield " & ".join(heads) + r" \\"
    yield "".join(rules)


def _latex_row(row: Row, doubt: Doubt) -> str:
    label = _latex_text(row.label) + _latex_notes(row.notes)
    # After the row before, "[" or "*" would be taken for an argument of its line end.
    label = f"{{}}{label}" if label.startswith(("[", "*")) else label
    return " & ".join([label, *(_latex_cell(cell, doubt) for cell in row.cells)]) + r" \\"


def _latex_notes(notes: Sequence[int]) -> str:
    return rf"\textsuperscript{{{_letters(notes)}}}" if notes else ""


def _latex_cell(cell: TableCell, doubt: Doubt) -> str:
    number = _latex_text(_number(cell))
    number = {1: rf"\textbf{{{number}}}", 2: rf"\underline{{{number}}}"}.get(cell.rank, number)
    stars = rf"\textsuperscript{{{cell.cell.stars}}}" if cell.cell.stars else ""
    after = _doubt(cell, doubt).replace("±", r"$\pm$")
    return number + stars + after + _latex_notes(cell.notes)


# --- CSV ---


def _csv_text(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    line = _one_line(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def _csv_numbers(cell: TableCell, doubt: Doubt) -> list[str]:
    amount, interval = cell.cell.amount, cell.cell.interval
    numbers = ["" if amount is None else f"{amount:.6g}"]
    if doubt == "interval":
        numbers += [f"{bound:.6g}" for bound in interval] if interval else ["", ""]
    if doubt == "stderr":
        numbers.append(f"{(interval[1] - interval[0]) / (2 * Z_95):.6g}" if interval else "")
    return numbers


def _csv_notes(table: PaperTable, row: Row) -> str:
    notes = [table.footnotes[number] for number in row.notes]
    for column, cell in zip(table.columns, row.cells, strict=True):
        heading = _full_heading(column, str)
        notes += [f"{heading}: {table.footnotes[number]}" for number in cell.notes]
        if cell.cell.stars:
            notes.append(f"{heading}: {cell.cell.stars}")
    return "; ".join(notes)


# --- HTML ---


def _html_notes(notes: Sequence[int]) -> str:
    return f"<sup>{_letters(notes)}</sup>" if notes else ""


def _html_cell(cell: TableCell, doubt: Doubt) -> str:
    number = _number(cell)
    number = {1: f"<strong>{number}</strong>", 2: f"<u>{number}</u>"}.get(cell.rank, number)
    return number + cell.cell.stars + _doubt(cell, doubt) + _html_notes(cell.notes)


def _one_line(text: str) -> str:
    """No line ends and no control characters: a cell is one line in every markup."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
