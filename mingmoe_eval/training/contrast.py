"""A contrastive loss that supervises routers through a memory of what each expert was sent.

After the public description of SparseDoctor (arXiv 2509.14269: a router supervised by contrastive
learning, with an expert memory queue). Its formulas are not public to us: what follows are our own
choices and no reproduction.

For each linear layer, each sequence b of the batch and each expert i, an anchor:

    m_bi = sum_t w_ti x_t / sum_t w_ti         the tokens x_t that the router sent to i, by weight
    q_bi = m_bi - mean_t x_t                   "router" anchors: what sets them apart
    q_bi = B_i A_i m_bi                        "output" anchors: the expert's mean output

over the counted tokens t, w being the mixture's weights (0 for experts not chosen). "output" needs
no output per token, because an expert is linear. x is detached: the gradient reaches the router's
weights w (and A, B for "output"), never the layers below. Keys k are anchors of earlier steps,
scaled to length 1 and detached, the newest `queue` sequences. With cos the cosine and t the
temperature:

    loss = mean over b, i of  log sum_{all keys k} exp(cos(q_bi, k) / t)
                            - log sum_{keys k of expert i} exp(cos(q_bi, k) / t)

so that what one expert is sent resembles what it was sent before and differs from what others were
sent. An anchor without a counted token, or without a key of its own and a key of another expert,
is left out; so are output anchors as long as B is zero, whose direction means nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mingmoe_eval.molora.layers import RoutedExperts
from mingmoe_eval.training.spec import Anchors

SHORTEST = 1e-6
"""Anchors shorter than this have no direction."""


@dataclass(frozen=True, slots=True, eq=False)
class AnchorBatch:
    """Unit vectors [B, G, N, d] and which of them stand for something [B, G, N]."""

    vectors: Tensor
    valid: Tensor


def sent_to_experts(
    x: Tensor, index: Tensor, weights: Tensor, counted: Tensor, num_experts: int
) -> tuple[Tensor, Tensor]:
    """The weighted mean m of the tokens that went to each expert, and their total weight.

    x [B, S, in], indices and weights [B*S, G, K], counted [B, S] -> [B, G, N, in], [B, G, N].
    """
    rows, length, _ = x.shape
    mix = weights.new_zeros(*weights.shape[:2], num_experts).scatter(-1, index, weights)
    mix = mix.view(rows, length, *mix.shape[1:]) * counted[..., None, None].to(mix.dtype)
    mass = mix.sum(1)
    total = torch.einsum("bsgn,bsd->bgnd", mix, x.detach().to(mix.dtype))
    return total / mass.clamp(min=SHORTEST).unsqueeze(-1), mass


def make_anchors(
    module: RoutedExperts,
    x: Tensor,
    routing: tuple[Tensor, Tensor],
    counted: Tensor,
    kind: Anchors,
) -> AnchorBatch:
    """The anchors of one module; `routing` is the chosen indices and their weights."""
    sent, mass = sent_to_experts(x, *routing, counted, module.num_experts)
    if kind == "router":
        share = counted.to(sent.dtype) / counted.sum(1, keepdim=True).clamp(min=1)
        mean = torch.einsum("bs,bsd->bd", share, x.detach().to(sent.dtype))
        raw = sent - mean[:, None, None]
    else:
        raw = _outputs(module, sent)
    length = raw.norm(dim=-1)
    valid = (mass > 0) & (length.detach() > SHORTEST)
    return AnchorBatch(raw / length.clamp(min=SHORTEST).unsqueeze(-1), valid)


class ExpertMemory:
    """The newest anchors of every routed module, first in first out."""

    def __init__(self, length: int, temperature: float) -> None:
        self.length = length
        self.temperature = temperature
        self._kept: dict[str, AnchorBatch] = {}

    def loss(self, name: str, anchors: AnchorBatch) -> Tensor:
        """The mean loss of one module's anchors against the memory; 0 while that cannot judge."""
        if name not in self._kept:
            return anchors.vectors.new_zeros(())
        return contrastive_loss(anchors, self._kept[name], self.temperature)

    def remember(self, name: str, anchors: AnchorBatch) -> None:
        """Takes anchors in as keys, and lets the oldest go."""
        new = AnchorBatch(anchors.vectors.detach(), anchors.valid)
        if name in self._kept:
            old = self._kept[name]
            new = AnchorBatch(
                torch.cat([new.vectors, old.vectors]), torch.cat([new.valid, old.valid])
            )
        self._kept[name] = AnchorBatch(new.vectors[: self.length], new.valid[: self.length])

    def state(self) -> dict[str, Tensor]:
        """Everything it remembers, for a training state."""
        return {
            f"{name}.{field}": tensor
            for name, kept in self._kept.items()
            for field, tensor in (("vectors", kept.vectors), ("valid", kept.valid))
        }

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Takes back what `state` gave."""
        names = {key.rpartition(".")[0] for key in state}
        self._kept = {
            name: AnchorBatch(
                state[f"{name}.vectors"].to(device), state[f"{name}.valid"].to(device)
            )
            for name in sorted(names)
        }


def contrastive_loss(anchors: AnchorBatch, keys: AnchorBatch, temperature: float) -> Tensor:
    """The loss of the module's docstring for anchors [B, G, N, d] against keys [L, G, N, d]."""
    closeness = torch.einsum("bgnd,lgmd->bgnlm", anchors.vectors, keys.vectors) / temperature
    count = closeness.shape[-1]
    known = keys.valid.permute(1, 0, 2)[None, :, None]  # [1, G, 1, L, M]
    same = torch.eye(count, dtype=torch.bool, device=known.device)[None, None, :, None]
    own = known & same  # [1, G, N, L, M]
    judged = anchors.valid & own.flatten(3).any(-1) & (known & ~same).flatten(3).any(-1)
    # A finite floor, not minus infinity: rows without keys would give NaN gradients, though they
    # are not judged.
    floor = torch.finfo(closeness.dtype).min
    every = closeness.masked_fill(~known, floor).flatten(3).logsumexp(-1)
    mine = closeness.masked_fill(~own, floor).flatten(3).logsumexp(-1)
    losses = torch.where(judged, every - mine, 0)
    return losses.sum() / judged.sum().clamp(min=1)


def _outputs(module: RoutedExperts, sent: Tensor) -> Tensor:
    """The experts' outputs for what each was sent on average, [B, G, N, out]."""
    layers = module.unstack()
    a = torch.stack([layer.a for layer in layers]).to(sent.dtype)
    b = torch.stack([layer.b for layer in layers]).to(sent.dtype)
    return torch.einsum("bgnd,gnrd,gnor->bgno", sent, a, b)
