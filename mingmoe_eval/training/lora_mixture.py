"""Finished LoRAs as the experts of a mixture: only its routers are trained, on a few examples.

Each adapter's pairs on feed-forward layers become one expert of that layer; base and experts stay
as they are. The format has one attention pair for all experts, without a router, so that the
adapters' attention pairs become one: the mean of their products, as near as the common rank allows
(the truncated singular value decomposition, which no matrix of that rank comes closer than). How
much of the mean's square sum is kept is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.accelerate_door import processes
from mingmoe_eval.molora.attaching import attach_experts, attach_pair
from mingmoe_eval.molora.formats.families import ffn_blocks, linear_sizes
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts
from mingmoe_eval.molora.sources import transformers_config
from mingmoe_eval.training.adapters import (
    TRAINED_DTYPES,
    MoLoraAdapter,
    draw_router,
    freeze_all_but_routers,
)
from mingmoe_eval.training.fine_tuning import (
    base_name,
    bytes_needed,
    load_base,
    molora_settings,
    run_training,
)
from mingmoe_eval.training.finished_loras import (
    AlignedLoras,
    Pair,
    align,
    common_base,
    read_loras,
)
from mingmoe_eval.training.lorahub import RECORD_FILE, CompositionSpec
from mingmoe_eval.training.material import prepare
from mingmoe_eval.training.output_folder import claim_output, refuse_small_disk, write_record
from mingmoe_eval.training.spec import (
    AdapterShape,
    DataStream,
    Schedule,
    Silence,
    TrainingSpec,
    TrainingWatch,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSpec(CompositionSpec):
    """What is to be made a mixture; `steps` and `schedule` are those of the routers' training."""

    experts_per_token: int = 2
    schedule: Schedule = field(default_factory=lambda: Schedule(learning_rate=1e-3))


@quiet_libraries()
def compose_mixture(
    spec: MixtureSpec, output: Path, *, watch: TrainingWatch | None = None
) -> dict[str, Any]:
    """Makes a MoLoRA checkpoint of finished LoRAs, and returns what composition.json holds.

    Raises:
        MingMoeError: adapters, base or examples that cannot be used; before the first step.
    """
    watch = watch or Silence()
    spec.check()
    loras = read_loras(spec.adapters)
    base_source = common_base(loras, spec.base)
    schedule = replace(spec.schedule, steps=spec.steps, seed=spec.seed, bf16=spec.bf16)
    shape = AdapterShape(num_experts=len(loras), experts_per_token=spec.experts_per_token)
    training = TrainingSpec(
        base=base_source,
        data=(DataStream(spec.few_shot),),
        shape=shape,
        schedule=schedule,
        max_tokens=spec.max_tokens,
        chat_template=spec.chat_template,
    )
    training.check()
    material = prepare(training, watch)
    base = load_base(base_source, schedule)
    aligned = align(loras, base)
    shape = replace(shape, rank=aligned.rank, alpha=aligned.alpha)
    attention = {path: mean_pair(aligned, path) for path in _always_on(base, aligned)}
    kept = [share for _, share in attention.values()]
    if kept and min(kept) < 0.99:
        watch.note(
            f"one attention pair of rank {aligned.rank} keeps {100 * min(kept):.0f} % of the mean "
            "of the adapters' at the layer where it keeps the least"
        )
    pairs = {path: pair for path, (pair, _) in attention.items()}
    _attach(base, aligned, shape, pairs, seed=spec.seed)
    adapter = MoLoraAdapter(
        base,
        base,
        settings=molora_settings(base_source, shape),
        model_config=transformers_config(base_source).to_dict(),
        attention=pairs,
    )
    claim_output(output)
    refuse_small_disk(output, bytes_needed(adapter, schedule, material.steps))
    record = {
        "method": "mixture",
        "base": base_name(base_source),
        "experts": list(aligned.sources),
        "few_shot": str(spec.few_shot),
        "steps": spec.steps,
        "seed": spec.seed,
        "attention_kept": min(kept, default=None),
    }
    processes().wait_for_everyone()
    if processes().is_main_process:
        write_record(output / RECORD_FILE, record)
    run_training(adapter, material, training, output, state=None, watch=watch)
    return record


def mean_pair(aligned: AlignedLoras, path: str) -> tuple[Pair, float]:
    """The pair of the common rank nearest to the mean of the products, and the share that it keeps.

    The products are never formed: with B stacked to [out, L R] and A to [L R, in], two thin QR
    decompositions leave a core of [L R, L R] to decompose.
    """
    a, b = aligned.layers[path]
    left, right = torch.linalg.qr(b.permute(1, 0, 2).flatten(1)), torch.linalg.qr(a.flatten(0, 1).T)
    u, singular, vh = torch.linalg.svd(left.R @ right.R.T / len(a))
    rank = aligned.rank
    root = singular[:rank].sqrt()
    mean_a = root[:, None] * (vh[:rank] @ right.Q.T)
    mean_b = (left.Q @ u[:, :rank]) * root
    total = float((singular**2).sum())
    share = float((singular[:rank] ** 2).sum()) / total if total else 1.0
    return (_padded(mean_a, rank, 0), _padded(mean_b, rank, 1)), share


def _padded(tensor: Tensor, size: int, dim: int) -> Tensor:
    """Zeros behind, where a small layer has fewer directions than the rank."""
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def _always_on(base: PreTrainedModel, aligned: AlignedLoras) -> list[str]:
    """The layers outside the feed-forward blocks that any adapter touches.

    Raises:
        CheckpointError: the base has no feed-forward blocks, or no adapter touches one.
    """
    routed = {f"{block}.{name}" for block in ffn_blocks(base) for name in FFN_LINEARS}
    if not routed & aligned.layers.keys():
        raise CheckpointError(
            f"none of {', '.join(aligned.sources)} touches {', '.join(FFN_LINEARS)}: there would "
            "be no experts"
        )
    return [path for path in aligned.layers if path not in routed]


def _attach(
    base: PreTrainedModel,
    aligned: AlignedLoras,
    shape: AdapterShape,
    attention: Mapping[str, Pair],
    *,
    seed: int,
) -> None:
    """Merges the attention's pairs, and puts on experts of which only the routers are trained."""
    sizes = linear_sizes(base)
    generator = torch.Generator().manual_seed(seed)
    for path, pair in attention.items():
        attach_pair(base, path, pair, aligned.scaling, torch.float32)
    for block in ffn_blocks(base):
        experts = {
            name: _experts(aligned, f"{block}.{name}", sizes[f"{block}.{name}"], shape, generator)
            for name in FFN_LINEARS
        }
        attach_experts(base, block, experts, TRAINED_DTYPES)
    freeze_all_but_routers(base)


def _experts(
    aligned: AlignedLoras,
    path: str,
    size: tuple[int, int],
    shape: AdapterShape,
    generator: torch.Generator,
) -> LinearExperts:
    count, rank = shape.num_experts, shape.rank
    nothing = torch.zeros(count, rank, size[0]), torch.zeros(count, size[1], rank)
    a, b = aligned.layers.get(path, nothing)
    return LinearExperts(
        a=a,
        b=b,
        router_weight=draw_router(count, size[0], generator),
        router_bias=torch.zeros(count),
        top_k=shape.experts_per_token,
        scaling=aligned.scaling,
    )
