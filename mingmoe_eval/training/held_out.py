"""Conversations that are not learned from: chosen, their loss, and what follows from it.

All that follows (the best step, when to stop) is read off the Trainer's history, which training
states keep, so that a resumed training decides as an undisturbed one does.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mingmoe_eval.errors import DataError
from mingmoe_eval.training.batches import pad_batch
from mingmoe_eval.training.conversations import Conversation, Message
from mingmoe_eval.training.examples import NOT_LEARNED, Example

EVAL_LOSS = "eval_loss"
"""Its name in logs, which is the Trainer's."""

History = Sequence[Mapping[str, Any]]
"""The Trainer's log_history."""


def split_off(
    conversations: Sequence[Conversation], share: float, *, seed: int, name: str
) -> tuple[list[Conversation], list[Conversation]]:
    """The conversations to learn from, and a share of them to hold out, each in their order.

    Conversations of the same words stay together: on both sides, they would be known.

    Raises:
        DataError: nothing would be held out, or nothing left.
    """
    copies: dict[tuple[Message, ...], int] = {}
    for conversation in conversations:
        copies[conversation.messages] = copies.get(conversation.messages, 0) + 1
    order = list(copies)
    random.Random(seed).shuffle(order)
    wanted, held = round(share * len(conversations)), set[tuple[Message, ...]]()
    taken = 0
    for messages in order:
        if taken >= wanted:
            break
        held.add(messages)
        taken += copies[messages]
    if not held or len(held) == len(order):
        raise DataError(
            f"{name}: a share of {share} of {len(conversations)} conversations, {len(order)} of "
            f"them different, holds out {taken}: give another --eval-split, or --eval-data"
        )
    kept = [one for one in conversations if one.messages not in held]
    return kept, [one for one in conversations if one.messages in held]


@torch.no_grad()
def summed_loss(model: nn.Module, examples: Sequence[Example], batch_size: int) -> Tensor:
    """The sum of learned tokens' losses in nats, and their number: [2], in float64.

    In float64, so that the sum hangs as little as may be on how examples are batched.
    """
    device = next(model.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for start in range(0, len(examples), batch_size):
        batch = pad_batch([[example] for example in examples[start : start + batch_size]])
        ids, labels, mask = (
            batch[name].to(device) for name in ("input_ids", "labels", "attention_mask")
        )
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        due = labels[:, 1:].flatten()
        scores = logits[:, :-1].flatten(0, 1).float()
        losses = nn.functional.cross_entropy(
            scores, due, ignore_index=NOT_LEARNED, reduction="none"
        )
        total[0] += losses.double().sum()
        total[1] += (due != NOT_LEARNED).sum()
    return total


def best_step(history: History) -> int | None:
    """The step with the least held-out loss, of equals the first; None before the first look.

    The look before the first step is none to choose: there is no adapter yet.
    """
    looks = _looks(history)
    return min(looks, key=lambda look: (look[1], look[0]))[0] if looks else None


def is_exhausted(history: History, patience: int | None) -> bool:
    """Whether the loss was lowest `patience` looks ago or more."""
    best = best_step(history)
    if patience is None or best is None:
        return False
    return sum(step > best for step, _ in _looks(history)) >= patience


def _looks(history: History) -> list[tuple[int, float]]:
    return [(e["step"], e[EVAL_LOSS]) for e in history if EVAL_LOSS in e and e["step"] > 0]


class HeldOutWatch(TrainerCallback):  # type: ignore[misc]
    """Saves a training state whenever the held-out loss is lowest, and stops without patience."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After each look."""
        if best_step(state.log_history) == state.global_step:
            control.should_save = True
        if is_exhausted(state.log_history, self.patience):
            control.should_training_stop = True
