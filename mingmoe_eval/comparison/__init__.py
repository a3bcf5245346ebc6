"""Two runs over the same docs: what changed, task by task, and how sure that is.

comparability   what must be equal, what may be overridden, which sample pairs with which
pairwise        `compare`, and the records that it gives
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

__all__ = [
    "KINDS",
    "SEED",
    "Comparison",
    "Difference",
    "Flip",
    "GroupComparison",
    "TaskComparison",
    "compare",
    "kinds_named",
]
