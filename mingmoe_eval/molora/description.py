"""What a checkpoint is, in numbers: for `inspect`, for a run's provenance, for a response's key."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.ming import ADAPTER, MERGED
from mingmoe_eval.molora.opening import OpenCheckpoint
from mingmoe_eval.molora.sources import Kind
from mingmoe_eval.records import JsonDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How many numbers a model has.

    `base` counts the full model without its adapter, `adapter` what training made, `active` what
    one token passes through: the base, its K of N experts with their routers, and the attention's
    pairs.
    """

    base: int
    adapter: int
    active: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.base + self.adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The settings of a checkpoint with experts.

    `generation` is that of MING's format, of which 2 has experts that are always on; None for other
    families.
    """

    generation: int | None
    num_experts: int
    experts_per_token: int
    rank: int
    alpha: float
    expert_scaling: float
    attention_scaling: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDescription:
    """A checkpoint's kind, its settings, and how many of each layer it changes."""

    source: str
    kind: Kind
    base: str | None
    architecture: str
    layers: int
    mixture: Mixture | None
    reference_compat: bool
    expert_layers: dict[str, int]
    low_rank_layers: dict[str, int]
    parameters: Parameters
    notes: tuple[str, ...] = ()

    def to_json(self) -> JsonDict:
        """A plain dict, for people's scripts and for fingerprints."""
        data = dataclasses.asdict(self)
        data["parameters"]["total"] = self.parameters.total
        return {**data, "notes": list(self.notes)}


def describe(opened: OpenCheckpoint, *, reference_compat: bool = False) -> CheckpointDescription:
    """The description of a checkpoint that was opened."""
    return CheckpointDescription(
        source=opened.source,
        kind=opened.kind,
        base=None if opened.kind in ("molora-merged", "full", "hub") else opened.weights,
        architecture=type(opened.skeleton).__name__,
        layers=int(getattr(opened.model_config.get_text_config(), "num_hidden_layers", 0)),
        mixture=_mixture(opened, opened.molora) if opened.molora else None,
        reference_compat=reference_compat,
        expert_layers=_by_last_name(
            path for path, slots in opened.experts.items() if slots.keys() - {"router weight"}
        ),
        low_rank_layers=_by_last_name(opened.pairs),
        parameters=_count_parameters(opened),
        notes=(*opened.notes, *_varying(opened)),
    )


def _varying(opened: OpenCheckpoint) -> list[str]:
    """A note on layers with fewer experts than the most."""
    counts: Counter[int] = Counter(
        sum(slot.startswith("B ") for slot in slots) for slots in opened.experts.values()
    )
    del counts[0]
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{layers} with {experts}" for experts, layers in sorted(counts.items()))
    return [f"the layers differ in their number of experts: {listed}"]


def _mixture(opened: OpenCheckpoint, molora: MoLoraConfig) -> Mixture:
    return Mixture(
        generation=_generation(opened) if opened.family in (ADAPTER, MERGED) else None,
        num_experts=molora.num_experts,
        experts_per_token=molora.experts_per_token,
        rank=molora.rank,
        alpha=molora.alpha,
        expert_scaling=molora.expert_scaling,
        attention_scaling=molora.attention_scaling,
    )


def _generation(opened: OpenCheckpoint) -> int:
    return 2 if any("shared A" in slots for slots in opened.experts.values()) else 1


def _count_parameters(opened: OpenCheckpoint) -> Parameters:
    base = sum(parameter.numel() for parameter in opened.skeleton.parameters())
    if opened.molora is None:
        always = sum(math.prod(shape) for shape in opened.files.shapes.values())
        return Parameters(base=base, adapter=always, active=base + always)
    names = [name for slots in opened.pairs.values() for name in slots.values()]
    always = sum(math.prod(opened.files.shapes[name]) for name in names)
    routed = chosen = 0
    for slots in opened.experts.values():
        sizes = {slot: math.prod(opened.files.shapes[n]) for slot, n in slots.items()}
        layer = sum(size for slot, size in sizes.items() if slot.startswith(("A ", "B ")))
        experts = sum(slot.startswith("B ") for slot in sizes)
        always += sum(sizes.values()) - layer
        routed += layer
        if experts:
            chosen += layer * min(opened.molora.experts_per_token, experts) // experts
    return Parameters(base=base, adapter=routed + always, active=base + chosen + always)


def _by_last_name(paths: Iterable[str]) -> dict[str, int]:
    """How often each kind of layer occurs: {"gate_proj": 24, ...}."""
    return dict(sorted(Counter(path.rpartition(".")[2] for path in paths).items()))
