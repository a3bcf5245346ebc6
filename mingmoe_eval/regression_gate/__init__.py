"""The regression gate: may this candidate replace the baseline?

Each leaf task gets one verdict, in this order, so that the verdicts cannot overlap:

1. equivalent: the paired 1 - 2 alpha interval of the difference lies inside the margin;
2. regressed or improved: the one-sided p-value, Holm-adjusted over the leaf tasks, is below alpha;
3. undecided: too few docs to tell.

Which direction is the worse one, the task's main metric says; where nobody knows, the gate can only
find equivalent or nothing. The margin is a share: a metric that is none is never equivalent.

Any regressed task fails the gate; so do missing tasks and metrics, an incomplete candidate, and
samples gone bad (`signals`).
"""

from mingmoe_eval.regression_gate.judgement import (
    SUSPICIOUS_GAIN,
    Outcome,
    TaskVerdict,
    Verdict,
    decide,
    judge,
)
from mingmoe_eval.regression_gate.signals import Finding, Tolerances

__all__ = [
    "SUSPICIOUS_GAIN",
    "Finding",
    "Outcome",
    "TaskVerdict",
    "Tolerances",
    "Verdict",
    "decide",
    "judge",
]
