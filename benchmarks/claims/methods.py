"""The adapters under comparison, trained by the project's own trainer on equal terms."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from benchmarks.claims.tasks import Item
from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.training.fine_tuning import attach_fresh, load_base, run_training
from mingmoe_eval.training.material import prepare
from mingmoe_eval.training.output_folder import claim_output
from mingmoe_eval.training.spec import (
    OBJECTIVES,
    AdapterShape,
    DataStream,
    Method,
    RouterObjective,
    Schedule,
    Silence,
    TrainingSpec,
)

MIXTURE = AdapterShape(num_experts=8, experts_per_token=2, rank=4, alpha=8.0)
# One rank on attention and feed-forward layers alike; chosen so that both have as many numbers.
SINGLE = AdapterShape(rank=24, alpha=48.0)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to adapt the base: the trainer's method, and the learning rate that suits it."""

    name: str
    method: Method
    shape: AdapterShape
    learning_rate: float
    objective: RouterObjective = OBJECTIVES["molora"]
    routers_trained: bool = True


BATCH = 16
# The best for each kind of those tried on seed 1000, which is not reported: 1.5e-3, 3e-3, 6e-3 and
# 1.2e-2 for LoRA; 1.5e-3, 3e-3, 5e-3 and 1e-2 for MoLoRA.
LORA_RATE = 3e-3
MIXTURE_RATE = 5e-3

ALL_EXPERTS = "MoLoRA, all experts"

CONTENDERS = (
    Contender("LoRA", "lora", SINGLE, LORA_RATE),
    Contender("MoLoRA", "molora", MIXTURE, MIXTURE_RATE),
    *(
        Contender(f"MoLoRA, {kind}", method, MIXTURE, MIXTURE_RATE, OBJECTIVES[method])
        for kind, method in (("balanced", "molora-balanced"), ("contrastive", "molora-contrastive"))
    ),
    # Two controls: what experts learn when routing stays as it was drawn, and when every token
    # passes through all of them.
    Contender("MoLoRA, routers frozen", "molora", MIXTURE, MIXTURE_RATE, routers_trained=False),
    Contender(ALL_EXPERTS, "molora", replace(MIXTURE, experts_per_token=8), MIXTURE_RATE),
)
LORA, UNTRAINED = CONTENDERS[0], CONTENDERS[1]


def write_items(path: Path, items: Iterable[Item]) -> Path:
    """Items as conversations that the trainer reads."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": item.question},
                    {"role": "assistant", "content": item.answer},
                ]
            },
            ensure_ascii=False,
        )
        for item in items
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def train(
    contender: Contender,
    base: Path,
    data: Sequence[Path],
    output: Path,
    *,
    steps: int,
    seed: int,
) -> int:
    """Trains on files of conversations, each as often as any other; gives the trained numbers."""
    spec = _spec(contender, base, data, steps=steps, seed=seed)
    spec.check()
    claim_output(output)
    adapter = attach_fresh(load_base(spec.base, spec.schedule), spec)
    if not contender.routers_trained:
        freeze_routers(adapter.model)
    run_training(adapter, prepare(spec, Silence()), spec, output, state=None, watch=Silence())
    return trained_numbers(adapter.model)


def write_untrained(contender: Contender, base: Path, output: Path, *, seed: int) -> None:
    """The adapter as it is before the first step."""
    spec = _spec(contender, base, (), steps=1, seed=seed)
    output.mkdir()
    attach_fresh(load_base(spec.base, spec.schedule), spec).write(output)


def _spec(
    contender: Contender, base: Path, data: Sequence[Path], *, steps: int, seed: int
) -> TrainingSpec:
    return TrainingSpec(
        base=str(base),
        data=tuple(DataStream(path, 1.0) for path in data),
        method=contender.method,
        shape=contender.shape,
        objective=contender.objective,
        schedule=Schedule(
            learning_rate=contender.learning_rate,
            steps=steps,
            batch_size=BATCH,
            seed=seed,
            log_every=steps,
            save_every=steps,
            keep=1,
        ),
    )


def trained_numbers(model: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def freeze_routers(model: nn.Module) -> None:
    """Leaves routers as they were drawn."""
    for module in routed_experts(model):
        module.router.requires_grad_(False)
        module.router_bias.requires_grad_(False)
