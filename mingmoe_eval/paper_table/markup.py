"""A table as Markdown, LaTeX, CSV and HTML; no name in it can act as markup or as a formula."""

import csv
import html
import io
import math
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
    """Booktabs tables in footnote size; needs the package booktabs, and textcomp's symbols (T1).

    Nothing is shrunk: what is wider than `table.width` is split into several with the models
    repeated, and what is longer than a page into several floats of one number. Marks and letters of
    notes are raised at full size, for a superscript would be below 8 points.
    """
    blocks = list(_column_blocks(table))
    pieces = [
        _piece(table, columns, rows)
        for columns in blocks
        for rows in _row_chunks(_rows_with_a_number(table, columns))
    ]
    caption = table.caption
    if len(blocks) > 1:
        caption += " Each part leaves out the rows without a number in it."
    if table.footnotes:
        pieces.append(_notes_piece(table))
    lines = [
        r"% needs \usepackage[T1]{fontenc} and booktabs; for names in Chinese, compile with xelatex"
        " and ctex"
    ]
    for number, bodies in enumerate(_packed_pieces(pieces, _lines_of(caption, 5.0, table.width))):
        label = [rf"\label{{{_reference(table.label)}}}"] if table.label and not number else []
        first = [rf"\caption{{{_latex_text(caption)}}}"]
        lines += [
            r"\begin{table*}[tp]",
            *([r"\addtocounter{table}{-1}", r"\caption{(continued)}"] if number else first),
            *label,
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            "\n\\par\\medskip\n".join(bodies),
            r"\end{table*}",
        ]
    return "\n".join([*lines, ""])


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


_MOST_LINES = 40  # of one tabular
_PAGE_LINES = 50  # of 8 points on a page of LaTeX's article, with some to spare
_COLUMN_GAP = 6.0  # points: \tabcolsep on both sides
_WIDEST_NAME = 0.34  # of the text's width; longer names of models are broken
_SIDEWAYS = 10  # letters of a heading before it is broken into lines


def _width(text: str) -> float:
    """About how wide a text is at 8 points, in points, rather too wide than too narrow."""
    return sum(
        8.2
        if ord(c) > 0x2E80
        else 6.6
        if c.isupper() or c in "mw%±–"
        else 2.6
        if c in "., '"
        else 4.4
        for c in text
    )


def _name_width(table: PaperTable) -> float:
    """Of the column of models; as much as the longest needs, up to its share."""
    widest = max(_width(f"{row.label}{_letters(row.notes)}") for row in table.rows)
    return min(max(widest, _width("Model")), _WIDEST_NAME * table.width)


def _column_blocks(table: PaperTable) -> Iterator[list[int]]:
    """The columns, cut where the next would not fit beside the models any more."""
    room = table.width - _name_width(table) - _COLUMN_GAP
    block: list[int] = []
    left = room
    for number, column in enumerate(table.columns):
        cells = [row.cells[number] for row in table.rows]
        texts = [*_heading_lines(column.heading), *(_plain_cell(c, table.doubt) for c in cells)]
        wide = max(map(_width, texts)) + _COLUMN_GAP
        if block and wide > left:
            yield block
            block, left = [], room
        block.append(number)
        left -= wide
    if block:
        yield block


def _rows_with_a_number(table: PaperTable, columns: Sequence[int]) -> list[Row]:
    """Of a part of the table: a row of dashes alone would only lengthen it."""
    return [row for row in table.rows if any(row.cells[n].cell.amount is not None for n in columns)]


def _row_chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _MOST_LINES):
        yield rows[start : start + _MOST_LINES]


def _packed_pieces(pieces: Sequence[tuple[int, str]], caption: int) -> Iterator[list[str]]:
    """The pieces of each float: as many as a page holds, the caption above the first."""
    bodies: list[str] = []
    lines = caption
    for height, body in pieces:
        if bodies and lines + height > _PAGE_LINES:
            yield bodies
            bodies, lines = [], 1
        bodies.append(body)
        lines += height
    yield bodies


def _lines_of(text: str, letter: float, width: float) -> int:
    """About how many lines a text takes, its letters so wide."""
    return math.ceil(1.3 * len(text) * letter / width)


def _notes_piece(table: PaperTable) -> tuple[int, str]:
    notes = [f"{_raised(_letter(n))} {_latex_text(text)}" for n, text in enumerate(table.footnotes)]
    lines = sum(_lines_of(text, 4.2, table.width) for text in table.footnotes)
    return lines + 1, "\\raggedright " + "\\\\\n".join(notes) + r"\par"


def _piece(table: PaperTable, numbers: Sequence[int], rows: Sequence[Row]) -> tuple[int, str]:
    """Some columns of some rows as a tabular, with how many lines it takes."""
    columns = [table.columns[number] for number in numbers]
    room = _name_width(table)
    body = [_latex_row(row, [row.cells[n] for n in numbers], table.doubt, room) for row in rows]
    first_cited = next((n for n, row in enumerate(rows) if row.cited), 0)
    if first_cited > 0:
        body.insert(first_cited, r"\midrule")
    heads = [_latex_heading(column.heading) for column in columns]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *_latex_sections(columns),
        " & ".join(["Model", *heads]) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    tall = max(len(_heading_lines(column.heading)) for column in columns)
    broken = sum(_width(f"{row.label}{_letters(row.notes)}") > room for row in rows)
    return len(rows) + broken + tall + 2, "\n".join(lines)


def _heading_lines(heading: str) -> list[str]:
    """A long heading in lines of its words."""
    lines: list[str] = []
    for word in _one_line(heading).split(" "):
        if lines and len(f"{lines[-1]} {word}") <= _SIDEWAYS:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _latex_heading(heading: str) -> str:
    lines = [_latex_text(line) for line in _heading_lines(heading)]
    return lines[0] if len(lines) == 1 else rf"\shortstack[r]{{{(chr(92) * 2).join(lines)}}}"


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


def _latex_row(row: Row, cells: Sequence[TableCell], doubt: Doubt, room: float) -> str:
    label, notes = _latex_text(row.label), _latex_notes(row.notes)
    if _width(f"{row.label}{_letters(row.notes)}") > room:
        # A name of one word may break after its signs; the box keeps it in its column.
        broken = re.sub(r"([-/.]|\\_)", r"\1\\allowbreak{}", label)
        label, notes = rf"\parbox[t]{{{room:.0f}pt}}{{\raggedright {broken}{notes}\strut}}", ""
    label += notes
    # After the row before, "[" or "*" would be taken for an argument of its line end.
    label = f"{{}}{label}" if label.startswith(("[", "*")) else label
    return " & ".join([label, *(_latex_cell(cell, doubt) for cell in cells)]) + r" \\"


def _latex_notes(notes: Sequence[int]) -> str:
    return _raised(_letters(notes)) if notes else ""


def _raised(text: str) -> str:
    return rf"\,\raisebox{{0.5ex}}{{{text}}}"


def _latex_cell(cell: TableCell, doubt: Doubt) -> str:
    number = _latex_text(_number(cell))
    number = {1: rf"\textbf{{{number}}}", 2: rf"\underline{{{number}}}"}.get(cell.rank, number)
    after = _doubt(cell, doubt).replace("±", r"$\pm$")
    return number + cell.cell.stars + after + _latex_notes(cell.notes)


def _plain_cell(cell: TableCell, doubt: Doubt) -> str:
    return _number(cell) + cell.cell.stars + _doubt(cell, doubt) + _letters(cell.notes)


def _reference(label: str) -> str:
    """A name for references: no character that LaTeX obeys."""
    return re.sub(r"[^A-Za-z0-9:._-]", "-", label)


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
