"""Finished single-task LoRAs brought to a new task by a few examples, and what else those can do.

base            no adapter at all
best single     the one of the finished LoRAs with the least loss on the few examples
composed        LoRAHub's sum of all finished LoRAs, its weights sought on the few examples
mixture         all finished LoRAs as experts, routers trained on the few examples
trained anew    a LoRA of the same size, trained on the few examples alone
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims.asking import ask
from benchmarks.claims.methods import LORA, MIXTURE_RATE, train, write_items
from benchmarks.claims.tasks import TaskData
from mingmoe_eval.molora import load_model
from mingmoe_eval.training import compose_adapter, compose_mixture
from mingmoe_eval.training.lora_mixture import MixtureSpec
from mingmoe_eval.training.lorahub import CompositionSpec, few_shot_loss, read_examples
from mingmoe_eval.training.spec import Schedule

FEW_SHOT = 21
"""Each label of both held-out tasks equally often: 3 and 7 of them."""

WAYS = ("base", "best single", "composed", "mixture", "trained anew")


def compose(
    base: Path,
    loras: Sequence[Path],
    task: TaskData,
    folder: Path,
    *,
    steps: int,
    seed: int,
) -> dict[str, float]:
    """Accuracy on one new task by way; `steps` are those of routers and of training anew."""
    few = write_items(folder / "few.jsonl", task.train[:FEW_SHOT])
    adapters = tuple(str(lora) for lora in loras)
    made = {way: folder / way for way in WAYS[2:]}
    spec = CompositionSpec(adapters=adapters, few_shot=few, seed=seed)
    compose_adapter(spec, made["composed"])
    mixture = MixtureSpec(
        adapters=adapters,
        few_shot=few,
        seed=seed,
        steps=steps,
        schedule=Schedule(learning_rate=MIXTURE_RATE),
    )
    compose_mixture(mixture, made["mixture"])
    train(LORA, base, [few], made["trained anew"], steps=steps, seed=seed)
    examples = read_examples(spec, str(base)).examples
    best = min(
        loras,
        key=lambda lora: few_shot_loss(load_model(lora, dtype="float32", check=False), examples),
    )
    checkpoints = {"base": base, "best single": best, **made}
    return {way: ask(checkpoints[way], {way: task.test}).accuracy[way] for way in WAYS}
