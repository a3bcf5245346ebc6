"""Experts beside linear layers that tensor parallelism has split over n processes.

`molora.layers` and `molora.block_experts` say what is computed; this says who holds what of it. A
layer whose output is split (gate, up, q, k, v) reads the whole input in every process:

    A and router whole, B's rows as those of W: each process adds to its own part of the output

A layer whose input is split (down, o) gives each process a part of a sum:

    A's columns as those of W, B whole: the products join W's partial sums, before these are summed
    the router's columns likewise, and its logits are summed first: they decide over the whole input

All experts are computed and then weighed. No shape and no branch depends on the routing, so that
CUDA graphs and torch.compile hold. Nothing here knows vLLM: the arithmetic is tested without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.molora.router import choose_experts

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


def alone(partial: Tensor) -> Tensor:
    """The sum where there is but one process."""
    return partial


@dataclass(frozen=True, slots=True)
class Shard:
    """Which of how many processes."""

    rank: int = 0
    size: int = 1

    def of(self, length: int) -> slice:
        """This process's part of an axis."""
        if length % self.size:
            raise ValueError(f"an axis of {length} does not split over {self.size} processes")
        part = length // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One layer's experts and where its output is.

    `rows`: of W that this process holds; `columns`: of the output that they make.
    """

    experts: LinearExperts
    rows: slice
    columns: slice


def side_by_side(sizes: Sequence[int], ranks: Sequence[int]) -> list[tuple[slice, slice]]:
    """(Rows of W, columns of the output) of layers that were fused: see `Placed`.

    Args:
        sizes: how many rows of each layer a process holds.
        ranks: which part of each this process holds. Parts may repeat: with more processes than
            key-value heads several hold the same ones.
    """
    places, first = [], 0
    for size, rank in zip(sizes, ranks, strict=True):
        places.append((slice(rank * size, (rank + 1) * size), slice(first, first + size)))
        first += size
    return places


class Mix(nn.Module):
    """The routers of G layers with one input, and how each weighs its experts' products.

    `live` is 1; set to 0 it silences the experts, also within a captured graph.
    """

    def __init__(self, experts: Sequence[LinearExperts], inputs: slice) -> None:
        super().__init__()
        self.shapes = [one.a.shape[:2] for one in experts]
        self.top_k = [one.top_k for one in experts]
        self.scaling = [one.scaling for one in experts]
        weights, biases = zip(*map(_router, experts), strict=True)
        # fp32 whatever the model is in: rounding would change which experts are the largest.
        self.router = _fixed(torch.cat([weight[:, inputs] for weight in weights]).float())
        self.router_bias = _fixed(torch.cat(biases).float())
        self.live: Tensor
        self.register_buffer("live", torch.ones(()), persistent=False)

    def logits(self, tokens: Tensor, reduce: Reduce = alone) -> list[Tensor]:
        """[T, N] of each layer; `tokens` [T, in]."""
        partial = linear(tokens.float(), self.router)
        whole = reduce(partial) + self.router_bias
        return list(torch.split(whole, [count for count, _ in self.shapes], -1))

    def weights(self, layer: int, logits: Tensor) -> Tensor:
        """[T, N] of one layer: softmax over the K chosen, times the scaling; else 0."""
        index, chosen = choose_experts(logits, self.top_k[layer])
        weights = torch.zeros_like(logits).scatter(-1, index, chosen * self.scaling[layer])
        return weights * self.live


class SplitOutputExperts(nn.Module):
    """Of layers that read the same input and lie side by side in one fused output.

    Args:
        placed: one a layer; each must have a router.
        dtype: of the experts' products, normally the model's.
    """

    def __init__(self, placed: Sequence[Placed], *, dtype: torch.dtype) -> None:
        super().__init__()
        every = [one.experts for one in placed]
        self.columns = [one.columns for one in placed]
        self.mix = Mix(every, slice(None))
        self.lora_a = _fixed(torch.cat([one.a.flatten(0, 1) for one in every]).to(dtype))
        self.lora_b = nn.ParameterList(
            _fixed(_stacked_b(one.experts.b[:, one.rows]).to(dtype)) for one in placed
        )

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Adds to what the layers gave for x [T, in]: output [T, columns of all], overwritten."""
        widths = [count * rank for count, rank in self.mix.shapes]
        inner = torch.split(linear(x.to(self.lora_a.dtype), self.lora_a), widths, -1)
        for layer, logits in enumerate(self.mix.logits(x)):
            mixed = _weighted(inner[layer], self.mix.weights(layer, logits))
            part = output[:, self.columns[layer]]
            part += mixed.to(part.dtype) @ self.lora_b[layer]
        return output


class SplitInputExperts(nn.Module):
    """Of a layer of whose input each process has a part.

    Args:
        experts: of the layer; there must be a router.
        shard: this process's.
        reduce: over all processes.
        dtype: of the experts' products.
    """

    def __init__(
        self, experts: LinearExperts, shard: Shard, reduce: Reduce, *, dtype: torch.dtype
    ) -> None:
        super().__init__()
        inputs = shard.of(experts.a.shape[-1])
        self.reduce = reduce if shard.size > 1 else alone
        self.mix = Mix([experts], inputs)
        self.lora_a = _fixed(experts.a[..., inputs].flatten(0, 1).to(dtype))
        self.lora_b = _fixed(_stacked_b(experts.b).to(dtype))

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Adds this process's part to its part of the sum, output [T, out]; x [T, in / n]."""
        [logits] = self.mix.logits(x, self.reduce)
        inner = linear(x.to(self.lora_a.dtype), self.lora_a)
        mixed = _weighted(inner, self.mix.weights(0, logits))
        return output + (mixed.to(self.lora_b.dtype) @ self.lora_b).to(output.dtype)


class SplitBlockExperts(nn.Module):
    """MixLoRA's: one router chooses among whole blocks, which differ in their low-rank parts.

    gate and up are split by output, down by input. See `molora.block_experts`.

    Args:
        experts: by name of the layer; all with the same router, N, r, K and scaling.
        shard: this process's.
        dtype: of the experts' products.
    """

    def __init__(
        self, experts: Mapping[str, LinearExperts], shard: Shard, *, dtype: torch.dtype
    ) -> None:
        super().__init__()
        first = next(iter(experts.values()))
        self.count, self.rank = first.a.shape[:2]
        self.top_k, self.scaling = first.top_k, first.scaling
        self.mix = Mix([first], slice(None))
        self.lora_a, self.lora_b = nn.ParameterDict(), nn.ParameterDict()
        for name, one in experts.items():
            a, b = one.a, one.b
            if name == "down_proj":
                a = a[..., shard.of(a.shape[-1])]
            else:
                b = b[:, shard.of(b.shape[1])]
            self.lora_a[name] = _fixed(a.flatten(0, 1).to(dtype))
            self.lora_b[name] = _fixed(_stacked_b(b).to(dtype))

    def forward(
        self, x: Tensor, gate: Tensor, up: Tensor, act: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """What goes into the base's down, [T, inner / n], and what the experts add to its part.

        x [T, in]; gate, up [T, inner / n], as the base's layers give them.
        """
        [logits] = self.mix.logits(x)
        index, weights = choose_experts(logits, self.top_k)
        gate_inner, up_inner = self._inner("gate_proj", x), self._inner("up_proj", x)
        mixed, down_inner = None, None
        # One choice of every token at a time: no gathering, and [T, inner] is the largest tensor.
        for choice, weight in zip(index.unbind(-1), weights.unbind(-1), strict=True):
            experts = torch.arange(self.count, device=x.device)
            chosen = (choice[:, None] == experts).to(weight.dtype) * self.scaling * self.mix.live
            activated = act(self._plus("gate_proj", gate, gate_inner, chosen))
            activated = activated * self._plus("up_proj", up, up_inner, chosen)
            part = activated.to(weight.dtype) * weight[:, None]
            mixed = part if mixed is None else mixed + part
            if (own := self._inner("down_proj", activated)) is not None:
                own = _weighted(own, chosen * weight[:, None])
                down_inner = own if down_inner is None else down_inner + own
        assert mixed is not None
        if down_inner is None:
            return mixed.to(x.dtype), None
        b = self.lora_b["down_proj"]
        return mixed.to(x.dtype), (down_inner.to(b.dtype) @ b).to(x.dtype)

    def _inner(self, name: str, x: Tensor) -> Tensor | None:
        if name not in self.lora_a:
            return None
        a: Tensor = self.lora_a[name]
        return linear(x.to(a.dtype), a)

    def _plus(self, name: str, base: Tensor, inner: Tensor | None, chosen: Tensor) -> Tensor:
        if inner is None:
            return base
        b: Tensor = self.lora_b[name]
        return base + (_weighted(inner, chosen).to(b.dtype) @ b).to(base.dtype)


def _router(experts: LinearExperts) -> tuple[Tensor, Tensor]:
    weight, bias = experts.router_weight, experts.router_bias
    if weight is None:
        raise ValueError("experts without a router are always on: they belong into the weights")
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def _weighted(inner: Tensor, weights: Tensor) -> Tensor:
    """[T, N*r] of [T, N*r] and [T, N], in fp32; zero where the weight is, whatever `inner` is.

    An expert that was not chosen may have overflowed, and 0 * inf is not a number.
    """
    products = inner.view(*weights.shape, -1) * weights[..., None]
    return products.masked_fill((weights == 0)[..., None], 0).flatten(1)


def _stacked_b(b: Tensor) -> Tensor:
    """[N, out, r] as [N*r, out]."""
    return b.transpose(1, 2).flatten(0, 1).contiguous()


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
