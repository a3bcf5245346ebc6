"""LoRAMoE (arXiv 2312.09979): a softmax over all experts of a feed-forward layer, none left out.

Two layouts. MoE-PEFT's, with plain low-rank pairs outside of feed-forward blocks:

    loramoe.layers.L.mlp.P.moe_gate.weight                   no bias
    loramoe.layers.L.mlp.P.experts.I.lora_{A,B}.weight
    loramoe.layers.L.self_attn.q_proj.lora_{A,B}.weight

and the original's, whose vendored PEFT gives every target layer experts (`lora_nums` of them):

    base_model.model.model.layers.L.mlp.P.lora_route.weight
    base_model.model.model.layers.L.mlp.P.lora_{A,B}I.weight
"""

import re

from mingmoe_eval.molora.formats import moe_peft
from mingmoe_eval.molora.formats.family import Family
from mingmoe_eval.molora.formats.ming import pair_slot, strip_prefix

_ROUTER = re.compile(r"(.+)\.lora_route\.weight")
_EXPERT = re.compile(r"(.+)\.lora_([AB])(\d+)\.weight")


def original_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of a tensor in the original's layout."""
    name = strip_prefix(name)
    if match := _ROUTER.fullmatch(name):
        return match[1], "router weight"
    if match := _EXPERT.fullmatch(name):
        return match[1], f"{match[2]} {int(match[3])}"
    return None


MOE_PEFT = Family(
    name="loramoe",
    expert_slot=moe_peft.expert_slot("loramoe"),
    pair_slot=moe_peft.pair_slot("loramoe"),
    experts_field="num_experts",
    dense=True,
    only_ffn=True,
)

ORIGINAL = Family(
    name="loramoe",
    expert_slot=original_slot,
    pair_slot=pair_slot,
    experts_field="lora_nums",
    dense=True,
)
