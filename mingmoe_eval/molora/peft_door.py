"""The one door to PEFT: a LoRA of its own format loaded, merged, or made for training.

Nothing else in the package imports peft. `RELIES_ON` and `OF_A_LAYER` name what is used of it that
its documentation does not promise; a test resolves each, so that a release that takes one away is
found by its name.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft import (
    PeftModel as PeftModel,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM
from mingmoe_eval.molora.opening import OpenCheckpoint
from mingmoe_eval.molora.probing import largest_difference, probe_logits

RELIES_ON = (
    "PeftModel.disable_adapter",
    "PeftModel.get_base_model",
    "PeftModel.save_pretrained",
    "tuners.lora.LoraLayer",
    "tuners.lora.LoraModel.merge_and_unload",
    "utils.save_and_load.get_peft_model_state_dict",
    "utils.save_and_load.set_peft_model_state_dict",
)
"""Below `peft`."""

OF_A_LAYER = ("lora_A", "lora_B")
"""Of a `LoraLayer`: dicts by the adapter's name, whose modules have a `weight`."""

ADAPTER = "default"
"""The name under which PEFT puts a model's only adapter."""

MISSING_KEYS = "Found missing adapter keys"
"""How PEFT's warning begins when an adapter's file lacks tensors; it is taken for an error."""


def apply_adapter(model: PreTrainedModel, opened: OpenCheckpoint) -> tuple[PreTrainedModel, float]:
    """The model with an adapter merged, or live beside a quantised base.

    Also gives the most that the adapter moves a logit of the probe.

    Raises:
        CheckpointError: PEFT refuses it, or its file holds tensors that the base has no place for.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=MISSING_KEYS)
            tuned = PeftModel.from_pretrained(model, str(opened.folder)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UserWarning) as error:
        raise CheckpointError(f"{opened.source} does not fit its base: {error}") from error
    live = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    strays = [name for name in opened.files.shapes if "lora_" in name and name not in live]
    if strays:
        headline = f"{opened.source} holds tensors for layers that its base does not have:"
        raise CheckpointError(offence_list(headline, strays))
    with_adapter = probe_logits(tuned)
    with tuned.disable_adapter():
        effect = largest_difference(with_adapter, probe_logits(tuned))
    if getattr(model, "is_quantized", False):
        return tuned.get_base_model(), effect
    return tuned.merge_and_unload(), effect


def add_lora(
    base: PreTrainedModel, *, rank: int, alpha: float, rslora: bool = False, targets: Sequence[str]
) -> PeftModel:
    """The base with a LoRA on layers of these names or paths: A drawn by PEFT, B zero."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        target_modules=list(targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def live_pairs(model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(Path, A, B) of every layer with a LoRA, the parameters themselves."""
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            halves: Any = (getattr(layer, name)[ADAPTER].weight for name in OF_A_LAYER)
            yield path, *halves


def save_adapter(model: PeftModel, folder: Path, *, base: str) -> None:
    """Writes PEFT's own format, with the base's name."""
    model.peft_config[ADAPTER].base_model_name_or_path = base
    # "auto" would ask the hub whether the vocabulary was changed.
    model.save_pretrained(str(folder), save_embedding_layers=False)


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Takes back what `save_adapter` wrote.

    Raises:
        CheckpointError: the file is not there, or its tensors are others.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(folder / f"{ATTENTION_STEM}.safetensors")
        outcome = set_peft_model_state_dict(model, tensors)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be resumed from: {error}") from error
    absent = [key for key in outcome.missing_keys if "lora_" in key]
    if absent or outcome.unexpected_keys:
        raise CheckpointError(f"{folder} holds another adapter than the one in training")
