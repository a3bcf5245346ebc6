"""What is said to OpenAI-compatible servers, and how their replies are read: strictly.

One payload for each kind of question: a text; the likeliest first tokens of an answer (`logprobs`
of one generated token, completions or chat); the log-probability of every token of a prompt
(`echo`, completions). A prompt that is a chat goes to `/chat/completions` as messages, any other to
`/completions`. A reply in doubt is no answer.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.engine.prompts import GenerationSettings
from mingmoe_eval.errors import UsageError
from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts
from mingmoe_eval.records import Finish, JsonDict

CHAT, COMPLETIONS = "/chat/completions", "/completions"
# OpenAI takes no more; the others are looked for in what comes back.
_STOP_STRINGS_SENT = 4
# Some servers refuse to generate no token at all.
_LEAST_TOKENS = 1
# What only vLLM, SGLang and their like understand is sent where it changes something.
_WITHOUT_EFFECT = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_PART_OF_A_CHARACTER = "\ufffd"
_MOST_TOKENS = 10**12  # no exchange has as many; a number without bounds fits no other program
_ROUNDING = 1e-3
"""A certain token's log-probability may come out a little above 0."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request: where it goes, what it says, and how a reply to it is read."""

    path: str
    payload: Mapping[str, Any]
    read: Callable[[Any], Any]
    """What a reply says, short: a prompt that is echoed token by token takes hundreds of times the
    memory of its answer. Raises MalformedReply for a reply that is no answer."""


class ChatPrompt(str):
    """A chat as JSON text, which the endpoint gets as messages."""


def path_of(*, chat: bool) -> str:
    """Where prompts of this kind go."""
    return CHAT if chat else COMPLETIONS


def text_question(
    model: str, prompt: str, settings: GenerationSettings, *, repeat: int = 0
) -> Question:
    """A text that continues the prompt; of sampled ones each `repeat` is another draw.

    Raises:
        UsageError: a setting that no endpoint knows.
    """
    if settings.no_repeat_ngram_size:
        raise UsageError("no_repeat_ngram_size: endpoints do not know it; leave it out")
    payload: JsonDict = {"max_tokens": settings.max_new_tokens}
    if not settings.of_server:
        payload["temperature"] = settings.temperature if settings.sample else 0.0
    if settings.stop:
        payload["stop"] = list(settings.stop[:_STOP_STRINGS_SENT])
    if settings.sample:
        payload["seed"] = settings.seed + repeat
    for name, without_effect in _WITHOUT_EFFECT.items():
        if (value := getattr(settings, name)) != without_effect:
            payload[name] = value
    return _question(model, prompt, payload, text_reply)


def first_token_question(model: str, prompt: str, *, most: int) -> Question:
    """The `most` likeliest first tokens of an answer."""
    chat = isinstance(prompt, ChatPrompt)
    listing = {"logprobs": True, "top_logprobs": most} if chat else {"logprobs": most}
    payload = {"max_tokens": _LEAST_TOKENS, "temperature": 0.0, **listing}
    return _question(model, prompt, payload, first_tokens)


def echo_question(model: str, context: str, continuation: str) -> Question:
    """The log-probabilities of a prompt's own tokens; the one that is generated does not matter.

    It is read as (tokens of the prompt, what `EchoedTokens.of_continuation` gives).
    """
    payload = {
        "model": model,
        "prompt": context + continuation,
        "max_tokens": _LEAST_TOKENS,
        "temperature": 0.0,
        "logprobs": 1,
        "echo": True,
    }

    def read(reply: Any) -> tuple[int, tuple[float, bool] | str]:
        echoed = echoed_tokens(reply)
        return echoed.prompt_tokens, echoed.of_continuation(continuation)

    return Question(COMPLETIONS, payload, read)


def trial_question(model: str, *, chat: bool) -> Question:
    """Anything at all, to see whether prompts of this kind are answered."""
    # Without a temperature: models of OpenAI's that think refuse any but their own.
    settings = GenerationSettings(max_new_tokens=1, of_server=True)
    return text_question(model, trial_prompt(chat=chat), settings)


def trial_prompt(*, chat: bool) -> str:
    """A prompt whose answer does not matter."""
    return ChatPrompt('[{"role": "user", "content": "Say A."}]') if chat else "The answer is"


class MalformedReply(Exception):
    """A reply that is not what was asked for, and would not be when asked again."""


class ErrorReply(MalformedReply):
    """A server's word of its own trouble in place of an answer; that may pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReply:
    """A generated text with its end and its cost."""

    text: str
    finish: Finish
    prompt_tokens: int
    generated_tokens: int
    thought_tokens: int | None
    """Of the generated ones, as the server counts them; None: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstTokens:
    """The likeliest first tokens of an answer, as texts with their log-probabilities in nats."""

    listed: Mapping[str, float]
    prompt_tokens: int

    @property
    def likeliest(self) -> str:
        """The token that greedy decoding would give."""
        return max(self.listed, key=lambda token: self.listed[token])

    def log_likelihoods(self, letters: Sequence[str]) -> dict[str, float] | str:
        """One for each letter that can be the answer, or why there is none.

        A token stands for a letter when it is the same text; where that holds for no letter, when
        it is the same text without blanks around (a chat model answers "A" as well as " A": both
        count). A letter that is not listed is less likely than those that are: it gets the largest
        value it can have, the least listed one or what the listed ones leave, less one bit, so that
        it ties with none.
        """
        if any(len(letter.strip()) != 1 for letter in letters):
            return "only single letters can be looked up among the likeliest tokens"
        values = {letter: self.listed.get(letter) for letter in letters}
        if all(value is None for value in values.values()):
            values = {letter: self._without_blanks(letter.strip()) for letter in letters}
        if all(value is None for value in values.values()):
            listed = len(self.listed)
            return f"none of {', '.join(values)} is among the {listed} likeliest first tokens"
        bound = math.nextafter(self._most_of_others(), -math.inf)
        return {letter: bound if value is None else value for letter, value in values.items()}

    def _without_blanks(self, letter: str) -> float | None:
        alike = [value for token, value in self.listed.items() if token.strip() == letter]
        if not alike:
            return None
        largest = max(alike)
        return largest + math.log(math.fsum(math.exp(value - largest) for value in alike))

    def _most_of_others(self) -> float:
        left = 1 - math.fsum(map(math.exp, self.listed.values()))
        least = min(self.listed.values())
        return min(least, math.log(left)) if left > 0 else least


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoedTokens:
    """The tokens of a prompt as texts, with their log-probabilities in nats (None: the first)."""

    tokens: Sequence[str]
    log_likelihoods: Sequence[float | None]
    greedy: Sequence[bool]
    prompt_tokens: int

    def of_continuation(self, continuation: str) -> tuple[float, bool] | str:
        """(Log-likelihood, greedy) of the prompt's end, found by its text; or why it is not found.

        Offsets would be wrong behind characters that are parted over several tokens. A token that
        begins before the continuation belongs to it.

        Raises:
            MalformedReply: the prompt's last tokens do not spell the continuation.
        """
        begin, tail = len(self.tokens), ""
        while begin and len(tail) < len(continuation):
            begin -= 1
            tail = self.tokens[begin] + tail
        if _PART_OF_A_CHARACTER in tail:
            return "the continuation's characters are parted over several tokens"
        if not continuation or not tail.endswith(continuation):
            raise MalformedReply(f"the echoed prompt does not end in {continuation!r}")
        values = [value for value in self.log_likelihoods[begin:] if value is not None]
        if len(values) < len(self.tokens) - begin:
            raise MalformedReply("a token of the continuation has no log-probability")
        return math.fsum(values), all(self.greedy[begin:])


def text_reply(data: Any, *, chat: bool) -> TextReply:
    """A generated text, with what the model thinks before it.

    A thought that the server keeps apart is put in front, between the tags that most models use. A
    chat answer without content, whose thought was cut off at the limit, is that thought alone. One
    that ended by itself behind a thought says nothing: an empty answer, and no fault of the server.

    Raises:
        MalformedReply: there is no text and no thought, or it ended in no known way.
    """
    choice = _only_choice(data)
    finish = _finish(choice.get("finish_reason"))
    if not chat:
        text = choice.get("text")
    else:
        message = _mapping(choice.get("message"), "message")
        thought, text = _thought_and_content(message)
        if text is None:
            text = message.get("refusal")
        # A thought that is counted but not shown, as OpenAI's are, was there all the same.
        if text is None and (thought or _reasoning_tokens(data)):
            text = ""
        text = _with_thought(thought, text, cut_off=finish == "length")
    if not isinstance(text, str):
        raise MalformedReply("the answer has no content")
    return TextReply(
        text=text,
        finish=finish,
        prompt_tokens=_usage(data, "prompt_tokens"),
        generated_tokens=_usage(data, "completion_tokens"),
        thought_tokens=_thought_tokens(data, text),
    )


def first_tokens(data: Any, *, chat: bool) -> FirstTokens:
    """The likeliest first tokens.

    Raises:
        MalformedReply: there are no log-probabilities.
    """
    logprobs = _mapping(_only_choice(data).get("logprobs"), "logprobs")
    # llama.cpp's server gives completions the form that chats have.
    if chat or "content" in logprobs:
        first = _mapping(_first(logprobs.get("content"), "logprobs.content"), "logprobs.content")
        rows = [_mapping(row, "top_logprobs") for row in _list(first.get("top_logprobs"))]
        pairs = [(row.get("token"), row.get("logprob")) for row in rows]
    else:
        top = _first(logprobs.get("top_logprobs"), "logprobs.top_logprobs")
        pairs = list(_mapping(top, "logprobs.top_logprobs").items())
    listed: dict[str, float] = {}
    for token, value in pairs:  # the likeliest first: parts of a character may share their text
        listed.setdefault(str(token), _log_probability(value))
    # Some servers fill the list up with impossible tokens.
    listed = {token: value for token, value in listed.items() if value != -math.inf}
    if not listed or any(map(math.isnan, listed.values())):
        raise MalformedReply("no likeliest tokens are listed")
    return FirstTokens(listed=listed, prompt_tokens=_usage(data, "prompt_tokens"))


def echoed_tokens(data: Any) -> EchoedTokens:
    """The prompt's tokens of a reply to `echo`, without the one token that was generated.

    Raises:
        MalformedReply: the prompt did not come back, or not with its log-probabilities.
    """
    logprobs = _mapping(_only_choice(data).get("logprobs"), "logprobs")
    tokens = [str(token) for token in _list(logprobs.get("tokens"))]
    values = _list(logprobs.get("token_logprobs"))
    prompt_tokens = _usage(data, "prompt_tokens") or len(tokens) - 1
    if not 0 < prompt_tokens <= len(tokens) or len(values) != len(tokens):
        raise MalformedReply("the prompt did not come back with a log-probability for each token")
    numbers = [None if v is None else _log_probability(v) for v in values[:prompt_tokens]]
    tops = logprobs.get("top_logprobs")
    tops = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    return EchoedTokens(
        tokens=tokens[:prompt_tokens],
        log_likelihoods=numbers,
        greedy=[_is_top(value, top) for value, top in zip(numbers, tops, strict=False)],
        prompt_tokens=prompt_tokens,
    )


def _question(model: str, prompt: str, payload: JsonDict, read: Callable[..., object]) -> Question:
    chat = isinstance(prompt, ChatPrompt)
    asked: dict[str, Any] = {"messages": json.loads(prompt)} if chat else {"prompt": str(prompt)}
    return Question(
        path_of(chat=chat),
        {"model": model, **asked, **payload},
        lambda reply: read(reply, chat=chat),
    )


def _only_choice(data: Any) -> Mapping[str, Any]:
    """The answer; a server that gives several to one question must not disagree with itself."""
    reply = _mapping(data, "reply")
    if reply.get("error"):
        raise ErrorReply(f"an error in place of an answer: {reply['error']!r:.200}")
    choices = [_mapping(choice, "choice") for choice in _list(reply.get("choices"))]
    mine = [choice for choice in choices if not choice.get("index")]
    if not mine or any(choice != mine[0] for choice in mine):
        raise MalformedReply(f"{len(mine)} different answers to one request")
    return mine[0]


def _thought_and_content(message: Mapping[str, Any]) -> tuple[str, Any]:
    """What a chat message thinks, "" if nothing, and what it says, wherever its server puts them.

    vLLM, SGLang, DeepSeek and llama.cpp say `reasoning_content`, newer vLLM, Ollama, Groq and
    OpenRouter `reasoning`, which OpenRouter may give as `reasoning_details` alone. Mistral's
    content is a list of parts, of which some are thoughts.
    """
    content = message.get("content")
    for name in ("reasoning_content", "reasoning"):
        if isinstance(given := message.get(name), str) and given:
            return given, content
    details = _texts(message.get("reasoning_details"), ("text", "summary"))
    if not isinstance(content, list):
        return details, content
    return details or _texts(content, ("thinking",)), _texts(content, ("text",)) or None


def _texts(parts: Any, names: Sequence[str]) -> str:
    """What a list of parts says under these names, which may be lists of parts of their own."""
    said = [
        part[name] if isinstance(part[name], str) else _texts(part[name], ("text",))
        for part in _list(parts)
        if isinstance(part, Mapping)
        for name in names
        if name in part
    ]
    return "".join(said)


def _with_thought(thought: str, content: Any, *, cut_off: bool) -> Any:
    if cut_off and not content:
        return f"<think>{thought}" if thought else ""
    if not thought or not isinstance(content, str):
        return content
    return f"<think>{thought}</think>\n\n{content}"


def _finish(reason: Any) -> Finish:
    if reason == "length":
        return "length"
    if reason in ("error", "abort"):
        raise ErrorReply(f"the server gave up on the answer ({reason})")
    if reason == "content_filter":
        raise MalformedReply(f"the server withheld the answer ({reason})")
    # "stop", "eos_token", "stop_sequence", or nothing at all: the servers' words differ.
    return "stop"


def _usage(data: Mapping[str, Any], name: str) -> int:
    return _count(data.get("usage"), name)


def _count(counts: Any, name: str) -> int:
    number = counts.get(name) if isinstance(counts, Mapping) else None
    return number if type(number) is int and 0 <= number <= _MOST_TOKENS else 0


def _thought_tokens(data: Mapping[str, Any], text: str) -> int | None:
    """The server's own count of the thought; 0 where no thought is to be seen and none is counted.

    OpenAI, OpenRouter and DeepSeek say it (`reasoning_tokens`). vLLM and SGLang often do not: then
    nobody counted, for their tokenizer is not known here.
    """
    return _reasoning_tokens(data) or (None if split_thoughts(text)[0] else 0)


def _reasoning_tokens(data: Mapping[str, Any]) -> int:
    usage = data.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, Mapping) else None
    # Never more than all that was generated, whatever a server says.
    return min(_count(details, "reasoning_tokens"), _usage(data, "completion_tokens"))


def _is_top(value: float | None, top: Any) -> bool:
    if value is None or not isinstance(top, Mapping) or not top:
        return False
    return value >= max(_log_probability(other) for other in top.values())


def _log_probability(value: Any) -> float:
    """A number that can be one; NaN passes, fails its doc later, and is counted there."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value > _ROUNDING:
        raise MalformedReply(f"{value!r:.50} is no log-probability")
    # JSON's numbers have no bounds; a float's have.
    return float(max(value, -sys.float_info.max)) if isinstance(value, int) else value


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MalformedReply(f"no {what} in the reply")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _first(value: Any, what: str) -> Any:
    if not isinstance(value, list) or not value:
        raise MalformedReply(f"no {what} in the reply")
    return value[0]
