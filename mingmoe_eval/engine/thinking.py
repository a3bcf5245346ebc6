"""What a chat template has to do with thoughts: its switch, whatever its family calls it.

Nothing is taken from a name alone: a variable of the template is a switch where the same chat comes
out differently with it on and off.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import Environment, TemplateError, meta

from mingmoe_eval.errors import UsageError
from mingmoe_eval.metrics.answer_reading.reply_text import closing_tag, opened_thought
from mingmoe_eval.records import GenerationProtocol, JsonDict

ThinkingState = Literal["on", "off", "always", "none"]
"""`always`: the template opens a thought by itself and has no switch; `none`: it has neither."""

_PROBE = [{"role": "user", "content": "?"}]
# What its families call it: Qwen 3, GLM 4.5, SmolLM3, EXAONE 4, Gemma 4 the first; DeepSeek V3.1,
# Granite 3.2 and Kimi K2.5 the second; Command A the third; Seed-OSS the last, whose 0 is "off".
_KNOWN: tuple[tuple[str, JsonDict, JsonDict], ...] = (
    *(
        (name, {name: True}, {name: False})
        for name in ("enable_thinking", "thinking", "reasoning", "think", "enable_reasoning")
    ),
    ("thinking_budget", {}, {"thinking_budget": 0}),
)
_SOUNDS_LIKE_ONE = re.compile(r"think|reason")
# transformers' own tag, which marks what is trained on; jinja by itself does not know it.
_GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
# What the library or lm-eval passes, and no user.
_NOT_FOR_USERS = {"messages", "add_generation_prompt", "bos_token", "eos_token", "raise_exception"}


@dataclass(frozen=True, slots=True)
class ThinkingSwitch:
    """What a template is told so that its model thinks, or does not."""

    name: str
    on: Mapping[str, Any]
    off: Mapping[str, Any]


def thinking_switch(tokenizer: Any) -> ThinkingSwitch | None:
    """The template's switch, found by trying; None: it has none."""
    variables = template_variables(tokenizer)
    known = [one for one in _KNOWN if one[0] in variables]
    others = [
        (name, {name: True}, {name: False})
        for name in sorted(variables - {name for name, _, _ in _KNOWN})
        if _SOUNDS_LIKE_ONE.search(name)
    ]
    for name, on, off in (*known, *others):
        with_it, without = _rendered(tokenizer, on), _rendered(tokenizer, off)
        if with_it is not None and without is not None and with_it != without:
            return ThinkingSwitch(name, on, off)
    return None


def thinking_state(tokenizer: Any, args: Mapping[str, Any]) -> ThinkingState:
    """What a prompt asks for when the template is told `args`."""
    prompt = _rendered(tokenizer, args)
    if (switch := thinking_switch(tokenizer)) is not None:
        off = _rendered(tokenizer, {**args, **switch.off})
        return "off" if prompt == off else "on"
    return "always" if opened_thought(prompt or "") else "none"


def template_facts(tokenizer: Any, args: Mapping[str, Any]) -> JsonDict:
    """What a run records of its template: what becomes of thinking, and what else it was told."""
    switch = thinking_switch(tokenizer)
    of_switch = () if switch is None else (*switch.on, *switch.off)
    others = {k: v for k, v in args.items() if k not in (*of_switch, "reasoning_effort")}
    return {"thinking": thinking_state(tokenizer, args), "template": others}


def template_args(tokenizer: Any, protocol: GenerationProtocol) -> JsonDict:
    """What the template is told in a run.

    Raises:
        UsageError: it has no such switch or variable; names those that it has.
    """
    args = dict(protocol.chat_template_args)
    variables = template_variables(tokenizer)
    listed = ", ".join(sorted(variables - _NOT_FOR_USERS)) or "none"
    if unknown := sorted(args.keys() - variables):
        raise UsageError(
            f"--chat-template-args: the chat template of {tokenizer.name_or_path} does not know "
            f"{', '.join(unknown)}; its variables are: {listed}"
        )
    if protocol.reasoning_effort is not None:
        if "reasoning_effort" not in variables:
            raise UsageError(
                f"--reasoning-effort: the chat template of {tokenizer.name_or_path} has no such "
                f"variable; its variables are: {listed}"
            )
        args["reasoning_effort"] = protocol.reasoning_effort
    if protocol.thinking == "auto":
        return args
    switch = thinking_switch(tokenizer)
    if switch is None:
        if protocol.thinking == "on" and thinking_state(tokenizer, args) == "always":
            return args
        way_out = {
            "on": "leave --thinking out, or ask for thoughts in --system-instruction",
            "off": "leave --thinking out; --think 0 closes a thought as soon as it is opened",
        }[protocol.thinking]
        raise UsageError(
            f"--thinking {protocol.thinking}: the chat template of {tokenizer.name_or_path} has no "
            f"switch for it (its variables are: {listed}); {way_out}"
        )
    chosen = switch.on if protocol.thinking == "on" else switch.off
    if switch.name in args:
        raise UsageError(
            f"--thinking {protocol.thinking} and --chat-template-args {switch.name} say the same "
            "thing: leave one out"
        )
    return {**args, **chosen}


def thought_end(tokenizer: Any) -> str:
    """What a model of this template writes between a thought and its answer, blanks and all.

    Read off a chat whose last reply has a thought; where the template shows none, the closing tag
    that it names, or that its vocabulary has, on a line of its own.

    Raises:
        UsageError: nothing in template or vocabulary closes a thought.
    """
    thought, answer = "a thought 7", "an answer 7"
    fields = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), thought)
    shown = [*_PROBE, {"role": "assistant", "content": answer, **fields}]
    rendered = _rendered(tokenizer, {}, shown, add_generation_prompt=False) or ""
    between = rendered.partition(thought)[2].partition(answer)[0]
    if closing_tag(between):
        return between
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    words = (template, *tokenizer.get_added_vocab())
    tag = next(filter(None, map(closing_tag, words)), "")
    if not tag:
        raise UsageError(
            f"--think: nothing in the chat template or the vocabulary of {tokenizer.name_or_path} "
            "closes a thought, so that none can be closed for it; leave --think out"
        )
    return f"\n{tag}\n\n"


def template_variables(tokenizer: Any) -> set[str]:
    """The names that the template reads and does not make itself."""
    text = tokenizer.get_chat_template() if getattr(tokenizer, "chat_template", None) else ""
    environment = Environment(extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do"])
    try:
        parsed = environment.parse(_GENERATION_TAG.sub("", text))
        # A default (`{% set thinking = false %}` where it is not defined) hides a name from jinja.
        looked_at = set(re.findall(r"\b(\w+)\s+is\s+(?:not\s+)?defined", text))
        return set(meta.find_undeclared_variables(parsed)) | looked_at
    except TemplateError:
        return set()  # it will be refused, with its reason, when a chat is put into it


def _rendered(
    tokenizer: Any,
    args: Mapping[str, Any],
    chat: Sequence[Mapping[str, str]] = _PROBE,
    *,
    add_generation_prompt: bool = True,
) -> str | None:
    """A chat, the probe unless another is given, as text; None where the template refuses it."""
    try:
        prompt: str = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=add_generation_prompt, **args
        )
    except (TemplateError, ValueError, TypeError):
        return None
    return prompt
