"""vLLM as a backend of runs: questions in, answers as they come, each one request.

Whoever asks is the same as for our own engine, so keys, store, resume, usage and progress are too.

- Continuations that differ in their last token alone, such as an exam's letters, are one request
  of one new token, whose log-probabilities are asked for by id.
- Of longer ones the prompt's log-probabilities are asked too, for their own tokens alone: what
  continuations share is asked for first, for nothing but its place in the prefix cache, since vLLM
  multiplies every token that it computes for such a request by the whole head. It has no
  log-probabilities of cached tokens, so that a request whose own tokens were found there is asked
  again without the cache.
- Texts end where our own engine ends them: the same reader looks for stop strings after each step,
  behind the thoughts only.

Engine steps are taken here and not in `LLM.generate`, which tells nothing before all is done.
"""

import dataclasses
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from transformers import GenerationConfig

from mingmoe_eval.engine.backend import (
    Answers,
    Checkpoint,
    ModelFacts,
    rows_of,
    stored,
    tokenizer_fingerprint,
)
from mingmoe_eval.engine.checkpoint_lm import CheckpointLM
from mingmoe_eval.engine.generation import TextUnderWay
from mingmoe_eval.engine.growing_text import GeneratedText, ThoughtBudget, seed_of
from mingmoe_eval.engine.prefix_plan import in_prefix_order
from mingmoe_eval.engine.prompts import Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair, Tokens, longest_input
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.model_opening import Watch, open_named
from mingmoe_eval.molora import load_tokenizer
from mingmoe_eval.records import JsonDict, RunSpec
from mingmoe_eval.routing.account import RoutingSink
from mingmoe_eval.vllm import CONFIG_KEY, door
from mingmoe_eval.vllm.prepared import Prepared, prepare

_PROBE_IDS = 8
# The engine has chosen the token by itself.
_NO_LOGITS = torch.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How vLLM is run.

    `tensor_parallel`: over so many GPUs; `gpu_memory`: the share of each GPU's that it may take;
    `max_model_len`: the most tokens of prompt and text, None for what the model says.
    """

    tensor_parallel: int = 1
    gpu_memory: float | None = None
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmCheckpoint:
    """A checkpoint to be loaded by vLLM in whatever process it is sent to.

    Like `Checkpoint`, which loads it with transformers.
    """

    checkpoint: Checkpoint
    settings: EngineSettings = field(default_factory=EngineSettings)

    @classmethod
    def of(cls, spec: RunSpec, checkpoint: Checkpoint) -> "VllmCheckpoint":
        """A run's checkpoint with the run's settings of vLLM."""
        settings = EngineSettings(
            tensor_parallel=spec.tensor_parallel or 1,
            gpu_memory=spec.gpu_memory,
            max_model_len=spec.max_model_len,
        )
        return cls(checkpoint=checkpoint, settings=settings)

    def anywhere(self) -> "VllmCheckpoint":
        """The same for a process with another working directory."""
        return dataclasses.replace(self, checkpoint=self.checkpoint.anywhere())

    def __call__(self) -> tuple["VllmBackend", str]:
        """Start the engine here, as a worker; gives also the tokenizer's fingerprint."""
        if self.settings.tensor_parallel == 1:
            # In this very process, so that it ends with the worker, however that ends.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        tokenizer = load_tokenizer(self.checkpoint.model, self.checkpoint.base)
        return self.backend(), tokenizer_fingerprint(tokenizer)

    def backend(self, on_note: Callable[[str], None] = lambda text: None) -> "VllmBackend":
        """The engine, started by this process.

        Raises:
            CheckpointError: as `prepare` says, or vLLM cannot load the model.
            UsageError: settings that vLLM cannot have here.
        """
        one, settings = self.checkpoint, self.settings
        if one.device != "auto":
            raise UsageError(
                f"--device {one.device}: vLLM takes the GPUs that CUDA_VISIBLE_DEVICES shows it"
            )
        on_cpu = door.on_cpu()
        prepared = prepare(one.model, one.base, dtype=one.dtype, on_cpu=on_cpu)
        for note in prepared.notes:
            on_note(note)
        if prepared.routes:
            on_note(
                "vLLM tells nothing of routing: for that, run the local backend on a part of the "
                "questions (--limit)"
            )
        tokenizer = load_tokenizer(one.model, one.base)
        longest = longest_input(prepared.opened.model_config, tokenizer)
        if settings.max_model_len is not None:
            longest = min(longest, settings.max_model_len)
        engine = door.start(
            prepared.folder,
            dtype=str(prepared.dtype).removeprefix("torch."),
            # One more than is ever read: the last new token is not read any more.
            max_model_len=longest + 1,
            rows=rows_of(one.batch_size),
            tensor_parallel=settings.tensor_parallel,
            gpu_memory=settings.gpu_memory,
        )
        return VllmBackend(engine, prepared, tokenizer, longest=longest)


def open_model(spec: RunSpec, folder: Path | None, watch: Watch) -> CheckpointLM:
    """A run's checkpoint on vLLM, for `evaluate(spec, open_model=open_model)`; `close` it after.

    Raises:
        MingMoeError: as `VllmCheckpoint.backend` says.
    """

    def start(checkpoint: Checkpoint, on_note: Callable[[str], None]) -> VllmBackend:
        return VllmCheckpoint.of(spec, checkpoint).backend(on_note)

    model = open_named(spec, folder, watch, start=start)
    assert isinstance(model, CheckpointLM)  # served models are refused
    return model


class VllmBackend:
    """A `Backend` over a running engine.

    Args:
        engine: as `door.start` gives it.
        prepared: what it has loaded.
        tokenizer: reads what is generated.
        longest: the most tokens of an input.
    """

    def __init__(
        self, engine: "door.Engine", prepared: Prepared, tokenizer: Any, *, longest: int
    ) -> None:
        self._engine, self._prepared, self._tokenizer = engine, prepared, tokenizer
        self._longest = longest
        self._weights: str | None = None

    @property
    def facts(self) -> ModelFacts:
        """See `Backend`; nothing is known of routing."""
        return ModelFacts(
            longest_input=self._longest, generation_defaults=_defaults(self._prepared)
        )

    @property
    def weights_fingerprint(self) -> str:
        """See `Backend`; computed once, from the files."""
        if self._weights is None:
            self._weights = self._prepared.weights_fingerprint()
        return self._weights

    @property
    def settings_fingerprint(self) -> str:
        """See `Backend`; names engine and version: another engine's answers are other answers."""
        config = json.loads((self._prepared.folder / "config.json").read_text("utf-8"))
        # Where the files are changes nothing; what the mixture's settings are stays.
        for name in ("checkpoint", "base"):
            config.get(CONFIG_KEY, {}).pop(name, None)
        engine = self._engine.facts()
        text = json.dumps({"config": config, "engine": engine}, sort_keys=True, default=str)
        digest = xxhash.xxh3_128_hexdigest(text.encode())
        return f"{engine['engine']}-{engine['engine_version']}-{digest}"

    def describe(self) -> JsonDict:
        """See `Backend`."""
        description = self._prepared.description
        counted = description.parameters
        return {
            "checkpoint": description.to_json(),
            "parameters": {
                "total": counted.total,
                "trainable": counted.adapter,
                "active": counted.active,
            },
            "class": self._engine.architecture,
            **self._engine.facts(),
        }

    def score(self, pairs: Sequence[EncodedPair], on_routing: RoutingSink | None) -> Answers:
        """See `Backend`."""
        hopeless = [index for index, pair in enumerate(pairs) if not pair.n_targets]
        if hopeless:
            yield [(index, StoredAnswer(log_likelihood=float("nan"))) for index in hopeless]
        waiting: dict[str, _Question] = {}
        try:
            for question in _after_their_contexts(_questions(pairs), self._engine.block):
                key = self._engine.ask(question.tokens.tolist(), **question.wanted())
                waiting[key] = question
            while waiting:
                done: list[tuple[int, StoredAnswer]] = []
                for reply in self._engine.step():
                    if not reply.finished or reply.key not in waiting:
                        continue
                    question = waiting.pop(reply.key)
                    if question.is_spoilt(reply):
                        wanted = question.wanted(use_cache=False)
                        waiting[self._engine.ask(question.tokens.tolist(), **wanted)] = question
                        continue
                    done += [(index, _summed(pairs[index], reply)) for index in question.pairs]
                if done:
                    yield done
        finally:
            if waiting:
                self._engine.stop(list(waiting))

    def generate(self, prompts: Sequence[Prompt], on_routing: RoutingSink | None) -> Answers:
        """See `Backend`."""
        order, _ = in_prefix_order([prompt.tokens for prompt in prompts])
        under_way: dict[str, _Growing] = {}
        try:
            for index in order:
                prompt = prompts[index]
                growing = _Growing(index, prompt, self._tokenizer)
                under_way[growing.ask(self._engine)] = growing
            while under_way:
                done = []
                for reply in self._engine.step():
                    if reply.key not in under_way:
                        continue
                    growing = under_way[reply.key]
                    answer = growing.take(reply)
                    if answer is None and not growing.diverged:
                        continue
                    del under_way[reply.key]
                    if not reply.finished:
                        self._engine.stop([reply.key])
                    if answer is None:
                        under_way[growing.ask(self._engine)] = growing
                    else:
                        done.append((growing.index, answer))
                if done:
                    yield done
        finally:
            if under_way:
                self._engine.stop(list(under_way))

    def probe(self) -> float | None:
        """See `Backend`; with routers, asked of the running engine with its experts silenced.

        Without, all of an adapter is in the weights: then the most that a weight moved by.
        """
        description = self._prepared.description
        before = self._probe_values()
        if not all(value == value and abs(value) != float("inf") for value in before):
            raise CheckpointError(
                f"{description.source} gives logits that are not finite in "
                f"{self._engine.facts()['dtype']}; try --dtype float32 or bfloat16"
            )
        if self._prepared.opened.kind == "full":
            return self._prepared.effect
        effect = self._engine.merged_change()
        if self._prepared.routes:
            self._engine.set_experts(live=False)
            try:
                without = self._probe_values()
            finally:
                self._engine.set_experts(live=True)
            pairs = zip(before, without, strict=True)
            effect = max(effect, *(abs(one - other) for one, other in pairs))
        if effect == 0:
            raise CheckpointError(
                f"{description.source} changes nothing: with and without it the base model gives "
                "the same logits, so it was never trained or its tensors are zero"
            )
        return effect

    def close(self) -> None:
        """End the engine and its processes."""
        self._engine.close()

    def _probe_values(self) -> list[float]:
        """Log-probabilities of ids spread over the vocabulary, after others; never cached."""
        size = self._engine.vocabulary
        ids = [(place + 1) * size // 10 for place in range(_PROBE_IDS)]
        key = self._engine.ask(ids, new_tokens=1, of_last=ids, of_prompt=True, use_cache=False)
        while True:
            for reply in self._engine.step():
                if reply.key == key and reply.finished:
                    return [
                        *(reply.of_prompt[place][id_][0] for place, id_ in enumerate(ids) if place),
                        *(reply.of_last[id_] for id_ in ids),
                    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """All pairs that read the same tokens: one request. No pairs: tokens that others begin with."""

    tokens: Tokens
    pairs: tuple[int, ...]
    last_ids: tuple[int, ...]
    first_target: int
    """The least position of a token of a continuation in `tokens`; its length if none is there."""

    @property
    def is_inside(self) -> bool:
        """Whether tokens of a continuation are in the prompt."""
        return self.first_target < len(self.tokens)

    def wanted(self, *, use_cache: bool = True) -> dict[str, Any]:
        return {
            "new_tokens": 1,
            "of_last": list(self.last_ids),
            "of_prompt": self.is_inside,
            "use_cache": use_cache,
        }

    def is_spoilt(self, reply: "door.Reply") -> bool:
        """Whether own tokens were found in the prefix cache, where they have no log-probability."""
        return self.is_inside and reply.cached_tokens >= self.first_target


def _questions(pairs: Sequence[EncodedPair]) -> list[_Question]:
    by_input: dict[bytes, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        if pair.n_targets:
            by_input[pair.tokens[:-1].tobytes()].append(index)
    groups = list(by_input.values())
    inputs = [pairs[group[0]].tokens[:-1] for group in groups]
    order, _ = in_prefix_order(inputs)
    questions = []
    for place in order:
        # As many ids as a request may ask for; the second request finds all in the cache.
        by_id: dict[int, list[int]] = defaultdict(list)
        for index in groups[place]:
            by_id[int(pairs[index].tokens[-1])].append(index)
        ids = sorted(by_id)
        for first in range(0, len(ids), door.MOST_IDS):
            some = ids[first : first + door.MOST_IDS]
            mine = [index for one in some for index in by_id[one]]
            start = min(len(pairs[index].tokens) - pairs[index].n_targets for index in mine)
            questions.append(_Question(inputs[place], tuple(mine), tuple(some), start))
    return questions


def _after_their_contexts(questions: Sequence[_Question], block: int) -> Iterator[_Question]:
    """The questions, those of one context together, behind a question that is the context alone.

    Args:
        questions: in prefix order.
        block: tokens of a block of the prefix cache: it holds nothing of a shorter context.
    """
    families: dict[bytes, list[_Question]] = defaultdict(list)
    for question in questions:
        families[question.tokens[: question.first_target].tobytes()].append(question)
    for family in families.values():
        family.sort(key=lambda question: question.is_inside)
        first = family[0]
        if first.is_inside and len(family) > 1 and first.first_target >= block:
            yield _Question(first.tokens[: first.first_target], (), (), first.first_target)
        yield from family


def _summed(pair: EncodedPair, reply: "door.Reply") -> StoredAnswer:
    start, last = len(pair.tokens) - pair.n_targets, int(pair.tokens[-1])
    total, greedy = reply.of_last[last], reply.new_ids[0] == last
    for position in range(start, len(pair.tokens) - 1):
        value, rank = reply.of_prompt[position][int(pair.tokens[position])]
        total, greedy = total + value, greedy and rank == 1
    return StoredAnswer(log_likelihood=total, greedy=greedy)


class _Growing:
    """One text under way, which ends, and whose thought is closed, as our own engine does it.

    What closes a thought is no choice of the model's: then the text has `diverged` from what the
    engine has of it, and is asked to be continued as a prompt, which the prefix cache makes cheap.
    """

    def __init__(self, index: int, prompt: Prompt, tokenizer: Any) -> None:
        self.index, self._prompt, self.diverged = index, prompt, False
        settings, opened = prompt.settings, prompt.opened
        budgeted = settings.think is not None
        self._text = TextUnderWay(
            index,
            prompt,
            lambda logits, chosen, ids: chosen,
            GeneratedText(tokenizer, settings.stop, opened=opened),
            ThoughtBudget(tokenizer, settings, opened=opened) if budgeted else None,
        )

    def ask(self, engine: "door.Engine") -> str:
        """Have the engine go on with the text as it is; gives the request's key."""
        self.diverged = False
        text, settings = self._text, self._prompt.settings
        wanted = _sampling(self._prompt, len(text.ids))
        wanted["new_tokens"] = settings.most_new_tokens - len(text.ids)
        return engine.ask([*self._prompt.tokens.tolist(), *text.ids], values=True, **wanted)

    def take(self, reply: "door.Reply") -> StoredAnswer | None:
        """Add its new tokens; gives the answer if it has ended."""
        text = self._text
        if not all(map(math.isfinite, reply.values)):
            return stored(text.fail())
        for token in reply.new_ids:
            ended = text.take(_NO_LOGITS, token)
            if ended is None and text.ids[-1] != token:
                self.diverged = True
            while ended is None and text.thought is not None and text.thought.is_closing:
                self.diverged = True
                ended = text.take(_NO_LOGITS, token)
            if ended is not None:
                return stored(ended)
            if self.diverged:
                return None
        return None


def _sampling(prompt: Prompt, done: int) -> dict[str, Any]:
    """How the tokens of a text are chosen of which so many are there already."""
    settings = prompt.settings
    if settings.no_repeat_ngram_size:
        raise UsageError(
            f"no_repeat_ngram_size = {settings.no_repeat_ngram_size} is nothing that vLLM has: "
            "use the local backend"
        )
    wanted: dict[str, Any] = {
        "end_ids": list(settings.end_ids),
        "repetition_penalty": settings.repetition_penalty,
        "presence_penalty": settings.presence_penalty,
        "frequency_penalty": settings.frequency_penalty,
    }
    if settings.sample:
        wanted |= {
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "seed": seed_of(settings.seed + done, prompt.tokens, prompt.repeat),
        }
    return wanted


def _defaults(prepared: Prepared) -> Any:
    folder = prepared.folder
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(str(folder))
    return GenerationConfig.from_model_config(prepared.opened.model_config)
