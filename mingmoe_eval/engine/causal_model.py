"""A transformers causal LM taken apart: hidden states of laid-out tokens, and the head over a few.

Stock inference applies the head, often the widest matrix of all, to every token; scoring needs it
only where a token is scored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mingmoe_eval.engine.prefix_plan import Row
from mingmoe_eval.engine.tokenisation import Tokens
from mingmoe_eval.engine.transformers_door import (
    DynamicCache,
    DynamicLayer,
    ReusedLayer,
    attention_kernel,
    attention_layers,
    cache_argument,
    cache_on,
    does_but_multiply,
)
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.routing.log import RoutingLog

# Attention kernels that take an arbitrary mask over [query, key].
_MASKABLE = ("sdpa", "eager")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that say how much memory a token takes."""

    hidden: int
    intermediate: int
    heads: int
    head_dim: int
    vocabulary: int
    layers: int
    key_value_heads: int
    item_bytes: int

    @property
    def body_weights(self) -> int:
        """About how many weights a token passes before the head."""
        attention = 2 * (self.heads + self.key_value_heads) * self.head_dim
        return self.layers * self.hidden * (attention + 3 * self.intermediate)

    @property
    def cached_token_bytes(self) -> int:
        """What the keys and values of one token take, over all layers."""
        return 2 * self.layers * self.key_value_heads * self.head_dim * self.item_bytes


class CausalModel:
    """One causal LM in eval mode; positions are passed to it, and a mask wherever it needs one.

    `hidden_states` are what `logits` turns into logits: the decoder's output for an ordinary
    model, or already the logits for one whose head does more than a linear layer and a soft cap.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        self.device = model.get_input_embeddings().weight.device
        self.dtype = model.dtype
        self._body = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._prefixes_reusable: bool | None = None
        self.routing = RoutingLog.of(model)
        if not self._head_is_apart():
            self._body, self._head = model, None
        self._cache_argument = cache_argument(getattr(self._body, "forward", self._body))

    @property
    def shape(self) -> ModelShape:
        """The sizes that a memory estimate needs."""
        config, hidden = self.config, self.config.hidden_size
        # Models without attention have no heads; what they keep is not asked for.
        heads = getattr(config, "num_attention_heads", None) or 1
        return ModelShape(
            hidden=hidden,
            intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,
            heads=heads,
            head_dim=getattr(config, "head_dim", None) or hidden // heads,
            vocabulary=config.vocab_size,
            layers=config.num_hidden_layers,
            key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
            item_bytes=self.dtype.itemsize,
        )

    def reuses_prefixes(self, longest: int) -> bool:
        """Whether a prefix's keys and values serve every continuation of up to `longest` tokens.

        They do not where attention takes no mask of ours, where a layer keeps another state than
        keys and values or forgets some of them, or where a later token reaches back (as through
        a router that pools a whole sequence); the last is found out by trying.
        """
        if attention_kernel(self.config) not in _MASKABLE or not self.keeps_keys_and_values:
            return False
        layers = attention_layers(self.config) or []
        if any(getattr(layer, "sliding_window", longest) < longest for layer in layers):
            return False
        if self._prefixes_reusable is None:
            self._prefixes_reusable = self._reuse_changes_nothing()
        return self._prefixes_reusable

    @property
    def keeps_keys_and_values(self) -> bool:
        """Whether keys and values are all that a layer remembers (no recurrent state)."""
        return self._cache_argument is not None and attention_layers(self.config) is not None

    @torch.inference_mode()
    def hidden_states(
        self,
        rows: Sequence[Row],
        trunk: DynamicCache | None,
        cache: DynamicCache | None = None,
    ) -> torch.Tensor:
        """[rows, widest, hidden] of rows that all grow on one trunk; padded on the right.

        Keys and values are dropped, unless a `cache` that begins with the trunk's takes them.
        """
        widest = max(len(row.tokens) for row in rows)
        ids = np.zeros((len(rows), widest), np.int64)
        positions = np.tile(np.arange(widest), (len(rows), 1))
        for index, row in enumerate(rows):
            ids[index, : len(row.tokens)] = row.tokens
            positions[index, : len(row.tokens)] = row.positions
        mask: torch.Tensor | None = None
        if trunk is not None or any(row.is_branched for row in rows):
            mask = self._tree_mask(rows, widest, trunk.get_seq_length() if trunk else 0)
        elif not self._prefixes_reusable:
            # Where it was found that no token looks ahead, padding on the right needs no mask.
            widths = np.array([len(row.tokens) for row in rows])
            mask = self.on_device((np.arange(widest) < widths[:, None]).astype(np.int64))
        if cache is None and trunk is not None:
            cache = cache_on(trunk, ReusedLayer)
        return self.forward(self._known(ids), mask, self.on_device(positions), cache)

    @torch.inference_mode()
    def grow_trunk(
        self, trunk: DynamicCache | None, tokens: Tokens
    ) -> tuple[DynamicCache, torch.Tensor]:
        """The trunk with `tokens` on top, and their hidden states, [1, tokens, hidden].

        The trunk given is left as it was.
        """
        start = trunk.get_seq_length() if trunk else 0
        stop = start + len(tokens)
        cache = DynamicCache() if trunk is None else cache_on(trunk, DynamicLayer)
        hidden = self.forward(
            self._known(tokens.astype(np.int64)[None]),
            torch.ones(1, stop, dtype=torch.long, device=self.device),
            torch.arange(start, stop, device=self.device)[None],
            cache,
        )
        return cache, hidden

    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        cache: DynamicCache | None,
    ) -> torch.Tensor:
        """One pass of the body.

        `mask`: [rows, keys] of padding, or [rows, 1, tokens, keys]; None: each token sees those
        before it.
        """
        if self.routing is not None:
            self.routing.begin_pass()
        output = self._body(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=cache is not None,
            **({} if cache is None else {self._cache_argument or "cache": cache}),
        )
        hidden: torch.Tensor = output[0]
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, vocabulary] in fp32 of [rows, hidden]."""
        return self._through_head(hidden) if self._head is not None else hidden.float()

    @property
    def head_can_be_sliced(self) -> bool:
        """Whether the head is a matrix at hand, and calling it would do nothing else.

        It is not where it is quantised, fetched from elsewhere when called, or watched by a hook.
        """
        return does_but_multiply(self._head)

    @property
    def widens_head(self) -> bool:
        """Whether `logit_slices` are of another precision than the head's own logits."""
        return self.head_can_be_sliced and self.dtype.itemsize < torch.float32.itemsize

    @torch.inference_mode()
    def logit_slices(
        self, hidden: torch.Tensor, columns: int
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(first id, fp32 logits [rows, `columns` or less]); whole if the head has no slices.

        The products are summed up and kept in fp32 whatever the weights are in. A head in bf16
        rounds logits of 16 to 32 to eighths, so that one question in five has two best letters.
        """
        if not self.head_can_be_sliced:
            yield 0, self.logits(hidden)
            return
        # Slice by slice: a second head in fp32 would take gigabytes beside a large vocabulary.
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weight, bias = self._head.weight, self._head.bias
        hidden = hidden.to(weight.device, wide)
        for first in range(0, len(weight), columns):
            part = slice(first, first + columns)
            given = None if bias is None else bias[part].to(wide)
            product = torch.nn.functional.linear(hidden, weight[part].to(wide), given)
            yield first, self._scaled(product)

    def _through_head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._scaled(self._head(hidden))

    def _scaled(self, logits: torch.Tensor) -> torch.Tensor:
        # Cohere multiplies its logits, Granite divides them, Gemma 2 caps them.
        if scale := self._number("logit_scale"):
            logits = logits * scale
        if scaling := self._number("logits_scaling"):
            logits = logits / scaling
        if cap := self._number("final_logit_softcapping"):
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def _number(self, field: str) -> float | None:
        """A field of the config; None where it is not there, or in another model's file a text."""
        value = getattr(self.config, field, None)
        return value if isinstance(value, int | float) else None

    def _tree_mask(self, rows: Sequence[Row], widest: int, trunk: int) -> torch.Tensor:
        # A padded token sees itself: a softmax over nothing would be NaN, and spread.
        seen = np.zeros((len(rows), 1, widest, trunk + widest), np.bool_)
        seen[..., :trunk] = True
        seen[:, 0, range(widest), range(trunk, trunk + widest)] = True
        for index, row in enumerate(rows):
            width = len(row.tokens)
            seen[index, 0, :width, trunk : trunk + width] = row.visibility()
        return self.as_mask(seen)

    def as_mask(self, seen: npt.NDArray[np.bool_]) -> torch.Tensor:
        """[rows, 1, tokens, keys], whether each token sees each key, as this attention takes it."""
        mask = self.on_device(seen)
        if attention_kernel(self.config) == "sdpa":
            return mask
        nothing = torch.finfo(self.dtype).min
        return torch.zeros_like(mask, dtype=self.dtype).masked_fill_(~mask, nothing)

    def _known(self, ids: npt.NDArray[np.int64]) -> torch.Tensor:
        # Asked before the model is: a GPU's own refusal cannot be recovered from.
        rows = self.model.get_input_embeddings().weight.shape[0]
        if ids.max() >= rows:
            raise CheckpointError(
                f"the tokenizer gives token id {ids.max()}, the model knows {rows}: they do not "
                "belong together; put the model's own tokenizer beside its weights"
            )
        return self.on_device(ids)

    def on_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """The array as a tensor where the model's inputs go."""
        return torch.from_numpy(array).to(self.device)

    @torch.inference_mode()
    def _head_is_apart(self) -> bool:
        """Whether decoder and head, called one after the other, are the whole model."""
        if self._body is self.model or self._head is None:
            return False
        ids = torch.arange(4, device=self.device)[None] % self.config.vocab_size
        whole = self.model(input_ids=ids, use_cache=False).logits
        apart = self._through_head(self._body(input_ids=ids, use_cache=False)[0])
        return _close(whole.float(), apart, self.dtype)

    @torch.inference_mode()
    def _reuse_changes_nothing(self) -> bool:
        """Compare a trunk with a branched row on it to the same two sequences in full.

        And one of them, padded and with a mask, to itself without either.
        """
        ids = (np.arange(18) * 7 + 3) % self.config.vocab_size
        one, other = ids[:12].astype(np.int32), np.concatenate([ids[:8], ids[12:18]])
        other = other.astype(np.int32)
        full = self.hidden_states([_plain_row(one), _plain_row(other)], None)
        places = torch.arange(len(one), device=self.device)[None]
        unmasked = self.forward(self._known(ids[None, : len(one)]), None, places, None)
        cache, trunk = self.grow_trunk(None, one[:5])
        branched = Row(
            np.concatenate([one[5:], other[8:]]),
            np.concatenate([np.arange(5, 12), np.arange(8, 14)]),
            (np.arange(7), np.array([0, 1, 2, *range(7, 13)])),
        )
        row = self.hidden_states([branched], cache)
        return (
            # The same shapes, another end: what comes before must not move at all.
            _close(full[0, :8], full[1, :8], torch.float32)
            and _close(full[0, :12], unmasked[0], self.dtype)
            and _close(full[0, :5], trunk[0], self.dtype)
            and _close(full[0, 5:12], row[0, :7], self.dtype)
            and _close(full[1, 8:14], row[0, 7:], self.dtype)
        )


def _plain_row(tokens: Tokens) -> Row:
    columns = np.arange(len(tokens))
    return Row(tokens, columns, (columns,))


def _close(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    """Mean difference relative to mean size: rounding passes, another function does not."""
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    scale = one.float().abs().mean() + 1e-9
    return bool((one.float() - other.float()).abs().mean() <= tolerance * scale)
