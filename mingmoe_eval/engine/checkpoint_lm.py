"""`CheckpointLM`: a checkpoint as an lm-eval language model.

Any lm-eval `evaluate` takes it. Beside answers it tells what each request cost, and it keeps every
answer in a response store as soon as it is there.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, TypedDict, Unpack

from mingmoe_eval.engine.backend import (
    Answers,
    Backend,
    LocalBackend,
    rows_of,
    tokenizer_fingerprint,
)
from mingmoe_eval.engine.prompts import PromptMaker
from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer, answer_key
from mingmoe_eval.engine.thinking import template_facts, thought_end
from mingmoe_eval.engine.tokenisation import EncodedPair, Tokenisation, Tokens
from mingmoe_eval.errors import UsageError
from mingmoe_eval.harness.lm_eval_door import LM
from mingmoe_eval.metrics.answer_reading.reply_text import heading_behind
from mingmoe_eval.records import JsonDict, RequestUsage
from mingmoe_eval.routing.account import RoutingSink
from mingmoe_eval.routing.record import RoutingRecord, RunRouting

DEFAULT_SEED = 1234
_FIRST_WORDS = 12
"""Tokens that hold the heading of a thought, whatever the tokenizer."""

_SECONDS_OF_A_TEMPLATE = 10.0
"""A template takes a millisecond; one with nested loops may never end."""


class EngineOptions(TypedDict, total=False):
    """How a loaded model is run; see `CheckpointLM`."""

    batch_size: int | str
    memory_budget: int | None
    max_length: int | None
    add_bos_token: bool | None
    chat_template_args: Mapping[str, Any] | None
    seed: int
    prompt_lookup: bool
    store: str | Path | None
    on_progress: Callable[[int, int], None] | None
    on_note: Callable[[str], None] | None


class _Asked(NamedTuple):
    """One question to the model: ids, and what is wanted of them, as far as it is a key."""

    tokens: Tokens
    wanted: Mapping[str, Any]


class _Routed(NamedTuple):
    """Whose the questions of a call are, and what their routing depends on."""

    requests: Sequence[Any]
    asked: Sequence[_Asked]


class _Given(NamedTuple):
    """An answer, and whether it was in the store."""

    answer: StoredAnswer
    from_store: bool


class CheckpointLM(LM):  # type: ignore[misc]  # lm-eval ships no types
    """A causal language model with its tokenizer, for lm-eval.

    Scores equal those of lm-eval's own `hf` model; `prefix_scoring` and `generation` say how they
    come about faster. A log-likelihood that is not finite is returned as it is, and never stored:
    whoever asked must fail that doc.

    Args:
        model: a directory or hub id: a MoLoRA adapter, a PEFT LoRA adapter, or a full model.
        base: the base model of an adapter; default: what the adapter names.
        dtype: of the weights; "auto" as the checkpoint has them.
        device: "auto", or a torch device.
        **options: as listed here.

            batch_size: the most rows of a pass; "auto": as many as the memory budget holds.
            memory_budget: bytes above the model's own that a pass may take; default: half of what
            is free on a GPU, an eighth on a CPU.
            max_length: the most tokens of an input; default: what the model says. A longer prompt
            loses its beginning, and its `RequestUsage` says so.
            add_bos_token: as for lm-eval's `hf`; default: the tokenizer's own habit.
            chat_template_args: more arguments for the chat template, such as `enable_thinking`.
            seed: of sampled generations whose arguments name none.
            prompt_lookup: guess what texts copy from their prompts: the same texts in fewer steps.
            store: the file in which answers are kept and looked up; none: nothing is kept.
            on_progress: told (answers so far, answers in all) of the present call.
            on_note: told what the user should know.

    Raises:
        CheckpointError: the checkpoint cannot be loaded as what it claims to be.
        RunStoreError: the store cannot be used.
    """

    def __init__(
        self,
        model: str | Path,
        base: str | Path | None = None,
        *,
        dtype: str = "auto",
        device: str = "auto",
        **options: Unpack[EngineOptions],
    ) -> None:
        from mingmoe_eval.molora import load_model, load_tokenizer

        tokenizer = load_tokenizer(model, base)
        loaded = load_model(model, base, dtype=dtype, device=device, check=False)
        self._set_up(_local(loaded, tokenizer, options), tokenizer, options)

    @classmethod
    def from_loaded(cls, model: Any, tokenizer: Any, **options: Unpack[EngineOptions]) -> Self:
        """The same over a transformers causal LM, in eval mode, that is in memory already."""
        return cls.from_backend(_local(model, tokenizer, options), tokenizer, **options)

    @classmethod
    def from_backend(
        cls, backend: Backend, tokenizer: Any, **options: Unpack[EngineOptions]
    ) -> Self:
        """The same over whatever computes the answers; it has a memory budget of its own."""
        made = cls.__new__(cls)
        made._set_up(backend, tokenizer, options)
        return made

    def _set_up(self, backend: Backend, tokenizer: Any, options: EngineOptions) -> None:
        super().__init__()
        self.tokenizer, self._backend = tokenizer, backend
        self.batch_size = rows_of(options.get("batch_size", "auto"))
        facts = backend.facts
        self._tokenisation = Tokenisation(
            tokenizer,
            max_length=options.get("max_length") or facts.longest_input,
            add_bos_token=options.get("add_bos_token"),
        )
        self._chat_template_args = dict(options.get("chat_template_args") or {})
        self._prompt_maker = PromptMaker(
            self._tokenisation,
            facts.generation_defaults,
            seed=options.get("seed", DEFAULT_SEED),
            note=options.get("on_note"),
            thought_end=self._thought_end,
        )
        self._progress = options.get("on_progress")
        self._usage: dict[tuple[str, int, int], RequestUsage] = {}
        layout = facts.routing_layout
        self._routing = RunRouting(layout) if layout is not None else None
        path = options.get("store")
        self._store = ResponseStore(path) if path is not None else None

    @property
    def model(self) -> Any:
        """The transformers model itself; None if it is not in this process."""
        return getattr(self._backend, "model", None)

    @property
    def max_length(self) -> int:
        """The most tokens of an input."""
        return self._tokenisation.max_length

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(Log-likelihood in nats, whether greedy decoding would give it) of continuations."""
        pairs = self._tokenisation.encode_pairs([request.args for request in requests])
        given = self._score(pairs, requests)
        for request, pair, one in zip(requests, pairs, given, strict=True):
            failure = "" if pair.n_targets else _unscorable(self.max_length)
            self._record(
                request, one, pair.prompt_tokens, truncated=pair.truncated, failure=failure
            )
        return [(_number(one.answer), one.answer.greedy) for one in given]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Log-likelihood in nats of whole texts, window by window where they are too long."""
        documents = self._tokenisation.encode_documents([r.args[0] for r in requests])
        windows = [self._tokenisation.rolling_windows(document) for document in documents]
        pairs = [window for of_one in windows for window in of_one]
        of_pairs = [r for r, of_one in zip(requests, windows, strict=True) for _ in of_one]
        given = iter(self._score(pairs, of_pairs))
        totals = []
        for request, document, of_one in zip(requests, documents, windows, strict=True):
            mine = [next(given) for _ in of_one]
            totals.append(sum(_number(one.answer) for one in mine))
            stored = bool(mine) and all(one.from_store for one in mine)
            self._record(request, _Given(StoredAnswer(), stored), len(document))
        return totals

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Replies to the contexts, up to a stop string, an end token, or the limit.

        What a model thinks first is part of its reply; see `answer_reading.reply_text`.
        """
        texts = [request.args[0] for request in requests]
        encoded = self._tokenisation.encode_prompts(texts)
        arguments = [request.args[1] for request in requests]
        prompts = self._prompt_maker.prompts(texts, encoded, arguments)
        asked = [
            _Asked(
                prompt.tokens,
                {
                    **prompt.settings.to_json(),
                    "in_thought": bool(prompt.opened),
                    "repeat": prompt.repeat,
                    # Answers from before thoughts were kept are other texts.
                    "thoughts": "kept",
                },
            )
            for prompt in prompts
        ]
        routed = [_Asked(one.tokens, {"routing": True, **one.wanted}) for one in asked]

        def compute(missing: list[int], on_routing: RoutingSink | None) -> Answers:
            return self._backend.generate([prompts[i] for i in missing], on_routing)

        given = self._answer(asked, _Routed(requests, routed), compute)
        for request, tokens, prompt, one in zip(requests, encoded, prompts, given, strict=True):
            cut = len(prompt.tokens) < len(tokens)
            self._record(request, one, len(prompt.tokens), truncated=cut)
        return [one.answer.text or "" for one in given]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, by itself."""
        return [len(tokens) for tokens in self._tokenisation.encode_documents(texts)]

    def most_new_tokens(self, arguments: Mapping[str, Any]) -> int:
        """How long a reply can become, with its thought and what closes it."""
        return self._prompt_maker.settings(arguments).most_new_tokens

    def generation_facts(self, arguments: Mapping[str, Any]) -> JsonDict:
        """What a task's generation arguments come to with this model."""
        return self._prompt_maker.settings(arguments).described()

    def template_facts(self) -> JsonDict:
        """What the chat template is told, and what that makes of thinking."""
        return template_facts(self.tokenizer, self._chat_template_args)

    def take_usage(self) -> dict[tuple[str, int, int], RequestUsage]:
        """What each request cost since the last call, by (task, doc, index); then forgets it."""
        usage, self._usage = self._usage, {}
        return usage

    @property
    def routing(self) -> JsonDict | None:
        """What the experts did in all answers so far; None for a model without routers."""
        return self._routing.to_json() if self._routing is not None else None

    def describe(self) -> JsonDict:
        """What the model is, for provenance."""
        return {
            **self._backend.describe(),
            "weights_fingerprint": self._backend.weights_fingerprint,
            "settings_fingerprint": self._backend.settings_fingerprint,
            "tokenizer_fingerprint": self._of_tokenizer,
            "max_length": self.max_length,
            "batch_size": self.batch_size,
        }

    def probe(self) -> float | None:
        """The most that the adapter moves a logit; None without an adapter.

        Raises:
            CheckpointError: it moves none, so it is not live; or a logit is not finite.
        """
        return self._backend.probe()

    def close(self) -> None:
        """Release the store's file and the backend."""
        self._backend.close()
        if self._store is not None:
            self._store.close()

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer brings a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def tokenizer_name(self) -> str:
        """Where the tokenizer came from, for lm-eval's request cache."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The text of the chat template; None when it is not to be applied, or there is none."""
        if not chat_template or not self.has_chat_template:
            return None
        name = chat_template if isinstance(chat_template, str) else None
        template: str = self.tokenizer.get_chat_template(chat_template=name)
        return template

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as the prompt that the model was trained on.

        Raises:
            UsageError: the template refuses the chat; nothing is dropped from it in silence.
        """
        try:
            with _for_at_most(_SECONDS_OF_A_TEMPLATE):
                prompt: str = self.tokenizer.apply_chat_template(
                    chat_history,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                    **self._chat_template_args,
                )
        except Exception as error:  # a template is a program of the checkpoint's, in a sandbox
            roles = ", ".join(message["role"] for message in chat_history)
            raise UsageError(
                f"the chat template of {self.tokenizer.name_or_path} refuses a chat of {roles}: "
                f"{error}; run with --no-chat-template"
            ) from error
        return prompt

    def _thought_end(self) -> str:
        """What closes a thought: by the template or the vocabulary, else by how a reply begins.

        HuatuoGPT-o1 has two headings, which nothing but its replies tells of: so it is asked one.
        """
        try:
            return thought_end(self.tokenizer)
        except UsageError:
            if heading := heading_behind(self._first_words()):
                return heading
            raise

    def _first_words(self) -> str:
        """How the model begins its reply to a chat; "" without a template for one."""
        if not self.has_chat_template:
            return ""
        prompt = self.apply_chat_template([{"role": "user", "content": "What is a fever?"}])
        encoded = self._tokenisation.encode_prompts([prompt])
        prompts = self._prompt_maker.prompts([prompt], encoded, [{"max_gen_toks": _FIRST_WORDS}])
        answers = (answer for done in self._backend.generate(prompts, None) for _, answer in done)
        return next(answers).text or ""

    def _score(self, pairs: Sequence[EncodedPair], requests: Sequence[Any]) -> list[_Given]:
        asked = [_Asked(pair.tokens, {"log_likelihood_of_last": pair.n_targets}) for pair in pairs]
        # The last token is never read: options that differ in it alone route alike.
        routed = [
            _Asked(pair.tokens[:-1], {"routing of prompt": len(pair.tokens) - pair.n_targets})
            for pair in pairs
        ]

        def compute(missing: list[int], on_routing: RoutingSink | None) -> Answers:
            return self._backend.score([pairs[i] for i in missing], on_routing)

        return self._answer(asked, _Routed(requests, routed), compute)

    def _answer(
        self,
        asked: Sequence[_Asked],
        routed: _Routed,
        compute: Callable[[list[int], RoutingSink | None], Answers],
    ) -> list[_Given]:
        """Answers from the store, and for those that are not there, from the model, into it."""
        function = self._function() if self._store is not None else ""
        keys = [answer_key(function, *one) for one in asked] if function else []
        found = self._store.get(list(set(keys))) if self._store else {}
        given = {index: _Given(found[key], True) for index, key in enumerate(keys) if key in found}
        missing = [index for index in range(len(asked)) if index not in given]
        sink = self._routing_sink(routed, function, list(given), missing)
        self._tell(len(given), len(asked))
        for answered in compute(missing, sink) if missing else ():
            if self._store is not None:
                self._store.put((keys[missing[place]], answer) for place, answer in answered)
            given.update((missing[place], _Given(answer, False)) for place, answer in answered)
            self._tell(len(given), len(asked))
        return [given[index] for index in range(len(asked))]

    def _routing_sink(
        self, routed: _Routed, function: str, stored: Sequence[int], missing: Sequence[int]
    ) -> RoutingSink | None:
        """Counts what stored answers routed; gives what to tell of those to come."""
        if self._routing is None:
            return None
        record = RoutingRecord(self._routing, self._store)

        def of(index: int) -> tuple[Any, bytes]:
            key = answer_key(function, *routed.asked[index]) if function else b""
            return routed.requests[index], key

        record.add_stored([of(index) for index in stored])
        return record.sink([of(index) for index in missing])

    def _function(self) -> str:
        """Equal texts: the model, as it is now, gives equal answers."""
        backend = self._backend
        return backend.weights_fingerprint + self._of_tokenizer + backend.settings_fingerprint

    @cached_property
    def _of_tokenizer(self) -> str:
        return tokenizer_fingerprint(self.tokenizer)

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(done, total)

    def _record(
        self,
        request: Any,
        given: _Given,
        prompt_tokens: int,
        *,
        truncated: bool = False,
        failure: str = "",
    ) -> None:
        self._usage[(request.task_name, request.doc_id, request.idx)] = RequestUsage(
            prompt_tokens=prompt_tokens,
            generated_tokens=given.answer.generated_tokens,
            finish=given.answer.finish,
            prompt_truncated=truncated,
            from_store=given.from_store,
            failure=failure or given.answer.failure,
            thought_tokens=given.answer.thought_tokens,
            forced=given.answer.forced,
        )


def _local(model: Any, tokenizer: Any, options: EngineOptions) -> LocalBackend:
    return LocalBackend(
        model,
        tokenizer,
        most_rows=rows_of(options.get("batch_size", "auto")),
        memory_budget=options.get("memory_budget"),
        prompt_lookup=options.get("prompt_lookup", False),
    )


def _unscorable(max_length: int) -> str:
    return (
        "the continuation came to no token of its own, or more than the "
        f"{max_length} that the model can hold"
    )


def _number(answer: StoredAnswer) -> float:
    if answer.log_likelihood is None:
        raise ValueError("a stored text where a log-likelihood was asked for")
    return answer.log_likelihood


@contextmanager
def _for_at_most(seconds: float) -> Iterator[None]:
    """Raises a TimeoutError in a block that takes longer, where Python can be interrupted at all.

    That is in the main thread of a process that knows alarms.
    """
    alarmed = threading.current_thread() is threading.main_thread()
    if not alarmed or not hasattr(signal, "setitimer"):
        yield
        return

    def too_long(*_: object) -> None:
        raise TimeoutError(f"not rendered after {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
