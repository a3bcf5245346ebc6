"""Why a run's number differs from a published one.

lists     which lists of questions a printed percentage can be a whole number of right answers of
explain   the run beside the published cell, read as the official scripts read: same or not, and why
output    the same as lines for a console, as Markdown and as JSON
"""

from mingmoe_eval.explanation import output
from mingmoe_eval.explanation.explain import Explanation, explain_run
from mingmoe_eval.explanation.lists import right_answers

__all__ = ["Explanation", "explain_run", "output", "right_answers"]
