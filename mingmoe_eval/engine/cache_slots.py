"""Keys and values of texts that are generated side by side, where any text may leave or join.

All rows share one clock: step t writes column t of every row. A prompt that joins is put so that
it ends at the present column; so rows are left-padded, a step never moves what is stored, and a
row that leaves is simply overwritten.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

# Columns that are added when the clock reaches the end.
_GROWTH = 128


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """One layer's keys and values, [rows, heads, columns, head_dim], filled up to `stop`."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the step's column in place; returns all columns so far."""
        now = slice(self.stop, self.stop + 1)
        self.keys[:, :, now], self.values[:, :, now] = key_states, value_states
        self.stop += 1
        return self.keys[:, :, : self.stop], self.values[:, :, : self.stop]

    def get_seq_length(self) -> int:
        """How many columns are filled."""
        return self.stop


class CacheSlots:
    """The rows of a decoding batch; `lengths[row]` tokens of it are real, ending at the clock."""

    def __init__(self, rows: int) -> None:
        self.lengths = [0] * rows
        self.cache = DynamicCache()
        self._stop = 0

    @property
    def stop(self) -> int:
        """The present column."""
        return self._stop

    def mask(self, device: torch.device) -> torch.Tensor:
        """[rows, columns + 1]: which columns the next token of each row sees, itself included."""
        starts = torch.tensor([self._stop - length for length in self.lengths], device=device)
        return (torch.arange(self._stop + 1, device=device) >= starts[:, None]).long()

    def put(self, row: int, parts: Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        """Fill a row with a prompt.

        `parts` follow one another in the prompt (a trunk, then the rest); each holds, for every
        layer, keys and values [heads, tokens, head_dim].
        """
        length = sum(part[0][0].shape[1] for part in parts)
        self._reserve(length, like=parts[0])
        column = self._stop - length
        for part in parts:
            tokens = part[0][0].shape[1]
            for layer, (keys, values) in zip(self.cache.layers, part, strict=True):
                layer.keys[row, :, column : column + tokens] = keys
                layer.values[row, :, column : column + tokens] = values
            column += tokens
        self.lengths[row] = length

    def advance(self) -> None:
        """The clock moves one column; called after the pass that wrote it."""
        self._stop += 1
        self.lengths = [length + 1 for length in self.lengths]

    def prepare_step(self) -> None:
        """Make room for one more column."""
        if self.cache.layers and self._stop == self.cache.layers[0].keys.shape[2]:
            self._move(_GROWTH)

    def free(self, row: int) -> None:
        """The row's text is done; what is stored of it counts no more."""
        self.lengths[row] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self.lengths = [self.lengths[row] for row in rows]
        chosen = torch.tensor(rows)
        for layer in self.cache.layers:
            chosen = chosen.to(layer.keys.device)
            layer.keys, layer.values = layer.keys[chosen], layer.values[chosen]

    def _reserve(self, length: int, *, like: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        if not self.cache.layers:
            self._stop = length
            for keys, values in like:
                layer = SlotLayer()
                layer.lazy_initialization(keys, values)
                layer.keys = _empty(keys, len(self.lengths), length + _GROWTH)
                layer.values = _empty(values, len(self.lengths), length + _GROWTH)
                layer.stop = length
                self.cache.layers.append(layer)
        elif length > self._stop:
            self._move(_GROWTH, later=length - self._stop)

    def _move(self, room: int, *, later: int = 0) -> None:
        """New storage with `room` free columns, without columns that no row needs any more.

        `later` moves the clock on, for a prompt that is longer than the time so far.
        """
        used = max(self.lengths)
        stop = max(used, self._stop + later if later else used)
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = _empty(old[0], len(self.lengths), stop + room)
                new[:, :, stop - used : stop] = old[:, :, self._stop - used : self._stop]
                setattr(layer, name, new)
            layer.stop = stop
        self._stop = stop


def _empty(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    # Zeros: what no row has written yet is masked, but NaN times nothing is still NaN.
    return like.new_zeros(rows, like.shape[0], columns, like.shape[2])
