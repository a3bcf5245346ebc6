"""What a family of mixtures says of itself, and how its tensors are sorted, checked and read.

A `Family` maps each tensor's name to the layer that it belongs to and the slot that it fills there;
the rest is done here, once for all families. Slots are "A i" and "B i" of expert i, "A" where all
experts of a layer share one, "router weight", "router bias", "shared A" and "shared B" of a pair
that is always on; "A" and "B" of a plain low-rank pair.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mingmoe_eval.json_files import shown
from mingmoe_eval.molora.config import MoLoraConfig, is_count
from mingmoe_eval.molora.formats.tensor_files import (
    TensorFiles,
    preferred_file,
    required_file,
    weight_files,
)
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts

Sizes = Mapping[str, tuple[int, int]]
"""Path of a linear layer -> its (in, out) features."""

Layers = Mapping[str, Mapping[str, str]]
"""Path of a linear layer -> slot -> name of the tensor that fills it."""

SlotOf = Callable[[str], tuple[str, str] | None]
"""Tensor name -> (path, slot), or None if it belongs to no layer that the mapper knows."""

_LAYER_INDEX = re.compile(r"\.(\d+)\.")


class ReadSettings(Protocol):
    """Makes one record of what an adapter's JSON files say, or refuses them."""

    def __call__(
        self, adapter: Mapping[str, Any], model: Mapping[str, Any], *, reference_compat: bool
    ) -> MoLoraConfig:
        """`adapter`, `model`: the two files as dicts, the second empty where it is not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of mixtures, as a record that sorting, checking and reading ask.

    Attributes:
        name: the kind of its checkpoints.
        read_settings: reads adapter_config.json and, where `own_config`, config.json.
        expert_slot: of a tensor that is an expert's or a router's.
        pair_slot: of a tensor of a plain low-rank pair; asked where `expert_slot` gives None.
        file_stems: the files that hold the tensors, the first of which must be there.
        own_config: the checkpoint's config.json describes the model, not the base's own.
        in_model: experts lie among the weights of a full model, whose loading accounts for the
            other tensors.
        every_ffn: all feed-forward layers have experts, whatever target_modules says.
        only_ffn: layers outside of feed-forward blocks get a plain pair.
        dense: the mixture weighs all experts, not the K largest.
        router_bias: routers have one, and a single expert has no router.
        shared_a: all experts of a layer have one A, in slot "A".
        block_router: one router a feed-forward block decides for its three layers; its slot is
            filed under the block.
        varying: a layer may have fewer experts than the config says; its router tells how many.
    """

    name: str
    read_settings: ReadSettings
    expert_slot: SlotOf
    pair_slot: SlotOf
    file_stems: tuple[str, ...] = ("adapter_model",)
    own_config: bool = False
    in_model: bool = False
    every_ffn: bool = False
    only_ffn: bool = False
    dense: bool = False
    router_bias: bool = False
    shared_a: bool = False
    block_router: bool = False
    varying: bool = False

    def has_experts(self, layer: str) -> bool:
        """Whether a target layer of this name gets experts, and not a plain pair."""
        return not self.only_ffn or layer in FFN_LINEARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A checkpoint's settings, and its tensors by the layers of the base that they belong to.

    `strays` are the tensors that fill no slot, or one that is taken.
    """

    family: Family
    config: MoLoraConfig
    files: TensorFiles
    experts: Layers
    pairs: Layers
    strays: tuple[str, ...]

    def offences(self, sizes: Sizes, architecture: str) -> list[str]:
        """Everything that keeps the tensors from being those of the base's layers.

        A layer name that the config or the file has must have experts, or a pair, in every block:
        one that is missing somewhere is a hole in the file, not a choice.

        Args:
            sizes: of the base's linear layers.
            architecture: the base's, for a message.
        """
        # Of a full model only the experts are asked: its loading accounts for the rest.
        strays = () if self.family.in_model else self.strays
        offences = [f"unexpected tensor {name}" for name in strays]
        ours = {
            name
            for slots in (*self.experts.values(), *self.pairs.values())
            for name in slots.values()
        }
        offences += [f"{name} holds whole numbers" for name in self.files.integers if name in ours]
        if self.family.every_ffn and not _ffn_paths(sizes):
            offences.append(f"{architecture} has no block with {', '.join(FFN_LINEARS)}")
        return [*offences, *_expert_offences(self, sizes), *_pair_offences(self, sizes)]

    def read_pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(Path, A [r, in], B [out, r]) of each plain low-rank pair, in fp32."""
        for path, slots in self.pairs.items():
            yield path, *read_pair(slots, self.files)

    def read_blocks(self) -> Iterator[tuple[str, dict[str, LinearExperts]]]:
        """(Path of a block, the experts of its layers by their names), in fp32."""
        # A block's router is filed under the block itself, which is no layer.
        layers = [path for path, slots in self.experts.items() if slots.keys() - {"router weight"}]
        for block in dict.fromkeys(map(parent_of, layers)):
            of_block = [path for path in layers if parent_of(path) == block]
            yield block, {last_of(path): self.read_layer(path) for path in of_block}

    def read_layer(self, path: str) -> LinearExperts:
        """The experts of one layer, in fp32; of a mixture without offences.

        With a block's router, the records of its three layers hold the same one. A single
        expert's router is else left out: its weight is always 1.
        """
        family, slots = self.family, self.experts[path]

        def read(name: str) -> Tensor:
            return self.files.read(name).float()

        n = sum(slot.startswith("B ") for slot in slots)
        of_router = self.experts[parent_of(path)] if family.block_router else slots
        routed = n > 1 or family.block_router
        shared = [read(slots[f"shared {half}"]) for half in "AB" if f"shared {half}" in slots]
        return LinearExperts(
            a=torch.stack([read(slots["A" if family.shared_a else f"A {i}"]) for i in range(n)]),
            b=torch.stack([read(slots[f"B {i}"]) for i in range(n)]),
            router_weight=read(of_router["router weight"]) if routed else None,
            router_bias=read(of_router["router bias"]) if routed and family.router_bias else None,
            top_k=n if family.dense else min(self.config.experts_per_token, n),
            scaling=self.config.expert_scaling,
            shared=(shared[0], shared[1]) if shared else None,
        )


def read_mixture(
    family: Family,
    folder: Path,
    adapter: Mapping[str, Any],
    model: Mapping[str, Any],
    *,
    reference_compat: bool,
) -> Mixture:
    """Reads the settings of a checkpoint and sorts its tensors, whatever base they are for.

    Raises:
        CheckpointError: settings that cannot be used, or a file that is not there or unreadable.
    """
    config = family.read_settings(adapter, model, reference_compat=reference_compat)
    files = TensorFiles(_files_of(family, folder, pairs_due=bool(adapter.get("target_modules"))))
    # Experts first: a plain pair's pattern is the wider one, and would take theirs.
    experts, others = sort_into_layers(files.shapes, family.expert_slot)
    pairs, strays = sort_into_layers(others, family.pair_slot)
    if stated := _shared_otherwise(experts, model, config.rank, files):
        config = dataclasses.replace(config, notes=(*config.notes, stated))
    if model.get("share_expert") and not any("shared A" in slots for slots in experts.values()):
        note = "share_expert is set and, as in the reference's loader, changes nothing"
        config = dataclasses.replace(config, notes=(*config.notes, note))
    return Mixture(
        family=family,
        config=config,
        files=files,
        experts=experts,
        pairs=pairs,
        strays=tuple(strays),
    )


def _shared_otherwise(
    experts: Layers, model: Mapping[str, Any], rank: int, files: TensorFiles
) -> str | None:
    """A note where the file holds another number of shared experts than the config says."""
    said = model.get("num_share_experts")
    rows = {files.shapes[slots["shared A"]][0] for slots in experts.values() if "shared A" in slots}
    if said is None or not rows or rows == {said * rank if is_count(said) else None}:
        return None
    held = ", ".join(str(count // rank) for count in sorted(rows))
    return f"num_share_experts = {shown(said)}, and the file holds {held}, which are computed"


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


def read_pair(slots: Mapping[str, str], files: TensorFiles) -> tuple[Tensor, Tensor]:
    """A [r, in] and B [out, r] of one layer, in fp32."""
    return files.read(slots["A"]).float(), files.read(slots["B"]).float()


def linear_sizes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Every layer that says how many features it takes and gives: path -> (in, out)."""
    return {
        path: (module.in_features, module.out_features)
        for path, module in model.named_modules()
        if isinstance(getattr(module, "in_features", None), int)
        and isinstance(getattr(module, "out_features", None), int)
    }


def ffn_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The feed-forward blocks with a gate, an up and a down projection, whatever their class."""
    return {path: model.get_submodule(path) for path in _ffn_paths(linear_sizes(model))}


def _ffn_paths(sizes: Sizes) -> dict[str, None]:
    """The feed-forward blocks with a gate, an up and a down projection, whatever their class."""
    blocks = dict.fromkeys(parent_of(path) for path in sizes)
    return {b: None for b in blocks if all(f"{b}.{name}" in sizes for name in FFN_LINEARS)}


def last_of(path: str) -> str:
    """The name of a layer without those of the modules around it."""
    return path.rpartition(".")[2]


def parent_of(path: str) -> str:
    """The path of the module that holds a layer."""
    return path.rpartition(".")[0]


def _files_of(family: Family, folder: Path, *, pairs_due: bool) -> tuple[Path, ...]:
    """The family's files; one that is there is read, whether or not the config speaks of pairs."""
    if family.in_model:
        return weight_files(folder)
    first, *others = family.file_stems
    there = [stem for stem in others if pairs_due or preferred_file(folder, stem)]
    return tuple(required_file(folder, stem) for stem in (first, *there))


def _expert_offences(mixture: Mixture, sizes: Sizes) -> list[str]:
    family, layers, files = mixture.family, mixture.experts, mixture.files
    due, offences = _layers_due(mixture, sizes)
    for path in due:
        if family.every_ffn and path not in layers:
            offences.append(f"{path} has no experts")
            continue
        count = _count_at(mixture, path)
        slots = layers.get(path, {})
        shapes = _expert_shapes(mixture, slots, count, *sizes[path])
        offences += _slot_offences(path, slots, shapes, files)
        if family.block_router:
            block = parent_of(path)
            shapes = {"router weight": (count, sizes[f"{block}.{FFN_LINEARS[0]}"][0])}
            offences += _slot_offences(block, layers.get(block, {}), shapes, files)
    return list(dict.fromkeys(offences))


def _pair_offences(mixture: Mixture, sizes: Sizes) -> list[str]:
    family, config, layers = mixture.family, mixture.config, mixture.pairs
    offences = [
        f"{path} has a low-rank pair, but the base has no such layer"
        for path in layers
        if path not in sizes
    ]
    targets = {
        name for name in config.target_modules if family.every_ffn or not family.has_experts(name)
    }
    absent = sorted(targets - {last_of(path) for path in sizes})
    offences += [f"target_modules names {name}, which the base does not have" for name in absent]
    targets |= {last_of(path) for path in layers}
    for path, (inputs, outputs) in sizes.items():
        if last_of(path) in targets:
            due = {"A": (config.pair_rank, inputs), "B": (outputs, config.pair_rank)}
            offences += _slot_offences(path, layers.get(path, {}), due, mixture.files)
    return offences


def _layers_due(mixture: Mixture, sizes: Sizes) -> tuple[list[str], list[str]]:
    """The layers that must have experts; and what is wrong with the names alone."""
    family, layers = mixture.family, mixture.experts
    if family.every_ffn:
        due = [f"{block}.{name}" for block in _ffn_paths(sizes) for name in FFN_LINEARS]
        return due, [
            f"{path} has experts, but the base has no such feed-forward layer"
            for path in layers
            if path not in due
        ]
    blocks = {parent_of(path) for path in sizes} if family.block_router else set()
    offences = [
        f"{path} has experts, but the base has no such layer"
        for path in layers
        if path not in sizes and path not in blocks
    ]
    targets = {name for name in mixture.config.target_modules if family.has_experts(name)}
    known = {last_of(path) for path in sizes}
    absent = sorted(targets - known)
    offences += [f"target_modules names {name}, which the base does not have" for name in absent]
    targets |= {last_of(path) for path in layers if path in sizes}
    if not targets & known:
        offences.append("no layer has experts")
    return [path for path in sizes if last_of(path) in targets], offences


def _count_at(mixture: Mixture, path: str) -> int:
    """How many experts a layer has to have, by the config or, where that leaves room, its router.

    A router has a row for every expert, so that a lost expert shows all the same.
    """
    config, layer = mixture.config, _LAYER_INDEX.search(path)
    if config.experts_by_layer and layer and int(layer[1]) < len(config.experts_by_layer):
        return config.experts_by_layer[int(layer[1])]
    router = mixture.experts.get(path, {}).get("router weight")
    if mixture.family.varying and router is not None:
        return min(mixture.files.shapes[router][0], config.num_experts)
    return config.num_experts


def _expert_shapes(
    mixture: Mixture, slots: Mapping[str, str], count: int, inputs: int, outputs: int
) -> dict[str, tuple[int, ...]]:
    """The slots that a layer must have, and no others, each with its tensor's shape."""
    family, rank = mixture.family, mixture.config.rank
    due: dict[str, tuple[int, ...]] = {"A": (rank, inputs)} if family.shared_a else {}
    for index in range(count):
        due |= {} if family.shared_a else {f"A {index}": (rank, inputs)}
        due[f"B {index}"] = (outputs, rank)
    # A router of one expert decides nothing: MING writes none, MoE-PEFT writes it all the same.
    if family.router_bias and count > 1:
        due |= {"router weight": (count, inputs), "router bias": (count,)}
    elif not family.router_bias and not family.block_router:
        due["router weight"] = (count, inputs)
    if "shared A" in slots or "shared B" in slots:
        # Several shared experts lie stacked in one pair, and the file alone says how many.
        stacked = mixture.files.shapes[slots["shared A"]][0] if "shared A" in slots else rank
        whole = max(stacked // rank, 1) * rank
        due |= {"shared A": (whole, inputs), "shared B": (outputs, whole)}
    return due


def _slot_offences(
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
