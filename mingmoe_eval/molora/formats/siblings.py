"""MING's siblings, each a record: how it names its tensors, reads its settings, and is recognised.

To add a family, write its mapper and its `Family` here, and name its peft_type in `family_of`.

MoE-PEFT gives each linear layer a router of its own, without a bias:

    FAMILY.layers.L.M.P.moe_gate.weight
    FAMILY.layers.L.M.P.experts.I.lora_{A,B}.weight
    FAMILY.layers.L.M.P.lora_{A,B}.weight                    a plain low-rank pair

FAMILY being mola (arXiv 2402.08562: experts on every linear layer, of which each layer may have its
own number) or loramoe (arXiv 2312.09979: a softmax over all experts of a feed-forward layer, none
left out). The original LoRAMoE and HydraLoRA (arXiv 2404.19245) each come with a PEFT of their own,
which gives every target layer `lora_nums` experts; HydraLoRA's share one A:

    base_model.model.model.layers.L.M.P.lora_route.weight
    base_model.model.model.layers.L.M.P.lora_{A,B}I.weight   LoRAMoE
    base_model.model.model.layers.L.M.P.lora_A.weight        HydraLoRA, beside lora_BI

MixLoRA (arXiv 2404.15159) has whole feed-forward blocks as experts, which share the base's weights.
Tensors as MoE-PEFT and the later mixlora package write them:

    mixlora.layers.L.mlp.moe_gate.weight                     one router a block, no bias
    mixlora.layers.L.mlp.P.experts.I.lora_{A,B}.weight
    mixlora.layers.L.self_attn.q_proj.lora_{A,B}.weight

and in its older layout, where P may also be w1_proj (gate), w2_proj (down) or w3_proj (up):

    mixlora.layers.L.gate.weight
    mixlora.layers.L.experts.I.P.lora_{A,B}.weight
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers.activations import ACT2FN

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.json_files import shown
from mingmoe_eval.molora.config import MOST_EXPERTS, MoLoraConfig, is_count, lora_offences
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.families import Family, SlotOf
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, preferred_file

MOE_PEFT_TOP_K = 2
"""What MoE-PEFT assumes when a config says nothing of K."""

# Two words for the same routing: the K largest of a softmax over all, renormalised.
_MIXLORA_STRATEGIES = ("mixlora", "mixtral")

_REFUSED = {
    "mixlora-dynamic": "its router takes a varying number of experts, not renormalised",
    "mixlora-switch": "its own inference returns the block's input unchanged",
    "xlora": "PEFT loads it itself: merge it there, or evaluate it with lm-eval's `hf` model",
    "arrow": "PEFT builds it itself, with create_arrow_model, from a list of ordinary LoRAs",
}

# What MixLoRA once called them, after Mixtral.
_OLD_NAMES = {"w1_proj": "gate_proj", "w2_proj": "down_proj", "w3_proj": "up_proj"}


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
    if peft_type == "MIXLORA" and strategy in _MIXLORA_STRATEGIES:
        return MIXLORA
    if peft_type in ("MOLA", "LORAMOE"):
        return MOLA if peft_type == "MOLA" else LORAMOE
    name = strategy if strategy.startswith("mixlora") else peft_type.lower() or "unnamed"
    reason = _REFUSED.get(name, "no loader for it exists here")
    raise CheckpointError(
        f"{folder} is an adapter of the kind {name!r} (peft_type {config.get('peft_type')!r}), "
        f"which cannot be loaded: {reason}. Adapters of MING-MOE, MixLoRA, MoLA, LoRAMoE, "
        "HydraLoRA and PEFT's LORA can"
    )


def read_settings(
    adapter: Mapping[str, Any],
    model: Mapping[str, Any],
    *,
    reference_compat: bool,
    experts_field: str = "num_experts",
    dense: bool = False,
    old_names: Mapping[str, str] = MappingProxyType({}),
) -> MoLoraConfig:
    """The settings of a sibling's adapter_config.json, which says all.

    MixLoRA's `expert_lora` block holds the experts' rank and scaling; its own package reads it
    and then uses the attention's, so that experts come back other than they were trained.

    Args:
        adapter: that file.
        model: not there in these families.
        reference_compat: without a meaning: the references' defects are not reproduced.
        experts_field: says how many experts there are, one number or one a layer.
        dense: whether all experts are weighed.
        old_names: today's names of layers that may have their old ones.

    Raises:
        CheckpointError: listing every field that is absent, senseless or not supported.
    """
    # What `expert_lora` leaves out holds for experts and attention alike.
    own = adapter.get("expert_lora") or {}
    of_experts = {**adapter, **(own if isinstance(own, Mapping) else {})}
    given = adapter.get(experts_field)
    counts = tuple(given) if isinstance(given, list) and given else (given,)
    top_k = adapter.get("top_k", MOE_PEFT_TOP_K)
    offences = list(dict.fromkeys([*lora_offences(adapter), *lora_offences(of_experts)]))
    offences += _count_offences(experts_field, counts, None if dense else (top_k,))
    if not isinstance(own, Mapping):
        offences.append(f"expert_lora must be an object, not {shown(own)}")
    act_fn = adapter.get("act_fn")
    if act_fn and (not isinstance(act_fn, str) or act_fn not in ACT2FN):
        offences.append(f"act_fn = {act_fn!r} is no activation that transformers knows")
    if offences:
        raise CheckpointError(offence_list("the adapter's configuration cannot be used:", offences))
    return MoLoraConfig(
        num_experts=max(counts),
        experts_by_layer=counts if len(counts) > 1 else (),
        experts_per_token=max(counts) if dense else top_k,
        rank=of_experts["r"],
        alpha=of_experts["lora_alpha"],
        attention_rank=adapter["r"],
        attention_alpha=adapter["lora_alpha"],
        expert_rslora=bool(of_experts.get("use_rslora")),
        attention_rslora=bool(adapter.get("use_rslora")),
        base=adapter.get("base_model_name_or_path") or None,
        target_modules=_targets(adapter, old_names),
        act_fn=adapter.get("act_fn") or None,
        notes=tuple(_notes(adapter)),
    )


def _count_offences(name: str, counts: tuple[Any, ...], top_k: tuple[Any] | None) -> Iterator[str]:
    if bad := [count for count in counts if not is_count(count) or count > MOST_EXPERTS]:
        yield f"{name} must be a whole number from 1 to {MOST_EXPERTS}, not {bad[0]!r}"
    elif top_k and is_count(top_k[0]) and top_k[0] > min(counts) > 1:
        yield f"top_k = {top_k[0]} exceeds {name} = {min(counts)}"
    if top_k and not is_count(top_k[0]):
        yield f"top_k must be a positive whole number, not {top_k[0]!r}"


def _targets(adapter: Mapping[str, Any], old_names: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the layers that a config says were trained; a pattern names none."""
    listed = adapter.get("target_modules") or ()
    if isinstance(listed, Mapping):
        listed = [name for name, chosen in listed.items() if chosen]
    names: Iterable[str] = () if isinstance(listed, str) else listed
    return tuple(sorted({old_names.get(name, name) for name in names}))


def _notes(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("expert_lora"):
        yield "the experts have a rank and a scaling of their own, from expert_lora"
    if config.get("jitter_noise"):
        yield (
            f"jitter_noise = {config['jitter_noise']} is left out: it belongs to training, "
            "although the mixlora package adds it whenever it is set"
        )


# --- names of tensors, and the families ----------------------------------------------------------

Rows = Mapping[str, tuple[str, str]]
"""A pattern of the whole name -> the layer's path and the slot, both with the pattern's groups."""

_LAYER = r"(?P<path>layers\.\d+\.\w+\.\w+)"
_EXPERT = r"experts\.(?P<i>\d+)"
_HALF = r"lora_(?P<half>[AB])"


def _mapper(rows: Rows, *, prefixed: bool = False) -> SlotOf:
    """The mapper of a layout; `prefixed`: PEFT's prefix, or half of it, may stand before a name."""
    table = [(re.compile(pattern), path, slot) for pattern, (path, slot) in rows.items()]

    def slot_of(name: str) -> tuple[str, str] | None:
        name = ming.strip_prefix(name) if prefixed else name
        for pattern, path, slot in table:
            if match := pattern.fullmatch(name):
                groups: dict[str, Any] = match.groupdict()
                groups["i"] = int(groups.get("i") or 0)
                groups["layer"] = _OLD_NAMES.get(groups.get("layer", ""), groups.get("layer"))
                return path.format(**groups), slot.format(**groups)
        return None

    return slot_of


# `model.` is where transformers' causal LMs keep the blocks; MoE-PEFT writes paths from there on.
def _moe_peft_experts(prefix: str) -> SlotOf:
    return _mapper(
        {
            rf"{prefix}\.{_LAYER}\.moe_gate\.weight": ("model.{path}", "router weight"),
            rf"{prefix}\.{_LAYER}\.{_EXPERT}\.{_HALF}\.weight": ("model.{path}", "{half} {i}"),
        }
    )


def _moe_peft_pairs(prefix: str) -> SlotOf:
    return _mapper({rf"{prefix}\.{_LAYER}\.{_HALF}\.weight": ("model.{path}", "{half}")})


_LORA_NUMS_ROWS: Rows = {
    r"(?P<path>.+)\.lora_route\.weight": ("{path}", "router weight"),
    rf"(?P<path>.+)\.{_HALF}(?P<i>\d+)\.weight": ("{path}", "{half} {i}"),
}

MOLA = Family(
    name="mola",
    read_settings=read_settings,
    expert_slot=_moe_peft_experts("mola"),
    pair_slot=_moe_peft_pairs("mola"),
    varying=True,
)

LORAMOE = Family(
    name="loramoe",
    read_settings=partial(read_settings, dense=True),
    expert_slot=_moe_peft_experts("loramoe"),
    pair_slot=_moe_peft_pairs("loramoe"),
    dense=True,
    only_ffn=True,
)

ORIGINAL_LORAMOE = Family(
    name="loramoe",
    read_settings=partial(read_settings, dense=True, experts_field="lora_nums"),
    expert_slot=_mapper(_LORA_NUMS_ROWS, prefixed=True),
    pair_slot=ming.pair_slot,
    dense=True,
)

HYDRALORA = Family(
    name="hydralora",
    read_settings=partial(read_settings, dense=True, experts_field="lora_nums"),
    expert_slot=_mapper(
        {r"(?P<path>.+)\.lora_A\.weight": ("{path}", "A"), **_LORA_NUMS_ROWS}, prefixed=True
    ),
    pair_slot=ming.pair_slot,
    dense=True,
    shared_a=True,
)

_BLOCK = r"(?P<block>layers\.\d+)"

MIXLORA = Family(
    name="mixlora",
    read_settings=partial(read_settings, old_names=_OLD_NAMES),
    expert_slot=_mapper(
        {
            rf"mixlora\.{_BLOCK}\.(?:mlp\.moe_gate|gate)\.weight": (
                "model.{block}.mlp",
                "router weight",
            ),
            rf"mixlora\.(?P<path>layers\.\d+\.mlp\.\w+)\.{_EXPERT}\.{_HALF}\.weight": (
                "model.{path}",
                "{half} {i}",
            ),
            rf"mixlora\.{_BLOCK}\.{_EXPERT}\.(?P<layer>\w+)\.{_HALF}\.weight": (
                "model.{block}.mlp.{layer}",
                "{half} {i}",
            ),
        }
    ),
    pair_slot=_moe_peft_pairs("mixlora"),
    only_ffn=True,
    block_router=True,
)


def _vendored_family(folder: Path) -> Family:
    """LoRAMoE's or HydraLoRA's own PEFT: their configs are alike, their tensors are not."""
    path = preferred_file(folder, ming.ATTENTION_STEM)
    names = TensorFiles((path,)).shapes if path else {}
    shared = any(name.endswith(".lora_A.weight") for name in names)
    return HYDRALORA if shared else ORIGINAL_LORAMOE
