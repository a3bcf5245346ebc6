"""Log-likelihoods of continuations over the prefix tree of all requests of a call.

Each distinct token is computed once, and the head only where a token is scored; see `prefix_plan`
for what is computed together, `memory_budget` for how much of it at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.memory_budget import MemoryBudget, is_out_of_memory
from mingmoe_eval.engine.prefix_plan import PrefixPlan, Row, Span, Trunk
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.engine.transformers_door import DynamicCache
from mingmoe_eval.errors import UsageError
from mingmoe_eval.routing.account import Below, Placed, RoutingSink, ScoringRouting


class LogLikelihood(NamedTuple):
    """Of a continuation, in nats; `greedy`: each of its tokens was the most likely one."""

    value: float
    greedy: bool


class _Point(NamedTuple):
    """One scored token: where its logits come from, what it is, whose it is."""

    row: int
    column: int
    target: int
    pair: int


def score_pairs(
    model: CausalModel,
    pairs: Sequence[EncodedPair],
    budget: MemoryBudget,
    on_routing: RoutingSink | None = None,
) -> Iterator[list[tuple[int, LogLikelihood]]]:
    """Yields (index of the pair, log-likelihood) after each pass, for the pairs it completed.

    A pair without targets scores NaN: it has no likelihood, and must not pass for a certain one.
    `on_routing` is told what a model with routers did for each of the others, before it is yielded.
    """
    if hopeless := [index for index, pair in enumerate(pairs) if not pair.n_targets]:
        yield [(index, LogLikelihood(float("nan"), False)) for index in hopeless]
    if len(hopeless) < len(pairs):
        yield from _Scoring(model, pairs, budget, on_routing).run()


class _Scoring:
    """The state of one call: the plan, and what has been summed for each pair."""

    def __init__(
        self,
        model: CausalModel,
        pairs: Sequence[EncodedPair],
        budget: MemoryBudget,
        on_routing: RoutingSink | None,
    ) -> None:
        self._model, self._pairs, self._budget = model, pairs, budget
        self._tally = _Tally(pairs)
        # Scored hidden states with their points, whose `row` counts through all that is held.
        self._held: list[tuple[torch.Tensor, npt.NDArray[np.int64]]] = []
        self._held_rows = self._held_tokens = 0
        of_input: dict[bytes, list[int]] = {}
        for index, pair in enumerate(pairs):
            if pair.n_targets:
                of_input.setdefault(pair.tokens[:-1].tobytes(), []).append(index)
        inputs = [pairs[indices[0]].tokens[:-1] for indices in of_input.values()]
        longest = max(map(len, inputs))
        self._plan = PrefixPlan(inputs, share=model.reuses_prefixes(longest))
        by_input = list(of_input.values())
        self._pairs_at = [by_input[index] for index in self._plan.order]
        # The first position, at each place of the plan, whose logits score a target.
        self._first_scored = np.array(
            [
                min(len(pairs[index].tokens) - 1 - pairs[index].n_targets for index in indices)
                for indices in self._pairs_at
            ]
        )

        self._routing: ScoringRouting | None = None
        if model.routing is not None and on_routing is not None:
            prompts_at = [
                [(index, len(pairs[index].tokens) - pairs[index].n_targets) for index in indices]
                for indices in self._pairs_at
            ]
            lengths = [len(inputs[index]) for index in self._plan.order]
            self._routing = ScoringRouting(model.routing, lengths, prompts_at, on_routing)

    def run(self) -> Iterator[list[tuple[int, LogLikelihood]]]:
        # A stack: depth first, only the caches on the way down from the root are alive.
        pending: list[tuple[Trunk, DynamicCache | None, Below]] = [(self._plan.root, None, ())]
        while pending:
            trunk, below, sums = pending.pop()
            cache = below
            if trunk.stop > trunk.start:
                tokens = self._plan.tokens(trunk.low)[trunk.start : trunk.stop]
                cache, hidden = self._model.grow_trunk(below, tokens)
                if self._routing is not None:
                    places = range(trunk.low, trunk.high)
                    sums = self._routing.trunk_done(places, trunk.start, trunk.stop, sums)
                yield self._score(hidden, self._trunk_points(trunk))
            for spans in self._batches(trunk):
                yield from self._rows(spans, cache, sums)
            pending.extend((inner, cache, sums) for inner in trunk.trunks)
        yield self._ask_head()

    def _batches(self, trunk: Trunk) -> Iterator[list[Span]]:
        widths = [(self._plan.width(span), span) for span in trunk.rows]
        # A sequence that ends in its trunk has nothing of its own.
        return self._budget.batches([item for item in widths if item[0]], trunk.stop)

    def _rows(
        self, spans: list[Span], cache: DynamicCache | None, sums: Below
    ) -> Iterator[list[tuple[int, LogLikelihood]]]:
        """Score rows that grow on one trunk; when memory runs out, half of them at a time."""
        try:
            scored = self._try_rows(spans, cache, sums)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(spans) == 1:
                raise _too_long(self._plan.width(spans[0]) + spans[0].start) from error
            scored = None
        if scored is not None:
            yield scored
            return
        # Outside of `except`: a live traceback would keep the failed pass's tensors.
        self._budget.halve()
        torch.cuda.empty_cache()
        middle = len(spans) // 2
        yield from self._rows(spans[:middle], cache, sums)
        yield from self._rows(spans[middle:], cache, sums)

    def _try_rows(
        self, spans: list[Span], cache: DynamicCache | None, sums: Below
    ) -> list[tuple[int, LogLikelihood]]:
        rows = [self._plan.row(span) for span in spans]
        hidden = self._model.hidden_states(rows, cache)
        points = [
            point
            for index, (span, row) in enumerate(zip(spans, rows, strict=True))
            for point in self._row_points(index, span, row)
        ]
        if self._routing is not None:
            self._routing.rows_done(list(_placed(spans, rows)), sums)
        return self._score(hidden, points)

    def _row_points(self, index: int, span: Span, row: Row) -> Iterator[_Point]:
        for place, columns in zip(range(span.low, span.high), row.columns, strict=True):
            stop = span.start + len(columns)
            for position, target, pair in self._targets(place, span.start, stop):
                yield _Point(index, int(columns[position - span.start]), target, pair)

    def _trunk_points(self, trunk: Trunk) -> list[_Point]:
        places = np.flatnonzero(self._first_scored[trunk.low : trunk.high] < trunk.stop)
        return [
            _Point(0, position - trunk.start, target, pair)
            for place in (trunk.low + places).tolist()
            for position, target, pair in self._targets(place, trunk.start, trunk.stop)
        ]

    def _targets(self, place: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(position, target, pair) of what is scored at positions [start, stop) of a sequence."""
        for index in self._pairs_at[place]:
            pair = self._pairs[index]
            last = len(pair.tokens) - 1
            first = max(start, last - pair.n_targets)
            targets = pair.tokens[first + 1 : min(stop, last) + 1].tolist()
            for offset, target in enumerate(targets):
                yield first + offset, target, index

    def _score(self, hidden: torch.Tensor, points: list[_Point]) -> list[tuple[int, LogLikelihood]]:
        """Hold what the head is to see; the pairs it completes, if it was time to ask it."""
        self._held_tokens += hidden.shape[0] * hidden.shape[1]
        if points:
            array = np.array(points, np.int64)
            # Options of one question share the place that scores their first token.
            places, which = np.unique(
                array[:, 0] * hidden.shape[1] + array[:, 1], return_inverse=True
            )
            array[:, 0] = which + self._held_rows
            rows = hidden.flatten(0, 1)[torch.from_numpy(places).to(hidden.device)]
            self._held.append((rows, array))
            self._held_rows += len(places)
        return self._ask_head() if self._budget.head_is_due(self._held_tokens) else []

    def _ask_head(self) -> list[tuple[int, LogLikelihood]]:
        if not self._held:
            return []
        rows = torch.cat([rows for rows, _ in self._held])
        array = np.concatenate([array for _, array in self._held])
        array = array[np.argsort(array[:, 0], kind="stable")]
        self._held, self._held_rows, self._held_tokens = [], 0, 0
        size, columns = self._budget.head_block(len(rows))
        for first in range(0, len(rows), size):
            begin, end = np.searchsorted(array[:, 0], [first, first + size])
            values, greedy = log_probabilities(
                self._model.logit_slices(rows[first : first + size], columns),
                torch.from_numpy(array[begin:end, 0] - first),
                torch.from_numpy(array[begin:end, 2]),
            )
            self._tally.add(array[begin:end, 3], values.numpy(), greedy.numpy())
        return self._tally.completed(array[:, 3])


def _placed(spans: Sequence[Span], rows: Sequence[Row]) -> Iterator[Placed]:
    """Each sequence of a pass, with its columns in the flattened, padded input."""
    widest = max(len(row.tokens) for row in rows)
    for number, (span, row) in enumerate(zip(spans, rows, strict=True)):
        for place, columns in zip(range(span.low, span.high), row.columns, strict=True):
            yield Placed(place, span.start, number * widest + columns)


class _Tally:
    """Sums over the tokens of each pair.

    In double precision: a continuation's tokens may come from several passes, in an order that
    depends on what fits, and the sum must not.
    """

    def __init__(self, pairs: Sequence[EncodedPair]) -> None:
        self._left = np.array([pair.n_targets for pair in pairs], np.int64)
        self._sums = np.zeros(len(pairs), np.float64)
        self._greedy = np.ones(len(pairs), np.bool_)

    def add(self, pairs: np.ndarray, values: np.ndarray, greedy: np.ndarray) -> None:
        np.add.at(self._sums, pairs, values)
        np.logical_and.at(self._greedy, pairs, greedy)
        np.subtract.at(self._left, pairs, 1)

    def completed(self, touched: np.ndarray) -> list[tuple[int, LogLikelihood]]:
        """Those of the pairs just added to that lack nothing more."""
        done = np.unique(touched[self._left[touched] == 0])
        return [
            (index, LogLikelihood(float(self._sums[index]), bool(self._greedy[index])))
            for index in done.tolist()
        ]


def _too_long(tokens: int) -> UsageError:
    return UsageError(
        f"not enough memory for a single row of {tokens} tokens; give the model a smaller --dtype, "
        "or fewer examples with --num-fewshot"
    )


@torch.inference_mode()
def log_probabilities(
    slices: Iterable[tuple[int, torch.Tensor]], rows: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability (fp64) of each target under its row of logits, and whether it is the top.

    A row of logits is never whole in memory, and a slice of many rows stays in the cache of a CPU
    between the product that makes it and the sums over it: a quarter faster there than rows at a
    time.

    `slices`: (first id, fp32 logits [rows, ids]) in the order of the ids; overwritten. `rows`,
    `targets`: [points], on the CPU, as both results are. Of equal logits the one with the lowest
    id is the top, as for `argmax`.
    """
    order = targets.argsort()
    rows, targets = rows[order], targets[order]
    greedy = torch.zeros(len(targets), dtype=torch.bool)
    top: _RunningTop | None = None
    chosen: list[torch.Tensor] = []
    for first, logits in slices:
        top = top or _RunningTop(logits)
        begin, end = torch.searchsorted(targets, torch.tensor([first, first + logits.shape[1]]))
        here, columns = (x[begin:end].to(logits.device) for x in (rows, targets - first))
        chosen.append(logits[here, columns])
        best = logits.amax(-1)
        # The top of its slice, and above all slices before: still to be held against later ones.
        leads = (chosen[-1] == best[here]) & (best > top.best)[here]
        hits = leads.nonzero().flatten()
        is_first = logits[here[hits]].argmax(-1) == columns[hits]
        greedy[begin + hits.cpu()] = is_first.cpu()
        top.add(logits, best)
    assert top is not None
    values = torch.cat(chosen)
    here = rows.to(values.device)
    greedy &= (values == top.best[here]).cpu()
    found = values.double() - top.best.double()[here] - top.sums.log()[here]
    back = order.argsort()
    return found.cpu()[back], greedy[back]


class _RunningTop:
    """Of each row so far: the largest logit, and the sum (fp64) of exponentials relative to it."""

    def __init__(self, logits: torch.Tensor) -> None:
        # Not minus infinity: its difference from a slice of masked ids would be no number.
        self.best = logits.new_full((len(logits),), torch.finfo(logits.dtype).min)
        self.sums = logits.new_zeros(len(logits), dtype=torch.float64)

    def add(self, logits: torch.Tensor, best: torch.Tensor) -> None:
        """Take in a slice, [rows, ids], whose largest logits are `best`; it is overwritten."""
        higher = torch.maximum(self.best, best)
        new = logits.sub_(higher[:, None]).exp_().sum(-1)
        self.sums = self.sums * (self.best - higher).double().exp() + new
        self.best = higher
