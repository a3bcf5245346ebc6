"""The arithmetic of mixtures of low-rank experts beside frozen linear layers.

For every token x of a linear layer W with N experts (A_i, B_i), a router (S, c) and scaling s:

    y = W x + sum over the K chosen i of w_i s B_i (A_i x)

where `router` says which are chosen and what w is, after MING-MOE (arXiv 2404.09027). Nothing here
reads W: a base layer is only ever called, so it may be quantised, offloaded or of a class that we
have never seen.

Stacked, the experts are two matrix products whatever N is. All of them are computed and those not
chosen are cleared: at these ranks that costs less than gathering the chosen ones, except for one
or two tokens on a CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mingmoe_eval.molora.router import Router

FFN_LINEARS = ("gate_proj", "up_proj", "down_proj")
"""The linear layers of a gated feed-forward block, by the names that decoders give them."""

SPARSE_MOST_TOKENS = 2
"""Up to so many tokens, on a CPU in fp32, only the chosen experts are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearExperts:
    """What one checkpoint says about one linear layer, whichever family wrote it.

    a [N, r, in], b [N, out, r], router_weight [N, in], router_bias [N]. No router means that there
    is one expert, always on. `shared` is a further always-on pair ([r', in], [out, r']).
    """

    a: Tensor
    b: Tensor
    router_weight: Tensor | None
    router_bias: Tensor | None
    top_k: int
    scaling: float
    shared: tuple[Tensor, Tensor] | None = None

    @property
    def always_on(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """The low-rank pairs that every token passes through."""
        single = ((self.a[0], self.b[0]),) if self.router_weight is None else ()
        return single if self.shared is None else (*single, self.shared)


class RoutedExperts(Router):
    """The routers and experts of G linear layers that read the same input.

    Beside its routers holds lora_a [G*N*r, in] and lora_b (one [N*r, out] a layer).

    Args:
        paths: the names of the layers, for whoever observes the routing.
        experts: one record a layer, of equal N, r, K and input size; each must have a router.
        dtype: of the experts, normally the base's.
        router_dtype: in which routers decide; a low precision changes which experts are chosen.
    """

    def __init__(
        self,
        paths: Sequence[str],
        experts: Sequence[LinearExperts],
        *,
        dtype: torch.dtype,
        router_dtype: torch.dtype = torch.float32,
    ) -> None:
        first = experts[0]
        super().__init__(
            paths,
            [_router_weight(one) for one in experts],
            [one.router_bias for one in experts],
            top_k=first.top_k,
            dtype=router_dtype,
        )
        self.rank, self.scaling = first.a.shape[1], first.scaling
        self.lora_a = nn.Parameter(torch.cat([one.a.flatten(0, 1) for one in experts]).to(dtype))
        # Stored as [N*r, out]: both products then read memory in order.
        self.lora_b = nn.ParameterList(
            nn.Parameter(one.b.transpose(1, 2).flatten(0, 1).to(dtype).contiguous())
            for one in experts
        )

    def forward(self, x: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Adds the experts' part to what the base layers gave for x; outputs may be overwritten.

        x [..., in], one output [..., out] a layer.
        """
        if not self.enabled:
            return list(outputs)
        tokens = x.reshape(-1, self.in_features)
        if self._sparse_pays(tokens):
            return self._add_chosen(tokens, outputs)
        return self._add_all(tokens, outputs)

    def unstack(self) -> list[LinearExperts]:
        """The records that this module was made from, one a layer, as they are now."""
        groups, shape = len(self.paths), (self.num_experts, self.rank, -1)
        a = self.lora_a.view(groups, *shape[:2], self.in_features)
        router = self.router.view(groups, self.num_experts, self.in_features)
        return [
            LinearExperts(
                a=a[group],
                b=b.view(*shape).transpose(1, 2),
                router_weight=router[group],
                router_bias=self.router_bias[group],
                top_k=self.top_k,
                scaling=self.scaling,
            )
            for group, b in enumerate(self.lora_b)
        ]

    def _sparse_pays(self, tokens: Tensor) -> bool:
        return (
            len(tokens) <= SPARSE_MOST_TOKENS
            and tokens.device.type == "cpu"
            and tokens.dtype == self.lora_a.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )

    def _add_all(self, tokens: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        index, weights = self.route(tokens)
        groups, experts = self.router_bias.shape
        # The scaling joins the fp32 weights, so that the experts stay bit for bit as stored.
        mix = weights.new_zeros(len(tokens), groups, experts)
        mix = mix.scatter_(-1, index, weights * self.scaling).unsqueeze(-1)
        inner = (tokens.to(self.lora_a.dtype) @ self.lora_a.T).view(-1, groups, experts, self.rank)
        mixed = _weighted(inner, mix).flatten(2).to(self.lora_a.dtype)
        return [
            _add_product(output, mixed[:, group], b)
            for group, (output, b) in enumerate(zip(outputs, self.lora_b, strict=True))
        ]

    def _add_chosen(self, tokens: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        choices = self.route_few(tokens)
        lora_a = self.lora_a.view(len(self.paths), self.num_experts, self.rank, -1)
        for group, (output, stacked_b) in enumerate(zip(outputs, self.lora_b, strict=True)):
            a, b = lora_a[group], stacked_b.view(self.num_experts, self.rank, -1)
            rows = output.view(len(tokens), -1)
            for token, row, chosen in zip(tokens, rows, choices, strict=True):
                for expert, weight in chosen[group]:
                    inner = torch.mv(a[expert], token)
                    row.addmv_(b[expert].T, inner, alpha=weight * self.scaling)
        return list(outputs)


class MoLoraLinear(nn.Module):
    """One linear layer with routed experts beside it."""

    def __init__(self, base: nn.Module, experts: RoutedExperts) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        """Takes x [..., in], gives [..., out]."""
        return _only(self.experts(x, [self.base(x)]))


class MoLoraFFN(nn.Module):
    """A gated feed-forward block, down(act(gate(x)) * up(x)), with experts on all three layers.

    Takes the place of the block `ffn` and keeps its layers under their own names. Gate and up read
    the same x, so their experts share one product, and their routers another.
    """

    def __init__(self, ffn: nn.Module, into: RoutedExperts, back: RoutedExperts) -> None:
        super().__init__()
        self.gate_proj = ffn.get_submodule("gate_proj")
        self.up_proj = ffn.get_submodule("up_proj")
        self.down_proj = ffn.get_submodule("down_proj")
        self.act_fn: Callable[[Tensor], Tensor] = ffn.act_fn  # type: ignore[assignment]
        self.into_experts = into
        self.back_experts = back

    def forward(self, x: Tensor) -> Tensor:
        """Takes x [..., d], gives [..., d]."""
        gate, up = self.into_experts(x, [self.gate_proj(x), self.up_proj(x)])
        inner = self.act_fn(gate) * up
        return _only(self.back_experts(inner, [self.down_proj(inner)]))


class LowRankLinear(nn.Module):
    """A linear layer plus s B A x: for a base whose weight cannot take the product in."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.lora_a = nn.Parameter(a)
        self.lora_b = nn.Parameter(b)
        self.scaling = scaling
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """Takes x [..., in], gives [..., out]."""
        output: Tensor = self.base(x)
        if not self.enabled:
            return output
        inner = (x.to(self.lora_a.dtype) @ self.lora_a.T) * self.scaling
        return output + (inner @ self.lora_b.T).to(output.dtype)


@torch.no_grad()
def merge_low_rank(linear: nn.Linear, a: Tensor, b: Tensor, scaling: float) -> None:
    """W += s B A, computed in fp32 and rounded once to W's dtype. a [r, in], b [out, r]."""
    weight = linear.weight
    product = b.to(weight.device).float() @ a.to(weight.device).float()
    weight.copy_(weight.float().add_(product, alpha=scaling))


def _router_weight(experts: LinearExperts) -> Tensor:
    if experts.router_weight is None:
        raise ValueError("experts without a router are always on: merge them or add them apart")
    return experts.router_weight


def _only(outputs: list[Tensor]) -> Tensor:
    return outputs[0]


def _weighted(inner: Tensor, mix: Tensor) -> Tensor:
    """`inner` times `mix`, and zero where that is zero whatever `inner` is, which may be used up.

    An expert that was not chosen may have overflowed, and 0 * inf is not a number. On a CPU a sum
    tells that none has in a fraction of the time that clearing takes.
    """
    usable = inner.dtype == mix.dtype and not torch.is_grad_enabled()
    products = inner.mul_(mix) if usable else inner * mix
    if products.device.type == "cpu" and bool(products.sum().isfinite()):
        return products
    return products.masked_fill_(mix == 0, 0)


def _add_product(output: Tensor, mixed: Tensor, b: Tensor) -> Tensor:
    """Gives output + mixed @ b, in place when no gradients are asked for: that saves a pass."""
    if torch.is_grad_enabled():
        return output + (mixed @ b).view(output.shape).to(output.dtype)
    flat = output.reshape(-1, b.shape[1])
    flat.addmm_(mixed.to(flat.dtype), b.to(flat.dtype))
    return flat.view(output.shape)
