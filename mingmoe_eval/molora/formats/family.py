"""How one family of checkpoints, other than MING's, names its tensors and reads its settings."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mingmoe_eval.molora.formats.keys import SlotOf
from mingmoe_eval.molora.structure import FFN_LINEARS

FamilyName = Literal["mixlora", "mola", "loramoe", "hydralora"]

MOST_EXPERTS = 1024
"""More than this in a config is a mistake, and no reason to list a million missing tensors."""

DECODER = "model."
"""Where the blocks of a transformers causal LM are; MoE-PEFT writes their paths from there on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of mixtures.

    `expert_slot` and `pair_slot` give the layer and the slot of a tensor, see `keys`; a tensor
    that no layer's experts own may be part of a plain low-rank pair. `dense` families weigh all
    experts, the others the K largest. `only_ffn`: layers outside of feed-forward blocks get a
    plain pair. `shared_a`: all experts of a layer have one A, in slot "A". `block_router`: one
    router a feed-forward block decides for its three layers; its slot is filed under the block.
    `varying`: a layer may have fewer experts than the config says; its router tells how many.
    """

    name: FamilyName
    expert_slot: SlotOf
    pair_slot: SlotOf
    experts_field: str
    dense: bool = False
    only_ffn: bool = False
    shared_a: bool = False
    block_router: bool = False
    varying: bool = False
    layer_name: Callable[[str], str] = str

    def has_experts(self, layer: str) -> bool:
        """Whether a target layer of this name gets experts, and not a plain pair."""
        return not self.only_ffn or layer in FFN_LINEARS

    def targets(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the layers that a config says were trained; a pattern names none."""
        listed = config.get("target_modules") or ()
        if isinstance(listed, Mapping):
            listed = [name for name, chosen in listed.items() if chosen]
        names: Iterable[str] = () if isinstance(listed, str) else listed
        return tuple(sorted({self.layer_name(name) for name in names}))
