"""HydraLoRA (arXiv 2404.19245): one A a layer, several B, a softmax over all of them.

base_model.model.model.layers.L.M.P.lora_route.weight    no bias
base_model.model.model.layers.L.M.P.lora_A.weight
base_model.model.model.layers.L.M.P.lora_BI.weight
"""

import re

from mingmoe_eval.molora.formats.family import Family
from mingmoe_eval.molora.formats.loramoe import original_slot
from mingmoe_eval.molora.formats.ming import pair_slot, strip_prefix

_SHARED_A = re.compile(r"(.+)\.lora_A\.weight")


def expert_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of a tensor; "A" is that of all experts."""
    match = _SHARED_A.fullmatch(strip_prefix(name))
    return (match[1], "A") if match else original_slot(name)


FAMILY = Family(
    name="hydralora",
    expert_slot=expert_slot,
    pair_slot=pair_slot,
    experts_field="lora_nums",
    dense=True,
    shared_a=True,
)
