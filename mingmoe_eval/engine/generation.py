"""Text generation, many prompts at a time: a text that ends makes room for the next at once.

The prompts' common beginning is computed once; rows share one cache (`CacheSlots`). Greedy
tokens equal those of `model.generate` with each prompt alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.growing_text import GeneratedText, NextToken, ThoughtBudget
from mingmoe_eval.engine.memory_budget import MemoryBudget, is_out_of_memory
from mingmoe_eval.engine.prefix_plan import Row, common_length, rows_on_trunk
from mingmoe_eval.engine.prompt_lookup import PromptLookup, most_guessed
from mingmoe_eval.engine.prompts import Prompt
from mingmoe_eval.engine.tokenisation import Tokens
from mingmoe_eval.engine.transformers_door import (
    CacheSlots,
    DynamicCache,
    DynamicLayer,
    GuessedSlots,
    KeptLayer,
    cache_on,
)
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.records import Finish
from mingmoe_eval.routing.account import GenerationRouting, RoutingSink

_SHORTEST_TRUNK = 8
# A free slot costs its share of each step; filling one costs a pass over all weights.
_FREE_SHARE_BEFORE_REFILL = 8


@dataclass(frozen=True, slots=True)
class Generation:
    """A text without its stop string, and how it ended.

    `failure`: why there is no text that means anything, as when the logits are not finite.
    """

    text: str
    tokens: int
    finish: Finish
    failure: str = ""
    thought_tokens: int = 0
    forced: bool = False


ChooseToken = Callable[[torch.Tensor, int, Sequence[int]], int]
"""The token after some: logits [vocabulary], their argmax, the tokens so far."""


@dataclass(slots=True, eq=False)
class TextUnderWay:
    """One text under way; `thought` where a budget is set for thoughts."""

    index: int
    prompt: Prompt
    next_token: ChooseToken
    text: GeneratedText
    thought: ThoughtBudget | None
    ids: list[int] = field(default_factory=list)

    def take(self, logits: torch.Tensor, likeliest: int) -> Generation | None:
        """Choose and add a token; gives the text if it has ended."""
        settings, thought = self.prompt.settings, self.thought
        token = thought.due() if thought is not None else None
        if token is None:
            token = self.next_token(logits, likeliest, self.ids)
            if token in settings.end_ids:
                if thought is None or not thought.ends_instead(self.ids):
                    return self._ended("stop")
                token = thought.due()
                assert token is not None
        self.ids.append(token)
        if thought is not None:
            thought.take(self.ids)
        if self.text.stops(self.ids):
            return self._ended("stop")
        if thought is not None:
            if (excess := thought.excess(self.ids)) is None:
                return None
            del self.ids[len(self.ids) - excess :]
            return self._ended("length")
        return self._ended("length") if len(self.ids) >= settings.max_new_tokens else None

    def fail(self) -> Generation:
        """The end of a text whose next token nobody can tell."""
        count = len(self.ids)
        return Generation("", count, "stop", f"logits not finite after {count} new tokens")

    def _ended(self, finish: Finish) -> Generation:
        return Generation(
            self.text.final(self.ids),
            len(self.ids),
            finish,
            thought_tokens=self.text.thought_tokens(self.ids),
            forced=self.thought is not None and self.thought.forced,
        )


def generate(
    model: CausalModel,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    budget: MemoryBudget,
    on_routing: RoutingSink | None = None,
    *,
    prompt_lookup: bool = False,
) -> Iterator[list[tuple[int, Generation]]]:
    """Yields (index of the prompt, generation) after each step, for the texts that ended there.

    `on_routing` is told what a model with routers did for each of them, some steps later.
    `prompt_lookup`: have texts that copy from their prompts guessed; a model with routers, whose
    choices are counted token by token, and one that takes no mask of ours do without.
    """
    if not model.keeps_keys_and_values:
        raise CheckpointError(
            f"cannot generate with {type(model.model).__name__}: its layers keep another state "
            "than keys and values; likelihood tasks work, for text use lm-eval's own `hf` model"
        )
    left = dict(enumerate(prompts))
    while left:
        routing = None
        if model.routing is not None and on_routing is not None:
            routing = GenerationRouting(model.routing, on_routing)
        kind = _Guessing if prompt_lookup and _may_guess(model, left) else _Decoding
        decoding = kind(model, tokenizer, left, budget, routing)
        try:
            for done in decoding.run():
                for index, _ in done:
                    del left[index]
                yield done
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if decoding.width == 1:
                raise UsageError(
                    "not enough memory to generate even one text at a time; lower "
                    "--max-new-tokens or --think, or give the model a smaller --dtype"
                ) from error
        if routing is not None:
            routing.close()
        # Only out of memory leads here with prompts left; what is done stays done.
        if left:
            budget.halve()


class _Decoding:
    """The state of one call: prompts that wait, and slots with the texts under way."""

    def __init__(
        self,
        model: CausalModel,
        tokenizer: Any,
        prompts: Mapping[int, Prompt],
        budget: MemoryBudget,
        routing: GenerationRouting | None,
    ) -> None:
        self._model, self._tokenizer, self._prompts = model, tokenizer, dict(prompts)
        self._budget, self._routing = budget, routing
        longest = max(len(p.tokens) + p.settings.most_new_tokens for p in prompts.values())
        self.width = min(budget.slots(longest), len(prompts))
        self._slots: list[TextUnderWay | None] = [None] * self.width
        self._cache = self._empty_cache()
        self._trunk = self._common_beginning(longest)
        families = self._families()
        # Asked only where it matters: the model has to be tried for it.
        self._shares = len(families) < len(prompts) and model.reuses_prefixes(longest)
        self._waiting = deque(self._order(families))

    def _empty_cache(self) -> CacheSlots:
        return CacheSlots(self.width)

    @torch.inference_mode()
    def run(self) -> Iterator[list[tuple[int, Generation]]]:
        while self._waiting or any(self._slots):
            if self._should_refill():
                yield from self._refill()
            elif any(slot is None for slot in self._slots) and not self._waiting:
                self._compact()
            if any(self._slots):
                yield self._advance()

    def _advance(self) -> list[tuple[int, Generation]]:
        """One step of all rows; gives the texts that ended."""
        return self._take(self._step(), range(len(self._slots)))

    def _common_beginning(self, longest: int) -> DynamicCache | None:
        """The keys and values of what all prompts share, short of the last token of any."""
        sequences = [prompt.tokens for prompt in self._prompts.values()]
        first = sequences[0]
        # Short of each last token: its own pass gives the logits of the first new one.
        shared = min(min(common_length(first, tokens), len(tokens) - 1) for tokens in sequences)
        if len(sequences) == 1 or shared < _SHORTEST_TRUNK:
            return None
        if not self._model.reuses_prefixes(longest):
            return None
        trunk, _ = self._model.grow_trunk(None, first[:shared])
        if self._routing is not None:
            self._routing.trunk_done(shared)
        return trunk

    def _families(self) -> list[list[int]]:
        """The prompts, those that can be computed in one row together."""
        indices = list(self._prompts)
        sequences = [self._prompts[index].tokens for index in indices]
        return [[indices[i] for i in kin] for _, kin in rows_on_trunk(sequences, self._start)]

    def _order(self, families: Sequence[Sequence[int]]) -> list[int]:
        """Longest first: a later prompt then fits into the columns that are there.

        Kin stand together, by the longest of them, so that they meet in one row.
        """

        def length(index: int) -> int:
            return len(self._prompts[index].tokens)

        if not self._shares:
            return sorted(self._prompts, key=length, reverse=True)
        by_length = [sorted(kin, key=length, reverse=True) for kin in families]
        by_length.sort(key=lambda kin: length(kin[0]), reverse=True)
        return [index for kin in by_length for index in kin]

    @property
    def _start(self) -> int:
        """How many tokens the trunk has."""
        return self._trunk.get_seq_length() if self._trunk else 0

    def _should_refill(self) -> bool:
        free = sum(slot is None for slot in self._slots)
        return bool(self._waiting) and free * _FREE_SHARE_BEFORE_REFILL >= len(self._slots)

    def _refill(self) -> Iterator[list[tuple[int, Generation]]]:
        """Give each free slot a waiting prompt, as many at a time as the budget allows."""
        free = [row for row, slot in enumerate(self._slots) if slot is None]
        taken = [self._waiting.popleft() for _ in range(min(len(free), len(self._waiting)))]
        sequences = [self._prompts[index].tokens for index in taken]
        if self._shares:
            rows = rows_on_trunk(sequences, self._start)
        else:
            rows = [(_plain_row(s, self._start), [i]) for i, s in enumerate(sequences)]
        items = [
            (len(row.tokens), (row, [(free[place], taken[place]) for place in kin]))
            for row, kin in rows
        ]
        for batch in self._budget.batches(items, self._start):
            logits = self._prefill(batch)
            yield self._take(logits, [slot for _, kin in batch for slot, _ in kin])

    def _prefill(self, batch: Sequence[tuple[Row, list[tuple[int, int]]]]) -> torch.Tensor:
        """Compute prompts into slots; returns the logits after each, [prompts, vocabulary].

        `batch`: rows, each with (slot, index) of the prompts in it.
        """
        rows, start = [row for row, _ in batch], self._start
        cache = DynamicCache() if self._trunk is None else cache_on(self._trunk, KeptLayer)
        hidden = self._model.hidden_states(rows, self._trunk, cache)
        below = self._trunk.layers if self._trunk else []
        trunk = [[_of_row(layer, 0, start) for layer in below]] if below else []
        lasts = []
        for place, (row, kin) in enumerate(batch):
            for (slot, index), columns in zip(kin, row.columns, strict=True):
                own = [_of_columns(layer, place, columns) for layer in cache.layers]
                self._cache.put(slot, [*trunk, own])
                self._slots[slot] = self._new_slot(index)
                lasts.append((place, int(columns[-1])))
                if self._routing is not None:
                    self._routing.prompt_done(index, place * hidden.shape[1] + columns)
        ends = torch.tensor(lasts, device=hidden.device)
        return self._model.logits(hidden[ends[:, 0], ends[:, 1]])

    def _new_slot(self, index: int) -> TextUnderWay:
        prompt = self._prompts[index]
        settings, opened = prompt.settings, prompt.opened
        budgeted = settings.think is not None
        return TextUnderWay(
            index,
            prompt,
            NextToken(settings, prompt.tokens, prompt.repeat),
            GeneratedText(self._tokenizer, settings.stop, opened=opened),
            ThoughtBudget(self._tokenizer, settings, opened=opened) if budgeted else None,
        )

    def _step(self) -> torch.Tensor:
        """Logits after each row's newest token, [rows, vocabulary]; idle rows give nonsense."""
        device = self._model.device
        newest = [slot.ids[-1] if slot else 0 for slot in self._slots]
        self._cache.prepare_step()
        hidden = self._model.forward(
            torch.tensor(newest, device=device)[:, None],
            self._cache.mask(device),
            torch.tensor(self._cache.lengths, device=device)[:, None],
            self._cache.cache,
        )
        self._cache.advance()
        if self._routing is not None:
            busy = [(slot.index, row) for row, slot in enumerate(self._slots) if slot]
            self._routing.step_done(busy)
        for row, slot in enumerate(self._slots):
            if slot is None:
                self._cache.free(row)
        return self._model.logits(hidden[:, -1])

    def _take(self, logits: torch.Tensor, rows: Sequence[int]) -> list[tuple[int, Generation]]:
        """Choose each row's next token; a text that ends leaves its slot."""
        tops, indices = logits.max(-1)
        finite, likeliest = tops.isfinite().tolist(), indices.tolist()
        done = []
        for place, row in enumerate(rows):
            slot = self._slots[row]
            if slot is None:
                continue
            ended = slot.fail() if not finite[place] else slot.take(logits[place], likeliest[place])
            if ended is not None:
                done.append((slot.index, ended))
                if self._routing is not None:
                    self._routing.ended(slot.index)
                self._slots[row] = None
                self._cache.free(row)
        return done

    def _compact(self) -> None:
        busy = [row for row, slot in enumerate(self._slots) if slot is not None]
        self._slots = [self._slots[row] for row in busy]
        self._cache.keep(busy)


class _Guessing(_Decoding):
    """The same where each row guesses what it will say next, and keeps what it would have said."""

    _cache: GuessedSlots

    def _empty_cache(self) -> CacheSlots:
        self._lookups: dict[int, PromptLookup] = {}
        return GuessedSlots(self.width)

    def _advance(self) -> list[tuple[int, Generation]]:
        device, cache = self._model.device, self._cache
        busy = [(row, slot) for row, slot in enumerate(self._slots) if slot is not None]
        most = most_guessed(device.type, len(busy))
        fed = {row: [slot.ids[-1], *self._guess(slot, most)] for row, slot in busy}
        width = max(map(len, fed.values()))
        ids = np.zeros((len(self._slots), width), np.int64)
        for row, tokens in fed.items():
            ids[row, : len(tokens)] = tokens
        seen = cache.open(width)
        positions = np.array(cache.lengths)[:, None] + np.arange(width)
        hidden = self._model.forward(
            self._model.on_device(ids),
            self._model.as_mask(seen),
            self._model.on_device(positions),
            cache.cache,
        )
        asked = [(row, place) for row, tokens in fed.items() for place in range(len(tokens))]
        rows, places = (torch.tensor(one, device=device) for one in zip(*asked, strict=True))
        logits = self._model.logits(hidden[rows, places])
        tops, indices = logits.max(-1)
        finite, likeliest = tops.isfinite().tolist(), indices.tolist()
        kept = [0] * len(self._slots)
        done: list[tuple[int, Generation]] = []
        at = 0
        for row, slot in busy:
            tokens = fed[row]
            ended = None
            for place in range(len(tokens)):
                kept[row] = place + 1
                here = at + place
                ended = slot.take(logits[here], likeliest[here]) if finite[here] else slot.fail()
                # Behind a token that was guessed wrong all others are beside the point.
                if ended is not None or slot.ids[-1:] != tokens[place + 1 : place + 2]:
                    break
            at += len(tokens)
            if ended is not None:
                done.append((slot.index, ended))
        cache.accept(kept)
        over = {index for index, _ in done}
        for row, slot in busy:
            if slot.index in over:
                self._slots[row] = None
                cache.free(row)
        return done

    def _guess(self, slot: TextUnderWay, most: int) -> list[int]:
        lookup = self._lookups.get(slot.index)
        if lookup is None:
            lookup = self._lookups[slot.index] = PromptLookup(slot.prompt.tokens)
        left = slot.prompt.settings.most_new_tokens - len(slot.ids) - 1
        return lookup.guess(slot.ids, min(most, left))


def _may_guess(model: CausalModel, prompts: Mapping[int, Prompt]) -> bool:
    if model.routing is not None:
        return False
    longest = max(len(p.tokens) + p.settings.most_new_tokens for p in prompts.values())
    return model.reuses_prefixes(longest)


def _of_row(layer: DynamicLayer, row: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return layer.keys[row, :, :tokens], layer.values[row, :, :tokens]


def _of_columns(
    layer: DynamicLayer, row: int, columns: npt.NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    if columns[-1] + 1 == len(columns):  # nothing between them: no copy
        return _of_row(layer, row, len(columns))
    chosen = torch.from_numpy(columns).to(layer.keys.device)
    return layer.keys[row, :, chosen], layer.values[row, :, chosen]


def _plain_row(tokens: Tokens, start: int) -> Row:
    own = tokens[start:]
    columns = np.arange(len(own))
    return Row(own, start + columns, (columns,))
