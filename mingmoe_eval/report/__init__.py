"""One self-contained page about one to eight runs; it opens from disk with the network off."""

from mingmoe_eval.report.page import render_report

__all__ = ["render_report"]
