"""Holm's step-down procedure: many tasks, one error rate.

Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
Statistics 6 (1979), 65-70. statsmodels has it too (`multipletests`, which a test holds ours to);
its import alone takes a second, and each call sweeps the whole heap for garbage.
"""

from collections.abc import Sequence


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


def _ascending(p_values: Sequence[float]) -> list[int]:
    """The places of the p-values, the smallest first."""
    return sorted(range(len(p_values)), key=p_values.__getitem__)
