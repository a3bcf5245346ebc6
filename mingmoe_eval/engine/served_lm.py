"""`ServedLM`: a model behind an OpenAI-compatible endpoint as an lm-eval language model.

vLLM, SGLang, llama.cpp's server, TGI and others can be asked in two ways: chats, to which the
server applies its own template, and completions, where the prompt is sent as it is. A run with a
chat template uses the first, one without the second.

How it gives log-likelihoods, `served_likelihoods` finds out when they are first needed.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mingmoe_eval.engine.prompts import GenerationSettings, before_stop, generation_settings
from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer, answer_key
from mingmoe_eval.engine.served_address import ServedAddress, served_address
from mingmoe_eval.engine.served_client import LIMIT, Failure, Patience, ServedClient, model_name
from mingmoe_eval.engine.served_likelihoods import Way, no_log_probabilities, trials
from mingmoe_eval.engine.served_protocol import (
    CHAT,
    ChatPrompt,
    MalformedReply,
    Question,
    TextReply,
    path_of,
    text_question,
    trial_question,
)
from mingmoe_eval.engine.served_thoughts import (
    Begun,
    begun,
    begun_without_thought,
    continuation,
    first_settings,
    went_on,
)
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.harness.lm_eval_door import LM
from mingmoe_eval.metrics.answer_reading.reply_text import opened_thought, split_thoughts
from mingmoe_eval.records import JsonDict, RequestUsage

_OUT_OF_ROOM = "model output limit was reached"


# Of stored replies, so many are in memory at once before they are read.
_STORED_AT_ONCE = 256


class _Given(NamedTuple):
    """What a reply says, or a failure; `shared`: an earlier request was the same, and paid."""

    reply: Any | Failure
    from_store: bool
    shared: bool


class ServedLM(LM):  # type: ignore[misc]  # lm-eval ships no types
    """A model that an OpenAI-compatible endpoint serves, for lm-eval.

    A request that finally fails leaves its reason in `RequestUsage.failure`; what stands in the
    answer's place is an empty text or NaN.

    Args:
        model: `openai:http://host:port/v1#name`; without a name, the only model served there.
        patience: how many requests at once, and how long is waited.
        seed: of sampled generations whose arguments name none.
        chat_arguments: more fields of each chat request, such as `chat_template_kwargs`.
        store: the file in which replies are kept and looked up; none: nothing is kept. Nobody can
            fingerprint a served model's weights: such a file belongs to one run.
        on_progress: told (answers so far, answers in all) of the present call.
        on_note: told what the user should know.
        client: what asks the endpoint, where it is not to be made from `model`.

    Raises:
        UsageError: the address cannot be understood, or does not say which model.
        CheckpointError: nothing answers there, or it refuses the credentials.
        RunStoreError: the store cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        patience: Patience | None = None,
        seed: int = 1234,
        chat_arguments: Mapping[str, Any] | None = None,
        store: str | Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        client: ServedClient | None = None,
    ) -> None:
        super().__init__()
        self._client = client or ServedClient(served_address(model), patience)
        self._seed = seed
        self._chat_arguments = dict(chat_arguments or {})
        self._progress = on_progress or (lambda done, total: None)
        self._note = on_note or (lambda text: None)
        self._usage: dict[tuple[str, int, int], RequestUsage] = {}
        self._ways: dict[bool, Way | None] = {}
        self._name = model_name(self._client, self._note)
        if self.address.exposes_secrets:
            self._note(f"the key for {self.address.public} crosses the network unencrypted")
        self._store_path = store

    @property
    def address(self) -> ServedAddress:
        """The endpoint."""
        return self._client.address

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(Log-likelihood in nats, whether greedy decoding would give it) of continuations.

        Raises:
            UsageError: the endpoint gives no log-probabilities.
        """
        if not requests:
            return []
        chat = isinstance(requests[0].args[0], ChatPrompt)
        way = self._way(chat=chat)
        if way is None:
            needy = {request.task_name for request in requests}
            raise UsageError(no_log_probabilities(self.address.base_url, needy, chat=chat))
        answers = self._answers(
            [self._told(way.question(self._name, *request.args)) for request in requests]
        )
        replies = way.valued(requests, [one.reply for one in answers])
        values = []
        for request, given, said in zip(requests, answers, replies, strict=True):
            if isinstance(said, str):
                self._fail(request, said)
                values.append((math.nan, False))
                continue
            self._record(request, given, said.prompt_tokens)
            values.append(said.value)
        return values

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Not to be had from a served model: where a text begins is the server's affair."""
        raise UsageError(
            f"{self.address.public}: log-likelihoods of whole texts need the weights; evaluate the "
            "checkpoint itself"
        )

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Texts that continue the prompts, up to a stop string, an end token, or the limit."""
        settings = [self._settings(request.args[1]) for request in requests]
        seen: Counter[str] = Counter()
        questions, repeats = [], []
        for request, wanted in zip(requests, settings, strict=True):
            prompt = request.args[0]
            first = wanted if wanted.think is None else first_settings(wanted)
            repeats.append(seen[prompt])
            if wanted.think == 0:
                closed = begun_without_thought(prompt, wanted)
                question = continuation(self._name, prompt, closed, wanted, repeat=seen[prompt])
            else:
                question = text_question(self._name, prompt, first, repeat=seen[prompt])
            questions.append(self._told(question))
            seen[prompt] += 1
        answers = self._answers(questions)
        if any(wanted.think is not None for wanted in settings):
            return self._on_budget(requests, settings, repeats, answers)
        texts = []
        for request, wanted, given in zip(requests, settings, answers, strict=True):
            if isinstance(given.reply, Failure):
                self._fail(request, given.reply.reason)
                texts.append("")
                continue
            read: TextReply = given.reply
            self._record(
                request,
                given,
                read.prompt_tokens,
                generated_tokens=0 if given.shared else read.generated_tokens,
                thought_tokens=0 if given.shared else read.thought_tokens,
                finish=read.finish,
            )
            thoughts, answer = split_thoughts(read.text)
            texts.append(thoughts + before_stop(answer or "", wanted.stop))
        return texts

    def generation_facts(self, arguments: Mapping[str, Any]) -> JsonDict:
        """What a task's generation arguments come to; what is not set is the server's own."""
        return self._settings(arguments).described()

    def template_facts(self) -> JsonDict:
        """What the server's template is told; what it makes of that cannot be seen from here."""
        template = dict(self._chat_arguments.get("chat_template_kwargs", {}))
        return {"template": template}

    def take_usage(self) -> dict[tuple[str, int, int], RequestUsage]:
        """What each request cost since the last call, by (task, doc, index); then forgets it."""
        usage, self._usage = self._usage, {}
        return usage

    def refuse_unless_able(self, output_types: Mapping[str, str], *, chat: bool) -> None:
        """Refuse tasks that this endpoint cannot do, before any of them runs.

        Args:
            output_types: lm-eval's output type of each task.
            chat: Whether prompts will be chats.

        Raises:
            CheckpointError: it cannot be asked this way at all.
            UsageError: tasks need log-probabilities, and it gives none; names the way out.
        """
        if (refusal := self._refusal(chat=chat)) is not None:
            raise CheckpointError(
                f"{self.address.base_url}{path_of(chat=chat)} does not answer for {self._name!r}: "
                f"{refusal.reason}; try {'--no-chat-template' if chat else '--chat-template'}, and "
                "see that the address ends where the API begins, usually in /v1"
            )
        needy = {task for task, kind in output_types.items() if kind != "generate_until"}
        if needy and self._way(chat=chat) is None:
            raise UsageError(no_log_probabilities(self.address.base_url, needy, chat=chat))

    def describe(self) -> JsonDict:
        """What is known of the model, for provenance: where it was, and what it was called."""
        return {
            "checkpoint": None,
            "weights_fingerprint": None,
            "engine": "served",
            "served_by": self.address.base_url,
            "served_name": self._name,
            "log_likelihoods": next((way.name for way in self._ways.values() if way), None),
            "concurrency": self._client.patience.concurrency,
            **({"limit_sent_as": name} if (name := self._client.limit_name) != LIMIT else {}),
        }

    def close(self) -> None:
        """Release the store's file."""
        if "_store" in self.__dict__ and self._store is not None:
            self._store.close()

    @cached_property
    def has_chat_template(self) -> bool:
        """Whether the endpoint answers chats; found out by asking one."""
        refusal = self._refusal(chat=True)
        self._refuse_to_guess(refusal)
        return refusal is None

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's request cache; a served model's tokenizer has no name of its own."""
        return self.address.public.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """None: the template is the server's, and cannot be seen from here."""
        return None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as JSON, for an endpoint that applies its own template to it.

        Raises:
            UsageError: the answer's beginning is given, which no endpoint goes on with.
        """
        if not add_generation_prompt:
            raise UsageError(
                "this task gives the beginning of the answer, which chats over an endpoint do not "
                "go on with; run with --no-chat-template"
            )
        return ChatPrompt(json.dumps(chat_history, ensure_ascii=False))

    @cached_property
    def _store(self) -> ResponseStore | None:
        """Made when there is something to keep: a refused run leaves no file behind."""
        return None if self._store_path is None else ResponseStore(self._store_path)

    def _refusal(self, *, chat: bool) -> Failure | None:
        """Why prompts of this kind are not answered; None: they are."""
        reply = self._client.ask(self._told(trial_question(self._name, chat=chat)))
        # OpenAI refuses what a model's thoughts leave no room for: then it was asked rightly.
        refused = isinstance(reply, Failure) and _OUT_OF_ROOM not in reply.reason
        return reply if refused else None

    def _answers(self, questions: Sequence[Question]) -> list[_Given]:
        """From the store, and for those that are not there, from the endpoint, into it.

        Equal questions are asked once. Replies are stored as they came, and read again from there;
        in memory stays what was read.
        """
        keys = [self._key(question) for question in questions]
        asked_for = Counter(keys)
        by_key = dict(zip(keys, questions, strict=True))
        replies: dict[bytes, Any | Failure] = self._stored(by_key)
        stored = frozenset(replies)
        missing = [key for key in by_key if key not in stored]
        done = sum(asked_for[key] for key in replies)
        self._progress(done, len(keys))
        # Closed, so that no more is asked when storing an answer fails, or whoever waits gives up.
        with closing(self._client.ask_all([by_key[key] for key in missing])) as coming:
            for place, reply in coming:
                key = missing[place]
                failed = isinstance(reply, Failure)
                replies[key] = reply if failed else by_key[key].read(reply)
                if self._store is not None and not failed:
                    self._store.put([(key, StoredAnswer(text=json.dumps(reply)))])
                done += asked_for[key]
                self._progress(done, len(keys))
        seen: set[bytes] = set()
        given = []
        for key in keys:
            given.append(_Given(replies[key], key in stored, key in seen))
            seen.add(key)
        return given

    def _stored(self, questions: Mapping[bytes, Question]) -> dict[bytes, Any]:
        """What the stored replies to questions say; one that is read no longer is not there."""
        found: dict[bytes, Any] = {}
        if self._store is None:
            return found
        keys = list(questions)
        for first in range(0, len(keys), _STORED_AT_ONCE):
            stored = self._store.get(keys[first : first + _STORED_AT_ONCE])
            for key, answer in stored.items():
                with suppress(MalformedReply):
                    found[key] = questions[key].read(json.loads(answer.text or "null"))
        return found

    def _settings(self, arguments: Mapping[str, Any]) -> GenerationSettings:
        return generation_settings(arguments, None, end_ids=(), seed=self._seed)

    def _on_budget(
        self,
        requests: Sequence[Any],
        settings: Sequence[GenerationSettings],
        repeats: Sequence[int],
        firsts: Sequence[_Given],
    ) -> list[str]:
        """Replies whose thoughts have a budget, given what came of their first requests."""
        so_far: dict[int, Begun] = {}
        reads: dict[int, TextReply] = {}
        for place, (request, wanted, given) in enumerate(
            zip(requests, settings, firsts, strict=True)
        ):
            if isinstance(given.reply, Failure):
                self._fail(request, given.reply.reason)
                continue
            reads[place] = given.reply
            if wanted.think and (more := begun(request.args[0], given.reply, wanted)):
                so_far[place] = more
        asked = [
            self._told(
                continuation(
                    self._name,
                    requests[place].args[0],
                    more,
                    settings[place],
                    repeat=repeats[place],
                )
            )
            for place, more in so_far.items()
        ]
        seconds = dict(zip(so_far, self._answers(asked) if asked else (), strict=True))
        return [
            self._whole_reply(request, wanted, first, reads.get(place), so_far.get(place), second)
            for place, (request, wanted, first) in enumerate(
                zip(requests, settings, firsts, strict=True)
            )
            for second in [seconds.get(place)]
        ]

    def _whole_reply(
        self,
        request: Any,
        wanted: GenerationSettings,
        first: _Given,
        read: TextReply | None,
        more: Begun | None,
        second: _Given | None,
    ) -> str:
        """One reply on a budget, put together and accounted for; "" where it failed."""
        if read is None:
            return ""
        prompt = request.args[0]
        closed = begun_without_thought(prompt, wanted) if wanted.think == 0 else more
        generated, of_thought = read.generated_tokens, read.thought_tokens
        last = read
        if second is not None and more is not None:
            if isinstance(second.reply, Failure):
                self._fail(request, second.reply.reason)
                return ""
            last = second.reply
            generated += last.generated_tokens
            if more.forced:
                of_thought = read.generated_tokens
        if closed is not None and not went_on(last.text):
            self._fail(request, "the server began a new reply instead of going on with the thought")
            return ""
        text = (closed.text if closed is not None else "") + last.text
        self._record(
            request,
            first,
            read.prompt_tokens,
            finish=last.finish,
            forced=closed is not None and closed.forced,
            generated_tokens=0 if first.shared else generated,
            thought_tokens=0 if first.shared else of_thought,
        )
        opened = opened_thought(prompt) if not isinstance(prompt, ChatPrompt) else ""
        thoughts, answer = split_thoughts(opened + text)
        return thoughts + before_stop(answer or "", wanted.stop)

    def _told(self, question: Question) -> Question:
        """The same with what every chat tells the server's template."""
        if question.path != CHAT or not self._chat_arguments:
            return question
        return dataclasses.replace(question, payload={**question.payload, **self._chat_arguments})

    def _key(self, question: Question) -> bytes:
        request = json.dumps([question.path, question.payload], sort_keys=True)
        # For a checkpoint these are token ids; here they are the request itself, as numbers.
        numbers = np.frombuffer(request.encode(), dtype=np.uint8).astype(np.int32)
        return answer_key(self.address.public, numbers, {})

    def _way(self, *, chat: bool) -> Way | None:
        """How log-likelihoods come about for prompts of this kind; None: they do not."""
        if chat not in self._ways:
            self._ways[chat] = self._find_way(chat=chat)
        return self._ways[chat]

    def _find_way(self, *, chat: bool) -> Way | None:
        for way, question in trials(self._name, chat=chat):
            outcome = self._client.ask(self._told(question))
            self._refuse_to_guess(outcome)
            if not isinstance(outcome, Failure):
                return way
        return None

    def _refuse_to_guess(self, outcome: Any | Failure) -> None:
        """How an endpoint can be asked is not to be told by one that is too busy to say.

        Raises:
            CheckpointError: a run must not be another one for that.
        """
        if isinstance(outcome, Failure) and outcome.tells_nothing:
            raise CheckpointError(
                f"{self.address.public} does not say how it can be asked: {outcome.reason}; "
                "run again when it answers"
            )

    def _fail(self, request: Any, reason: str) -> None:
        self._usage[_place(request)] = RequestUsage(prompt_tokens=0, failure=reason)

    def _record(self, request: Any, given: _Given, prompt_tokens: int, **facts: Any) -> None:
        self._usage[_place(request)] = RequestUsage(
            prompt_tokens=0 if given.shared else prompt_tokens, from_store=given.from_store, **facts
        )


def _place(request: Any) -> tuple[str, int, int]:
    return request.task_name, request.doc_id, request.idx
