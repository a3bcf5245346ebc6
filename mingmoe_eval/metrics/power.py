"""What a paired comparison can see: the smallest true difference, and how many docs it would take.

Both rest on the normal approximation, with the standard error that the comparison itself found.
"""

import math

from mingmoe_eval.metrics.paired_tests import normal_quantile

POWER = 0.8


def minimum_detectable(standard_error: float, *, alpha: float, power: float = POWER) -> float:
    """The smallest true difference that a one-sided test at `alpha` finds with this power.

    (z_{1 - alpha} + z_{power}) * SE. Source: E. Miller, Adding Error Bars to Evals (2024),
    arXiv:2411.00640, section 5.
    """
    return (normal_quantile(1 - alpha) + normal_quantile(power)) * standard_error


def docs_to_settle(
    standard_error: float,
    docs: int,
    *,
    margin: float,
    alpha: float,
    alpha_left: float,
    power: float = POWER,
) -> int:
    """How many docs of this kind would decide a task, with this power, either way.

    So many that a true drop of `margin` is found at `alpha_left`, the level that Holm leaves, and
    that no difference at all is found equivalent: its 1 - 2 alpha interval inside the margin on
    both sides, for which (1 + power) / 2 takes the place of the power.
    """
    drop = minimum_detectable(standard_error, alpha=alpha_left, power=power)
    nothing = minimum_detectable(standard_error, alpha=alpha, power=(1 + power) / 2)
    return math.ceil(docs * (max(drop, nothing) / margin) ** 2)
