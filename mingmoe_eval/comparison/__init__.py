"""Two runs over the same docs: what changed, task by task, and how sure that is.

comparability   what must be equal, what may be overridden, which sample pairs with which
corpus          which tasks have a corpus metric, made again from samples
pairwise        `compare`
findings        the records that it gives
output          the same as JSON, Markdown and rows
"""

from mingmoe_eval.comparison.comparability import KINDS, Difference, kinds_named
from mingmoe_eval.comparison.findings import Comparison, Flip, GroupComparison, TaskComparison
from mingmoe_eval.comparison.pairwise import SEED, compare

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
