"""Texts to token ids exactly as lm-eval's `HFLM` makes them, but each distinct line only once.

The rules are those of `TemplateLM._encode_pair`, `HFLM.tok_encode` and `HFLM.tok_batch_encode`
(lm-eval 0.4.13), so that scores can be compared with anybody's.

A tokenizer that first cuts a text into pieces, and encodes each piece by itself, gives a text the
ids of its two halves wherever a piece ends for certain. With the patterns of `PATTERNS` one does
between a line feed and a visible character, whatever stands further left or right: no alternative
holds a visible character after a line feed, and those that end in line feeds take all of them, with
or without something behind. (GPT-2's pattern leaves the last of several to the next piece if a word
follows, so it is not among them.)
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]
# A tokenizer whose length limit is "none" says so with a huge number.
_NO_LIMIT = 10**9
_DEFAULT_MAX_LENGTH = 2048
_TEXTS_A_CALL = 4096
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
PATTERNS = {
    "Qwen 2, 2.5, 3": rf"{_CONTRACTIONS}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}",
    "Llama 3": rf"{_CONTRACTIONS}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}",
    "Qwen 3.5": (
        rf"{_CONTRACTIONS}[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
# Letters, digits and ASCII's visible characters: no pattern takes any of them for a blank.
_VISIBLE = re.compile(r"[!-~\w]")
_LINE_START = re.compile(r"(?<=\n)(?=[!-~\w])")
_LINES_A_CALL = 16_384


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
            self._split(_joined(encoded[context], encoded[context + rest]), len(encoded[context]))
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


def _joined(context: Tokens, whole: Tokens) -> Tokens:
    """What lm-eval feeds: the context's own ids, and of the whole text's those that come after.

    Where a token spans the end of the context ("):" with a line feed behind it, "？" in Chinese),
    that is neither the whole text's ids nor another way to write it; it is what every published
    number was made of. Exams never ask so: their continuations are letters after a blank line or a
    colon that stands alone.
    """
    if np.array_equal(whole[: len(context)], context):
        return whole
    return np.concatenate([context, whole[len(context) :]])


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


class LineEncoder:
    """A fast tokenizer's backend that may be asked line by line; `of` says whether it may."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        bare, dressed = (
            backend.encode("a", add_special_tokens=special).ids for special in (False, True)
        )
        self._before, self._after = _around(dressed, bare)

    @classmethod
    def of(cls, backend: Any) -> "LineEncoder | None":
        """An encoder, if the tokenizer is known to give a text the ids of its lines."""
        if not (_cuts_at_lines(backend) and _composes_no_lines(backend)):
            return None
        try:
            return cls(backend)
        except ValueError:
            return None

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> Iterator[Tokens]:
        """The ids of each text, as the whole text by itself has them."""
        halves = [_halves(text) for text in texts]
        lines_of = {head: _LINE_START.split(head) for head in dict.fromkeys(h for h, _ in halves)}
        distinct = dict.fromkeys(line for lines in lines_of.values() for line in lines)
        distinct.update(dict.fromkeys(tail for _, tail in halves))
        ids = self._ids(list(distinct))
        heads = {
            head: np.concatenate([ids[line] for line in lines]) for head, lines in lines_of.items()
        }
        for head, tail in halves:
            parts = [heads[head], ids[tail]]
            if add_special_tokens:
                parts = [self._before, *parts, self._after]
            yield np.concatenate(parts)

    def _ids(self, lines: list[str]) -> dict[str, Tokens]:
        found: dict[str, Tokens] = {}
        for first in range(0, len(lines), _LINES_A_CALL):
            part = lines[first : first + _LINES_A_CALL]
            encodings = self._backend.encode_batch_fast(part, add_special_tokens=False)
            found.update(
                (line, np.array(encoding.ids, np.int32))
                for line, encoding in zip(part, encodings, strict=True)
            )
        return found


def _blanks_moved(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def _halves(text: str) -> tuple[str, str]:
    """What stands before the last line, and that line; many texts share the former whole."""
    at = len(text)
    while (at := text.rfind("\n", 0, at)) >= 0:
        if _VISIBLE.match(text, at + 1):
            return text[: at + 1], text[at + 1 :]
    return "", text


def _around(dressed: list[int], bare: list[int]) -> tuple[Tokens, Tokens]:
    """The special tokens before and after an encoded text; ValueError if it is not in there."""
    for first in range(len(dressed) - len(bare) + 1):
        if dressed[first : first + len(bare)] == bare:
            after = dressed[first + len(bare) :]
            return np.array(dressed[:first], np.int32), np.array(after, np.int32)
    raise ValueError("special tokens replace the text's own")


def _cuts_at_lines(backend: Any) -> bool:
    try:
        state = json.loads(backend.pre_tokenizer.__getstate__())
    except (AttributeError, TypeError, ValueError):  # none, or one written in Python
        return False
    match state:
        case {"type": "WhitespaceSplit" | "Whitespace" | "BertPreTokenizer"}:
            return True
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern in PATTERNS.values()
    return False


def _composes_no_lines(backend: Any) -> bool:
    """Whether nothing before or after the cutting into pieces looks across a line's end."""
    if backend.normalizer is not None:
        try:
            if json.loads(backend.normalizer.__getstate__())["type"] != "NFC":
                return False
        except (TypeError, ValueError):
            return False
    if getattr(backend.model, "dropout", None):
        return False
    added = backend.get_added_tokens_decoder().values()
    return not any(
        token.lstrip or token.rstrip or token.single_word or "\n" in token.content
        for token in added
    )
