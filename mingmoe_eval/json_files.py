"""The one door for JSON of files: one value, or one a line (JSON Lines), into checked records.

Everything that is read as JSON from a file comes through here, so that the same things are refused
everywhere, with the file, the line and the field: bytes that are not UTF-8, a key that an object
has twice (one of the two values would be lost without a word), nesting beyond any use, and what no
parser takes. NaN and infinity, for which JSON has no word, are read where others write them
(`NaN`), and where we do (`"nan"`).
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mingmoe_eval.errors import MingMoeError, UsageError

_T = TypeVar("_T")

_DEEPEST = 100
"""Levels of nesting. Real records have some ten; what walks a value gives up at about a thousand,
and sooner the deeper it is called from."""

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class JsonFault(MingMoeError):
    """What is wrong with one JSON text, or with one field of it."""


def read_object(file: Path, error: type[MingMoeError]) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
        file: The file.
        error: What is raised where it cannot be read, or holds something else.
    """
    try:
        data = parse(file.read_bytes())
    except OSError as fault:
        raise error(f"{file} cannot be read: {fault.strerror}") from fault
    except JsonFault as fault:
        raise error(f"{file} cannot be read: {fault}") from fault
    if not isinstance(data, dict):
        raise error(f"{file} is not a JSON object, but {shown(data)}")
    return data


def parse_lines(data: bytes) -> Iterator[tuple[int, Any]]:
    """Each line's number, from 1, and its value, or the JsonFault that says what is wrong with it.

    Blank lines, a byte order mark and CRLF are passed over. Only a line feed ends a line:
    `splitlines` would also cut at the separators (U+2028) that a text may hold.
    """
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line and not line.isspace():
            try:
                yield number, parse(line)
            except JsonFault as fault:
                yield number, fault


def parse(data: bytes) -> Any:
    """One JSON value.

    Raises:
        JsonFault: it is none, has a key twice, or is nested too deeply.
    """
    try:
        value = _DECODER.decode(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise JsonFault("not UTF-8") from error
    except RecursionError as error:
        raise JsonFault(f"not JSON: nested more than {_DEEPEST} levels deep") from error
    except JsonFault:
        raise
    except ValueError as error:  # also of a whole number with thousands of digits
        raise JsonFault(f"not JSON: {error}") from error
    # A value cannot be deeper than its text has brackets, and counting those costs next to nothing.
    if data.count(b"[") + data.count(b"{") > _DEEPEST and _is_deeper(value, _DEEPEST):
        raise JsonFault(f"not JSON: nested more than {_DEEPEST} levels deep")
    return value


def texts_by_name(text: str, option: str) -> dict[str, str]:
    """A JSON object of texts, as an option takes it where a text holds a comma.

    Raises:
        UsageError: it is none.
    """
    try:
        return as_record(dict[str, str], parse(text.encode("utf-8", "surrogatepass")), of="")
    except JsonFault as fault:
        raise UsageError(f"{option} {shown(text)}: {fault}") from fault


def as_record(cls: type[_T], data: object, *, of: str | None = None) -> _T:
    """A record, or a typed dict, of what JSON gave: each field known, there, and as declared.

    Args:
        cls: A frozen dataclass, whose fields are all that there may be, or any type that msgspec
            knows.
        data: The value.
        of: What the message calls it; default: the class's name.

    Raises:
        JsonFault: naming the field.
    """
    of = cls.__name__ if of is None else of
    known = _names(cls) if dataclasses.is_dataclass(cls) else None
    if known and isinstance(data, dict) and (unknown := data.keys() - known):
        raise JsonFault(
            f"{of} has no field {', '.join(map(shown, sorted(unknown)))}: written by another "
            "version of mingmoe-eval, or edited by hand"
        )
    try:
        return msgspec.convert(data, cls)
    except UnicodeEncodeError as error:  # a lone surrogate where one of several words is expected
        raise JsonFault(f"{of}: half a character, {shown(error.object)}") from error
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        field = where.rstrip("`").removeprefix("$").removeprefix(".")
        place = ".".join(filter(None, (of, field)))
        raise JsonFault(f"{place}: {what}, {shown(_at(data, field))}") from error


def numbers(values: object) -> object:
    """A list or an object of numbers, in which words stand for those that JSON lacks.

    What is neither, or holds anything else, comes back as it is, for `as_record` to refuse.
    """
    if isinstance(values, dict):
        return {name: number(value) for name, value in values.items()}
    return [number(value) for value in values] if isinstance(values, list | tuple) else values


def number(value: object) -> object:
    """A number as we write it: `"nan"`, `"inf"` and `"-inf"` are words for one, null is NaN."""
    if value is None:
        return math.nan
    return _WORDS.get(value, value) if isinstance(value, str) else value


def lone_surrogate(value: object, where: str = "") -> str | None:
    """Where a value holds half a character, which no file, page or tokenizer can take."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return where or "the value"
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        items = ((key, part) for key, inner in value.items() for part in (key, inner))
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    found = (lone_surrogate(part, f"{where}.{key!a}".lstrip(".")) for key, part in items)
    return next((place for place in found if place), None)


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinity as words, lone surrogates escaped, so that any reader can."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        text = json.dumps(_in_words(value), ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(_in_words(value), ensure_ascii=True, allow_nan=False, indent=indent)
    return text


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonFault(f"the key {shown(twice)} comes twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def _is_deeper(value: object, levels: int) -> bool:
    """Whether a value has more levels; without recursion, whose own end it is to keep away."""
    inner: list[object] = [value]
    for _ in range(levels):
        inner = [
            part
            for one in inner
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in inner)


def _at(data: object, field: str) -> object:
    """The value at a place as msgspec names it: `a.b`, and `a[...]` for some part of `a`."""
    for name in field.partition("[")[0].split("."):
        data = data[name] if isinstance(data, dict) and name in data else data
    return data


@functools.cache
def _names(cls: type) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(cls))


def _in_words(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _in_words(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_in_words(inner) for inner in value]
    return value
