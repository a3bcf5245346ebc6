"""Adapters under training: made fresh, written to a folder, and taken back from one.

A fresh one changes nothing yet: every B is zero.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora import peft_door
from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts, routed_experts
from mingmoe_eval.molora.config import MoLoraConfig, lora_scaling
from mingmoe_eval.molora.formats.families import ffn_blocks, linear_sizes
from mingmoe_eval.molora.formats.ming import save_ming_v1
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts, RoutedExperts
from mingmoe_eval.molora.opening import open_checkpoint
from mingmoe_eval.molora.peft_door import PeftModel
from mingmoe_eval.training.spec import AdapterShape

ALL_LINEARS = "all"
"""Stands for every linear layer but the head."""

ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")

TRAINED_DTYPES = ComputeDtypes(experts=torch.float32, router=torch.float32)
"""Adapters are trained in fp32 whatever the base's dtype: bfloat16 would swallow small updates."""

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""(A, B) by path of the linear layer in the base."""


def fresh_lora(base: PreTrainedModel, shape: AdapterShape, *, seed: int) -> PeftModel:
    """The base with a plain LoRA on the shape's targets, or on attention and feed-forward layers.

    Raises:
        CheckpointError: the base has none of these layers.
    """
    return _with_lora(base, shape, (*ATTENTION_LINEARS, *FFN_LINEARS), seed)


def fresh_molora(base: PreTrainedModel, shape: AdapterShape, *, seed: int) -> PeftModel:
    """The base with a LoRA on its attention and routed experts on its feed-forward layers.

    A is drawn as PEFT draws it, B is zero, and routers are drawn so small that all experts are
    near equal.

    Raises:
        CheckpointError: the base has no such layers.
        UsageError: a target is a layer where experts stand.
    """
    if taken := {*FFN_LINEARS, ALL_LINEARS} & {*(shape.targets or ())}:
        raise UsageError(
            f"{', '.join(sorted(taken))}: on feed-forward layers stand the experts; the LoRA "
            f"beside them goes on {', '.join(ATTENTION_LINEARS)}"
        )
    model = _with_lora(base, shape, ATTENTION_LINEARS, seed)
    sizes, blocks = linear_sizes(base), ffn_blocks(base)
    if not blocks:
        raise CheckpointError(
            f"{type(base).__name__} has no block with {', '.join(FFN_LINEARS)}: experts have no "
            "place in it"
        )
    generator = torch.Generator().manual_seed(seed)
    for block in blocks:
        fresh = {
            name: _fresh_experts(shape, *sizes[f"{block}.{name}"], generator)
            for name in FFN_LINEARS
        }
        attach_experts(base, block, fresh, TRAINED_DTYPES)
    return model


def freeze_all_but_routers(model: nn.Module) -> None:
    """Leaves only routers to be trained."""
    model.requires_grad_(False)
    for module in routed_experts(model):
        module.router.requires_grad_(True)
        module.router_bias.requires_grad_(True)


def draw_router(num_experts: int, inputs: int, generator: torch.Generator) -> Tensor:
    """A router [N, in] whose logits have a spread of 0.1 for inputs whose entries are about 1."""
    return torch.randn(num_experts, inputs, generator=generator) * (0.1 / math.sqrt(inputs))


def _with_lora(
    base: PreTrainedModel, shape: AdapterShape, wanted: tuple[str, ...], seed: int
) -> PeftModel:
    # A head is no layer that LoRAs are put on unless it is named.
    head = {name for name, m in base.named_modules() if m is base.get_output_embeddings()}
    present = {path.rpartition(".")[2] for path in linear_sizes(base)}
    if shape.targets is None:
        targets = [name for name in wanted if name in present]
    elif shape.targets == (ALL_LINEARS,):
        targets = sorted(present - {name.rpartition(".")[2] for name in head})
    else:
        targets = list(shape.targets)
    if absent := sorted(set(targets or wanted) - present):
        raise CheckpointError(
            f"{type(base).__name__} has none of the layers {', '.join(absent)}; it has "
            f"{', '.join(sorted(present))}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft_door.add_lora(
            base, rank=shape.rank, alpha=shape.alpha, rslora=shape.rslora, targets=targets
        )


def _fresh_experts(
    shape: AdapterShape, inputs: int, outputs: int, generator: torch.Generator
) -> LinearExperts:
    count, rank = shape.num_experts, shape.rank
    # Kaiming's uniform with a = sqrt(5), as PEFT draws A: bounds of 1/sqrt(in).
    a = (torch.rand(count, rank, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
    return LinearExperts(
        a=a,
        b=torch.zeros(count, outputs, rank),
        router_weight=draw_router(count, inputs, generator),
        router_bias=torch.zeros(count),
        top_k=shape.experts_per_token,
        scaling=lora_scaling(shape.alpha, rank, rslora=shape.rslora),
    )


class Adapter(Protocol):
    """An adapter live in `model`, which is what the Trainer trains."""

    model: nn.Module

    def write(self, folder: Path) -> None:
        """Writes a checkpoint that `load_model` reads."""

    def restore(self, folder: Path) -> None:
        """Takes back what `write` wrote, bit for bit.

        Raises:
            CheckpointError: the folder holds no adapter of this shape.
        """


class LoraAdapter:
    """A plain PEFT LoRA; `base` is written as the base's name."""

    def __init__(self, model: PeftModel, base: str) -> None:
        self.model = model
        self._peft, self._base = model, base

    def write(self, folder: Path) -> None:
        """Writes PEFT's own format."""
        peft_door.save_adapter(self._peft, folder, base=self._base)

    def restore(self, folder: Path) -> None:
        """Takes the tensors back.

        Raises:
            CheckpointError: the file is not there, or its tensors are others.
        """
        peft_door.restore_adapter(self._peft, folder)


class MoLoraAdapter:
    """Routed experts and an attention LoRA.

    Args:
        model: what is trained: a PEFT model, or the base itself where only routers are.
        base: the base model inside it, which the layers' paths are meant in.
        settings: with the base's name.
        model_config: the base's config as a dict.
        attention: pairs that are fixed and merged; None where PEFT's are being trained.
    """

    def __init__(
        self,
        model: nn.Module,
        base: nn.Module,
        *,
        settings: MoLoraConfig,
        model_config: Mapping[str, Any],
        attention: Pairs | None = None,
    ) -> None:
        self.model = model
        self._base = base
        self._settings = settings
        self._model_config = model_config
        self._attention = attention

    def write(self, folder: Path) -> None:
        """Writes MING's own format and its safetensors twin."""
        live = {path: (a, b) for path, a, b in peft_door.live_pairs(self._base)}
        save_ming_v1(
            folder,
            settings=self._settings,
            model_config=self._model_config,
            experts=_live_experts(self._base),
            attention=live if self._attention is None else self._attention,
        )

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        """Takes experts, routers and attention back.

        Raises:
            CheckpointError: another base or other sizes.
        """
        mixture = open_checkpoint(folder, self._settings.base).mixture
        if mixture is None or _sizes(mixture.config) != _sizes(self._settings):
            raise CheckpointError(f"{folder} holds another adapter than the one in training")
        for module in routed_experts(self._base):
            experts = [mixture.read_layer(path) for path in module.paths]
            # Stacked as the live module is, so that the state fits whatever the layout on disk.
            twin = RoutedExperts(module.paths, experts, dtype=module.lora_a.dtype)
            module.load_state_dict(twin.state_dict())
        if self._attention is None:
            stored = {path: (a, b) for path, a, b in mixture.read_pairs()}
            if stored.keys() != {path for path, _, _ in peft_door.live_pairs(self._base)}:
                raise CheckpointError(f"{folder} has its LoRA on other layers than in training")
            for path, a, b in peft_door.live_pairs(self._base):
                for parameter, value in zip((a, b), stored[path], strict=True):
                    parameter.copy_(value)


def _sizes(settings: MoLoraConfig) -> tuple[float, ...]:
    experts = (settings.num_experts, settings.experts_per_token, settings.expert_scaling)
    return (*experts, settings.rank, settings.attention_scaling)


def _live_experts(base: nn.Module) -> dict[str, LinearExperts]:
    return {
        path: one
        for module in routed_experts(base)
        for path, one in zip(module.paths, module.unstack(), strict=True)
    }
