"""From generated ids to the reply's text: what a model thinks is in it, stop strings are not."""

from collections.abc import Sequence
from typing import Any

from mingmoe_eval.metrics.answer_reading.reply_text import is_thinking_tag, split_thoughts

THOUGHT_BEGINS = "<think>"

# A stop string may begin inside a token and end inside another.
_SPARE_TOKENS = 4


class GeneratedText:
    """Reads one growing text. The reply is kept whole; what of it is the answer, its reader says.

    Stop strings are looked for behind the thoughts only: a thought may hold any of them. Where the
    prompt ends inside a thought (`in_thought`), the reply begins with the tag that opened it, as
    nobody could tell from the rest alone that it was one.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], *, in_thought: bool = False) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._opened = THOUGHT_BEGINS if in_thought else ""
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
        _, answer = split_thoughts(self._opened + self._tokenizer.decode(ids))
        return answer is not None and any(text in answer for text in self._stop)

    def final(self, ids: Sequence[int]) -> str:
        """The reply: no special tokens but those that mark thoughts, nothing from a stop on."""
        thoughts, answer = split_thoughts(self._opened + self._tokenizer.decode(ids))
        if thoughts:
            special = [t for t in self._tokenizer.all_special_tokens if not is_thinking_tag(t)]
            for token in special:
                thoughts = thoughts.replace(token, "")
                answer = answer and answer.replace(token, "")
        else:
            answer = self._tokenizer.decode(ids, skip_special_tokens=True)
        return thoughts + before_stop(answer or "", self._stop)


def before_stop(answer: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    for text in stop:
        answer = answer.split(text)[0]
    return answer
