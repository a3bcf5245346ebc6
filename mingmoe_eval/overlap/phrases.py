"""Texts as words, and runs of words as 64-bit numbers, so that millions can be compared."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]

# Chinese and Japanese write no blanks: there each character is a word. Other words are cut after
# every fourth letter, so that five pieces tell about as much in English as in Chinese. A letter
# alone is no word: `A.` and `B.` stand before options in one file and are left out in another.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_IDEOGRAPHS}]|[^\\W_{_IDEOGRAPHS}]{{2,4}}|\\d")

_ABSENT = 0


def words_of(text: str) -> list[str]:
    """The words of a text; case, width, blanks and punctuation leave no trace."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def contains(words: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part` stands in `words`, word by word and in one piece."""
    return f" {' '.join(part)} " in f" {' '.join(words)} "


@dataclass(slots=True)
class Phrases:
    """Numbers for runs of `length` words, equal for equal runs.

    Only words seen while `learning` have a number of their own; a run with any other word is left
    out, as it can match nothing. Two different runs share a number with a chance of about 2^-64.
    """

    length: int
    _numbers: dict[str, int] = field(default_factory=dict)

    def learn(self, words: Iterable[str]) -> None:
        """Give words numbers."""
        for word in words:
            self._numbers.setdefault(word, len(self._numbers) + 1)

    def of_all(self, texts: Sequence[Sequence[str]]) -> tuple[Positions, Hashes]:
        """The phrases of many texts: whose each is (its position in `texts`), and its number."""
        numbers = self._numbers
        ids = np.array(
            [numbers.get(word, _ABSENT) for words in texts for word in words], dtype=np.uint64
        )
        owners = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
        count = len(ids) - self.length + 1
        if count <= 0:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        phrases = np.zeros(count, np.uint64)
        known = owners[:count] == owners[self.length - 1 :]
        for place, multiplier in enumerate(_multipliers(self.length)):
            window = ids[place : place + count]
            phrases += window * multiplier
            known &= window != _ABSENT
        return owners[:count][known], phrases[known]


def _multipliers(count: int) -> Hashes:
    """Fixed odd numbers: a sum of words times these tells runs apart, order included."""
    drawn = np.random.default_rng(20240229).integers(0, 2**63, count, dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)
