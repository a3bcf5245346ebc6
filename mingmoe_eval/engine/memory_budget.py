"""How many rows go through a model at once: as many as a stated memory budget holds, no probing.

A fixed number of rows is either slow for short prompts or too much for long ones, and finding the
number by running out of memory is neither safe nor repeatable.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from mingmoe_eval.engine.causal_model import CausalModel, ModelShape

_T = TypeVar("_T")

_SHARE_OF_FREE = {"cpu": 0.125, "cuda": 0.5}
_BYTES_WHERE_UNKNOWN = 2**30
# Beyond this a CPU is no faster a token, and more is lost when a run is killed.
_CPU_TOKENS = 1024
# Where the head is wide beside a small body, a CPU spends longer on reading its weights than on a
# few rows of its product: it waits for the rows of so many tokens, times head over body. (A CPU
# multiplies some ten weights in the time it reads one; so reading takes about 1.5 % of it all.)
_TOKENS_TO_AMORTISE_HEAD = 1500
_MOST_TOKENS_HELD = 2048
_GPU_TOKENS = 16384
# Rows of a decoding step: past these a step takes longer in proportion.
_CPU_SLOTS = 32
_GPU_SLOTS = 256
# Of the budget; the rest is for the body.
_HEAD_SHARE = 0.25
# Logits at a time: on a CPU what its cache holds, elsewhere, or from a head that gives whole rows
# alone, as many as still make its product faster a row.
_CPU_HEAD_BYTES = 3 * 2**20
_MOST_HEAD_BYTES = 192 * 2**20
_MOST_HEAD_ROWS = 1024
_FEWEST_HEAD_COLUMNS = 1024


class MemoryBudget:
    """Bytes above the model's own that a pass may take, as an estimate from the model's sizes.

    `most_rows` caps the rows of a pass whatever would fit.
    """

    def __init__(
        self,
        model: CausalModel,
        most_rows: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        on_cpu = model.device.type == "cpu"
        self._shape = model.shape
        self._most_rows = most_rows
        self._most_tokens = _CPU_TOKENS if on_cpu else _GPU_TOKENS
        self._tokens_a_head = _tokens_a_head(self._shape) if on_cpu else 0
        self._sliced_head = model.head_can_be_sliced
        in_cache = on_cpu and self._sliced_head
        self._most_head_bytes = _CPU_HEAD_BYTES if in_cache else _MOST_HEAD_BYTES
        self._most_slots = _CPU_SLOTS if on_cpu else _GPU_SLOTS
        self.bytes = memory_budget or int(
            _free_bytes(model.device) * _SHARE_OF_FREE.get(model.device.type, 0.5)
        )

    def head_block(self, rows: int) -> tuple[int, int]:
        """How many (rows, ids) of logits to have at a time, with what they are made from.

        Beside fp32 logits that is the slice of the head in fp32, if it is widened, and of a head
        that gives whole rows alone, its own logits.
        """
        narrow = self._shape.item_bytes < 4
        a_logit = 4 + self._shape.item_bytes if narrow and not self._sliced_head else 4
        a_column = 4 * self._shape.hidden if narrow and self._sliced_head else 0
        most = int(min(self.bytes * _HEAD_SHARE, self._most_head_bytes))
        vocabulary = self._shape.vocabulary
        fewest = min(_FEWEST_HEAD_COLUMNS, vocabulary) if self._sliced_head else vocabulary
        rows = max(1, min(rows, _MOST_HEAD_ROWS, most // (a_logit * fewest)))
        return rows, min(vocabulary, max(fewest, most // (a_logit * rows + a_column)))

    def head_is_due(self, tokens: int) -> bool:
        """Whether enough tokens went through the body for the head to see their scored rows."""
        return tokens >= self._tokens_a_head

    def allows(self, rows: int, widest: int, trunk: int) -> bool:
        """Whether rows of `widest` new tokens on `trunk` old ones fit; one row always does."""
        if rows == 1:
            return True
        if self._most_rows is not None and rows > self._most_rows:
            return False
        body = rows * row_bytes(self._shape, widest, trunk)
        return rows * widest <= self._most_tokens and body <= self.bytes * (1 - _HEAD_SHARE)

    def batches(self, items: Sequence[tuple[int, _T]], trunk: int) -> Iterator[list[_T]]:
        """Cut (width, item) pairs, widest first, into batches that fit."""
        batch: list[_T] = []
        widest = 0
        for width, item in sorted(items, key=lambda pair: -pair[0]):
            if batch and not self.allows(len(batch) + 1, widest, trunk):
                yield batch
                batch = []
            widest = width if not batch else widest
            batch.append(item)
        if batch:
            yield batch

    def slots(self, longest: int) -> int:
        """How many texts of up to `longest` tokens can be generated side by side."""
        fitting = int(self.bytes * (1 - _HEAD_SHARE) // (longest * self._shape.cached_token_bytes))
        return max(1, min(fitting, self._most_rows or self._most_slots))

    def halve(self) -> None:
        """The estimate was too low: ask for half from now on."""
        self.bytes //= 2
        self._most_tokens = max(1, self._most_tokens // 2)


def row_bytes(shape: ModelShape, new: int, old: int) -> int:
    """What one row takes at the widest point of a layer: activations, keys, values and mask."""
    activations = new * (4 * shape.intermediate + 6 * shape.hidden)
    keys_and_values = 3 * (new + old) * shape.heads * shape.head_dim
    mask = new * (new + old)
    return (activations + keys_and_values + mask) * shape.item_bytes + mask


def _tokens_a_head(shape: ModelShape) -> int:
    head = shape.vocabulary * shape.hidden
    return min(_TOKENS_TO_AMORTISE_HEAD * head // shape.body_weights, _MOST_TOKENS_HELD)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; CPU and GPU say so in different ways."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _BYTES_WHERE_UNKNOWN
