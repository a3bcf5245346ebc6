"""Which experts a token passes through, and with what weight.

For a token x and a router (S, c):

    g = S x + c                                the router's logits, [N]
    T = the K largest of g; of equals the first
    w = softmax over g_i, i in T

A softmax over all N that is renormalised over its K largest gives the same w.

An expert is taken out of a loaded model by way of its router's bias: the others share its weight.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mingmoe_eval.errors import UsageError, offence_list

Observer = Callable[["Router", Tensor, Tensor, Tensor], None]
"""Sees each routing: the module, logits [T, G, N], chosen indices [T, G, K], weights [T, G, K].

T counts tokens in the order of the flattened input, padding included; G counts `paths`.
"""

Choice = tuple[int, float]
"""An expert and its weight."""

_LAYER_INDEX = re.compile(r"\.(\d+)\.")
_MASK = re.compile(r"(?:(\d+):)?(\d+)")


class Router(nn.Module):
    """The routers of G layers that read the same input; what experts do is a subclass's matter.

    Holds router [G*N, in] and router_bias [G, N]. A bias of minus infinity takes that expert out
    and renormalises the others.

    Args:
        paths: the names of the layers, for whoever observes the routing.
        weights: one [N, in] a layer.
        biases: one [N] a layer; None is zero.
        top_k: how many experts a token passes through.
        dtype: in which the logits are computed; a low precision changes which are the largest.
    """

    def __init__(
        self,
        paths: Sequence[str],
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        *,
        top_k: int,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.paths = tuple(paths)
        self.num_experts, self.in_features = weights[0].shape
        self.top_k = top_k
        self.enabled = True
        self.observer: Observer | None = None
        whole = [
            weight.new_zeros(len(weight)) if bias is None else bias
            for weight, bias in zip(weights, biases, strict=True)
        ]
        self.router = nn.Parameter(torch.cat(list(weights)).to(dtype))
        self.router_bias = nn.Parameter(torch.stack(whole).to(dtype))

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Takes tokens [T, in], gives indices and weights, both [T, G, K]; tells the observer."""
        place = tokens.device.type
        if torch.is_autocast_enabled(place):
            # Routers decide in training as they will at inference, and so does whoever watches.
            with torch.autocast(place, enabled=False):
                return self.route(tokens)
        logits = self._logits(tokens)
        index, weights = choose_experts(logits, self.top_k)
        if self.observer is not None:
            self.observer(self, logits, index, weights)
        return index, weights

    def route_few(self, tokens: Tensor) -> list[list[list[Choice]]]:
        """The same for one or two tokens on a CPU: the K choices by token and layer.

        After the base's weights have passed through a CPU's cache, each further kind of tensor
        operation costs more than sorting eight numbers here.
        """
        logits = self._logits(tokens)
        choices = [[choose_in_row(row, self.top_k) for row in rows] for rows in logits.tolist()]
        if self.observer is not None:
            index, weights = logits.new_tensor(choices).unbind(-1)
            self.observer(self, logits, index.long(), weights)
        return choices

    def _logits(self, tokens: Tensor) -> Tensor:
        router, bias = self.router, self.router_bias
        flat = nn.functional.linear(tokens.to(router.dtype), router, bias.flatten())
        # From here on at least in fp32, whatever dtype the router multiplied in.
        precise = flat.float() if flat.dtype.itemsize < 4 else flat
        return precise.view(-1, *bias.shape)


def choose_experts(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The K largest logits of each row, of equals the first, and the softmax over those K.

    logits [..., N] -> indices [..., K] in falling order of their logit, weights [..., K].
    """
    # A stable sort and not topk, whose choice among equals is unspecified. The softmax is written
    # out: for a few rows torch.softmax may open a thread region that costs more than the sum.
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    largest = ordered[..., :top_k]
    powers = torch.exp(largest - largest[..., :1])
    return order[..., :top_k], powers / powers.sum(-1, keepdim=True)


def choose_in_row(logits: Sequence[float], top_k: int) -> list[Choice]:
    """What `choose_experts` gives for one row of numbers."""
    # Not a number counts as the largest, as in torch.sort: it must reach the output.
    size = [math.inf if math.isnan(logit) else logit for logit in logits]
    order = sorted(range(len(logits)), key=size.__getitem__, reverse=True)[:top_k]
    powers = [math.exp(logits[i] - logits[order[0]]) for i in order]
    total = sum(powers)
    return [(i, power / total) for i, power in zip(order, powers, strict=True)]


def routers(model: nn.Module) -> list[Router]:
    """Every module of the model that routes, in the order of its layers."""
    return [module for module in model.modules() if isinstance(module, Router)]


@dataclass(frozen=True, slots=True)
class ExpertMask:
    """One expert, counted from 0, of one decoder layer or (None) of all."""

    expert: int
    layer: int | None = None

    def __str__(self) -> str:
        return f"{self.expert}" if self.layer is None else f"{self.layer}:{self.expert}"


def read_masks(text: str) -> list[tuple[ExpertMask, ...]]:
    """What to mask, one after the other: "0,3" two experts everywhere, "5:0" one of layer 5 alone.

    Joined by +, as in "0+3" or "5:0+6:0", experts are masked together.

    Raises:
        UsageError: text of another form.
    """
    masks = []
    for part in text.replace(" ", "").split(","):
        items = [_MASK.fullmatch(item) for item in part.split("+")]
        if not all(items):
            raise UsageError(
                f"{part!r} names no expert: write 3 for expert 3 of all layers, 5:3 for that of "
                "layer 5, 0+3 for two at once, and a comma between one trial and the next"
            )
        found = (ExpertMask(int(m[2]), None if m[1] is None else int(m[1])) for m in items if m)
        masks.append(tuple(found))
    return masks


@contextlib.contextmanager
def masked(model: nn.Module, masks: Sequence[ExpertMask]) -> Iterator[None]:
    """The model without these experts; afterwards it is bit for bit as it was.

    A masked expert's logit is minus infinity: it is never among the K largest, and the softmax
    over the others sums to one. Where fewer than K are left, its weight is 0.

    Raises:
        UsageError: a model without routers, experts that it has not, or a router left without any.
    """
    found = routers(model)
    _refuse(found, masks)
    before = [router.router_bias.detach().clone() for router in found]
    try:
        with torch.no_grad():
            for router in found:
                router.router_bias[:, _experts_of(router, masks)] = -torch.inf
        yield
    finally:
        with torch.no_grad():
            for router, bias in zip(found, before, strict=True):
                router.router_bias.copy_(bias)


def _refuse(found: Sequence[Router], masks: Sequence[ExpertMask]) -> None:
    if not found:
        raise UsageError("the model has no routers, so no expert can be masked")
    offences = [
        f"{mask}: no layer has such an expert; layers are 0 to {max(map(_layer, found))}, experts "
        f"0 to {max(router.num_experts for router in found) - 1}"
        for mask in masks
        if not any(_experts_of(router, [mask]) for router in found)
    ]
    for router in found:
        if len(_experts_of(router, masks)) == router.num_experts:
            offences.append(f"{router.paths[0]}: every expert would be masked")
    if offences:
        raise UsageError(offence_list("these experts cannot be masked:", offences))


def _experts_of(router: Router, masks: Sequence[ExpertMask]) -> list[int]:
    """Which of a router's experts are named."""
    layer = _layer(router)
    named = {mask.expert for mask in masks if mask.layer in (None, layer)}
    return sorted(expert for expert in named if expert < router.num_experts)


def _layer(router: Router) -> int:
    match = _LAYER_INDEX.search(router.paths[0])
    return int(match[1]) if match else 0
