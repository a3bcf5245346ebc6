"""Transformers from the inside: its caches, and all else of it that the engine relies on.

A release may rename or drop what is not in its documentation. What it calls otherwise since 5.0 is
told apart here, by looking at what is installed and never by its version; `RELIES_ON` and
`OF_INSTANCES` name the rest, and a test fails by name when a release takes one away.
"""

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import create_causal_mask

from mingmoe_eval.molora.accelerate_door import only_moves_inputs

__all__ = [
    "OF_INSTANCES",
    "RELIES_ON",
    "CacheSlots",
    "DynamicCache",
    "DynamicLayer",
    "GuessedSlots",
    "KeptLayer",
    "ReusedLayer",
    "SlotLayer",
    "attention_kernel",
    "attention_layers",
    "cache_argument",
    "cache_on",
    "does_but_multiply",
]

RELIES_ON = {
    "transformers.cache_utils:DynamicCache": ("get_seq_length", "update"),
    "transformers.cache_utils:DynamicLayer": (
        *("get_mask_sizes", "get_seq_length", "lazy_initialization", "update"),
    ),
    "transformers.cache_utils:DynamicSlidingWindowLayer": ("update",),
    "transformers.masking_utils:create_causal_mask": ("__call__",),
    "transformers:PreTrainedModel": (
        *("get_decoder", "get_input_embeddings", "get_output_embeddings"),
    ),
    "transformers:PreTrainedConfig": ("get_text_config", "to_dict"),
    "transformers:PreTrainedTokenizerFast": (
        *("all_special_tokens", "backend_tokenizer", "get_chat_template"),
    ),
    "torch.nn:Linear": ("weight", "bias", "_forward_hooks", "_forward_pre_hooks"),
}
"""What must be there, by module and object; attributes of modules are those of an instance."""

OF_INSTANCES = {
    "cache": ("layers",),
    "layer": ("keys", "values", "is_initialized"),
    "sliding layer": ("sliding_window",),
    "model": ("config", "dtype", "generation_config"),
    "config": ("_attn_implementation", "num_hidden_layers", "vocab_size", "hidden_size"),
    "tokenizers backend": (
        *("encode", "encode_batch_fast", "no_padding", "no_truncation", "pre_tokenizer"),
        *("normalizer", "model", "get_added_tokens_decoder", "to_str"),
    ),
}
"""What only an object has that was made; whoever tests makes one."""

# Columns that are added when a decoding batch's clock reaches the end, at least. Each time all is
# copied: so a share of what is there, and the copies of a text cost in proportion to its length.
_GROWTH = 128
_GROWTH_SHARE = 4

_KEEPS_KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)
_CATCH_ALL = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_ATTENTION = ("attention", "full_attention", "sliding_attention", "chunked_attention")


def cache_argument(forward: Callable[..., Any]) -> str | None:
    """What a model's or decoder's `forward` calls the cache of keys and values; None: it has none.

    `past_key_values` until transformers 5.23, `cache` since, where the older name warns. A model
    whose code comes with its checkpoint has the name of the release it was written for: so the
    signature is asked, never the version.
    """
    parameters = inspect.signature(forward).parameters
    if {parameter.kind for parameter in parameters.values()} <= _CATCH_ALL:
        # Somebody's wrapper, which hands on what it is given: what this release's models take.
        parameters = inspect.signature(create_causal_mask).parameters
    for name in ("cache", "past_key_values"):
        if name in parameters:
            return name if _takes_any_cache(parameters[name].annotation) else None
    return None


def _takes_any_cache(annotation: object) -> bool:
    # Before 5.10 a hybrid of attention and recurrence (Jamba, Qwen3-Next) takes only a cache class
    # of its own, and says so in its signature alone.
    return not any(
        isinstance(kind, type)
        and kind.__name__.endswith("Cache")
        and not issubclass(DynamicCache, kind)
        for kind in (typing.get_args(annotation) or (annotation,))
    )


def attention_layers(config: Any) -> list[DynamicLayer] | None:
    """A fresh cache's layers, if keys and values are all that each layer remembers; else None."""
    # Asked first: old releases give a recurrent layer the cache of an attention layer.
    if any(kind not in _ATTENTION for kind in getattr(config, "layer_types", None) or ()):
        return None
    layers: list[DynamicLayer] = DynamicCache(config=config).layers
    return layers if all(type(layer) in _KEEPS_KEYS_AND_VALUES for layer in layers) else None


def attention_kernel(config: Any) -> str:
    """Which implementation of attention a loaded model runs: `sdpa`, `eager`, or another."""
    kernel: str = config._attn_implementation
    return kernel


def does_but_multiply(layer: Any) -> bool:
    """Whether a linear layer has its matrix at hand, and calling it does nothing else.

    It does not where it is quantised, fetched from elsewhere when called (accelerate puts another
    `forward` on the instance), or watched by a hook. That its inputs are brought to it, as where a
    model is spread over several GPUs, is left to the caller.
    """
    return (
        type(layer) is torch.nn.Linear
        and not layer.weight.is_meta
        and ("forward" not in vars(layer) or only_moves_inputs(layer))
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )


class ReusedLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """A trunk's keys and values, put before those of each row, which are not kept."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention sees: [rows, heads, trunk and row, head_dim], keys and values."""
        rows = key_states.shape[0]
        # Expanded, not repeated: the trunk is in memory once, however many rows grow on it.
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def cache_on(trunk: DynamicCache, kind: type[DynamicLayer]) -> DynamicCache:
    """A cache of this kind of layer that begins with a trunk, which stays as it is."""
    cache = DynamicCache()
    for source in trunk.layers:
        layer = kind()
        layer.lazy_initialization(source.keys, source.values)
        layer.keys, layer.values = source.keys, source.values
        cache.layers.append(layer)
    return cache


class KeptLayer(ReusedLayer):
    """As `ReusedLayer`, but each row's own keys and values stay to be copied into a slot."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What attention sees, as there; what is kept is each row's own."""
        seen = super().update(key_states, value_states)
        self.keys, self.values = key_states, value_states
        return seen


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """One layer's keys and values, [rows, heads, columns, head_dim], filled up to `stop`."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the step's columns in place; returns all columns so far."""
        now = slice(self.stop, self.stop + key_states.shape[2])
        self.keys[:, :, now], self.values[:, :, now] = key_states, value_states
        self.stop = now.stop
        return self.keys[:, :, : self.stop], self.values[:, :, : self.stop]

    def get_seq_length(self) -> int:
        """How many columns are filled."""
        return self.stop


class CacheSlots:
    """Keys and values of texts that are generated side by side, where any may leave or join.

    All rows share one clock: step t writes column t of every row, so that a step is one write and
    never moves what is stored. A prompt that joins is put so that it ends at the present column:
    rows are padded on the left. A row that leaves is simply overwritten. `lengths[row]` tokens of
    a row are real, ending at the clock.
    """

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
            self._move(max(_GROWTH, self._stop // _GROWTH_SHARE))

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


class GuessedSlots(CacheSlots):
    """The same where a step feeds several tokens a row, of which each row may keep another number.

    Columns of tokens that were not kept stay as holes, masked, until storage is made anew.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self._real = np.zeros((rows, 0), np.bool_)

    def put(self, row: int, parts: Sequence[Sequence[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        """As there."""
        super().put(row, parts)
        self._widen()
        self._real[row] = False
        self._real[row, self._stop - self.lengths[row] : self._stop] = True

    def open(self, width: int) -> npt.NDArray[np.bool_]:
        """Make room for a step; gives [rows, 1, width, columns]: what each of its tokens sees."""
        if self._stop + width > self.cache.layers[0].keys.shape[2]:
            self._move(max(_GROWTH, self._stop // _GROWTH_SHARE, width))
        self._widen()
        seen = np.zeros((len(self.lengths), 1, width, self._stop + width), np.bool_)
        seen[..., : self._stop] = self._real[:, None, None, : self._stop]
        seen[..., self._stop :] = np.tri(width, dtype=np.bool_)
        return seen

    def accept(self, kept: Sequence[int]) -> None:
        """The first `kept[row]` tokens that the step fed a row are real; the others never were."""
        for row, count in enumerate(kept):
            self._real[row, self._stop : self._stop + count] = True
            self.lengths[row] += count
        self._stop += max(kept)
        for layer in self.cache.layers:
            layer.stop = self._stop

    def free(self, row: int) -> None:
        """As there."""
        super().free(row)
        self._real[row] = False

    def keep(self, rows: Sequence[int]) -> None:
        """As there."""
        super().keep(rows)
        self._real = self._real[list(rows)]

    def _widen(self) -> None:
        missing = self.cache.layers[0].keys.shape[2] - self._real.shape[1]
        if missing > 0:
            self._real = np.pad(self._real, ((0, 0), (0, missing)))

    def _move(self, room: int, *, later: int = 0) -> None:
        """New storage without holes: each row's own columns, up to the clock."""
        used = max(self.lengths)
        stop = max(used, self._stop + later if later else used)
        columns = [np.flatnonzero(real[: self._stop]) for real in self._real]
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = _empty(old[0], len(self.lengths), stop + room)
                for row, own in enumerate(columns):
                    chosen = torch.from_numpy(own).to(old.device)
                    new[row, :, stop - len(own) : stop] = old[row, :, chosen]
                setattr(layer, name, new)
            layer.stop = stop
        self._real = np.zeros((len(self.lengths), stop + room), np.bool_)
        for row, own in enumerate(columns):
            self._real[row, stop - len(own) : stop] = True
        self._stop = stop


def _empty(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    # Zeros: what no row has written yet is masked, but NaN times nothing is still NaN.
    return like.new_zeros(rows, like.shape[0], columns, like.shape[2])
