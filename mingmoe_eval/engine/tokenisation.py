"""Texts to token ids exactly as lm-eval's `HFLM` makes them, but each distinct line only once.

The rules are those of `TemplateLM._encode_pair`, `HFLM.tok_encode` and `HFLM.tok_batch_encode`
(lm-eval 0.4.13), so that scores can be compared with anybody's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mingmoe_eval.engine.line_encoding import LineEncoder

Tokens = npt.NDArray[np.int32]

# A tokenizer whose length limit is "none" says so with a huge number.
_NO_LIMIT = 10**9
_DEFAULT_MAX_LENGTH = 2048
_TEXTS_A_CALL = 4096


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPair:
    """A context and its continuation as one row of ids, cut to what the model can hold.

    The last `n_targets` of `tokens` are the continuation; the very last is never an input. No
    targets: the continuation came to no token of its own, or does not fit, and has no score.
    """

    tokens: Tokens
    n_targets: int
    truncated: bool = False

    @property
    def prompt_tokens(self) -> int:
        """How many tokens of context were left."""
        return len(self.tokens) - self.n_targets


class Tokenisation:
    """One tokenizer and the habits that a scored model's inputs depend on."""

    def __init__(
        self, tokenizer: Any, *, max_length: int, add_bos_token: bool | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.add_bos_token = add_bos_token
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._lines = LineEncoder.of(self._backend) if self._backend is not None else None

    @property
    def prefix_token_id(self) -> int:
        """What stands before a continuation without context: BOS, else EOS."""
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Ids of (context, continuation) pairs; a context shared by many pairs is encoded once.

        Blanks that end a context move to its continuation, as words carry their blank in front.
        """
        # In slices, since the texts joined take far more memory than their ids.
        return [
            encoded
            for first in range(0, len(pairs), _TEXTS_A_CALL)
            for encoded in self._encode_slice(pairs[first : first + _TEXTS_A_CALL])
        ]

    def encode_documents(self, texts: Sequence[str]) -> list[Tokens]:
        """Whole texts, for rolling log-likelihoods."""
        encoded = self._encode_distinct(texts, self.tokenizer.decode(self.prefix_token_id))
        return [encoded[text] for text in texts]

    def encode_prompts(self, texts: Sequence[str]) -> list[Tokens]:
        """Prompts to generate from, not yet cut to length; an empty one is the prefix token."""
        encoded = self._encode_distinct(texts, self.tokenizer.bos_token)
        nothing = np.array([self.prefix_token_id], np.int32)
        return [encoded[text] if len(encoded[text]) else nothing for text in texts]

    def rolling_windows(self, document: Tokens) -> list[EncodedPair]:
        """Disjoint windows that predict each token once, each with all the context that fits."""
        windows, done = [], 0
        whole = np.concatenate([np.array([self.prefix_token_id], np.int32), document])
        while done < len(document):
            step = min(self.max_length, len(document) - done)
            end = done + step
            # Positions shift by one in `whole`: token i of the document is whole[i + 1].
            start = max(0, end - self.max_length)
            windows.append(EncodedPair(whole[start : end + 1], n_targets=step))
            done = end
        return windows

    def _encode_slice(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        moved = [_blanks_moved(context, continuation) for context, continuation in pairs]
        marker = self.tokenizer.decode(self.prefix_token_id)
        with_context = [context + rest for context, rest in moved if context]
        encoded = self._encode_distinct(
            [context for context, _ in moved if context] + with_context, marker
        )
        bare = self._encode_plain([rest for context, rest in moved if not context])
        return [
            self._split(encoded[context + rest], len(encoded[context]))
            if context
            else self._after_prefix_token(bare[rest])
            for context, rest in moved
        ]

    def _split(self, whole: Tokens, context_length: int) -> EncodedPair:
        kept = whole[-(self.max_length + 1) :]
        n_targets = len(whole) - context_length
        scorable = 0 < n_targets < len(kept)
        return EncodedPair(kept, n_targets if scorable else 0, len(kept) < len(whole))

    def _after_prefix_token(self, continuation: Tokens) -> EncodedPair:
        if len(continuation) and continuation[0] == self.prefix_token_id:
            return self._split(continuation, 1)
        prefix = np.array([self.prefix_token_id], np.int32)
        return self._split(np.concatenate([prefix, continuation]), 1)

    def _encode_distinct(self, texts: Iterable[str], marker: str | None) -> dict[str, Tokens]:
        """Ids by text; a text that already begins with the marker gets no special tokens."""
        distinct = dict.fromkeys(texts)
        marked = [text for text in distinct if marker and text.startswith(marker)]
        plain = [text for text in distinct if not (marker and text.startswith(marker))]
        default = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        return {**self._encode_plain(marked), **self._encode(plain, **default)}

    def _encode_plain(self, texts: Iterable[str]) -> dict[str, Tokens]:
        return self._encode(list(dict.fromkeys(texts)), add_special_tokens=False)

    def _encode(self, texts: list[str], *, add_special_tokens: bool = True) -> dict[str, Tokens]:
        # In slices, since a Python list of ids takes eight times the memory of an array.
        encoded: dict[str, Tokens] = {}
        for first in range(0, len(texts), _TEXTS_A_CALL):
            part = texts[first : first + _TEXTS_A_CALL]
            encoded.update(zip(part, self._ids(part, add_special_tokens), strict=True))
        return encoded

    def _ids(self, texts: list[str], add_special_tokens: bool) -> Iterator[Tokens]:
        if self._backend is None:
            ids = self.tokenizer(texts, add_special_tokens=add_special_tokens)["input_ids"]
            return (np.array(row, np.int32) for row in ids)
        # The same ids as by a call of the tokenizer, without what else it would compute.
        self._backend.no_padding()
        self._backend.no_truncation()
        if self._lines is not None:
            return self._lines.encode(texts, add_special_tokens=add_special_tokens)
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return (np.array(encoding.ids, np.int32) for encoding in encodings)


def longest_input(config: Any, tokenizer: Any) -> int:
    """How many tokens a model can hold, by its config, else its tokenizer, else 2,048.

    The order of lm-eval's `resolve_max_length`; a composite config's text model comes first.
    """
    config = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (value := getattr(config, name, None)) is not None:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and limit < _NO_LIMIT else _DEFAULT_MAX_LENGTH


def _blanks_moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation
