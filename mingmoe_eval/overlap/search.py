"""Exact and near duplicates of test questions in training data, by the phrases they share.

The share of a question's phrases that one training record holds, computed exactly: a question
inside a long record is found, which a Jaccard estimate such as MinHash's would miss, as most of
the record is no question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mingmoe_eval.overlap.phrases import Hashes, Phrases, Positions, contains, words_of
from mingmoe_eval.overlap.questions import Item

_RECORDS_AT_ONCE = 2_000

Mask = NDArray[np.bool_]


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
