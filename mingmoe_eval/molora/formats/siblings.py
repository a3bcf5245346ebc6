"""MING's siblings: which family an adapter is of, what its config says, whether it is whole."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.config import MoLoraConfig, is_count, lora_offences
from mingmoe_eval.molora.formats import hydralora, loramoe, mixlora, mola
from mingmoe_eval.molora.formats.family import MOST_EXPERTS, Family
from mingmoe_eval.molora.formats.keys import Layers, Sizes, slot_offences
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, preferred_file
from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.molora.structure import FFN_LINEARS

MOE_PEFT_TOP_K = 2
"""What MoE-PEFT assumes when a config says nothing of K."""

_REFUSED = {
    "mixlora-dynamic": "its router takes a varying number of experts, not renormalised",
    "mixlora-switch": "its own inference returns the block's input unchanged",
    "xlora": "PEFT loads it itself: merge it there, or evaluate it with lm-eval's `hf` model",
    "arrow": "PEFT builds it itself, with create_arrow_model, from a list of ordinary LoRAs",
}
_LAYER_INDEX = re.compile(r"\.(\d+)\.")


def family_of(folder: Path, config: Mapping[str, Any]) -> Family | None:
    """The family that an adapter_config.json names; None for a plain LoRA.

    Raises:
        CheckpointError: a family that cannot be loaded here, with the reason.
    """
    peft_type = str(config.get("peft_type", "")).upper()
    strategy = str(config.get("routing_strategy", "")).lower()
    if peft_type == "LORA" and config.get("arrow_config"):
        peft_type = "ARROW"
    if peft_type == "LORA":
        return _vendored_family(folder) if "lora_nums" in config else None
    if peft_type == "MIXLORA" and strategy in mixlora.STRATEGIES:
        return mixlora.FAMILY
    if peft_type in ("MOLA", "LORAMOE"):
        return mola.FAMILY if peft_type == "MOLA" else loramoe.MOE_PEFT
    name = strategy if strategy.startswith("mixlora") else peft_type.lower() or "unnamed"
    reason = _REFUSED.get(name, "no loader for it exists here")
    raise CheckpointError(
        f"{folder} is an adapter of the kind {name!r} (peft_type {config.get('peft_type')!r}), "
        f"which cannot be loaded: {reason}. Adapters of MING-MOE, MixLoRA, MoLA, LoRAMoE, "
        "HydraLoRA and PEFT's LORA can"
    )


def read_settings(family: Family, config: Mapping[str, Any]) -> MoLoraConfig:
    """The settings of a sibling's adapter_config.json.

    MixLoRA's `expert_lora` block holds the experts' rank and scaling; its own package reads it
    and then uses the attention's, so that experts come back other than they were trained.

    Raises:
        CheckpointError: listing every field that is absent, senseless or not supported.
    """
    of_experts = {**config, **(config.get("expert_lora") or {})}
    counts = _expert_counts(family, config)
    top_k = config.get("top_k", MOE_PEFT_TOP_K)
    offences = list(dict.fromkeys([*lora_offences(config), *lora_offences(of_experts)]))
    offences += _count_offences(family, counts, top_k)
    if (act_fn := config.get("act_fn")) and act_fn not in ACT2FN:
        offences.append(f"act_fn = {act_fn!r} is no activation that transformers knows")
    if offences:
        raise CheckpointError(offence_list("the adapter's configuration cannot be used:", offences))
    return MoLoraConfig(
        num_experts=max(counts),
        experts_by_layer=counts if len(counts) > 1 else (),
        experts_per_token=max(counts) if family.dense else top_k,
        rank=of_experts["r"],
        alpha=of_experts["lora_alpha"],
        attention_rank=config["r"],
        attention_alpha=config["lora_alpha"],
        expert_rslora=bool(of_experts.get("use_rslora")),
        attention_rslora=bool(config.get("use_rslora")),
        base=config.get("base_model_name_or_path") or None,
        target_modules=family.targets(config),
        act_fn=config.get("act_fn") or None,
        notes=tuple(_notes(config)),
    )


def family_offences(
    family: Family, layers: Layers, files: TensorFiles, sizes: Sizes, config: MoLoraConfig
) -> list[str]:
    """Everything that keeps these tensors from being the experts of the base's layers.

    A layer name that the config or the file has must have experts in every block.
    """
    blocks = {_parent(path) for path in sizes} if family.block_router else set()
    offences = [
        f"{path} has experts, but the base has no such layer"
        for path in layers
        if path not in sizes and path not in blocks
    ]
    targets = {name for name in config.target_modules if family.has_experts(name)}
    known = {_last(path) for path in sizes}
    absent = sorted(targets - known)
    offences += [f"target_modules names {name}, which the base does not have" for name in absent]
    targets |= {_last(path) for path in layers if path in sizes}
    if not targets & known:
        offences.append("no layer has experts")
    for path, (inputs, outputs) in sizes.items():
        if _last(path) in targets:
            count = _count_at(family, path, layers, files, config)
            due = _due_shapes(family, count, config.rank, inputs, outputs)
            offences += slot_offences(path, layers.get(path, {}), due, files)
            if family.block_router:
                due = {"router weight": (count, _width(path, sizes))}
                block = _parent(path)
                offences += slot_offences(block, layers.get(block, {}), due, files)
    return list(dict.fromkeys(offences))


def read_family_experts(
    family: Family, path: str, layers: Layers, files: TensorFiles, config: MoLoraConfig
) -> LinearExperts:
    """The record of one layer, in fp32; for layers in which `family_offences` found nothing.

    With a block's router, the records of its three layers hold the same one. A single expert's
    router is else left out: its weight is always 1.
    """
    slots = layers[path]

    def read(name: str) -> Tensor:
        return files.read(name).float()

    count = sum(slot.startswith("B ") for slot in slots)
    of_router = layers[_parent(path)] if family.block_router else slots
    a_slots = ["A" if family.shared_a else f"A {index}" for index in range(count)]
    return LinearExperts(
        a=torch.stack([read(slots[slot]) for slot in a_slots]),
        b=torch.stack([read(slots[f"B {index}"]) for index in range(count)]),
        router_weight=read(of_router["router weight"])
        if count > 1 or family.block_router
        else None,
        router_bias=None,
        top_k=count if family.dense else min(config.experts_per_token, count),
        scaling=config.expert_scaling,
    )


def _vendored_family(folder: Path) -> Family:
    """LoRAMoE's or HydraLoRA's own PEFT: their configs are alike, their tensors are not."""
    path = preferred_file(folder, ATTENTION_STEM)
    names = TensorFiles((path,)).shapes if path else {}
    shared = any(name.endswith(".lora_A.weight") for name in names)
    return hydralora.FAMILY if shared else loramoe.ORIGINAL


def _expert_counts(family: Family, config: Mapping[str, Any]) -> tuple[Any, ...]:
    given = config.get(family.experts_field)
    return tuple(given) if isinstance(given, list) and given else (given,)


def _count_offences(family: Family, counts: tuple[Any, ...], top_k: Any) -> Iterator[str]:
    name = family.experts_field
    if bad := [count for count in counts if not is_count(count) or count > MOST_EXPERTS]:
        yield f"{name} must be a whole number from 1 to {MOST_EXPERTS}, not {bad[0]!r}"
    elif not family.dense and is_count(top_k) and top_k > min(counts) > 1:
        yield f"top_k = {top_k} exceeds {name} = {min(counts)}"
    if not family.dense and not is_count(top_k):
        yield f"top_k must be a positive whole number, not {top_k!r}"


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("expert_lora"):
        yield "the experts have a rank and a scaling of their own, from expert_lora"
    if config.get("jitter_noise"):
        yield (
            f"jitter_noise = {config['jitter_noise']} is left out: it belongs to training, "
            "although the mixlora package adds it whenever it is set"
        )


def _count_at(
    family: Family, path: str, layers: Layers, files: TensorFiles, config: MoLoraConfig
) -> int:
    """How many experts a layer has to have, by the config or, where that leaves room, its router.

    A router has a row for every expert, so that a lost expert shows all the same.
    """
    layer = _LAYER_INDEX.search(path)
    if config.experts_by_layer and layer and int(layer[1]) < len(config.experts_by_layer):
        return config.experts_by_layer[int(layer[1])]
    router = layers.get(path, {}).get("router weight")
    if family.varying and router is not None:
        return min(files.shapes[router][0], config.num_experts)
    return config.num_experts


def _due_shapes(
    family: Family, count: int, rank: int, inputs: int, outputs: int
) -> dict[str, tuple[int, ...]]:
    due: dict[str, tuple[int, ...]] = {"A": (rank, inputs)} if family.shared_a else {}
    for index in range(count):
        due |= {} if family.shared_a else {f"A {index}": (rank, inputs)}
        due[f"B {index}"] = (outputs, rank)
    return due if family.block_router else due | {"router weight": (count, inputs)}


def _width(path: str, sizes: Sizes) -> int:
    """How many features the block of a layer reads."""
    return sizes[f"{_parent(path)}.{FFN_LINEARS[0]}"][0]


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _last(path: str) -> str:
    return path.rpartition(".")[2]
