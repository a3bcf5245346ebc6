"""What kind of model a directory holds, told from JSON files and safetensors headers alone."""

from pathlib import Path
from typing import Any, Literal

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora.config import ADAPTER_CONFIG, MODEL_CONFIG, read_json
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.family import FamilyName
from mingmoe_eval.molora.formats.siblings import family_of
from mingmoe_eval.molora.formats.tensor_files import (
    TensorFiles,
    indexed_names,
    preferred_file,
    weight_files,
)

Kind = Literal["molora", "molora-merged", "peft-lora", "full", "hub"] | FamilyName


def sniff(path: str | Path) -> Kind:
    """The kind of a model directory; "hub" for a name that is not one.

    Raises:
        CheckpointError: a path that does not exist, or a directory in no form that we load.
    """
    folder = Path(path)
    if not folder.is_dir():
        if looks_like_path(str(path)):
            raise CheckpointError(f"there is no model directory {path}")
        return "hub"
    if preferred_file(folder, ming.EXPERTS_STEM):
        return "molora"
    if (folder / ADAPTER_CONFIG).is_file():
        return _adapter_kind(folder)
    if (folder / "molora.bin").is_file():
        raise CheckpointError(
            f"{folder} is an unfinished training state: its molora.bin holds no routers; use the "
            f"final checkpoint, which has {ming.EXPERTS_STEM}.bin"
        )
    if not (folder / MODEL_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} holds no model: neither {ADAPTER_CONFIG} nor {MODEL_CONFIG} is there"
        )
    return "molora-merged" if _experts_among_weights(folder) else "full"


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path: a hub id is one word, or two with a slash."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1


def _adapter_kind(folder: Path) -> Kind:
    if family := family_of(folder, read_json(folder / ADAPTER_CONFIG)):
        return family.name
    if _config_of(folder).get("num_experts_per_token") is not None:
        raise CheckpointError(
            f"{folder / MODEL_CONFIG} speaks of experts, but the file that holds them and their "
            f"routers, {ming.EXPERTS_STEM}.bin or .safetensors, is not there"
        )
    return "peft-lora"


def _experts_among_weights(folder: Path) -> bool:
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / name).is_file():
            return ming.has_experts(indexed_names(folder / name))
    if (folder / "model.safetensors").is_file():
        return ming.has_experts(TensorFiles(weight_files(folder)).shapes)
    # One pickle: it has no header, so the config has to tell.
    config = _config_of(folder)
    return "num_experts_per_token" in config and "expert_selection" in config


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_CONFIG
    return read_json(path) if path.is_file() else {}
