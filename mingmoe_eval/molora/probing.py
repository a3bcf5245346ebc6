"""Shows that an adapter is live: a model with and without it gives different logits."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.attaching import MergedPair
from mingmoe_eval.molora.description import CheckpointDescription
from mingmoe_eval.molora.layers import LowRankLinear
from mingmoe_eval.molora.router import Router


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """How a model came about; `load_model` leaves it on the model as `loaded`.

    `peft_effect` is what a PEFT adapter moved the probe's logits by before it was merged.
    """

    description: CheckpointDescription
    merged: tuple[MergedPair, ...] = ()
    peft_effect: float | None = None


@quiet_libraries()
def probe(model: PreTrainedModel) -> float | None:
    """The most that a model's adapter moves any logit of a short probe; None without an adapter.

    Raises:
        CheckpointError: the adapter moves none, so it is not live; or a logit is not finite.
    """
    loaded: Loaded = model.loaded
    with_adapter = probe_logits(model)
    if not torch.isfinite(with_adapter).all():
        raise CheckpointError(
            f"{loaded.description.source} gives logits that are not finite in {model.dtype}; "
            "try --dtype float32 or bfloat16"
        )
    if loaded.description.kind in ("full", "gguf"):
        return None
    effect = loaded.peft_effect
    if effect is None:
        with _adapter_off(model, loaded):
            effect = largest_difference(with_adapter, probe_logits(model))
    if effect == 0:
        raise CheckpointError(
            f"{loaded.description.source} changes nothing: with and without it the base model "
            "gives the same logits, so it was never trained or its tensors are zero"
        )
    return effect


@torch.no_grad()
def probe_logits(model: PreTrainedModel) -> Tensor:
    """Logits [1, 8, vocabulary], in fp32, of eight token ids spread over the vocabulary."""
    embeddings = cast(Tensor, model.get_input_embeddings().weight)
    ids = torch.arange(1, 9, device=embeddings.device) * len(embeddings) // 10
    return cast(Tensor, model(input_ids=ids[None], use_cache=False).logits.float())


@contextlib.contextmanager
def _adapter_off(model: nn.Module, loaded: Loaded) -> Iterator[None]:
    """The base model again, up to rounding: experts silent, merged products taken off."""
    live = [m for m in model.modules() if isinstance(m, Router | LowRankLinear)]
    handles = [pair.linear.register_forward_hook(_taking_off(pair)) for pair in loaded.merged]
    for module in live:
        module.enabled = False
    try:
        yield
    finally:
        for module in live:
            module.enabled = True
        for handle in handles:
            handle.remove()


def _taking_off(pair: MergedPair) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].float()
        part = (x @ pair.a.to(x.device).T) @ pair.b.to(x.device).T
        return output - (part * pair.scaling).to(output.dtype)

    return hook


def largest_difference(one: Tensor, other: Tensor) -> float:
    """The greatest absolute difference of any two entries."""
    return float((one - other).abs().max())
