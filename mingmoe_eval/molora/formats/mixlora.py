"""MixLoRA (arXiv 2404.15159): experts are whole feed-forward blocks that share the base's weights.

Tensors, P being gate_proj, up_proj or down_proj, as MoE-PEFT and the later mixlora package write
them:

    mixlora.layers.L.mlp.moe_gate.weight                     one router a block, no bias
    mixlora.layers.L.mlp.P.experts.I.lora_{A,B}.weight
    mixlora.layers.L.self_attn.q_proj.lora_{A,B}.weight

and in its older layout, where P may also be w1_proj (gate), w2_proj (down) or w3_proj (up):

    mixlora.layers.L.gate.weight
    mixlora.layers.L.experts.I.P.lora_{A,B}.weight
"""

import re

from mingmoe_eval.molora.formats.family import DECODER, Family

STRATEGIES = ("mixlora", "mixtral")
"""Two words for the same routing: the K largest of a softmax over all, renormalised."""

_ROUTER = re.compile(r"mixlora\.(layers\.\d+)\.(?:mlp\.moe_gate|gate)\.weight")
_EXPERT = re.compile(r"mixlora\.(layers\.\d+\.mlp\.\w+)\.experts\.(\d+)\.lora_([AB])\.weight")
_OLD_EXPERT = re.compile(r"mixlora\.(layers\.\d+)\.experts\.(\d+)\.(\w+)\.lora_([AB])\.weight")
_PAIR = re.compile(r"mixlora\.(layers\.\d+\.\w+\.\w+)\.lora_([AB])\.weight")
_OLD_NAMES = {"w1_proj": "gate_proj", "w2_proj": "down_proj", "w3_proj": "up_proj"}


def expert_slot(name: str) -> tuple[str, str] | None:
    """The layer, or for a router the block, and the slot of an expert's or a router's tensor."""
    if match := _ROUTER.fullmatch(name):
        return f"{DECODER}{match[1]}.mlp", "router weight"
    if match := _EXPERT.fullmatch(name):
        return f"{DECODER}{match[1]}", f"{match[3]} {int(match[2])}"
    if match := _OLD_EXPERT.fullmatch(name):
        return f"{DECODER}{match[1]}.mlp.{layer_name(match[3])}", f"{match[4]} {int(match[2])}"
    return None


def pair_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of a tensor of a plain low-rank pair."""
    match = _PAIR.fullmatch(name)
    return (f"{DECODER}{match[1]}", match[2]) if match else None


def layer_name(name: str) -> str:
    """Today's name of a layer that may have its old one."""
    return _OLD_NAMES.get(name, name)


FAMILY = Family(
    name="mixlora",
    expert_slot=expert_slot,
    pair_slot=pair_slot,
    experts_field="num_experts",
    only_ffn=True,
    block_router=True,
    layer_name=layer_name,
)
