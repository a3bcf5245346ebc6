"""Puts experts and low-rank pairs onto the layers of a loaded base model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora.block_experts import BlockExperts, MixLoraFFN
from mingmoe_eval.molora.layers import (
    LinearExperts,
    LowRankLinear,
    MoLoraFFN,
    MoLoraLinear,
    RoutedExperts,
    merge_low_rank,
)
from mingmoe_eval.molora.structure import can_merge, computes_gated_ffn, device_of


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


def attach_pair(
    model: nn.Module, path: str, pair: tuple[Tensor, Tensor], scaling: float, dtype: torch.dtype
) -> list[MergedPair]:
    """Adds s B A to one layer: into its weight where that is possible, else beside it.

    Returns what was merged.
    """
    a, b = pair
    linear = model.get_submodule(path)
    if can_merge(linear):
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
    if not computes_gated_ffn(ffn):
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


def _route(
    model: nn.Module, block: str, experts: Mapping[str, LinearExperts], dtypes: ComputeDtypes
) -> None:
    ffn = model.get_submodule(block)
    if _share_input(experts) and computes_gated_ffn(ffn):
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
