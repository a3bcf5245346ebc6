"""Names of tensors in MING-MOE checkpoints, after its own trainer (branches ming-moe, share_orth).

An adapter keeps experts and routers in `non_lora_trainables`, whatever that name says, and the
attention's LoRA in `adapter_model`. P stands for gate_proj, up_proj or down_proj:

    base_model.model.model.layers.L.mlp.P.switch.{weight,bias}
    base_model.model.model.layers.L.mlp.P.experts.I.lora_{A,B}_I.weight
    base_model.model.model.layers.L.mlp.P.share_experts.lora_{A,B}.weight     second generation
    base_model.model.model.layers.L.self_attn.q_proj.lora_{A,B}.weight

A merged checkpoint keeps the same names without the prefix among the weights of a full model.
"""

import re
from collections.abc import Iterable

EXPERTS_STEM = "non_lora_trainables"
ATTENTION_STEM = "adapter_model"
PREFIX = "base_model.model."

# The expert's index stands in its name twice.
_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.lora_([AB])_\2\.weight")
_SHARED = re.compile(r"(.+)\.share_experts\.lora_([AB])\.weight")
_ROUTER = re.compile(r"(.+_proj)\.switch\.(weight|bias)")
_PAIR = re.compile(r"(.+)\.lora_([AB])\.weight")


def strip_prefix(name: str) -> str:
    """The path inside the base model, of a name with PEFT's prefix, half of it, or none."""
    if name.startswith(PREFIX):
        return name.removeprefix(PREFIX)
    return name.removeprefix("model.") if name.startswith("model.model.") else name


def expert_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of an expert's or a router's tensor."""
    name = strip_prefix(name)
    if match := _EXPERT.fullmatch(name):
        return match[1], f"{match[3]} {int(match[2])}"
    if match := _SHARED.fullmatch(name):
        return match[1], f"shared {match[2]}"
    if match := _ROUTER.fullmatch(name):
        return match[1], f"router {match[2]}"
    return None


def pair_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of a tensor of a plain low-rank pair."""
    match = _PAIR.fullmatch(strip_prefix(name))
    return (match[1], match[2]) if match else None


def has_experts(names: Iterable[str]) -> bool:
    """Whether any of the names is that of an expert or a router."""
    return any(expert_slot(name) for name in names)
