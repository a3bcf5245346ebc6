r"""Token ids of texts that share lines: each distinct line is encoded once, with the same ids.

A tokenizer that first cuts a text into pieces, and encodes each piece by itself, gives a text the
ids of its two halves wherever a piece ends for certain. With the patterns below one does between a
line feed and a visible character, whatever stands further left or right: no alternative holds a
visible character after a line feed, and those that end in line feeds take all of them, with or
without something behind. (GPT-2's pattern leaves the last of several to the next piece if a word
follows, so it is not among them.)
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Ids = npt.NDArray[np.int32]

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

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> Iterator[_Ids]:
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

    def _ids(self, lines: list[str]) -> dict[str, _Ids]:
        found: dict[str, _Ids] = {}
        for first in range(0, len(lines), _LINES_A_CALL):
            part = lines[first : first + _LINES_A_CALL]
            encodings = self._backend.encode_batch_fast(part, add_special_tokens=False)
            found.update(
                (line, np.array(encoding.ids, np.int32))
                for line, encoding in zip(part, encodings, strict=True)
            )
        return found


def _halves(text: str) -> tuple[str, str]:
    """What stands before the last line, and that line; many texts share the former whole."""
    at = len(text)
    while (at := text.rfind("\n", 0, at)) >= 0:
        if _VISIBLE.match(text, at + 1):
            return text[: at + 1], text[at + 1 :]
    return "", text


def _around(dressed: list[int], bare: list[int]) -> tuple[_Ids, _Ids]:
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
