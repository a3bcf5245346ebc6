"""How numbers are shown, each in its unit, and which of several is the best."""

import math
from collections.abc import Iterable

from mingmoe_eval.records import Better, MetricValue, Unit

LESS_IS_BETTER = "↓"
"""Stands beside the name of such a number."""


def scaled(value: float, unit: Unit) -> float:
    """A share in hundredths, anything else as it is."""
    return 100 * value if unit == "share" else value


def shown(value: float, unit: Unit, *, decimals: int = 1, signed: bool = False) -> str:
    """`61.3` for a share, without its sign; `8.04` for anything else, to four digits that matter.

    An unknown unit is never shown in %: a perplexity of 8 is not 800.0.
    """
    kind = f".{decimals}f" if unit == "share" else f".{max(decimals + 3, 4)}g"
    return f"{scaled(value, unit):{'+' if signed else ''}{kind}}"


def interval_shown(
    interval: tuple[float, float] | None, unit: Unit, *, decimals: int = 1, signed: bool = False
) -> str:
    """`[57.0, 65.4]`; nothing where there is no interval."""
    if interval is None:
        return ""
    low, high = (shown(end, unit, decimals=decimals, signed=signed) for end in interval)
    return f"[{low}, {high}]"


def with_interval(value: MetricValue) -> str:
    """`61.3 [57.0, 65.4]`, or that nothing was scored."""
    if value.n == 0:
        return "no doc scored"
    text = shown(value.value, value.unit)
    return f"{text} {interval_shown(value.interval, value.unit)}".rstrip()


def common_direction(values: Iterable[MetricValue | None]) -> Better:
    """The direction in which all of them are better; unknown where they differ in it or in unit."""
    kinds = {(value.unit, value.better) for value in values if value is not None}
    return kinds.pop()[1] if len(kinds) == 1 else "unknown"


def best_first(values: Iterable[float], better: Better) -> list[float]:
    """The distinct values, the best first; none where no direction is known to be better."""
    if better not in ("higher", "lower"):
        return []
    known = {value for value in values if not math.isnan(value)}
    return sorted(known, reverse=better == "higher")


def is_gain(difference: float, better: Better) -> bool | None:
    """Whether a difference is one for the better; None for none, or where nobody can tell."""
    if not difference or better not in ("higher", "lower"):
        return None
    return (difference > 0) == (better == "higher")
