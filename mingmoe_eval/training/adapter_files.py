"""What of a model under training is the adapter: written to a folder, and taken back from one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM, save_ming_v1
from mingmoe_eval.molora.layers import LinearExperts, RoutedExperts
from mingmoe_eval.molora.opening import open_checkpoint

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""(A, B) by path of the linear layer in the base."""


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
        self._peft = model
        model.peft_config["default"].base_model_name_or_path = base

    def write(self, folder: Path) -> None:
        """Writes PEFT's own format."""
        # "auto" would ask the hub whether the vocabulary was changed.
        self._peft.save_pretrained(str(folder), save_embedding_layers=False)

    def restore(self, folder: Path) -> None:
        """Takes the tensors back.

        Raises:
            CheckpointError: the file is not there, or its tensors are others.
        """
        try:
            tensors = load_file(folder / f"{ATTENTION_STEM}.safetensors")
            outcome = set_peft_model_state_dict(self._peft, tensors)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{folder} cannot be resumed from: {error}") from error
        absent = [key for key in outcome.missing_keys if "lora_" in key]
        if absent or outcome.unexpected_keys:
            raise CheckpointError(f"{folder} holds another adapter than the one in training")


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
        pairs = self._attention
        save_ming_v1(
            folder,
            settings=self._settings,
            model_config=self._model_config,
            experts=_live_experts(self._base),
            attention=_live_pairs(self._base) if pairs is None else pairs,
        )

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        """Takes experts, routers and attention back.

        Raises:
            CheckpointError: another base or other sizes.
        """
        opened = open_checkpoint(folder)
        if opened.molora is None or _sizes(opened.molora) != _sizes(self._settings):
            raise CheckpointError(f"{folder} holds another adapter than the one in training")
        for module in routed_experts(self._base):
            stored = [opened.read_layer(path) for path in module.paths]
            twin = RoutedExperts(module.paths, stored, dtype=module.lora_a.dtype)
            module.load_state_dict(twin.state_dict())
        if self._attention is None:
            for path, layer in _lora_layers(self._base).items():
                a, b = opened.read_pair(path)
                layer.lora_A["default"].weight.copy_(a)
                layer.lora_B["default"].weight.copy_(b)


def _sizes(settings: MoLoraConfig) -> tuple[float, ...]:
    experts = (settings.num_experts, settings.experts_per_token, settings.expert_scaling)
    return (*experts, settings.rank, settings.attention_scaling)


def _live_experts(base: nn.Module) -> dict[str, LinearExperts]:
    return {
        path: one
        for module in routed_experts(base)
        for path, one in zip(module.paths, module.unstack(), strict=True)
    }


def _live_pairs(base: nn.Module) -> Pairs:
    return {
        path: (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        for path, layer in _lora_layers(base).items()
    }


def _lora_layers(base: nn.Module) -> dict[str, Any]:
    return {path: m for path, m in base.named_modules() if isinstance(m, LoraLayer)}
