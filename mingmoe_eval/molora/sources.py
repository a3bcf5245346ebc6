"""Where models come from: directories here and repositories on the hub, never the code in them."""

import logging
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora.config import ADAPTER_CONFIG, read_json
from mingmoe_eval.molora.formats.sniffing import looks_like_path

logger = logging.getLogger("mingmoe_eval.molora")

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "adapter_model.*", "non_lora_trainables.*")
"""What of a hub repository tells its kind, and is the whole of an adapter."""

WEIGHT_FILES = ("*.json", "*.safetensors", "*.bin")
"""The weights of a full model with their index and config."""


def fetch(repository: str, patterns: tuple[str, ...]) -> Path:
    """Those files of a hub repository, downloaded or from the local cache; never its code.

    Raises:
        CheckpointError: no such repository, or the hub is out of reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"{repository} is no directory here, and could not be had from the hub: {error}"
        ) from error


def transformers_config(name: str | Path) -> PretrainedConfig:
    """The transformers config of a directory or hub id, without running code of either.

    Raises:
        CheckpointError: none there, or of an architecture that transformers does not know.
    """
    try:
        return AutoConfig.from_pretrained(str(name), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the model config of {name} cannot be used: {error}") from error


def base_of(folder: Path, base: str | Path | None) -> str:
    """The base model's directory or hub id: the one given, else the one that the adapter names.

    Raises:
        CheckpointError: neither gives one, or it is a directory that is not there.
    """
    if base is not None:
        if not Path(base).is_dir() and looks_like_path(str(base)):
            raise CheckpointError(f"there is no base model directory {base}")
        return str(base)
    named = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not named:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG} names no base model: give one with --base"
        )
    # A relative path is meant from the checkpoint, wherever the command runs.
    if (folder / named).is_dir():
        return str((folder / named).resolve())
    if looks_like_path(named):
        raise CheckpointError(
            f"the base model {named!r} that {folder / ADAPTER_CONFIG} names is not there: give its "
            "directory or hub id with --base"
        )
    logger.warning(
        "the base model is %r from the hub, which %s names; --base chooses another",
        named,
        folder / ADAPTER_CONFIG,
    )
    return str(named)


def skeleton_of(config: PretrainedConfig, source: str) -> nn.Module:
    """The model without memory for its weights: layers and shapes only.

    Raises:
        CheckpointError: the config contradicts itself.
    """
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            return model
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the config of {source} describes no model that can be built: {error}"
        ) from error
