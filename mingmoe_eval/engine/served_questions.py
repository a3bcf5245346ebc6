"""The requests that an OpenAI-compatible endpoint gets: one payload for each kind of question.

A prompt that is a chat goes to `/chat/completions` as messages, any other to `/completions`.
"""

import json
from collections.abc import Callable
from typing import Any

from mingmoe_eval.engine.generation_settings import GenerationSettings
from mingmoe_eval.engine.served_client import Question
from mingmoe_eval.engine.served_replies import echoed_tokens, first_tokens, text_reply
from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import JsonDict

CHAT, COMPLETIONS = "/chat/completions", "/completions"

# OpenAI takes no more; the others are looked for in what comes back.
_STOP_STRINGS_SENT = 4
# Some servers refuse to generate no token at all.
_LEAST_TOKENS = 1
# What only vLLM, SGLang and their like understand is sent where it changes something.
_WITHOUT_EFFECT = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


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
    payload: JsonDict = {
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature if settings.sample else 0.0,
    }
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
    """The log-probabilities of a prompt's own tokens; the one that is generated does not matter."""
    payload = {
        "model": model,
        "prompt": context + continuation,
        "max_tokens": _LEAST_TOKENS,
        "temperature": 0.0,
        "logprobs": 1,
        "echo": True,
    }
    return Question(
        COMPLETIONS, payload, lambda reply: echoed_tokens(reply).of_continuation(continuation)
    )


def trial_question(model: str, *, chat: bool) -> Question:
    """Anything at all, to see whether prompts of this kind are answered."""
    return text_question(model, trial_prompt(chat=chat), GenerationSettings(max_new_tokens=1))


def trial_prompt(*, chat: bool) -> str:
    """A prompt whose answer does not matter."""
    return ChatPrompt('[{"role": "user", "content": "Say A."}]') if chat else "The answer is"


def _question(model: str, prompt: str, payload: JsonDict, read: Callable[..., object]) -> Question:
    chat = isinstance(prompt, ChatPrompt)
    asked: dict[str, Any] = {"messages": json.loads(prompt)} if chat else {"prompt": str(prompt)}
    return Question(
        path_of(chat=chat),
        {"model": model, **asked, **payload},
        lambda reply: read(reply, chat=chat),
    )
