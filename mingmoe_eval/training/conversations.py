"""Reads conversations from files: MING's `conversations` and OpenAI's `messages`, told by key.

    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}

Both may begin with a system turn. MING's own trainer drops an assistant's turn that comes before
any other, and so do we, in its format. A field that we do not know is refused and not passed over:
it may be one that was meant to matter.
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
    known = [name for name in ("messages", "conversations") if name in fields]
    if len(known) != 1:
        raise _Fault("has neither or both of messages and conversations")
    strangers = sorted(fields.keys() - {*known, "id"})
    if strangers:
        raise _Fault(f"unknown fields: {', '.join(strangers)}")
    turns = fields[known[0]]
    if not isinstance(turns, list) or not turns:
        raise _Fault(f"{known[0]} is not a list of turns")
    messages = [_message(turn, known[0], place) for place, turn in enumerate(turns, 1)]
    if known[0] == "conversations" and messages[0].role == "assistant":
        messages = messages[1:]
    for fault in _order_faults(messages):
        raise _Fault(fault)
    return Conversation(tuple(messages), origin)


def _message(turn: Any, family: str, place: int) -> Message:
    if not isinstance(turn, Mapping):
        raise _Fault(f"turn {place} is not an object")
    content_key = "value" if family == "conversations" else "content"
    # MING's trainer reads the role from either key.
    role_key = "from" if family == "conversations" and "from" in turn else "role"
    roles = _MING_ROLES if family == "conversations" else _OPENAI_ROLES
    strangers = sorted(str(key) for key in turn.keys() - {role_key, content_key})
    if strangers:
        raise _Fault(f"turn {place} has unknown fields: {', '.join(strangers)}")
    role, content = turn.get(role_key), turn.get(content_key)
    if not isinstance(role, str) or role not in roles:
        raise _Fault(f"turn {place} has {role_key} {role!r}, not one of {', '.join(roles)}")
    if not isinstance(content, str):
        raise _Fault(f"turn {place} has a {content_key} that is not text: {content!r}")
    if not content.strip() and roles[role] == "assistant":
        raise _Fault(f"turn {place}: the assistant says nothing")
    return Message(roles[role], content)


def _order_faults(messages: list[Message]) -> Iterator[str]:
    spoken = messages[1:] if messages and messages[0].role == "system" else messages
    for place, message in enumerate(spoken):
        due = "assistant" if place % 2 else "user"
        if message.role != due:
            yield f"{message.role} speaks where {due} should: user and assistant take turns"
            return
    if not spoken or spoken[-1].role != "assistant":
        yield "does not end with the assistant, so that its last turn teaches nothing"
