"""Which experts a token passes through, and with what weight.

For a token x and a router (S, c):

    g = S x + c                                the router's logits, [N]
    T = the K largest of g; of equals the first
    w = softmax over g_i, i in T

A softmax over all N that is renormalised over its K largest gives the same w.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Observer = Callable[["Router", Tensor, Tensor, Tensor], None]
"""Sees each routing: the module, logits [T, G, N], chosen indices [T, G, K], weights [T, G, K].

T counts tokens in the order of the flattened input, padding included; G counts `paths`.
"""

Choice = tuple[int, float]
"""An expert and its weight."""


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
