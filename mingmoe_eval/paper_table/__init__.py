"""Runs, and numbers that others published, as the table of a paper.

layouts   which columns a table has, and each column's number: a run's, or a published one
table     rows, ranks, footnotes and caption put together
markup    the same as Markdown, LaTeX, CSV and HTML
"""

from mingmoe_eval.paper_table.layouts import LAYOUTS, Layout
from mingmoe_eval.paper_table.markup import FORMATS, as_text
from mingmoe_eval.paper_table.table import PaperTable, TableSpec, make_table

__all__ = ["FORMATS", "LAYOUTS", "Layout", "PaperTable", "TableSpec", "as_text", "make_table"]
