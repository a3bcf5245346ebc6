"""Names of tensors where MoE-PEFT gives each linear layer a router of its own.

FAMILY.layers.L.M.P.moe_gate.weight
FAMILY.layers.L.M.P.experts.I.lora_{A,B}.weight
FAMILY.layers.L.M.P.lora_{A,B}.weight                    a plain low-rank pair
"""

import re

from mingmoe_eval.molora.formats.family import DECODER
from mingmoe_eval.molora.formats.keys import SlotOf

_LAYER = r"(layers\.\d+\.\w+\.\w+)"


def expert_slot(prefix: str) -> SlotOf:
    """The mapper of experts' and routers' tensors below a family's prefix."""
    router = re.compile(rf"{prefix}\.{_LAYER}\.moe_gate\.weight")
    expert = re.compile(rf"{prefix}\.{_LAYER}\.experts\.(\d+)\.lora_([AB])\.weight")

    def slot_of(name: str) -> tuple[str, str] | None:
        if match := router.fullmatch(name):
            return f"{DECODER}{match[1]}", "router weight"
        if match := expert.fullmatch(name):
            return f"{DECODER}{match[1]}", f"{match[3]} {int(match[2])}"
        return None

    return slot_of


def pair_slot(prefix: str) -> SlotOf:
    """The mapper of plain low-rank pairs below a family's prefix."""
    pair = re.compile(rf"{prefix}\.{_LAYER}\.lora_([AB])\.weight")

    def slot_of(name: str) -> tuple[str, str] | None:
        match = pair.fullmatch(name)
        return (f"{DECODER}{match[1]}", match[2]) if match else None

    return slot_of
