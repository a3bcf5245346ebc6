"""The loss of a model on a few examples: what composition is steered by."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mingmoe_eval.training.batches import pad_batch
from mingmoe_eval.training.encoding import NOT_LEARNED, Example


@torch.no_grad()
def few_shot_loss(model: nn.Module, examples: Sequence[Example], batch_size: int = 8) -> float:
    """Mean negative log-likelihood, in nats, of the learned tokens of all examples together."""
    total, tokens = 0.0, 0
    for start in range(0, len(examples), batch_size):
        batch = pad_batch(examples[start : start + batch_size])
        labels = batch.pop("labels")[:, 1:]
        device = next(model.parameters()).device
        logits: Tensor = model(**{name: t.to(device) for name, t in batch.items()}).logits
        flat = logits[:, :-1].float().flatten(0, 1)
        total += cross_entropy(flat, labels.flatten().to(device), reduction="sum").item()
        tokens += int((labels != NOT_LEARNED).sum())
    return total / tokens
