"""Questions cut into shards along their shared prefixes, without any model.

What begins alike is computed once where it is together (`engine.prefix_plan`). So questions are
sorted by their tokens, a shard is an interval of that order, and it ends where neighbours have
least in common: between two questions rather than between the options of one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mingmoe_eval.engine.prefix_plan import in_prefix_order
from mingmoe_eval.engine.tokenisation import Tokens

# A shard is this part of the work that is left, over all workers: large ones first, since each
# computes its shared prefixes anew, small ones last, so that all workers end together.
_SHARDS_LEFT_A_WORKER = 2
# Fewer tokens do not fill a pass.
_LEAST_TOKENS = 2048
# What a worker holds, and what a message carries, is bounded.
_MOST_QUESTIONS = 2048
# A shard may be so much smaller or larger than meant, for a better place to end.
_SLACK = 0.5


def cut_into_shards(
    sequences: Sequence[Tokens],
    workers: int,
    *,
    new_tokens: Sequence[int] | None = None,
    least_tokens: int = _LEAST_TOKENS,
) -> list[list[int]]:
    """Indices of the sequences, each once, in shards that follow one another in sorted order.

    Args:
        sequences: token ids of the questions.
        workers: how many share them.
        new_tokens: how many tokens each may generate.
        least_tokens: a shard costs about so much, or it is what was left.
    """
    order, shared = in_prefix_order(sequences)
    costs = np.array([len(sequences[index]) for index in order], np.int64) - shared
    if new_tokens is not None:
        costs += np.array([new_tokens[index] for index in order], np.int64)
    before = np.concatenate([[0], np.cumsum(costs)])
    # An end at the very end shares nothing with what follows.
    shared_at = np.concatenate([shared, [-1]])
    shards, low = [], 0
    while low < len(order):
        left = int(before[-1] - before[low])
        target = max(left / (_SHARDS_LEFT_A_WORKER * workers), least_tokens)
        high = _end(before, shared_at, low, target)
        shards.append(order[low:high])
        low = high
    return shards


def _end(
    before: npt.NDArray[np.int64], shared_at: npt.NDArray[np.int64], low: int, target: float
) -> int:
    """Near the wanted cost, where neighbours share least; of equal places the nearest."""
    last = min(len(before) - 1, low + _MOST_QUESTIONS)
    bounds = before[low] + target * np.array([1 - _SLACK, 1, 1 + _SLACK])
    first, meant, most = np.clip(np.searchsorted(before, bounds), low + 1, last).tolist()
    places = np.arange(first, most + 1)
    best = np.lexsort((np.abs(places - meant), shared_at[places]))[0]
    return int(places[best])
