"""Losses that keep routers balanced and their logits small, one value a router.

For one linear layer with N experts, K chosen for each of T counted tokens, logits g:

    f_i = how often expert i was chosen / (T K)        sums to 1
    P_i = mean over tokens of softmax(g)_i             sums to 1
    balance = N sum_i f_i P_i                          1 for a uniform router, N at the worst
    z = mean over tokens of logsumexp(g)^2

Balance is the load-balance loss of Switch Transformers (arXiv 2101.03961, equations 4 to 6), with
top-K counts as in Mixtral; transformers' Mixtral counts without dividing by K, so that its loss is
K times ours. It is taken for each linear layer apart and then averaged, not pooled over layers:
pooled, one layer's imbalance could hide another's. z is that of ST-MoE (arXiv 2202.08906,
equation 5). f has no gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RoutingSummary:
    """The routing of some tokens through the G routers of one module.

    chosen [G, N] counts, mean_probability [G, N], z [G]; tokens is a scalar.
    """

    chosen: Tensor
    mean_probability: Tensor
    z: Tensor
    tokens: Tensor


def summarise(logits: Tensor, index: Tensor, counted: Tensor) -> RoutingSummary:
    """Sums up a routing: logits [T, G, N], chosen indices [T, G, K], counted [T] true or false.

    No counted token at all gives zeros.
    """
    weight = counted.to(logits.dtype)
    tokens = weight.sum()
    divisor = tokens.clamp(min=1)
    picks = torch.zeros_like(logits).scatter(-1, index, 1.0)
    return RoutingSummary(
        chosen=torch.einsum("t,tgn->gn", weight, picks).detach(),
        mean_probability=torch.einsum("t,tgn->gn", weight, logits.softmax(-1)) / divisor,
        z=torch.einsum("t,tg->g", weight, logits.logsumexp(-1) ** 2) / divisor,
        tokens=tokens.detach(),
    )


def balance_loss(summary: RoutingSummary) -> Tensor:
    """N sum_i f_i P_i of each router, [G]; 0 where nothing was counted."""
    picks = summary.chosen.sum(-1, keepdim=True).clamp(min=1)
    share = summary.chosen / picks
    return summary.chosen.shape[-1] * (share * summary.mean_probability).sum(-1)
