"""What computes the answers of a `CheckpointLM`: a model in this process, or many elsewhere.

`Backend` is what is asked of either, `Checkpoint` a model by name, to be loaded in whatever process
it is sent to, `LocalBackend` one that is loaded here. A fingerprint says which function a model
computes: equal means that answers may be reused. It is taken from the model in memory, not from its
files: what was merged, cast, masked or switched off since counts, and a checkpoint that was swapped
under the same path is another one.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import xxhash

from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.generation import Generation, generate
from mingmoe_eval.engine.memory_budget import MemoryBudget
from mingmoe_eval.engine.prefix_scoring import score_pairs
from mingmoe_eval.engine.prompts import Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair, longest_input
from mingmoe_eval.engine.transformers_door import attention_kernel
from mingmoe_eval.errors import UsageError
from mingmoe_eval.molora.attaching import plain_parts
from mingmoe_eval.records import JsonDict
from mingmoe_eval.routing.account import RoutingSink
from mingmoe_eval.routing.counts import RoutingLayout

if TYPE_CHECKING:
    from mingmoe_eval.molora.description import CheckpointDescription

Answers = Iterator[list[tuple[int, StoredAnswer]]]
"""Answers as they come, each with the index of its question; every question has one in the end."""
# A tensor of up to so many numbers (norms, router biases) is read again at every call, as it may
# be edited between two of them: an expert is masked through its router's bias.
_SMALL = 65_536
# What says where a model came from, and nothing of what it does.
_ORIGIN = ("_name_or_path", "name_or_path", "transformers_version", "architectures")
_PEFT_SWITCHES = ("_disable_adapters", "_active_adapter", "merged_adapters", "scaling")
_SIMPLE = (bool, int, float, str, tuple, torch.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What must be known of a model before it is asked.

    `generation_defaults`: its generation config, or None.
    """

    longest_input: int
    generation_defaults: Any = None
    routing_layout: RoutingLayout | None = None


class Backend(Protocol):
    """Answers questions that are not in the store."""

    @property
    def facts(self) -> ModelFacts:
        """What must be known before it is asked."""

    @property
    def weights_fingerprint(self) -> str:
        """Equal texts: equal weights."""

    @property
    def settings_fingerprint(self) -> str:
        """Of everything else that decides; read anew each time, as an expert may be masked."""

    def score(self, pairs: Sequence[EncodedPair], on_routing: RoutingSink | None) -> Answers:
        """Log-likelihoods; `on_routing` is told the routing counts of a model with routers."""

    def generate(self, prompts: Sequence[Prompt], on_routing: RoutingSink | None) -> Answers:
        """Texts; likewise."""

    def describe(self) -> JsonDict:
        """What the model is and where it runs, for provenance."""

    def probe(self) -> float | None:
        """The most that the adapter moves a logit; None without an adapter.

        Raises:
            CheckpointError: it moves none, so it is not live; or a logit is not finite.
        """

    def close(self) -> None:
        """Release what it holds."""


class LocalBackend:
    """A transformers causal LM, in eval mode, with its tokenizer.

    Args:
        model: as `load_model` gives it, or any other.
        tokenizer: decodes what is generated.
        most_rows: the most rows of a pass; None: as many as the memory budget holds.
        memory_budget: bytes above the model's own that a pass may take.
        prompt_lookup: guess what texts copy from their prompts; see `generate`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        most_rows: int | None = None,
        memory_budget: int | None = None,
        prompt_lookup: bool = False,
    ) -> None:
        self.model = model
        self._prompt_lookup = prompt_lookup
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
            texts = generate(
                self._model,
                self._tokenizer,
                prompts,
                budget,
                on_routing,
                prompt_lookup=self._prompt_lookup,
            )
            for ended in texts:
                yield [(place, stored(one)) for place, one in ended]
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
            "engine": "transformers",
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self._model.device),
            "attention": attention_kernel(self.model.config),
        }

    def probe(self) -> float | None:
        """See `Backend`."""
        from mingmoe_eval.molora.probing import probe

        return probe(self.model) if hasattr(self.model, "loaded") else None

    def close(self) -> None:
        """Nothing is held but the model."""

    def _budget(self) -> MemoryBudget:
        return MemoryBudget(self._model, self._most_rows, self._memory_budget)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What to load, and how; the arguments are those of `CheckpointLM`."""

    model: str
    base: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | str = "auto"
    prompt_lookup: bool = False

    def anywhere(self) -> "Checkpoint":
        """The same for a process with another working directory."""

        def there(name: str) -> str:
            return str(Path(name).resolve()) if Path(name).exists() else name

        base = None if self.base is None else there(self.base)
        return dataclasses.replace(self, model=there(self.model), base=base)

    def __call__(self) -> tuple[LocalBackend, str]:
        """Load model and tokenizer here; gives also the tokenizer's fingerprint."""
        from mingmoe_eval.molora import load_tokenizer

        tokenizer = load_tokenizer(self.model, self.base)
        return self.backend(tokenizer), tokenizer_fingerprint(tokenizer)

    def backend(self, tokenizer: Any, loaded: Any = None) -> LocalBackend:
        """The model in this process; `loaded` if it is in memory already."""
        from mingmoe_eval.molora import load_model

        if loaded is None:
            loaded = load_model(
                self.model, self.base, dtype=self.dtype, device=self.device, check=False
            )
        return LocalBackend(
            loaded,
            tokenizer,
            most_rows=rows_of(self.batch_size),
            prompt_lookup=self.prompt_lookup,
        )


def weights_fingerprint(model: torch.nn.Module) -> str:
    """A 128-bit hash of every parameter and buffer with its name, type and shape."""
    return _tensors_digest(dict(_tensors(model)))


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of vocabulary, merges, normalisation and special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = json.dumps(sorted(map(str, tokenizer.all_special_tokens)))
    return xxhash.xxh3_128_hexdigest((text + special).encode("utf-8", "surrogatepass"))


def settings_fingerprint(model: Any) -> str:
    """A hash of what else decides: config, kernels, each module's settings, small tensors.

    Cheap enough to be asked at every call.
    """
    small = {name: tensor for name, tensor in _tensors(model) if tensor.numel() <= _SMALL}
    facts = {
        "config": {k: v for k, v in model.config.to_dict().items() if k not in _ORIGIN},
        "attention": attention_kernel(model.config),
        "modules": [
            [name, type(module).__qualname__, _simple_settings(module)]
            for name, module in model.named_modules()
        ],
        "small tensors": _tensors_digest(small),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def stored(one: Generation) -> StoredAnswer:
    """A generation as the store keeps it."""
    return StoredAnswer(
        text=one.text,
        generated_tokens=one.tokens,
        finish=one.finish,
        failure=one.failure,
        thought_tokens=one.thought_tokens,
        forced=one.forced,
    )


def _parameters(description: "CheckpointDescription") -> JsonDict:
    """Counts of numbers: all, those that the adapter's training made, those that a token uses."""
    counted = description.parameters
    return {"total": counted.total, "trainable": counted.adapter, "active": counted.active}


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        for part in plain_parts(tensor):
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _simple_settings(module: torch.nn.Module) -> dict[str, str]:
    """Numbers, flags and names that a module carries: scaling, K, epsilon, whether it is on."""
    carried = vars(module)
    simple = {
        name: str(value)
        for name, value in carried.items()
        if isinstance(value, _SIMPLE) and not name.startswith("_") and name not in _ORIGIN
    }
    # A layer of PEFT's: the same weights, whether its adapter is on, and how strongly.
    return simple | {name: str(carried[name]) for name in _PEFT_SWITCHES if name in carried}
