"""How a router spreads tokens over its experts: pure functions of counts.

Shapes: N experts; `chosen` [N] counts how often each was among the K of a token, so that it sums
to K times the tokens. docs/routing.md says how to read each figure, and what not to conclude.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DEAD_SHARE = 0.1
"""An expert is dead below this part of the uniform load 1/N."""


def load(chosen: npt.ArrayLike) -> Array:
    """Each expert's share of all choices; they sum to one, and 1/N each is uniform."""
    counts = np.asarray(chosen, np.float64)
    total = counts.sum()
    return counts / total if total else np.zeros_like(counts)


def variation(chosen: npt.ArrayLike) -> float:
    """Coefficient of variation of the load, std / mean: 0 uniform, sqrt(N - 1) one expert alone.

    After Shazeer et al. (arXiv 1701.06538), who square it for a loss.
    """
    shares = load(chosen)
    return float(shares.std() / shares.mean()) if shares.any() else 0.0


def largest_violation(chosen: npt.ArrayLike) -> float:
    """MaxVio, the largest load over the uniform one, less 1 (arXiv 2408.15664): 0 uniform."""
    shares = load(chosen)
    return float(shares.max() * len(shares) - 1) if shares.any() else 0.0


def dead_experts(chosen: npt.ArrayLike) -> list[int]:
    """The experts with less than a tenth of the uniform load, counted from 0."""
    shares = load(chosen)
    return [int(index) for index in np.flatnonzero(shares < DEAD_SHARE / len(shares))]


def balance(chosen: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """N sum f_i p_i, the balance loss of Switch (arXiv 2101.03961): 1 when both are uniform.

    probability [N]: the mean, or the sum over tokens, of the softmax over all logits.
    """
    shares = load(chosen)
    return float(len(shares) * shares @ load(probability))


def entropy(shares: npt.ArrayLike) -> float:
    """-sum p log2 p of shares that sum to one, in bits."""
    p = np.asarray(shares, np.float64)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def relative_entropy(shares: npt.ArrayLike) -> float:
    """Entropy as a part of its largest value log N: 0 certain, 1 uniform."""
    count = np.size(np.asarray(shares))
    return entropy(shares) / float(np.log2(count)) if count > 1 else 0.0


def information(chosen_by_task: npt.ArrayLike) -> float:
    """I(task; expert) in bits of counts [tasks, N]: H(f) - sum over tasks of pi_t H(f_t).

    pi_t is the task's share of all choices. Counts of finite texts give more than 0 even where
    tasks do not differ: see `shuffled_information`.
    """
    counts = np.asarray(chosen_by_task, np.float64)
    parts = load(counts.sum(1))
    within = sum(part * entropy(load(row)) for part, row in zip(parts, counts, strict=True))
    return max(0.0, entropy(load(counts.sum(0))) - float(within))


def shuffled_information(
    parts: Sequence[npt.ArrayLike], *, shuffles: int = 50, seed: int = 0
) -> float:
    """What `information` gives when docs are dealt to tasks at random: its own bias.

    parts: one a task, [parts of the task, N], each the counts of a part of its docs. Whole parts
    change task, because the tokens of one doc are no independent draws.
    """
    sizes = [len(np.asarray(part)) for part in parts]
    pooled = np.concatenate([np.asarray(part, np.float64) for part in parts])
    bounds = np.cumsum(sizes)[:-1]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(shuffles):
        dealt = np.split(pooled[rng.permutation(len(pooled))], bounds)
        values.append(information([part.sum(0) for part in dealt]))
    return float(np.mean(values))


def distance(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Jensen-Shannon distance of two loads: 0 equal, 1 without an expert in common.

    The square root of the divergence in bits, a metric (Endres and Schindelin 2003).
    """
    p, q = load(one), load(other)
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return float(np.sqrt(max(0.0, divergence)))


def together(joint: npt.ArrayLike) -> Array:
    """P(j chosen | i chosen), [N, N] with 1 on the diagonal, of co-selection counts [N, N].

    `joint` has each expert's own count on its diagonal; the row of a never-chosen one is 0.
    """
    counts = np.asarray(joint, np.float64)
    own = np.diag(counts)[:, None]
    return np.divide(counts, own, out=np.zeros_like(counts), where=own > 0)


def lift(joint: npt.ArrayLike, tokens: float) -> Array:
    """How much more often two experts meet than if chosen independently: P(i, j) / (P(i) P(j)).

    NaN on the diagonal and where one was never chosen. With K fixed, even choices without any
    preference give (K - 1) N / (K (N - 1)) and not 1: see `chance_lift`.
    """
    counts = np.asarray(joint, np.float64)
    own = np.diag(counts)
    expected = np.outer(own, own) / max(tokens, 1)
    found = np.divide(counts, expected, out=np.full_like(counts, np.nan), where=expected > 0)
    np.fill_diagonal(found, np.nan)
    return found


def chance_lift(experts: int, top_k: int) -> float:
    """The lift of any pair when K of N experts are drawn evenly."""
    return (top_k - 1) * experts / (top_k * (experts - 1)) if experts > 1 else float("nan")


def choice_overlap(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """The mean share of a token's K experts that two routings have in common; by chance K/N.

    Both [tokens, K], the same tokens. Of one layer of two checkpoints it is router saturation
    (OLMoE, arXiv 2409.02060); of two routers of one layer, their agreement.
    """
    first, second = np.asarray(one), np.asarray(other)
    shared = (first[:, :, None] == second[:, None, :]).any(-1)
    return float(shared.mean()) if shared.size else 0.0
