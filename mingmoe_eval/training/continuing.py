"""A finished adapter that goes on: its settings taken over, what contradicts them refused."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import CheckpointError, UsageError, offence_list
from mingmoe_eval.molora.config import ADAPTER_CONFIG, lora_offences, read_json
from mingmoe_eval.molora.description import describe
from mingmoe_eval.molora.formats.families import last_of
from mingmoe_eval.molora.opening import OpenCheckpoint, open_checkpoint
from mingmoe_eval.training.spec import AdapterShape, Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a finished adapter settles of the training that goes on with it."""

    base: str
    method: Method
    shape: AdapterShape


def take_over(adapter: str, base: str | None, asked: Mapping[str, Any]) -> Beginning:
    """The base, method and shape of a finished adapter.

    Args:
        adapter: a directory or hub id.
        base: where its base is, if not where it says.
        asked: what the user said of method and shape, by their fields' names; None: nothing.

    Raises:
        CheckpointError: an adapter that is not of a form that this program writes.
        UsageError: listing what was asked and contradicts the adapter.
    """
    opened = open_checkpoint(adapter, base)
    method: Method = "lora" if opened.kind == "peft-lora" else "molora"
    shape = _shape_of_lora(opened) if method == "lora" else _shape_of_mixture(opened)
    wanted: Method = asked.get("method") or method
    offences = []
    if (wanted == "lora") != (method == "lora"):
        offences.append(f"method {wanted}: the adapter is of method {method}")
    for field in fields(shape):
        value, own = asked.get(field.name), getattr(shape, field.name)
        if value is not None and value != own:
            shown = field.name.replace("_", "-")
            offences.append(f"{shown} {_words(value)}: the adapter's is {_words(own)}")
    if offences:
        raise UsageError(offence_list(f"{adapter} goes on with its own settings:", offences))
    return Beginning(base=base or opened.weights, method=wanted, shape=shape)


def adapter_folder(adapter: str, base: str) -> Path:
    """Where the files of an adapter are on this machine."""
    return open_checkpoint(adapter, base).folder


def _shape_of_lora(opened: OpenCheckpoint) -> AdapterShape:
    settings = read_json(opened.folder / ADAPTER_CONFIG)
    offences = lora_offences(settings)
    if opened.files.paths[0].suffix != ".safetensors":
        offences.append("its tensors are a .bin file: save it once as safetensors")
    targets = {last_of(name.partition(".lora_")[0]) for name in opened.files.shapes}
    if offences:
        raise CheckpointError(offence_list(f"{opened.source} cannot go on:", offences))
    return AdapterShape(
        rank=settings["r"],
        alpha=float(settings["lora_alpha"]),
        rslora=bool(settings.get("use_rslora")),
        targets=tuple(sorted(targets)),
    )


def _shape_of_mixture(opened: OpenCheckpoint) -> AdapterShape:
    mixture = opened.mixture
    described = describe(opened).mixture
    if mixture is None or described is None or described.generation != 1:
        raise CheckpointError(
            f"{opened.source} cannot go on: only PEFT's LoRAs and mixtures of MING's first format "
            f"do, and this is {opened.kind}"
        )
    config = mixture.config
    offences = []
    if config.pair_rank != config.rank or config.attention_scaling != config.expert_scaling:
        offences.append("its attention has another rank or scaling than its experts")
    if len(set(config.experts_by_layer)) > 1:
        offences.append("its layers have different numbers of experts")
    if config.act_fn is not None:
        offences.append("its experts have an activation of their own")
    if not mixture.pairs:
        offences.append("it has no LoRA on attention")
    if offences:
        raise CheckpointError(offence_list(f"{opened.source} cannot go on:", offences))
    return AdapterShape(
        num_experts=config.num_experts,
        experts_per_token=config.experts_per_token,
        rank=config.rank,
        alpha=config.alpha,
        rslora=config.expert_rslora,
        targets=tuple(sorted({last_of(path) for path in mixture.pairs})),
    )


def _words(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else f"{value}"
