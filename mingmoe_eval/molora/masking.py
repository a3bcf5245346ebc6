"""Takes experts out of a loaded model: the others of the same router share their weight."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.molora.router import Router, routers

_LAYER_INDEX = re.compile(r"\.(\d+)\.")
_ITEM = re.compile(r"(?:(\d+):)?(\d+)")


@dataclass(frozen=True, slots=True)
class ExpertMask:
    """One expert, counted from 0, of one decoder layer or (None) of all."""

    expert: int
    layer: int | None = None

    def __str__(self) -> str:
        return f"{self.expert}" if self.layer is None else f"{self.layer}:{self.expert}"


def read_masks(text: str) -> list[tuple[ExpertMask, ...]]:
    """What to mask, one after the other: "0,3" two experts everywhere, "5:0" one of layer 5 alone.

    Joined by +, as in "0+3" or "5:0+6:0", experts are masked together.

    Raises:
        UsageError: text of another form.
    """
    masks = []
    for part in text.replace(" ", "").split(","):
        items = [_ITEM.fullmatch(item) for item in part.split("+")]
        if not all(items):
            raise UsageError(
                f"{part!r} names no expert: write 3 for expert 3 of all layers, 5:3 for that of "
                "layer 5, 0+3 for two at once, and a comma between one trial and the next"
            )
        found = (ExpertMask(int(m[2]), None if m[1] is None else int(m[1])) for m in items if m)
        masks.append(tuple(found))
    return masks


@contextlib.contextmanager
def masked(model: nn.Module, masks: Sequence[ExpertMask]) -> Iterator[None]:
    """The model without these experts; afterwards it is bit for bit as it was.

    A masked expert's logit is minus infinity: it is never among the K largest, and the softmax
    over the others sums to one. Where fewer than K are left, its weight is 0.

    Raises:
        UsageError: a model without routers, experts that it has not, or a router left without any.
    """
    found = routers(model)
    _refuse(found, masks)
    before = [router.router_bias.detach().clone() for router in found]
    try:
        with torch.no_grad():
            for router in found:
                router.router_bias[:, _experts_of(router, masks)] = -torch.inf
        yield
    finally:
        with torch.no_grad():
            for router, bias in zip(found, before, strict=True):
                router.router_bias.copy_(bias)


def _refuse(found: Sequence[Router], masks: Sequence[ExpertMask]) -> None:
    if not found:
        raise UsageError("the model has no routers, so no expert can be masked")
    offences = [
        f"{mask}: no layer has such an expert; layers are 0 to {max(map(_layer, found))}, experts "
        f"0 to {max(router.num_experts for router in found) - 1}"
        for mask in masks
        if not any(_experts_of(router, [mask]) for router in found)
    ]
    for router in found:
        if len(_experts_of(router, masks)) == router.num_experts:
            offences.append(f"{router.paths[0]}: every expert would be masked")
    if offences:
        raise UsageError(offence_list("these experts cannot be masked:", offences))


def _experts_of(router: Router, masks: Sequence[ExpertMask]) -> list[int]:
    """Which of a router's experts are named."""
    layer = _layer(router)
    named = {mask.expert for mask in masks if mask.layer in (None, layer)}
    return sorted(expert for expert in named if expert < router.num_experts)


def _layer(router: Router) -> int:
    match = _LAYER_INDEX.search(router.paths[0])
    return int(match[1]) if match else 0
