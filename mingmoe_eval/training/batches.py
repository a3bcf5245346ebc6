"""Which examples come when: several streams mixed in exact proportion, then padded to batches."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mingmoe_eval.training.encoding import NOT_LEARNED, EncodedStream, Example


def mixing_plan(
    sizes: Sequence[int], shares: Sequence[float], count: int, *, seed: int
) -> list[tuple[int, int]]:
    """`count` picks (stream, example), each stream having its share of them, spread evenly.

    A stream is gone through in a new random order each time before any of its examples comes
    again. With shares in proportion to sizes and a count that is a multiple of all sizes' sum,
    every example comes equally often.
    """
    rng = random.Random(seed)
    placed = []
    for stream, picks in enumerate(_quotas(shares, count)):
        order: list[int] = []
        while len(order) < picks:
            order += rng.sample(range(sizes[stream]), sizes[stream])
        # The k-th of n picks falls somewhere within the k-th n-th of the whole.
        placed += [((k + rng.random()) / picks, stream, order[k]) for k in range(picks)]
    return [(stream, example) for _, stream, example in sorted(placed)]


def _quotas(shares: Sequence[float], count: int) -> list[int]:
    """`count` divided in proportion to shares, by largest remainders."""
    exact = [count * share / sum(shares) for share in shares]
    quotas = [int(one) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])
    for i in by_remainder[: count - sum(quotas)]:
        quotas[i] += 1
    return quotas


class PlannedExamples(Dataset[Example]):
    """The examples of all streams in the order of a plan, to be read in sequence."""

    def __init__(self, streams: Sequence[EncodedStream], plan: Sequence[tuple[int, int]]) -> None:
        self.streams = streams
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Example:
        stream, example = self.plan[index]
        return self.streams[stream].examples[example]


def pad_batch(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Ids, labels and attention mask, each [examples, longest], padded at the end."""
    width = max(len(example.ids) for example in examples)
    # The padding's id is never attended to and never predicted, so that any will do.
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full_like(ids, NOT_LEARNED)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        labels[row, :length] = torch.tensor(example.labels)
        mask[row, :length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}
