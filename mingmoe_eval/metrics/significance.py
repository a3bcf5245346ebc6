"""What a difference of two models proves: marks, Holm's procedure over tasks, what docs can show.

Holm: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
Statistics 6 (1979), 65-70. statsmodels has it too (`multipletests`, which a test holds ours to);
its import alone takes a second, and each call sweeps the whole heap for garbage. What docs can show
rests on the normal approximation, with the standard error that the comparison itself found.
"""

import math
from collections.abc import Sequence

from mingmoe_eval.metrics.uncertainty import normal_quantile

_BOUNDS = (0.05, 0.01, 0.001)

LEGEND = ", ".join(f"{'*' * (n + 1)} p < {bound}" for n, bound in enumerate(_BOUNDS))
"""What the marks mean, for a caption."""

POWER = 0.8
"""Of all figures on what docs can show."""


def significance_marks(p_value: float) -> str:
    """One star for each bound that the p-value is below; none for NaN."""
    return "*" * sum(p_value < bound for bound in _BOUNDS)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those below alpha are rejected, with at most alpha of any false one.

    The k-th smallest of m is multiplied by m - k + 1, and is never smaller than the one before.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(_ascending(p_values)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm tests each hypothesis, in the order given.

    The k-th smallest p-value meets alpha / (m - k + 1) as long as all before it were rejected;
    from the first that is not, all the rest are left with that one's level.
    """
    levels = [0.0] * len(p_values)
    level, rejecting = alpha, True
    for rank, index in enumerate(_ascending(p_values)):
        if rejecting:
            level = alpha / (len(p_values) - rank)
            rejecting = p_values[index] <= level
        levels[index] = level
    return levels


POOLED_SHARE = 0.2
"""Of alpha: what the test of all tasks together has to itself (benchmarks/regression_gate.md)."""


def with_pooled(
    pooled: float, p_values: Sequence[float], *, share: float = POOLED_SHARE
) -> tuple[float, list[float]]:
    """Adjusted p-values of a test of all tasks together, and of each task, inside one alpha.

    The pooled test is made at share * alpha and Holm's procedure over the tasks at the rest; what
    rejects hands its part of alpha on, so that tasks are tested at the whole of it where the pooled
    test rejects, and the pooled one where all tasks do. At most alpha of any false rejection,
    whatever depends on what. Source: F. Bretz, W. Maurer, W. Brannath, M. Posch, A graphical
    approach to sequentially rejective multiple test procedures, Statistics in Medicine 28 (2009).

    Returns:
        The pooled p-value and those of the tasks; reject what is at most alpha.
    """
    if len(p_values) <= 1:  # one task is all tasks: there is nothing to share
        return (p_values[0] if p_values else pooled), list(p_values)
    holm = holm_adjusted(p_values)
    rest = 1 - share
    # A share of 1 leaves the tasks what the pooled test hands on, and nothing before.
    each = [min(p / rest if rest else 1.0, max(p, pooled / share)) for p in holm]
    whole = min(pooled / share, max(pooled, max(holm) / rest if rest else 1.0))
    return min(1.0, whole), [min(1.0, p) for p in each]


def false_discovery_adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's: of those at most q, a share of q is expected to be false.

    Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, Journal of the Royal
    Statistical Society B 57 (1995). SciPy has it too (`false_discovery_control`).
    """
    adjusted = [1.0] * len(p_values)
    smallest = 1.0
    for rank, index in reversed(list(enumerate(_ascending(p_values), 1))):
        smallest = min(smallest, p_values[index] * len(p_values) / rank)
        adjusted[index] = smallest
    return adjusted


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


def _ascending(p_values: Sequence[float]) -> list[int]:
    """The places of the p-values, the smallest first."""
    return sorted(range(len(p_values)), key=p_values.__getitem__)
