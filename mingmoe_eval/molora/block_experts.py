"""MixLoRA's arithmetic: whole feed-forward blocks as experts, over one copy of the base's weights.

For a token x of a block with base layers G, U, D, its router's K choices T with weights w, and
low-rank parts g_i, u_i, d_i (each s B A):

    a_i = act(G x + g_i x) * (U x + u_i x)
    y = D (sum over T of w_i a_i) + sum over T of w_i d_i a_i

after MixLoRA (arXiv 2404.15159), which applies D to each a_i; D is linear and the weights sum to
one, so that once is enough, bias included.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts
from mingmoe_eval.molora.router import Router

Activation = Callable[[Tensor], Tensor]


class BlockExperts(Router):
    """One block's router, and the stacked low-rank parts of those of its layers that have any.

    For the layer P: `lora_a[P]` [N*r, in] and `lora_b[P]` [N*r, out].

    Args:
        path: of the block, for whoever observes the routing.
        experts: by name of the layer, at least one; all with the same router, N, r, K and scaling.
        dtype: of the experts, normally the base's.
        router_dtype: in which the router decides.
    """

    def __init__(
        self,
        path: str,
        experts: Mapping[str, LinearExperts],
        *,
        dtype: torch.dtype,
        router_dtype: torch.dtype = torch.float32,
    ) -> None:
        first = next(iter(experts.values()))
        if first.router_weight is None:
            raise ValueError("experts without a router are always on: merge them or add them apart")
        super().__init__(
            [path],
            [first.router_weight],
            [first.router_bias],
            top_k=first.top_k,
            dtype=router_dtype,
        )
        self.rank, self.scaling = first.a.shape[1], first.scaling
        self.lora_a = nn.ParameterDict(
            {name: nn.Parameter(one.a.flatten(0, 1).to(dtype)) for name, one in experts.items()}
        )
        self.lora_b = nn.ParameterDict(
            {
                name: nn.Parameter(one.b.transpose(1, 2).flatten(0, 1).to(dtype).contiguous())
                for name, one in experts.items()
            }
        )

    def inner(self, name: str, x: Tensor) -> Tensor | None:
        """Every expert's A x of one layer, [T, N, r]; None if the layer has no experts."""
        if name not in self.lora_a:
            return None
        a: Tensor = self.lora_a[name]
        return (x.to(a.dtype) @ a.T).view(-1, self.num_experts, self.rank)

    def outer(self, name: str, inner: Tensor) -> Tensor:
        """The sum over experts of B times what is left of `inner`, [T, N, r] -> [T, out]."""
        b: Tensor = self.lora_b[name]
        return inner.flatten(1).to(b.dtype) @ b


class MixLoraFFN(nn.Module):
    """Takes the place of a gated feed-forward block and keeps its layers under their own names."""

    def __init__(self, ffn: nn.Module, experts: BlockExperts, act_fn: Activation | None) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = map(ffn.get_submodule, FFN_LINEARS)
        self.base_act_fn: Activation = ffn.act_fn  # type: ignore[assignment]
        self.act_fn = self.base_act_fn if act_fn is None else act_fn
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        """Takes x [..., d], gives [..., d]."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not self.experts.enabled:
            output: Tensor = self.down_proj(self.base_act_fn(gate) * up)
            return output
        return self._mixture(x.flatten(0, -2), gate.flatten(0, -2), up.flatten(0, -2)).view(x.shape)

    def _mixture(self, x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
        experts = self.experts
        index, weights = experts.route(x)
        gate_inner, up_inner = experts.inner("gate_proj", x), experts.inner("up_proj", x)
        mixed, down_inner = None, None
        # One choice of every token at a time: no gathering, and [T, inner] is the largest tensor.
        for choice, weight in zip(index[:, 0].unbind(-1), weights[:, 0].unbind(-1), strict=True):
            chosen = choice[:, None] == torch.arange(experts.num_experts, device=x.device)
            activated = self.act_fn(self._expert("gate_proj", gate, gate_inner, chosen))
            activated = activated * self._expert("up_proj", up, up_inner, chosen)
            part = activated.to(weight.dtype) * weight[:, None]
            mixed = part if mixed is None else mixed + part
            if (own := experts.inner("down_proj", activated)) is not None:
                own = _only(chosen, own) * (weight * experts.scaling)[:, None, None]
                down_inner = own if down_inner is None else down_inner + own
        assert mixed is not None
        output: Tensor = self.down_proj(mixed.to(x.dtype))
        if down_inner is None:
            return output
        return output + experts.outer("down_proj", down_inner).to(output.dtype)

    def _expert(self, name: str, base: Tensor, inner: Tensor | None, chosen: Tensor) -> Tensor:
        """What one layer of each token's chosen expert gives."""
        if inner is None:
            return base
        scaled = _only(chosen, inner).float() * self.experts.scaling
        return base + self.experts.outer(name, scaled).to(base.dtype)


def _only(chosen: Tensor, inner: Tensor) -> Tensor:
    """Cleared where not chosen, and not multiplied by zero: 0 * inf is not a number."""
    return torch.where(chosen[..., None], inner, 0)
