"""Guesses at what a text says next: what followed the same few tokens before, in prompt or text.

A task whose answer copies from its question is guessed well by looking there (prompt lookup
decoding). The model sees guessed tokens together with the newest one, and only those are kept that
it would have chosen itself: the text is the same, in fewer steps.
"""

from collections.abc import Sequence

from mingmoe_eval.engine.tokenisation import Tokens

# So many tokens must have been the same; the longer run is looked for first, as it errs less.
_ALIKE = (3, 2)
_MOST_GUESSED = 8
# Of the tokens that a pass takes about as long for as for one row's: what reads the weights is
# most of its time. On a CPU few, on a GPU many.
_TOKENS_FOR_FREE = {"cpu": 16, "cuda": 256}


class PromptLookup:
    """The tokens of one prompt and its text so far, and where each few of them first stood.

    The first place, since from there most is known of what follows.
    """

    def __init__(self, prompt: Tokens) -> None:
        self._tokens: list[int] = prompt.tolist()
        self._prompt_tokens = len(self._tokens)
        self._followed: dict[tuple[int, ...], int] = {}
        self._indexed = min(_ALIKE)

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow the text `ids`, which only ever grows."""
        if most <= 0:
            return []
        self._tokens.extend(ids[len(self._tokens) - self._prompt_tokens :])
        # The text's own end is left out: nothing has followed it yet.
        for end in range(self._indexed, len(self._tokens)):
            for count in _ALIKE:
                if end >= count:
                    self._followed.setdefault(tuple(self._tokens[end - count : end]), end)
        self._indexed = len(self._tokens)
        for count in _ALIKE:
            place = self._followed.get(tuple(self._tokens[-count:]))
            if place is not None:
                return self._tokens[place : place + most]
        return []


def most_guessed(device: str, rows: int) -> int:
    """How many tokens a row may guess in a step of so many rows, at next to no cost."""
    return min(_MOST_GUESSED, _TOKENS_FOR_FREE.get(device, 16) // max(rows, 1) - 1)
