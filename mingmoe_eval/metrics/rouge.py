"""ROUGE on Chinese medical text, as PromptCBLUE's scorer computes it.

Facts from the PromptCBLUE scorer, which joins BERT's basic tokenizer to rouge_chinese 1.0.3:
ROUGE-1/2 are over sets of n-grams, without counts, and F carries a term of 1e-8 that makes a
perfect match 0.999999995. rouge-score counts n-grams and has no such term, and its own tokenizer
drops every Chinese character; given the tokens from here, its ROUGE-L precision and recall equal
ours (a test holds that), but its table needs memory for every pair of tokens, and a reply of
100 kB would fill the machine.
"""

import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

_CJK_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""The ideographs of BERT's tokenizer: kana and hangul are not among them."""

_NOTHING = ("无", "。")
"""What a text without tokens becomes, so that empty against empty is a perfect match."""


@dataclass(frozen=True, slots=True)
class Rouge:
    """One pair's values: F of ROUGE-1, ROUGE-2 and ROUGE-L, precision and recall of ROUGE-L."""

    rouge1: float
    rouge2: float
    rouge_l: float
    rouge_l_precision: float
    rouge_l_recall: float


def rouge(prediction: str, reference: str) -> Rouge:
    """ROUGE of one pair of texts; any text will do, the empty one too."""
    predicted, expected = tokenize(prediction), tokenize(reference)
    shared = common_subsequence_length(predicted, expected)
    precision, recall = shared / len(predicted), shared / len(expected)
    return Rouge(
        _ngram_f(predicted, expected, 1),
        _ngram_f(predicted, expected, 2),
        _f_score(precision, recall),
        precision,
        recall,
    )


def tokenize(text: str) -> list[str]:
    """Split a text as BERT's basic tokenizer does; never empty (see `_NOTHING`).

    Ideographs and punctuation marks stand alone, other runs stay whole; lower case, no accents, no
    control characters.
    """
    spaced = unicodedata.normalize("NFC", text.translate(_CLEANED))
    bare = unicodedata.normalize("NFD", spaced.lower())
    return bare.translate(_SPLIT).split() or list(_NOTHING)


def common_subsequence_length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): one row of the
    dynamic programme is one integer, whose zero bits count the matches. Time grows with the
    product of the lengths over the word size, memory with their sum.
    """
    shorter, longer = sorted((first, second), key=len)
    positions: dict[Hashable, int] = {}
    for index, token in enumerate(shorter):
        positions[token] = positions.get(token, 0) | 1 << index
    ones = (1 << len(shorter)) - 1
    row = ones
    for token in longer:
        if matches := row & positions.get(token, 0):
            row = ((row + matches) | (row - matches)) & ones
    return len(shorter) - row.bit_count()


def _ngram_f(predicted: Sequence[str], expected: Sequence[str], size: int) -> float:
    said, wanted = _ngrams(predicted, size), _ngrams(expected, size)
    overlap = len(said & wanted)
    precision = overlap / len(said) if said else 0.0
    recall = overlap / len(wanted) if wanted else 0.0
    return _f_score(precision, recall)


def _ngrams(tokens: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return set(zip(*(tokens[start:] for start in range(size)), strict=False))


def _f_score(precision: float, recall: float) -> float:
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


class _Translation(dict[int, str]):
    """A `str.translate` table that asks for each character's replacement once."""

    def __init__(self, replacement: Callable[[str], str]) -> None:
        super().__init__()
        self.replacement = replacement

    def __missing__(self, code: int) -> str:
        self[code] = replaced = self.replacement(chr(code))
        return replaced


def _cleaned(char: str) -> str:
    """Blanks become one kind, control characters go, ideographs get room."""
    category = unicodedata.category(char)
    # Tab and line breaks are control characters to Unicode; they count as blanks first.
    if char in "\t\n\r" or category == "Zs":
        return " "
    if char == "\ufffd" or category.startswith("C"):
        return ""
    ideograph = any(low <= ord(char) <= high for low, high in _CJK_RANGES)
    return f" {char} " if ideograph else char


def _split(char: str) -> str:
    """Combining marks go, punctuation gets room; ASCII symbols such as + and ^ count as such."""
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    symbol = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
    return f" {char} " if symbol or category.startswith("P") else char


_CLEANED, _SPLIT = _Translation(_cleaned), _Translation(_split)
