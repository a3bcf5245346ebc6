"""Which tensors of a checkpoint make up the experts of one linear layer, whatever family wrote it.

A family's mapper says for each tensor name which layer it belongs to and which slot it fills
there; shapes are checked and tensors are read here, once for all families. Slots are "A i" and
"B i" of expert i, "router weight", "router bias", "shared A", "shared B"; "A" and "B" of a plain
low-rank pair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.tensor_files import TensorFiles
from mingmoe_eval.molora.layers import LinearExperts

Sizes = Mapping[str, tuple[int, int]]
"""Path of a linear layer -> its (in, out) features."""

Layers = Mapping[str, Mapping[str, str]]
"""Path of a linear layer -> slot -> name of the tensor that fills it."""

SlotOf = Callable[[str], tuple[str, str] | None]
"""Tensor name -> (path, slot), or None if it belongs to no layer that the mapper knows."""


def sort_into_layers(names: Iterable[str], slot_of: SlotOf) -> tuple[Layers, list[str]]:
    """The layers with their slots, and the names that fill none or one that is taken."""
    layers: dict[str, dict[str, str]] = {}
    strays = []
    for name in names:
        found = slot_of(name)
        if found is None or found[1] in layers.get(found[0], {}):
            strays.append(name)
        else:
            layers.setdefault(found[0], {})[found[1]] = name
    return layers, strays


def expert_offences(
    layers: Layers, files: TensorFiles, sizes: Sizes, config: MoLoraConfig
) -> list[str]:
    """Everything that keeps these tensors from being the experts of exactly these layers."""
    offences = [
        f"{path} has experts, but the base has no such feed-forward layer"
        for path in layers
        if path not in sizes
    ]
    for path, size in sizes.items():
        if path in layers:
            due = _due_shapes(layers[path], files, size, config)
            offences += slot_offences(path, layers[path], due, files)
        else:
            offences.append(f"{path} has no experts")
    return offences


def pair_offences(
    layers: Layers, files: TensorFiles, sizes: Sizes, config: MoLoraConfig
) -> list[str]:
    """Everything that keeps these tensors from being low-rank pairs of the base's layers.

    A layer name that occurs must occur in every block: one that is missing somewhere is a hole in
    the file, not a choice.
    """
    offences = [
        f"{path} has a low-rank pair, but the base has no such layer"
        for path in layers
        if path not in sizes
    ]
    targets = set(config.target_modules)
    absent = sorted(targets - {_last(path) for path in sizes})
    offences += [f"target_modules names {name}, which the base does not have" for name in absent]
    targets |= {_last(path) for path in layers}
    for path, (inputs, outputs) in sizes.items():
        if _last(path) in targets:
            due = {"A": (config.pair_rank, inputs), "B": (outputs, config.pair_rank)}
            offences += slot_offences(path, layers.get(path, {}), due, files)
    return offences


def read_experts(
    slots: Mapping[str, str], files: TensorFiles, config: MoLoraConfig
) -> LinearExperts:
    """The record of one layer, in fp32; for slots in which `expert_offences` found nothing."""

    def read(slot: str) -> Tensor:
        return files.read(slots[slot]).float()

    count = range(config.num_experts)
    return LinearExperts(
        a=torch.stack([read(f"A {i}") for i in count]),
        b=torch.stack([read(f"B {i}") for i in count]),
        router_weight=read("router weight") if "router weight" in slots else None,
        router_bias=read("router bias") if "router bias" in slots else None,
        top_k=config.experts_per_token,
        scaling=config.expert_scaling,
        shared=(read("shared A"), read("shared B")) if "shared A" in slots else None,
    )


def read_pair(slots: Mapping[str, str], files: TensorFiles) -> tuple[Tensor, Tensor]:
    """A [r, in] and B [out, r] of one layer, in fp32."""
    return files.read(slots["A"]).float(), files.read(slots["B"]).float()


def _due_shapes(
    slots: Mapping[str, str], files: TensorFiles, size: tuple[int, int], config: MoLoraConfig
) -> dict[str, tuple[int, ...]]:
    (inputs, outputs), rank, count = size, config.rank, config.num_experts
    due: dict[str, tuple[int, ...]] = {}
    for index in range(count):
        due |= {f"A {index}": (rank, inputs), f"B {index}": (outputs, rank)}
    if count > 1:
        due |= {"router weight": (count, inputs), "router bias": (count,)}
    if "shared A" in slots or "shared B" in slots:
        # Several shared experts lie stacked in one pair, and the file alone says how many.
        stacked = files.shapes[slots["shared A"]][0] if "shared A" in slots else rank
        whole = max(stacked // rank, 1) * rank
        due |= {"shared A": (whole, inputs), "shared B": (outputs, whole)}
    return due


def slot_offences(
    path: str,
    slots: Mapping[str, str],
    due: Mapping[str, tuple[int, ...]],
    files: TensorFiles,
) -> Iterator[str]:
    """Slots that are empty, of another shape than is due, or one too many."""
    for slot, shape in due.items():
        if slot not in slots:
            yield f"{path} lacks {slot}, of shape {list(shape)}"
        elif (found := files.shapes[slots[slot]]) != shape:
            yield f"{path} has {slot} of shape {list(found)} instead of {list(shape)}"
    yield from (f"{path} has {slot}, which is one too many" for slot in slots if slot not in due)


def _last(path: str) -> str:
    return path.rpartition(".")[2]
