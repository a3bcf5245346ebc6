"""Which tokens to compute, and together: every shared prefix once, without any model.

Sequences that begin alike form a tree. There are two ways to compute a shared prefix once:

- a **row** lays a small subtree (a question with its option texts) out as one sequence, in which
  a token sees only its own ancestors;
- a **trunk** (an instruction, a block of examples) is computed alone, and the keys and values that
  attention needs of it are reused by everything that begins with it.

Sequences are sorted once. Neighbours' common lengths then say all about the tree, which is never
built: a subtree is an interval of the sorted sequences.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mingmoe_eval.engine.tokenisation import Tokens

Indices = npt.NDArray[np.int64]

# A trunk costs a pass of its own: it must spare this many tokens, and be no mere BOS.
_LEAST_SPARED = 256
_SHORTEST_TRUNK = 8
# Tokens of unrelated branches in one row still meet in the attention product. Near this row
# length that waste costs what a token costs elsewhere (about six hidden sizes in theory, but
# masked attention is slower than a matrix product).
_ATTENTION_PARITY = 2048
_LONGEST_BRANCHED_ROW = 1024


@dataclass(frozen=True, slots=True)
class Span:
    """The subtree of the sorted sequences [low, high), past its first `start` tokens."""

    low: int
    high: int
    start: int


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """Tokens [start, stop) that the sequences [low, high) share, and what grows on them."""

    low: int
    high: int
    start: int
    stop: int
    rows: list[Span] = field(default_factory=list)
    trunks: list["Trunk"] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A span laid out: its distinct tokens, their positions, and each sequence's columns.

    `columns[k]` are the columns, in order, of the tokens of the span's k-th sequence.
    """

    tokens: Tokens
    positions: Indices
    columns: tuple[Indices, ...]

    @property
    def is_branched(self) -> bool:
        """Whether some token must not see every token left of it."""
        return any(len(columns) and columns[-1] + 1 != len(columns) for columns in self.columns)

    def visibility(self) -> npt.NDArray[np.bool_]:
        """[tokens, tokens]: which columns (second axis) each token sees, itself included."""
        seen = np.zeros((len(self.tokens), len(self.tokens)), np.bool_)
        done = 0
        for columns in self.columns:
            inherited = int(np.searchsorted(columns, done))
            end = done + len(columns) - inherited
            seen[done:end, columns[:inherited]] = True
            seen[done:end, done:end] = np.tri(end - done, dtype=np.bool_)
            done = end
        return seen


class PrefixPlan:
    """Distinct sequences in lexicographic order, and what to compute for them.

    `order[place]` is the index of the sequence at a place; `root` has no tokens of its own.
    Without `share` each sequence is a row by itself: right for models in which a later token can
    change what was computed for an earlier one.
    """

    def __init__(self, sequences: Sequence[Tokens], *, share: bool) -> None:
        self._sequences = sequences
        self.order, self._shared = in_prefix_order(sequences)
        self._lengths = np.array([len(sequences[index]) for index in self.order], np.int64)
        self._lengths_before = np.concatenate([[0], np.cumsum(self._lengths)])
        self._shared_before = np.concatenate([[0], np.cumsum(self._shared)])
        self.root = Trunk(0, len(self.order), 0, 0)
        if share:
            self._grow()
        else:
            self.root.rows.extend(Span(place, place + 1, 0) for place in range(len(self.order)))

    def tokens(self, place: int) -> Tokens:
        """The whole sequence at a place."""
        return self._sequences[self.order[place]]

    def width(self, span: Span) -> int:
        """How many distinct tokens a span has."""
        lengths = self._lengths_before[span.high] - self._lengths_before[span.low]
        shared = self._shared_before[span.high] - self._shared_before[span.low + 1]
        return int(lengths - shared - span.start)

    def row(self, span: Span) -> Row:
        """Lay a span out depth first, which is the sorted order."""
        tokens, positions, columns = [], [], []
        width, before = 0, np.empty(0, np.int64)
        for place in range(span.low, span.high):
            kept = int(self._shared[place]) - span.start if place > span.low else 0
            new = self.tokens(place)[span.start + kept :]
            before = np.concatenate([before[:kept], np.arange(width, width + len(new))])
            width += len(new)
            tokens.append(new)
            positions.append(span.start + np.arange(kept, kept + len(new)))
            columns.append(before)
        return Row(np.concatenate(tokens), np.concatenate(positions), tuple(columns))

    def _grow(self) -> None:
        pending = [(self.root, 0, len(self.order))] if self.order else []
        while pending:
            pending.extend(self._place(*pending.pop()))

    def _place(self, trunk: Trunk, low: int, high: int) -> Iterator[tuple[Trunk, int, int]]:
        """Put an interval on a trunk as one row, or as a new trunk; yields what is left."""
        common = int(self._shared[low + 1 : high].min(initial=self._lengths[low]))
        spared = (common - trunk.stop) * (high - low - 1)
        if high - low == 1 or self._fits_a_row(Span(low, high, trunk.stop), spared):
            trunk.rows.append(Span(low, high, trunk.stop))
            return
        if common - trunk.stop >= _SHORTEST_TRUNK and spared >= _LEAST_SPARED:
            inner = Trunk(low, high, trunk.stop, common)
            trunk.trunks.append(inner)
            trunk = inner
        cuts = low + 1 + np.flatnonzero(self._shared[low + 1 : high] == common)
        bounds = [low, *cuts.tolist(), high]
        for part_low, part_high in itertools.pairwise(bounds):
            yield trunk, part_low, part_high

    def _fits_a_row(self, span: Span, spared: int) -> bool:
        """Whether one row for the whole span is cheaper than a row for each sequence."""
        width = self.width(span)
        apart = self._lengths[span.low : span.high] - span.start
        wasted = (width**2 - int(apart @ apart)) / _ATTENTION_PARITY
        return width <= _LONGEST_BRANCHED_ROW and spared >= wasted


def rows_on_trunk(sequences: Sequence[Tokens], start: int) -> list[tuple[Row, list[int]]]:
    """Rows for all sequences past the `start` tokens that they share: kin side by side in one.

    For generation, where a row's keys and values are taken apart again: the same question drawn
    several times, or a thought that is cut at several lengths, is computed once.

    Returns:
        Each row with the indices of its sequences, in the order of its columns.
    """
    order, shared = in_prefix_order(sequences)
    rows: list[tuple[Row, list[int]]] = []
    kin: list[int] = []
    width = spared = apart = 0
    tokens: list[Tokens] = []
    columns: list[Indices] = []
    positions: list[Indices] = []

    def finish() -> None:
        if kin:
            row = Row(np.concatenate(tokens), np.concatenate(positions), tuple(columns))
            rows.append((row, list(kin)))

    for place, index in enumerate(order):
        length, kept = len(sequences[index]) - start, int(shared[place]) - start
        joined = width + length - kept
        waste = (joined**2 - apart - length**2) / _ATTENTION_PARITY
        if not kin or kept < _SHORTEST_TRUNK or spared + kept < waste:
            finish()
            kin, tokens, columns, positions = [], [], [], []
            width = spared = apart = kept = 0
        before = columns[-1][:kept] if columns else np.empty(0, np.int64)
        new = sequences[index][start + kept :]
        columns.append(np.concatenate([before, np.arange(width, width + len(new))]))
        positions.append(start + np.arange(kept, kept + len(new)))
        tokens.append(new)
        kin.append(index)
        width, spared, apart = width + len(new), spared + kept, apart + length**2
    finish()
    return rows


def in_prefix_order(sequences: Sequence[Tokens]) -> tuple[list[int], Indices]:
    """Indices in the sequences' lexicographic order, and what each shares with the one before it.

    The latter in tokens, [sequences]; 0 for the first.
    """
    # Big-endian bytes of equal width sort as the ids do, at the speed of memcmp.
    keys = [sequence.astype(">i4").tobytes() for sequence in sequences]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shared = np.zeros(len(order), np.int64)
    for place, (one, other) in enumerate(itertools.pairwise(order), start=1):
        shared[place] = common_length(sequences[one], sequences[other])
    return order, shared


def common_length(one: Tokens, other: Tokens) -> int:
    """How many tokens two sequences share from their beginning."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    first = int(differs.argmax()) if length else 0
    return first if length and differs[first] else length
