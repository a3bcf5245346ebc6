"""What the routers of a trained mixture tell of the task, and how evenly they use experts.

Prompts of different tasks hold different words, so that a choice of expert tells of the task even
where routers were never trained: `untrained` mixtures are measured alike. And at the last token of
a prompt, the line break before the answer, which is the same token in every task, only what the
model gathered from the words before it can tell tasks apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.claims.tasks import Item
from mingmoe_eval.molora import load_model, load_tokenizer
from mingmoe_eval.molora.router import routers
from mingmoe_eval.routing.expert_use import information, shuffled_information


def specialisation(
    routing: Mapping[str, Any], checkpoint: Path, tasks: Mapping[str, Sequence[Item]]
) -> dict[str, float]:
    """Means over layers, but for `dead_experts`, which counts all; information in bits."""
    prompt = routing["metrics"]["prompt"]
    layers = list(prompt["layers"].values())
    return {
        "information": prompt["information"]["bits"],
        "shuffled": prompt["information"]["shuffled_bits"],
        **_information_at_last_tokens(checkpoint, tasks),
        "variation": float(np.mean([layer["variation"] for layer in layers])),
        "largest_violation": float(np.mean([layer["largest_violation"] for layer in layers])),
        "dead_experts": float(sum(len(layer["dead_experts"]) for layer in layers)),
        "token_entropy": float(np.mean([layer["token_entropy"] for layer in layers])),
    }


def _information_at_last_tokens(
    checkpoint: Path, tasks: Mapping[str, Sequence[Item]]
) -> dict[str, float]:
    whole = last_token_choices(checkpoint, [item for items in tasks.values() for item in items])
    bounds = np.cumsum([len(items) for items in tasks.values()])[:-1]
    found, shuffled = [], []
    for layer in range(whole.shape[1]):
        docs = np.split(whole[:, layer], bounds)
        found.append(information([of_task.sum(0) for of_task in docs]))
        shuffled.append(shuffled_information(docs))
    return {"information_last": float(np.mean(found)), "shuffled_last": float(np.mean(shuffled))}


@torch.no_grad()
def last_token_choices(checkpoint: Path, items: Sequence[Item]) -> NDArray[np.float32]:
    """Which experts the last token of each prompt chose: 0 or 1, [items, layers, N]."""
    model, tokenizer = (
        load_model(checkpoint, dtype="float32", check=False),
        load_tokenizer(checkpoint),
    )
    prompts = [f"{item.question}\n" for item in items]
    batch = tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
    rows, width = batch["input_ids"].shape
    last = torch.arange(rows) * width + batch["attention_mask"].sum(1) - 1
    seen: list[NDArray[np.float32]] = []

    def observe(router: Any, logits: Tensor, index: Tensor, weights: Tensor) -> None:
        seen.append(torch.zeros_like(logits[last]).scatter(-1, index[last], 1.0).numpy())

    for router in routers(model):
        router.observer = observe
    model(**batch)
    return np.concatenate(seen, axis=1)
