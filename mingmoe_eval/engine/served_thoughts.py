"""Budgets of thought over an endpoint: a reply that is begun, closed here, and gone on with there.

Two requests where one is not enough. The first may have as many tokens as the thought; a thought
that is not done by then is closed with its family's tag, and the second asks for what follows. A
completion goes on because the prompt ends there. A chat goes on where the server takes
`continue_final_message` (vLLM, SGLang); a server that begins a new reply instead is found out by
the thought that it opens.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.engine.prompts import GenerationSettings
from mingmoe_eval.engine.served_protocol import ChatPrompt, Question, TextReply, text_question
from mingmoe_eval.metrics.answer_reading.reply_text import (
    begins_thought,
    heading_behind,
    opened_thought,
    split_thoughts,
)

_GOES_ON: Mapping[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
_OPENS = "<think>"


@dataclass(frozen=True, slots=True)
class Begun:
    """A reply so far, and how much may follow; `forced`: its thought was closed for it."""

    text: str
    forced: bool
    max_new_tokens: int


def first_settings(settings: GenerationSettings) -> GenerationSettings:
    """Of the request that thinks: a stop string inside a thought must not end it."""
    assert settings.think is not None
    return dataclasses.replace(settings, max_new_tokens=settings.think, think=None, stop=())


def begun_without_thought(prompt: str, settings: GenerationSettings) -> Begun:
    """For a budget of no tokens: the thought is closed before the model is asked."""
    opened = opened_thought(prompt) if not isinstance(prompt, ChatPrompt) else ""
    beginning = "" if opened else f"{_OPENS}\n\n"
    closing = f"{_closing(opened or _OPENS)}\n\n"
    return Begun(beginning + closing, True, settings.max_new_tokens)


def begun(prompt: str, read: TextReply, settings: GenerationSettings) -> Begun | None:
    """How a first reply is to go on; None: it ended by itself, or has had all its tokens.

    One that ended by itself inside its thought goes on too, as in the engine.
    """
    assert settings.think is not None
    opened = opened_thought(prompt) if not isinstance(prompt, ChatPrompt) else ""
    whole = opened + read.text
    thoughts, answer = split_thoughts(whole)
    if answer is None:
        tag = opened or thoughts.lstrip().partition("\n")[0]
        closing = heading_behind(whole) or f"\n{_closing(tag)}\n\n"
        closing = closing.lstrip("\n") if whole.endswith("\n") else closing
        return Begun(read.text + closing, True, settings.max_new_tokens)
    if read.finish != "length":
        return None
    if thoughts:
        return Begun(read.text, False, settings.max_new_tokens)
    left = settings.max_new_tokens - settings.think
    return Begun(read.text, False, left) if left > 0 else None


def continuation(
    model: str, prompt: str, so_far: Begun, settings: GenerationSettings, *, repeat: int
) -> Question:
    """The request for what follows."""
    wanted = dataclasses.replace(settings, max_new_tokens=so_far.max_new_tokens, think=None)
    if not isinstance(prompt, ChatPrompt):
        return text_question(model, prompt + so_far.text, wanted, repeat=repeat)
    turns = [*json.loads(prompt), {"role": "assistant", "content": so_far.text}]
    chat = ChatPrompt(json.dumps(turns, ensure_ascii=False))
    question = text_question(model, chat, wanted, repeat=repeat)
    return dataclasses.replace(question, payload={**question.payload, **_GOES_ON})


def went_on(text: str) -> bool:
    """Whether a reply goes on with what was begun; one that opens a thought began anew."""
    return not begins_thought(text)


def _closing(opening: str) -> str:
    """The tag that closes what this one opens: `</think>` of `<think>`, `[/THINK]` of `[THINK]`."""
    tag = opened_thought(opening) or opened_thought(opening[: len(_OPENS)]) or _OPENS
    pairs = {"<|begin_of_thought|>": "<|end_of_thought|>", "<unused94>": "<unused95>"}
    return pairs.get(tag, f"{tag[0]}/{tag[1:]}")
