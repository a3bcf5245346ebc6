"""Puts experts and low-rank pairs onto the layers of a loaded base model.

Layers are known by what they are and compute, never by the name of the model's class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.accelerate_door import device_of, only_moves_inputs
from mingmoe_eval.molora.block_experts import BlockExperts, MixLoraFFN
from mingmoe_eval.molora.formats.families import Mixture
from mingmoe_eval.molora.layers import (
    FFN_LINEARS,
    LinearExperts,
    LowRankLinear,
    MoLoraFFN,
    MoLoraLinear,
    RoutedExperts,
    merge_low_rank,
)


@dataclass(frozen=True, slots=True, eq=False)
class MergedPair:
    """A low-rank pair that went into a layer's weight; kept so that it can be shown to matter."""

    linear: nn.Linear
    a: Tensor
    b: Tensor
    scaling: float


@dataclass(frozen=True, slots=True)
class ComputeDtypes:
    """In which precision experts multiply and routers decide."""

    experts: torch.dtype
    router: torch.dtype


def attach_mixture(
    model: nn.Module, mixture: Mixture, dtypes: ComputeDtypes, *, source: str
) -> list[MergedPair]:
    """Puts all experts and pairs of a checkpoint that was checked, `source`, onto its base.

    Returns what was merged.

    Raises:
        CheckpointError: values that are not finite, listing every layer.
    """
    offences: list[str] = []
    merged: list[MergedPair] = []
    # One layer after the other: of a safetensors file, one block at most is held beside the model.
    for path, a, b in mixture.read_pairs():
        offences += _non_finite(path, a, b)
        scaling = mixture.config.attention_scaling
        merged += attach_pair(model, path, (a, b), scaling, dtypes.experts)
    for block, experts in mixture.read_blocks():
        for name, one in experts.items():
            router = [t for t in (one.router_weight, one.router_bias) if t is not None]
            offences += _non_finite(f"{block}.{name}", one.a, one.b, *router, *(one.shared or ()))
        if mixture.family.block_router:
            act_fn = mixture.config.act_fn
            merged += attach_block_experts(model, block, experts, dtypes, act_fn=act_fn)
        else:
            merged += attach_experts(model, block, experts, dtypes)
    if offences:
        raise CheckpointError(offence_list(f"{source} is damaged:", offences))
    return merged


def attach_pair(
    model: nn.Module, path: str, pair: tuple[Tensor, Tensor], scaling: float, dtype: torch.dtype
) -> list[MergedPair]:
    """Adds s B A to one layer: into its weight where that is possible, else beside it.

    Returns what was merged.
    """
    a, b = pair
    linear = model.get_submodule(path)
    if _can_merge(linear):
        assert isinstance(linear, nn.Linear)
        merge_low_rank(linear, a, b, scaling)
        return [MergedPair(linear, a, b, scaling)]
    place = device_of(linear)
    model.set_submodule(
        path, LowRankLinear(linear, a.to(place, dtype), b.to(place, dtype), scaling)
    )
    return []


def attach_experts(
    model: nn.Module,
    block: str,
    experts: Mapping[str, LinearExperts],
    dtypes: ComputeDtypes,
) -> list[MergedPair]:
    """Gives the block at a path its experts, by the names of its linear layers.

    What every token passes through is merged, so that a single or a shared expert costs nothing.
    Returns what was merged.
    """
    merged = []
    for name, one in experts.items():
        for pair in one.always_on:
            merged += attach_pair(model, f"{block}.{name}", pair, one.scaling, dtypes.experts)
    routed = {name: one for name, one in experts.items() if one.router_weight is not None}
    if routed:
        _route(model, block, routed, dtypes)
    return merged


def attach_block_experts(
    model: nn.Module,
    block: str,
    experts: Mapping[str, LinearExperts],
    dtypes: ComputeDtypes,
    *,
    act_fn: str | None = None,
) -> list[MergedPair]:
    """Gives the feed-forward block at a path MixLoRA's experts: whole blocks behind one router.

    Returns what was merged, which is nothing.

    Raises:
        CheckpointError: the block computes something else than down(act(gate(x)) * up(x)).
    """
    ffn = model.get_submodule(block)
    if not _computes_gated_ffn(ffn):
        raise CheckpointError(
            f"{block} does not compute down(act(gate(x)) * up(x)), which MixLoRA's experts take "
            "the place of; no loader for it exists here"
        )
    device = device_of(ffn.get_submodule("gate_proj"))
    routed = BlockExperts(block, experts, dtype=dtypes.experts, router_dtype=dtypes.router)
    activation = None if act_fn is None else ACT2FN[act_fn]
    model.set_submodule(block, MixLoraFFN(ffn, routed.to(device), activation).train(ffn.training))
    return []


def routed_experts(model: nn.Module) -> list[RoutedExperts]:
    """Every module with experts beside linear layers, in the order of its layers."""
    return [module for module in model.modules() if isinstance(module, RoutedExperts)]


def _non_finite(path: str, *tensors: Tensor) -> list[str]:
    whole = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    return [] if whole else [f"{path} holds values that are not finite"]


def _route(
    model: nn.Module, block: str, experts: Mapping[str, LinearExperts], dtypes: ComputeDtypes
) -> None:
    ffn = model.get_submodule(block)
    if _share_input(experts) and _computes_gated_ffn(ffn):
        # One product for the experts of both layers, another for their routers: see `layers`.
        into = _beside(model, block, experts, ("gate_proj", "up_proj"), dtypes)
        back = _beside(model, block, experts, ("down_proj",), dtypes)
        model.set_submodule(block, MoLoraFFN(ffn, into, back).train(ffn.training))
        return
    for name in experts:
        beside = _beside(model, block, experts, (name,), dtypes)
        linear = model.get_submodule(f"{block}.{name}")
        wrapped = MoLoraLinear(linear, beside).train(linear.training)
        model.set_submodule(f"{block}.{name}", wrapped)


def _share_input(experts: Mapping[str, LinearExperts]) -> bool:
    """Whether all three layers have experts, gate's and up's of one shape."""
    if experts.keys() != {"gate_proj", "up_proj", "down_proj"}:
        return False
    gate, up = experts["gate_proj"], experts["up_proj"]
    return (gate.a.shape, gate.top_k, gate.scaling) == (up.a.shape, up.top_k, up.scaling)


def _beside(
    model: nn.Module,
    block: str,
    experts: Mapping[str, LinearExperts],
    names: Sequence[str],
    dtypes: ComputeDtypes,
) -> RoutedExperts:
    device = device_of(model.get_submodule(f"{block}.{names[0]}"))
    return RoutedExperts(
        [f"{block}.{name}" for name in names],
        [experts[name] for name in names],
        dtype=dtypes.experts,
        router_dtype=dtypes.router,
    ).to(device)


def _can_merge(linear: nn.Module) -> bool:
    """True if a product can be added into the layer's weight: a plain Linear that is in memory.

    Quantised layers are subclasses of Linear (bitsandbytes), have a tensor of a class of its own
    (torchao), one of 8 bits, or another `forward` on the instance (compressed-tensors), as
    offloaded ones do.
    """
    weight = linear._parameters.get("weight")
    return (
        type(linear) is nn.Linear
        and ("forward" not in vars(linear) or only_moves_inputs(linear))
        and weight is not None
        and type(weight.data) is Tensor
        and _can_add(weight.dtype)
        and weight.device.type != "meta"
    )


def plain_parts(tensor: Tensor) -> list[Tensor]:
    """The tensors that make up one of a class of its own, as torchao packs weights; else itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in plain_parts(getattr(tensor, name))]


def _can_add(dtype: torch.dtype) -> bool:
    """Whether sums can be computed in it: floating point, and not of 8 bits."""
    return dtype.is_floating_point and dtype.itemsize > 1


def _computes_gated_ffn(ffn: nn.Module) -> bool:
    """True if the block gives down(act(gate(x)) * up(x)) for a token drawn at random.

    Asked of the block itself, because blocks with the same layers may differ in what they do with
    them (some drop small activations, some clamp).
    """
    act_fn = getattr(ffn, "act_fn", None)
    if not callable(act_fn):
        return False
    gate, up, down = (ffn.get_submodule(name) for name in FFN_LINEARS)
    with torch.no_grad():
        x = _random_token(ffn, gate)
        expected = down(act_fn(gate(x)) * up(x))
        return torch.allclose(ffn(x), expected, rtol=1e-3, atol=1e-6)


def _random_token(ffn: nn.Module, reader: nn.Module) -> Tensor:
    floating = (p.dtype for p in ffn.parameters() if _can_add(p.dtype))
    width = cast(int, reader.in_features)
    x = torch.randn(1, 1, width, generator=torch.Generator().manual_seed(0))
    return x.to(device_of(reader), next(floating, torch.get_default_dtype()))
