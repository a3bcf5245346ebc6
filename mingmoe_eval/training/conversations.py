"""Reads conversations from files, in the five shapes that people have, told by their keys.

    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"instruction": ..., "input": ..., "output": ..., "history": [[..., ...]]}
    {"input": ..., "target": ...}
    {"prompt": [...] or "...", "completion": [...] or "..."}

The first is ShareGPT's and MING's, then OpenAI's, Alpaca's, PromptCBLUE's and TRL's. All may begin
with a system turn, or have one as a field `system`; a content may be a list of text parts. MING's
own trainer drops an assistant's turn that comes before any other, and so do we, in its format. A
field that says how to learn (a weight, tools, pictures) is refused, since it would be passed over;
others, such as ids and sources, are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mingmoe_eval.errors import DataError, MissingDataError, offence_list
from mingmoe_eval.record_files import Row, parse_rows

Role = Literal["system", "user", "assistant"]

SUFFIXES = (".jsonl", ".json")

_MING_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
_OPENAI_ROLES: dict[str, Role] = {name: name for name in ("system", "user", "assistant")}


_THAT_MATTER = frozenset(
    (
        *("weight", "weights", "loss", "loss_weight", "mask", "train", "chosen", "rejected"),
        *("tools", "tool_calls", "functions", "function_call", "tool_call_id"),
        *("images", "image", "videos", "audios", "audio"),
    )
)
"""Fields that say what is learned, or hold what a text does not: passing them over would train on
something else than was meant."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns of user and assistant, the last one the assistant's; `origin` is where they stand."""

    messages: tuple[Message, ...]
    origin: str

    def as_dicts(self, count: int | None = None) -> list[dict[str, str]]:
        """The first `count` turns as chat templates take them; None: all."""
        return [{"role": m.role, "content": m.content} for m in self.messages[:count]]


class _Fault(ValueError):
    """What is wrong with one record."""


def read_conversations(path: Path) -> list[Conversation]:
    """Every conversation of a file.

    Raises:
        DataError: no such file, none in it, or records that are no conversations; lists them all.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is no file of conversations: its name must end in .jsonl or .json")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path} cannot be read: {error.strerror}") from error
    conversations, offences = [], []
    for row in parse_rows(data, name=str(path), suffix=path.suffix):
        try:
            conversations.append(_conversation(row, f"{path}, record {row.number}"))
        except _Fault as fault:
            offences.append(f"record {row.number}: {fault}")
    if offences:
        raise DataError(offence_list(f"{path}: {len(offences)} bad records", offences))
    if not conversations:
        raise DataError(f"{path} holds no conversation")
    return conversations


def _conversation(row: Row, origin: str) -> Conversation:
    fields = row.fields
    if matter := sorted(_THAT_MATTER & fields.keys()):
        raise _Fault(f"unknown fields: {', '.join(matter)}")
    system = fields.get("system")
    if system is not None and not isinstance(system, str):
        raise _Fault(f"system is not text: {system!r}")
    messages = [Message("system", system)] if system else []
    messages += _turns(fields)
    for fault in _order_faults(messages):
        raise _Fault(fault)
    return Conversation(tuple(messages), origin)


def _turns(fields: Mapping[str, Any]) -> list[Message]:
    """The turns of a record, whichever shape it has."""
    known = [name for name in ("messages", "conversations") if name in fields]
    if len(known) == 1:
        turns = fields[known[0]]
        if not isinstance(turns, list) or not turns:
            raise _Fault(f"{known[0]} is not a list of turns")
        messages = [_message(turn, known[0], place) for place, turn in enumerate(turns, 1)]
        if known[0] == "conversations" and messages[0].role == "assistant":
            messages = messages[1:]
        return messages
    if known:
        raise _Fault("has both messages and conversations")
    if "instruction" in fields and "output" in fields:
        asked = [_text(fields, "instruction"), _text(fields, "input", absent="")]
        return [
            *_history(fields.get("history") or []),
            Message("user", "\n".join(part for part in asked if part.strip())),
            Message("assistant", _text(fields, "output")),
        ]
    if "input" in fields and "target" in fields:
        return [
            Message("user", _text(fields, "input")),
            Message("assistant", _text(fields, "target")),
        ]
    if "prompt" in fields and "completion" in fields:
        return [*_part(fields, "prompt", "user"), *_part(fields, "completion", "assistant")]
    raise _Fault(
        "has neither or both of messages and conversations, nor instruction and output, input and "
        "target, prompt and completion"
    )


def _history(pairs: Any) -> Iterator[Message]:
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(t) is str for t in pair)):
            raise _Fault(f"history holds what is no pair of texts: {pair!r}")
        yield Message("user", pair[0])
        yield Message("assistant", pair[1])


def _part(fields: Mapping[str, Any], name: str, role: Role) -> list[Message]:
    """TRL's prompt or completion: a text, or a list of turns."""
    if isinstance(fields[name], list):
        return [_message(turn, "messages", place) for place, turn in enumerate(fields[name], 1)]
    return [Message(role, _text(fields, name))]


def _text(fields: Mapping[str, Any], name: str, *, absent: str | None = None) -> str:
    value = fields.get(name, absent)
    if not isinstance(value, str):
        raise _Fault(f"{name} is not text: {value!r}")
    if absent is None and not value.strip():
        raise _Fault(f"{name} is empty")
    return value


def _message(turn: Any, family: str, place: int) -> Message:
    if not isinstance(turn, Mapping):
        raise _Fault(f"turn {place} is not an object")
    content_key = "value" if family == "conversations" else "content"
    # MING's trainer reads the role from either key.
    role_key = "from" if family == "conversations" and "from" in turn else "role"
    roles = _MING_ROLES if family == "conversations" else _OPENAI_ROLES
    if strangers := sorted(_THAT_MATTER & turn.keys()):
        raise _Fault(f"turn {place} has unknown fields: {', '.join(strangers)}")
    role, content = turn.get(role_key), turn.get(content_key)
    if not isinstance(role, str) or role not in roles:
        raise _Fault(f"turn {place} has {role_key} {role!r}, not one of {', '.join(roles)}")
    if isinstance(content, list) and content and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise _Fault(f"turn {place} has a {content_key} that is not text: {content!r}")
    if not content.strip() and roles[role] == "assistant":
        raise _Fault(f"turn {place}: the assistant says nothing")
    return Message(roles[role], content)


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, Mapping)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
    )


def _order_faults(messages: list[Message]) -> Iterator[str]:
    spoken = messages[1:] if messages and messages[0].role == "system" else messages
    for place, message in enumerate(spoken):
        due = "assistant" if place % 2 else "user"
        if message.role != due:
            yield f"{message.role} speaks where {due} should: user and assistant take turns"
            return
    if not spoken or spoken[-1].role != "assistant":
        yield "does not end with the assistant, so that its last turn teaches nothing"
