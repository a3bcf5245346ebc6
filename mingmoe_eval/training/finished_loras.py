"""Reads finished PEFT LoRAs and brings them to one rank and one scaling, so that they can be mixed.

A pair of rank r below the common rank R gets R - r rows of zeros in A and columns of zeros in B;
a scaling s other than the common S goes into B, times s / S. Neither changes the pair's product
S B A. A layer that an adapter leaves alone gets zeros. Everything else that an adapter can be
(DoRA, trained biases, other ranks for some layers, a changed base) is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mingmoe_eval.errors import CheckpointError, UsageError, offence_list
from mingmoe_eval.hub import fetch
from mingmoe_eval.molora.config import (
    ADAPTER_CONFIG,
    HARMLESS_STARTS,
    PLAIN_LORA,
    lora_scaling,
    read_json,
)
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.families import linear_sizes, read_pair, sort_into_layers
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, preferred_file
from mingmoe_eval.molora.presence import SMALL_FILES
from mingmoe_eval.molora.sources import sniff

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class FinishedLora:
    """One adapter: (A [r, in], B [out, r]) by path of the layer, in fp32."""

    source: str
    base: str | None
    rank: int
    scaling: float
    pairs: Mapping[str, Pair]


@dataclass(frozen=True, slots=True, eq=False)
class AlignedLoras:
    """Several adapters of one rank and scaling; by layer A [L, R, in] and B [L, out, R]."""

    sources: tuple[str, ...]
    rank: int
    scaling: float
    layers: Mapping[str, Pair]

    @property
    def alpha(self) -> float:
        """The lora_alpha that gives this scaling, without rank stabilisation."""
        return self.scaling * self.rank


def read_loras(names: Sequence[str]) -> list[FinishedLora]:
    """Reads adapters from directories or the hub.

    Raises:
        UsageError: fewer than two.
        CheckpointError: listing every adapter that is not a plain LoRA, and why.
    """
    if len(names) < 2:
        raise UsageError("composition takes at least two adapters: --adapters a,b[,c...]")
    read, offences = [], []
    for name in names:
        try:
            read.append(_read(name))
        except CheckpointError as error:
            offences.append(str(error))
    if offences:
        raise CheckpointError(offence_list("these adapters cannot be composed:", offences))
    return read


def common_base(loras: Sequence[FinishedLora], base: str | None) -> str:
    """The base given, else the one that all adapters name.

    Raises:
        UsageError: they name none, or several.
    """
    named = sorted({lora.base or "none" for lora in loras})
    if base is not None:
        return base
    if len(named) > 1 or named == ["none"]:
        raise UsageError(f"the adapters name as their base: {', '.join(named)}; say --base")
    return named[0]


def align(loras: Sequence[FinishedLora], base: nn.Module) -> AlignedLoras:
    """Brings adapters to the greatest rank and the first one's scaling.

    Raises:
        CheckpointError: layers that the base does not have, or has in other sizes; lists them.
    """
    sizes = linear_sizes(base)
    offences = [
        f"{lora.source}: {path} has A {list(a.shape)} and B {list(b.shape)}, and the base "
        f"{'no such layer' if path not in sizes else 'in and out ' + str(list(sizes[path]))}"
        for lora in loras
        for path, (a, b) in lora.pairs.items()
        if sizes.get(path) != (a.shape[1], b.shape[0])
    ]
    if offences:
        raise CheckpointError(offence_list("these adapters do not fit the base:", offences))
    rank, scaling = max(lora.rank for lora in loras), loras[0].scaling
    # In the base's order, so that the outcome does not hang on that of any file.
    touched = [path for path in sizes if any(path in lora.pairs for lora in loras)]
    layers = {path: _stack(loras, path, sizes[path], rank, scaling) for path in touched}
    return AlignedLoras(tuple(lora.source for lora in loras), rank, scaling, layers)


def _stack(
    loras: Sequence[FinishedLora], path: str, size: tuple[int, int], rank: int, scaling: float
) -> Pair:
    stacked_a = torch.zeros(len(loras), rank, size[0])
    stacked_b = torch.zeros(len(loras), size[1], rank)
    for index, lora in enumerate(loras):
        if path in lora.pairs:
            a, b = lora.pairs[path]
            stacked_a[index, : lora.rank] = a
            # Times exactly 1 where the scalings are equal.
            stacked_b[index, :, : lora.rank] = b * (lora.scaling / scaling)
    return stacked_a, stacked_b


def _read(name: str) -> FinishedLora:
    kind = sniff(name)
    folder = Path(name)
    if kind == "hub":
        folder = fetch(name, SMALL_FILES)
        kind = sniff(folder)
    if kind != "peft-lora":
        raise CheckpointError(f"{name} is no PEFT LoRA adapter (it looks like: {kind})")
    settings = read_json(folder / ADAPTER_CONFIG)
    path = preferred_file(folder, ming.ATTENTION_STEM)
    offences = _config_offences(settings)
    if path is None:
        offences.append(f"there is no {ming.ATTENTION_STEM}.safetensors or .bin")
    if offences or path is None:
        raise CheckpointError(f"{name}: {'; '.join(offences)}")
    files = TensorFiles((path,))
    layers, strays = sort_into_layers(files.shapes, ming.pair_slot)
    offences = [f"unexpected tensor {stray}" for stray in strays]
    for layer, slots in layers.items():
        if slots.keys() != {"A", "B"}:
            offences.append(f"{layer} has only {', '.join(slots)}")
        elif _ranks(files, slots) != {settings["r"]}:
            offences.append(f"{layer} is not of rank {settings['r']}")
    if offences or not layers:
        raise CheckpointError(f"{name}: {'; '.join(offences) or 'it holds no low-rank pair'}")
    rslora = bool(settings.get("use_rslora"))
    return FinishedLora(
        source=name,
        base=settings.get("base_model_name_or_path") or None,
        rank=settings["r"],
        scaling=lora_scaling(settings["lora_alpha"], settings["r"], rslora=rslora),
        pairs={layer: read_pair(slots, files) for layer, slots in layers.items()},
    )


def _ranks(files: TensorFiles, slots: Mapping[str, str]) -> set[int]:
    return {files.shapes[slots["A"]][0], files.shapes[slots["B"]][1]}


def _config_offences(settings: Mapping[str, Any]) -> list[str]:
    offences = [
        f"{field} = {settings[field]!r} is more than a plain LoRA"
        for field, plain in PLAIN_LORA.items()
        if (settings.get(field) or plain) != plain
    ]
    start = settings.get("init_lora_weights")
    if start not in HARMLESS_STARTS:
        offences.append(f"init_lora_weights = {start!r} changes the base's weights")
    for field in ("r", "lora_alpha"):
        value = settings.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            offences.append(f"{field} must be above 0, not {value!r}")
    return offences
