"""From generated ids to the answer's text: stop strings and thinking blocks."""

from collections.abc import Sequence
from typing import Any

THOUGHT_BEGINS = "<think>"
THOUGHT_ENDS = "</think>"

# A stop string may begin inside a token and end inside another.
_SPARE_TOKENS = 4


class GeneratedText:
    """Reads one growing text. What a model thinks is no part of its answer.

    Stop strings are looked for behind a thinking block only. A thought that never ends leaves no
    answer: an option letter inside of it must not be read as one.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], *, in_thought: bool = False) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._in_thought = in_thought
        # No token is shorter than a byte, so this many surely hold the longest stop string.
        longest = max((len(text.encode()) for text in stop), default=0)
        self._tail = longest + _SPARE_TOKENS

    def stops(self, ids: Sequence[int]) -> bool:
        """Whether the answer holds a stop string by now; asked after every token."""
        if not self._stop:
            return False
        tail = self._tokenizer.decode(ids[-self._tail :])
        if not any(text in tail for text in self._stop):
            return False
        answer = self._behind_thought(self._tokenizer.decode(ids))
        return answer is not None and any(text in answer for text in self._stop)

    def final(self, ids: Sequence[int]) -> str:
        """The answer: no special tokens, nothing from a stop string on, no thought."""
        raw = self._tokenizer.decode(ids)
        if self._thinks(raw):
            answer = (self._behind_thought(raw) or "").lstrip()
            for token in self._tokenizer.all_special_tokens:
                answer = answer.replace(token, "")
        else:
            answer = self._tokenizer.decode(ids, skip_special_tokens=True)
        for text in self._stop:
            answer = answer.split(text)[0]
        return answer

    def _thinks(self, raw: str) -> bool:
        return self._in_thought or raw.lstrip().startswith(THOUGHT_BEGINS)

    def _behind_thought(self, raw: str) -> str | None:
        if not self._thinks(raw):
            return raw
        _, ended, answer = raw.rpartition(THOUGHT_ENDS)
        return answer if ended else None
