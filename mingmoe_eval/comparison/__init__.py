"""Two runs over the same docs: what changed, task by task, and how sure that is.

comparability   what must be equal, what may be overridden, which sample pairs with which
pairwise        `compare`, and the records that it gives
verdict         what they prove: better, worse, equivalent, undecided, of each task and of all
output          the same as JSON, Markdown and rows
"""

from mingmoe_eval.comparison.comparability import KINDS, Difference, kinds_named
from mingmoe_eval.comparison.pairwise import (
    SEED,
    Comparison,
    Flip,
    GroupComparison,
    TaskComparison,
    compare,
)
from mingmoe_eval.comparison.verdict import (
    Judgement,
    Outcome,
    OverallVerdict,
    TaskVerdict,
    Together,
    decide,
    overall_verdict,
)

__all__ = [
    "KINDS",
    "SEED",
    "Comparison",
    "Difference",
    "Flip",
    "GroupComparison",
    "Judgement",
    "Outcome",
    "OverallVerdict",
    "TaskComparison",
    "TaskVerdict",
    "Together",
    "compare",
    "decide",
    "kinds_named",
    "overall_verdict",
]
