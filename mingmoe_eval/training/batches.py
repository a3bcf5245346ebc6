"""Which examples come when, and how they are laid into tensors: padded, or packed.

Several files are mixed in exact proportion. Packed, several conversations share a row of up to
`max_tokens`, and none sees another: positions begin anew with each, and the mask is block-diagonal.
"""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mingmoe_eval.training.examples import NOT_LEARNED, EncodedStream, Example

Pick = tuple[int, int]
"""A stream, and an example of it."""


def mixing_plan(
    sizes: Sequence[int], shares: Sequence[float], count: int, *, seed: int
) -> list[Pick]:
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


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The places of examples, in rows whose lengths add up to `room` at most.

    A row is closed when the next example does not fit, so that the plan's order, and with it the
    proportion of the streams at any time, stays.
    """
    rows: list[list[int]] = []
    left = 0
    for place, length in enumerate(lengths):
        if not rows or length > left:
            rows.append([])
            left = room
        rows[-1].append(place)
        left -= length
    return rows


class PlannedExamples(Dataset[tuple[Example, ...]]):
    """The rows of a training, to be read in sequence: each the examples that share it."""

    def __init__(self, streams: Sequence[EncodedStream], rows: Sequence[Sequence[Pick]]) -> None:
        self.streams = streams
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def passes(self) -> float:
        """How often the rows go through all examples."""
        return sum(map(len, self.rows)) / sum(len(stream.examples) for stream in self.streams)

    def __getitem__(self, index: int) -> tuple[Example, ...]:
        return tuple(self.streams[stream].examples[place] for stream, place in self.rows[index])


def plan_rows(
    streams: Sequence[EncodedStream],
    shares: Sequence[float],
    *,
    epochs: float,
    steps: int | None,
    a_step: int,
    room: int | None,
    seed: int,
) -> list[list[Pick]]:
    """The rows of all steps, of which each takes `a_step`.

    Args:
        streams: what is mixed.
        shares: each stream's part of the examples.
        epochs: passes over all examples, rounded up to whole steps.
        steps: overrules `epochs`.
        a_step: rows a step.
        room: tokens of a packed row; None: every example is a row of its own.
        seed: decides the order.
    """
    sizes = [len(stream.examples) for stream in streams]

    def rows_of(count: int) -> list[list[Pick]]:
        plan = mixing_plan(sizes, shares, count, seed=seed)
        if room is None:
            return [[pick] for pick in plan]
        lengths = [len(streams[stream].examples[place].ids) for stream, place in plan]
        return [[plan[place] for place in row] for row in pack(lengths, room)]

    count = math.ceil(epochs * sum(sizes)) if steps is None else steps * a_step
    rows = rows_of(count)
    needed = -(-len(rows) // a_step) * a_step if steps is None else steps * a_step
    # A packed row is known to be full when another one follows it.
    wanted = needed if room is None or steps is None else needed + 1
    while len(rows) < wanted:
        # How many examples so many rows take, only packing tells.
        count += max(wanted - len(rows), count * (wanted - len(rows)) // len(rows))
        rows = rows_of(count)
    return rows[:needed]


def pad_batch(rows: Sequence[Sequence[Example]]) -> dict[str, Tensor]:
    """Ids, labels and attention mask, each [rows, longest], padded at the end.

    The mask numbers a row's examples from 1; padding is 0. With one example a row that is the
    ordinary mask.
    """
    width = max(sum(len(example.ids) for example in row) for row in rows)
    # The padding's id is never attended to and never predicted, so that any will do.
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, NOT_LEARNED)
    mask = torch.zeros_like(ids)
    for row, examples in enumerate(rows):
        start = 0
        for number, example in enumerate(examples, 1):
            end = start + len(example.ids)
            ids[row, start:end] = torch.tensor(example.ids)
            labels[row, start:end] = torch.tensor(example.labels)
            # A conversation's first token is predicted from nothing, least of all from the one
            # that stands before it in the row.
            labels[row, start] = NOT_LEARNED
            mask[row, start:end] = number
            start = end
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def keep_apart(segments: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Attention mask [B, 1, S, S] and positions [B, S] of packed rows [B, S].

    The mask is added to the attention's logits: 0 where a token and an earlier one, or the token
    itself, are of the same example, else the dtype's least number. Padding sees padding, so that no
    row of the mask is without any token.
    """
    length = segments.shape[1]
    place = torch.arange(length, device=segments.device)
    seen = (segments[:, :, None] == segments[:, None, :]) & (place[:, None] >= place)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segments.device)
    mask = mask.masked_fill(~seen, torch.finfo(dtype).min)
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = torch.where(first, place, 0).cummax(dim=1).values
    return {"attention_mask": mask[:, None], "position_ids": place - starts}
