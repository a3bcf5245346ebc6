"""Exact and near duplicates of test questions in training data, by the phrases they share.

Texts become words, and runs of words 64-bit numbers, so that millions can be compared. What decides
is the share of a question's phrases that one training record holds,

    share(q, r) = |phrases(q) & phrases(r)| / |phrases(q)|

(containment, Broder 1997), computed exactly: a question inside a long record is found, which a
Jaccard estimate such as MinHash's would miss, as most of the record is no question.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mingmoe_eval.overlap.texts import Item

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Bounds what is in memory: the words of so many records, and their matrix of hits.
_RECORDS_AT_ONCE = 2_000

# Chinese and Japanese write no blanks: there each character is a word. Other words are cut after
# every fourth letter, so that five pieces tell about as much in English as in Chinese. A letter
# alone is no word: `A.` and `B.` stand before options in one file and are left out in another.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_IDEOGRAPHS}]|[^\\W_{_IDEOGRAPHS}]{{2,4}}|\\d")

# Of words that no question has; the others count from 1.
_ABSENT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRules:
    """What counts as found.

    Attributes:
        phrase_words: Words in a phrase: Chinese characters, or pieces of up to four letters.
        threshold: Share of a question's phrases that must stand in one training record.
        most_items: A phrase in more different questions than this is a stock phrase ("which of the
            following is"): it tells nothing and is left out.
        most_records: The same for different training records, which share the words of templates.
        fewest_phrases: A question with fewer phrases than this takes its options in, then its
            context; if there are still fewer, it is too general to judge.
    """

    phrase_words: int = 5
    threshold: float = 0.6
    most_items: int = 10
    most_records: int = 100
    fewest_phrases: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Where one question was found: the record that holds most of it, and how many hold enough."""

    item: int
    record: int
    share: float
    exact: bool
    records: int


@dataclass(frozen=True, slots=True)
class Found:
    """The questions that were found, at most one match an item, and those too general to judge."""

    matches: tuple[Match, ...]
    too_general: frozenset[int]


def search(items: Sequence[Item], texts: Sequence[str], rules: SearchRules | None = None) -> Found:
    """Look for each item in each training text.

    Args:
        items: The questions, each once.
        texts: The training records.
        rules: What counts as found.

    Returns:
        Matches by position of item and text. `exact`: all parts that were looked for stand in the
        record, word by word.
    """
    rules = rules or SearchRules()
    parts = [[words_of(part) for part in item.parts] for item in items]
    phrases = Phrases(rules.phrase_words)
    phrases.learn(word for item in parts for part in item for word in part)
    table = _PhraseTable(parts, phrases)
    hits = sparse.vstack([*table.hits_in(texts)], format="csr") if texts else table.no_hits()
    telling = table.telling(hits[_distinct(texts)], rules)
    looked_for, wanted = table.look_for(telling, rules)
    found = _Best(rules, parts, looked_for, texts)
    sizes = np.asarray(wanted.sum(axis=0)).ravel()
    for first in range(0, hits.shape[0], _RECORDS_AT_ONCE):
        found.add(first, (hits[first : first + _RECORDS_AT_ONCE] @ wanted).tocoo(), sizes)
    return Found(found.matches(), frozenset(np.flatnonzero(sizes == 0).tolist()))


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


class _PhraseTable:
    """Every phrase of every part of every item, and which records hold it."""

    def __init__(self, parts: Sequence[Sequence[Sequence[str]]], phrases: Phrases) -> None:
        self._phrases = phrases
        self._parts_of = [len(item) for item in parts]
        flat = [part for item in parts for part in item]
        part, hashes = phrases.of_all(flat)
        self._hashes, column = np.unique(hashes, return_inverse=True)
        self._item_of_part = np.repeat(np.arange(len(parts)), self._parts_of)
        self._by_part = _incidence(part, column, (len(flat), len(self._hashes)))

    def no_hits(self) -> sparse.csr_matrix:
        """What no text at all holds."""
        return sparse.csr_matrix((0, len(self._hashes)), dtype=np.int32)

    def hits_in(self, texts: Sequence[str]) -> Iterator[sparse.csr_matrix]:
        """Which phrases each text holds (texts x phrases, 0 or 1), some texts at a time."""
        for first in range(0, len(texts), _RECORDS_AT_ONCE):
            words = [words_of(text) for text in texts[first : first + _RECORDS_AT_ONCE]]
            record, hashes = self._phrases.of_all(words)
            column, known = self._columns(hashes)
            yield _incidence(record[known], column[known], (len(words), len(self._hashes)))

    def telling(self, hits: sparse.csr_matrix, rules: SearchRules) -> Mask:
        """Which phrases are no stock phrases, by their items and by hits in distinct records."""
        items = _incidence(
            self._item_of_part[self._by_part.nonzero()[0]],
            self._by_part.nonzero()[1],
            (len(self._parts_of), len(self._hashes)),
        )
        in_items, in_records = _column_sums(items), _column_sums(hits)
        return (in_items <= rules.most_items) & (in_records <= rules.most_records)

    def look_for(self, telling: Mask, rules: SearchRules) -> tuple[list[int], sparse.csr_matrix]:
        """How many parts of each item decide, and their telling phrases (phrases x items)."""
        part, column = self._by_part.nonzero()
        keep = telling[column]
        by_part = _incidence(part[keep], column[keep], self._by_part.shape)
        deciding: list[int] = []
        kept: list[tuple[int, NDArray[np.int32]]] = []
        start = 0
        for item, count in enumerate(self._parts_of):
            taken, columns = _enough(by_part, start, count, rules.fewest_phrases)
            deciding.append(taken)
            kept.append((item, columns))
            start += count
        owners = np.repeat([item for item, _ in kept], [len(columns) for _, columns in kept])
        columns = np.concatenate([np.empty(0, np.int32), *(c for _, c in kept)])
        shape = (len(self._hashes), len(self._parts_of))
        return deciding, _incidence(columns, owners, shape)

    def _columns(self, hashes: Hashes) -> tuple[Positions, Mask]:
        if not len(self._hashes):
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), np.bool_)
        column = np.searchsorted(self._hashes, hashes)
        column[column == len(self._hashes)] = 0
        return column, self._hashes[column] == hashes


class _Best:
    """The best match of each item so far."""

    def __init__(
        self,
        rules: SearchRules,
        parts: Sequence[Sequence[Sequence[str]]],
        deciding: Sequence[int],
        texts: Sequence[str],
    ) -> None:
        self._rules = rules
        self._parts = parts
        self._deciding = deciding
        self._texts = texts
        self._best: dict[int, Match] = {}
        self._words: tuple[int, list[str]] = (-1, [])

    def add(self, first: int, shared: sparse.coo_matrix, sizes: NDArray[np.int32]) -> None:
        """Take in some records: how many phrases each shares with each item."""
        share = shared.data / sizes[shared.col]
        enough = share >= self._rules.threshold
        rows, items, shares = shared.row[enough], shared.col[enough], share[enough]
        for row, item, value in zip(rows.tolist(), items.tolist(), shares.tolist(), strict=True):
            self._meet(item, first + row, value)

    def _meet(self, item: int, record: int, share: float) -> None:
        best = self._best.get(item)
        records = best.records + 1 if best else 1
        if best is None or (not best.exact and share >= best.share):
            exact = share == 1.0 and self._is_exact(item, record)
            if best is None or exact or share > best.share:
                best = Match(item=item, record=record, share=share, exact=exact, records=records)
        self._best[item] = Match(
            item=item, record=best.record, share=best.share, exact=best.exact, records=records
        )

    def _is_exact(self, item: int, record: int) -> bool:
        if self._words[0] != record:
            self._words = (record, words_of(self._texts[record]))
        parts = self._parts[item][: self._deciding[item]]
        return all(contains(self._words[1], part) for part in parts)

    def matches(self) -> tuple[Match, ...]:
        """One match an item, in the order of the items."""
        return tuple(self._best[item] for item in sorted(self._best))


def _enough(
    by_part: sparse.csr_matrix, start: int, count: int, fewest: int
) -> tuple[int, NDArray[np.int32]]:
    """The parts of one item that decide: as many, from the first, as give enough phrases."""
    for taken in range(1, count + 1):
        lines = by_part.indptr[start], by_part.indptr[start + taken]
        columns = np.unique(by_part.indices[lines[0] : lines[1]])
        if len(columns) >= fewest:
            return taken, columns
    return count, np.empty(0, np.int32)


def _incidence(
    rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]
) -> sparse.csr_matrix:
    """A matrix of 0 and 1: which row has which column."""
    ones = np.ones(len(rows), np.int32)
    matrix = sparse.csr_matrix((ones, (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _column_sums(matrix: sparse.csr_matrix) -> NDArray[np.integer]:
    return np.bincount(matrix.indices, minlength=matrix.shape[1])


def _distinct(texts: Sequence[str]) -> list[int]:
    """The first of each text: a record a hundred times over makes no stock phrase of its words."""
    first: dict[str, int] = {}
    for position, text in enumerate(texts):
        first.setdefault(text, position)
    return list(first.values())
