"""Two small training loops: a base model reads, then an adapter beside it learns to answer."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tools.demo_checkpoints.lessons import Lesson

NOT_LEARNED = -100
Batch = tuple[Tensor, Tensor]
"""Token ids [rows, tokens], and what to predict at each place: NOT_LEARNED where nothing."""


def train(
    model: PreTrainedModel,
    parameters: Sequence[nn.Parameter],
    batches: Iterable[Batch],
    *,
    steps: int,
    learning_rate: float,
    tell: Callable[[str], None],
) -> None:
    """AdamW with a short warm-up and a cosine decay to zero."""
    optimiser = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min((s + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(s / steps, 1)))),
    )
    started, recent = time.perf_counter(), 0.0
    for step, (ids, labels) in enumerate(islice(batches, steps), start=1):
        # The head only where something is to be predicted: a third of the time.
        wanted = labels[:, 1:]
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1][wanted != NOT_LEARNED]
        loss = cross_entropy(model.lm_head(hidden), wanted[wanted != NOT_LEARNED])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 0:
            tell(f"step {step}: loss {recent:.3f}, {time.perf_counter() - started:.0f} s")


def reading_batches(
    passages: Iterator[str], tokenizer: PreTrainedTokenizerBase, *, rows: int, tokens: int
) -> Iterator[Batch]:
    """Passages end to end, cut into rows of equal length; every token is to be predicted."""
    stream: list[int] = []
    while True:
        while len(stream) < rows * tokens:
            stream += [*tokenizer(next(passages))["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor(stream[: rows * tokens]).view(rows, tokens)
        stream = stream[rows * tokens :]
        yield ids, ids


def lesson_batches(
    lessons: Iterator[Lesson], tokenizer: PreTrainedTokenizerBase, *, rows: int
) -> Iterator[Batch]:
    """Lessons padded at the end, sorted by length in pools; only the answer is to be predicted."""
    while True:
        pool = sorted(islice(lessons, rows * 8), key=lambda lesson: len(lesson.prompt))
        for start in range(0, len(pool), rows):
            yield _padded(pool[start : start + rows], tokenizer)


def _padded(lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerBase) -> Batch:
    end = tokenizer.eos_token_id
    prompts = [tokenizer(lesson.prompt)["input_ids"] for lesson in lessons]
    answers = [[*tokenizer(lesson.answer)["input_ids"], end] for lesson in lessons]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(lessons), width), end)
    labels = torch.full((len(lessons), width), NOT_LEARNED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, labels
