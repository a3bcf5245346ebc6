"""What a checkpoint is, in numbers: for `inspect`, for a run's provenance, for a response's key."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.families import Layers, Mixture, last_of, sort_into_layers
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
class MixtureSettings:
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
    mixture: MixtureSettings | None
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
    mixture = opened.mixture
    experts = mixture.experts if mixture else {}
    pairs = mixture.pairs if mixture else sort_into_layers(opened.files.shapes, ming.pair_slot)[0]
    return CheckpointDescription(
        source=opened.source,
        kind=opened.kind,
        base=None if opened.kind in ("molora-merged", "full", "gguf", "hub") else opened.weights,
        architecture=type(opened.skeleton).__name__,
        layers=int(getattr(opened.model_config.get_text_config(), "num_hidden_layers", 0)),
        mixture=_settings(mixture) if mixture else None,
        reference_compat=reference_compat,
        expert_layers=_by_last_name(
            path for path, slots in experts.items() if slots.keys() - {"router weight"}
        ),
        low_rank_layers=_by_last_name(pairs),
        parameters=_count_parameters(opened, pairs),
        notes=(*opened.notes, *_varying(experts)),
    )


def _varying(experts: Layers) -> list[str]:
    """A note on layers with fewer experts than the most."""
    counts = Counter(sum(slot.startswith("B ") for slot in slots) for slots in experts.values())
    del counts[0]
    if len(counts) < 2:
        return []
    listed = ", ".join(f"{layers} with {experts}" for experts, layers in sorted(counts.items()))
    return [f"the layers differ in their number of experts: {listed}"]


def _settings(mixture: Mixture) -> MixtureSettings:
    config, generation = mixture.config, None
    if mixture.family in (ming.ADAPTER, ming.MERGED):
        # The second generation is known by its tensors, see `config`.
        generation = 2 if any("shared A" in slots for slots in mixture.experts.values()) else 1
    return MixtureSettings(
        generation=generation,
        num_experts=config.num_experts,
        experts_per_token=config.experts_per_token,
        rank=config.rank,
        alpha=config.alpha,
        expert_scaling=config.expert_scaling,
        attention_scaling=config.attention_scaling,
    )


def _count_parameters(opened: OpenCheckpoint, pairs: Layers) -> Parameters:
    base = sum(parameter.numel() for parameter in opened.skeleton.parameters())
    sizes = {name: math.prod(shape) for name, shape in opened.files.shapes.items()}
    if opened.mixture is None:
        always = sum(sizes.values())
        return Parameters(base=base, adapter=always, active=base + always)
    always = sum(sizes[name] for slots in pairs.values() for name in slots.values())
    routed = chosen = 0
    for slots in opened.mixture.experts.values():
        of_slot = {slot: sizes[name] for slot, name in slots.items()}
        layer = sum(size for slot, size in of_slot.items() if slot.startswith(("A ", "B ")))
        experts = sum(slot.startswith("B ") for slot in of_slot)
        always += sum(of_slot.values()) - layer
        routed += layer
        if experts:
            top_k = min(opened.mixture.config.experts_per_token, experts)
            chosen += layer * top_k // experts
    return Parameters(base=base, adapter=routed + always, active=base + chosen + always)


def _by_last_name(paths: Iterable[str]) -> dict[str, int]:
    """How often each kind of layer occurs: {"gate_proj": 24, ...}."""
    return dict(sorted(Counter(map(last_of, paths)).items()))
