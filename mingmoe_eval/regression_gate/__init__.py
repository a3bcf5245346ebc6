"""The regression gate: may this candidate replace the baseline?

Whether a task is equivalent, regressed, improved or undecided, and whether all are together,
`comparison.verdict` says. Any regressed task fails the gate, and so does a loss over all docs; so
do missing tasks and metrics, an incomplete candidate, and samples gone bad (`signals`).
"""

from mingmoe_eval.comparison.verdict import Outcome, TaskVerdict, decide
from mingmoe_eval.regression_gate.judgement import (
    SUSPICIOUS_GAIN,
    TierVerdict,
    Verdict,
    judge,
    judge_by,
)
from mingmoe_eval.regression_gate.policy import Policy, first_policy, read_policy
from mingmoe_eval.regression_gate.signals import Finding, Tolerances

__all__ = [
    "SUSPICIOUS_GAIN",
    "Finding",
    "Outcome",
    "Policy",
    "TaskVerdict",
    "TierVerdict",
    "Tolerances",
    "Verdict",
    "decide",
    "first_policy",
    "judge",
    "judge_by",
    "read_policy",
]
