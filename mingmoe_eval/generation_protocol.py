"""What a user says of how texts are to be generated: read from words, checked, laid over a task's.

Whatever computes the answers gets it as the generation arguments of each request, under lm-eval's
names and `think`; so each backend refuses by itself what it cannot do.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.json_files import JsonFault, parse
from mingmoe_eval.records import GenerationProtocol, JsonDict, Thinking


def _share(value: float) -> bool:
    return 0 < value <= 1


def _whole(value: float) -> bool:
    return value == int(value) and value >= 0


_CHECKED: dict[str, tuple[Callable[[float], bool], str]] = {
    # Logits that are divided by less leave the numbers that a float32 can hold.
    "temperature": (lambda value: value == 0 or value >= 1e-4, "0 (greedy) or 0.0001 and more"),
    "top_p": (_share, "above 0, up to 1"),
    "top_k": (lambda value: _whole(value) or value == -1, "a whole number; 0: no limit"),
    "min_p": (lambda value: 0 <= value < 1, "from 0, below 1"),
    "repetition_penalty": (lambda value: value > 0, "above 0; 1: none"),
    "presence_penalty": (lambda value: -2 <= value <= 2, "from -2 to 2; 0: none"),
    "frequency_penalty": (lambda value: -2 <= value <= 2, "from -2 to 2; 0: none"),
    "no_repeat_ngram_size": (_whole, "a whole number; 0: none"),
    "seed": (_whole, "a whole number"),
    "do_sample": (lambda value: value in (0, 1), "true or false"),
    "model": (lambda value: value == 1, "nothing: it stands by itself"),
}
_SWITCHES = ("do_sample", "model")
_WHOLE_NUMBERS = ("top_k", "no_repeat_ngram_size", "seed")
_OF_A_DRAW = ("top_p", "top_k", "min_p", "seed")
_SAID_ELSEWHERE = {
    **dict.fromkeys(
        ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"),
        "--max-new-tokens says that",
    ),
    **dict.fromkeys(("enable_thinking", "thinking"), "--thinking on|off says that"),
    **dict.fromkeys(("until", "stop"), "where an answer ends is the task's affair"),
    "reasoning_effort": "--reasoning-effort says that",
}


def gen_kwargs_said(text: str | None) -> JsonDict:
    """`temperature=0.6,top_p=0.95`, a JSON object, or `model` for what the checkpoint recommends.

    Raises:
        UsageError: naming every part that is unknown, or out of its range.
    """
    given = _named_values(text, "--gen-kwargs", bare=("model",))
    _refuse_unknown(given)
    return {
        name: int(value)
        if name in _WHOLE_NUMBERS
        else bool(value)
        if name in _SWITCHES
        else float(value)
        for name, value in given.items()
    }


def template_args_said(text: str | None) -> JsonDict:
    """`name=value,...` or a JSON object: what the chat template is told besides the chat."""
    return _named_values(text, "--chat-template-args")


def thinking_said(text: str) -> Thinking:
    """One of on, off and auto.

    Raises:
        UsageError: anything else.
    """
    if text not in ("auto", "on", "off"):
        raise UsageError(f"--thinking {text!r} is none of on, off, auto")
    return cast(Thinking, text)


def instruction_said(text: str | None) -> str | None:
    """A system instruction, or what the file behind an @ holds, without the last line's end.

    Raises:
        UsageError: there is no such file, or it is no text.
    """
    if text is None or not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"--system-instruction {text}: {reason}; name a text file") from error


def refuse_senseless(protocol: GenerationProtocol) -> None:
    """Refuse what contradicts itself, or would change nothing; before anything is loaded.

    Raises:
        UsageError: saying what to leave out or to add.
    """
    given = protocol.gen_kwargs
    _refuse_unknown(given)
    if protocol.max_new_tokens == 0:
        raise UsageError("--max-new-tokens 0: no answer has room in none; give 1 or more")
    idle = [name for name in _OF_A_DRAW if name in given]
    if idle and not _draws(given):
        raise UsageError(
            f"--gen-kwargs {', '.join(idle)}: nothing is drawn in greedy decoding; add "
            "temperature=... above 0, or leave it out"
        )
    if given.get("do_sample") == 0 and given.get("temperature"):
        raise UsageError("--gen-kwargs: do_sample=false contradicts a temperature above 0")
    if protocol.thinking == "off" and protocol.think:
        raise UsageError(
            f"--think {protocol.think} gives a thought room that --thinking off forbids: leave one "
            "out"
        )


def over_task(protocol: GenerationProtocol) -> JsonDict:
    """What replaces a task's own generation arguments; None stands for: as if not given."""
    arguments: JsonDict = dict(protocol.gen_kwargs)
    if arguments.get("top_k") == -1:  # vLLM's word for no limit
        arguments["top_k"] = 0
    if "temperature" in arguments:
        arguments["do_sample"] = arguments["temperature"] > 0
    elif arguments.get("model") or "do_sample" in arguments:
        # The task's own `temperature: 0` would stand in the way of the model's.
        arguments = {"temperature": None, "do_sample": None, **arguments}
    if protocol.max_new_tokens is not None:
        arguments["max_gen_toks"] = protocol.max_new_tokens
    if protocol.think is not None:
        arguments["think"] = protocol.think
    return arguments


def _draws(given: Mapping[str, Any]) -> bool:
    if "temperature" in given:
        return bool(given["temperature"])
    return bool(given.get("do_sample") or given.get("model"))


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    offences = []
    for name, value in given.items():
        if name not in _CHECKED:
            reason = _SAID_ELSEWHERE.get(name, f"unknown; known are {', '.join(_CHECKED)}")
            offences.append(f"{name}: {reason}")
            continue
        fits, range_ = _CHECKED[name]
        is_number = isinstance(value, int | float) and math.isfinite(value)
        # true is 1 to Python, and no temperature to anybody.
        if not is_number or not fits(value) or (value is True and name not in _SWITCHES):
            offences.append(f"{name}={json.dumps(value)}: it takes {range_}")
    if offences:
        raise UsageError(offence_list("--gen-kwargs:", offences))


def _named_values(text: str | None, option: str, *, bare: tuple[str, ...] = ()) -> JsonDict:
    if text is None or not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        try:
            value = parse(text.encode("utf-8", "surrogatepass"))
        except JsonFault as fault:
            raise UsageError(f"{option} {text}: {fault}") from fault
        return dict(value)
    values: JsonDict = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name in bare and not equals:
            value = "true"
        elif not name or not equals:
            raise UsageError(f"{option} {text}: {part.strip()!r} is no name=value")
        if name in values:
            raise UsageError(f"{option} {text}: {name} is given twice")
        values[name] = _value(value)
    return values


def _value(text: str) -> Any:
    """A number, true, false or null as JSON has it; Python's spelling of those; else a text."""
    words = {"True": True, "False": False, "None": None}
    try:
        return words[text] if text in words else json.loads(text)
    except ValueError:
        return text
