"""A model in this process, as the backend of a `CheckpointLM`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mingmoe_eval.engine.backend import Answers, ModelFacts
from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.fingerprint import settings_fingerprint, weights_fingerprint
from mingmoe_eval.engine.generation import Generation, Prompt, generate
from mingmoe_eval.engine.memory_budget import MemoryBudget
from mingmoe_eval.engine.prefix_scoring import score_pairs
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair, longest_input
from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import JsonDict
from mingmoe_eval.routing.account import RoutingSink

if TYPE_CHECKING:
    from mingmoe_eval.molora.description import CheckpointDescription


class LocalBackend:
    """A transformers causal LM, in eval mode, with its tokenizer.

    Args:
        model: as `load_model` gives it, or any other.
        tokenizer: decodes what is generated.
        most_rows: the most rows of a pass; None: as many as the memory budget holds.
        memory_budget: bytes above the model's own that a pass may take.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        most_rows: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self.model = model
        self._model, self._tokenizer = CausalModel(model), tokenizer
        self._most_rows, self._memory_budget = most_rows, memory_budget
        self._weights: str | None = None

    @property
    def facts(self) -> ModelFacts:
        """See `Backend`."""
        log = self._model.routing
        return ModelFacts(
            longest_input=longest_input(self.model.config, self._tokenizer),
            generation_defaults=getattr(self.model, "generation_config", None),
            routing_layout=log.layout if log is not None else None,
        )

    @property
    def weights_fingerprint(self) -> str:
        """See `Backend`; computed once."""
        if self._weights is None:
            self._weights = weights_fingerprint(self.model)
        return self._weights

    @property
    def settings_fingerprint(self) -> str:
        """See `Backend`."""
        # Answers from before the head was widened are others, and must not be taken for these.
        widened = "-fp32-head" if self._model.widens_head else ""
        return settings_fingerprint(self.model) + widened

    def score(self, pairs: Sequence[EncodedPair], on_routing: RoutingSink | None) -> Answers:
        """See `Backend`."""
        for scored in score_pairs(self._model, pairs, self._budget(), on_routing):
            yield [
                (place, StoredAnswer(log_likelihood=one.value, greedy=one.greedy))
                for place, one in scored
            ]

    def generate(self, prompts: Sequence[Prompt], on_routing: RoutingSink | None) -> Answers:
        """See `Backend`."""
        budget = self._budget()
        try:
            for ended in generate(self._model, self._tokenizer, prompts, budget, on_routing):
                yield [(place, _stored(one)) for place, one in ended]
        finally:
            # Whoever needs no more texts leaves some unfinished, and what is known of them.
            if self._model.routing is not None:
                self._model.routing.forget()

    def describe(self) -> JsonDict:
        """See `Backend`."""
        loaded = getattr(self.model, "loaded", None)
        return {
            "checkpoint": loaded.description.to_json() if loaded else None,
            "parameters": _parameters(loaded.description) if loaded else None,
            "class": type(self.model).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self._model.device),
            "attention": self.model.config._attn_implementation,
        }

    def probe(self) -> float | None:
        """See `Backend`."""
        from mingmoe_eval.molora.probing import probe

        return probe(self.model) if hasattr(self.model, "loaded") else None

    def close(self) -> None:
        """Nothing is held but the model."""

    def _budget(self) -> MemoryBudget:
        return MemoryBudget(self._model, self._most_rows, self._memory_budget)


def _stored(one: Generation) -> StoredAnswer:
    return StoredAnswer(
        text=one.text, generated_tokens=one.tokens, finish=one.finish, failure=one.failure
    )


def _parameters(description: "CheckpointDescription") -> JsonDict:
    """Counts of numbers: all, those that the adapter's training made, those that a token uses."""
    counted = description.parameters
    return {"total": counted.total, "trainable": counted.adapter, "active": counted.active}


def rows_of(given: int | str) -> int | None:
    """The rows of a batch size, None for as many as fit; lm-eval's "auto:4" means auto too."""
    if isinstance(given, str) and given.partition(":")[0] == "auto":
        return None
    try:
        rows = int(given)
    except ValueError:
        rows = 0
    if rows < 1:
        raise UsageError(f"--batch-size {given!r}: give a whole number from 1, or auto")
    return rows
