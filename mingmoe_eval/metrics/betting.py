"""Evidence that may be looked at after every question: bets against a mean, and what they win.

Somebody who doubts that a mean is m or more bets, before each draw, a fixed share of his capital on
a draw below m. If the mean is m or more, his capital is no better than it was on average, and
at no time has it ever grown beyond 1 / alpha with a chance of more than alpha (Ville's inequality):
so he may look as often as he likes and stop when he wants. Which share is best depends on what is
true, so that the capital is spread over several; a mixture of such bets is one too.

Sources: I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting,
Journal of the Royal Statistical Society B 86 (2024), arXiv:2010.09686, section 4; H. Robbins,
Statistical methods related to the law of the iterated logarithm, Annals of Mathematical Statistics
41 (1970), for the mixture; J. Ville, Étude critique de la notion de collectif (1939).
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SHARES = np.geomspace(0.02, 0.9, 12)
"""Of what may be lost in one draw, staked on it. Best is (true mean - m) / variance: a fifth of the
docs flipping, 0.1 for two points and 0.5 for ten."""

_STEPS = 4001  # of the interval's ends: a twentieth of a point


@dataclass(slots=True)
class Evidence:
    """What independent draws so far say of the mean of differences between -1 and 1.

    They are counted by their value, since their order does not matter to bets of fixed shares.
    """

    draws: Counter[float] = field(default_factory=Counter)

    def add(self, differences: Iterable[float]) -> None:
        """Take note of further draws."""
        self.draws.update(round(difference, 9) for difference in differences)

    @property
    def mean(self) -> float:
        """Of the draws so far; 0 before the first."""
        total = math.fsum(value * times for value, times in self.draws.items())
        return total / max(self.draws.total(), 1)

    def against(self, m: float, direction: Literal["above", "below"]) -> float:
        """The capital of bets that the mean is above, or below, m, begun with 1.

        If the mean is not, it ever reaches 1 / alpha with a chance of at most alpha.
        """
        return float(np.exp(self._log_capital(np.array([m]), direction))[0])

    def interval(self, alpha: float) -> tuple[float, float]:
        """An interval that ever misses the mean with a chance of at most alpha on either side.

        All m against which neither bet has won 1 / alpha: the means that nothing speaks against.
        """
        if not self.draws:
            return -1.0, 1.0
        means = np.linspace(-1, 1, _STEPS)
        bound = math.log(1 / alpha)
        above = self._log_capital(means, "above") < bound
        below = self._log_capital(means, "below") < bound
        left = means[above & below]
        step = 2 / (_STEPS - 1)
        return max(-1.0, float(left[0]) - step), min(1.0, float(left[-1]) + step)

    def _log_capital(self, means: Floats, direction: Literal["above", "below"]) -> Floats:
        """[means]; log of the mean over shares of prod (1 + stake * (difference - m))."""
        sign = 1.0 if direction == "above" else -1.0
        # At m a draw cannot lose more than 1 + |m|: no stake loses everything.
        stakes = sign * _SHARES[:, None] / (1 + np.abs(means))
        logs = np.zeros((len(_SHARES), len(means)))
        for value, times in self.draws.items():
            logs += times * np.log1p(stakes * (value - means))
        largest = logs.max(axis=0)
        log_capital: Floats = largest + np.log(np.exp(logs - largest).mean(axis=0))
        return log_capital


Settled = Literal["regressed", "improved", "equivalent", ""]


def settled(evidence: Evidence, *, margin: float, alpha: float) -> Settled:
    """What the draws prove by now; "" as long as they prove nothing.

    Equivalent where bets against a loss, and against a gain, of the margin have both won;
    regressed where those against "no worse" have, improved where those against "no better" have.
    Without a true difference each of the last two ever happens with a chance of at most alpha, and
    so does a verdict of equivalent at a difference of the margin or more.
    """
    won = 1 / alpha
    if evidence.against(-margin, "above") >= won and evidence.against(margin, "below") >= won:
        return "equivalent"
    if evidence.against(0.0, "below") >= won:
        return "regressed"
    if evidence.against(0.0, "above") >= won:
        return "improved"
    return ""
