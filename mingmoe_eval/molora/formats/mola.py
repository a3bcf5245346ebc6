"""MoLA (arXiv 2402.08562): experts on every linear layer, of which each layer may have its own N.

Tensors as MoE-PEFT writes them, M being self_attn or mlp:

    mola.layers.L.M.P.moe_gate.weight                        no bias
    mola.layers.L.M.P.experts.I.lora_{A,B}.weight
"""

from mingmoe_eval.molora.formats import moe_peft
from mingmoe_eval.molora.formats.family import Family

FAMILY = Family(
    name="mola",
    expert_slot=moe_peft.expert_slot("mola"),
    pair_slot=moe_peft.pair_slot("mola"),
    experts_field="num_experts",
    varying=True,
)
