"""Changes of any kind to a value and to its text, for fuzzers: what a file never should hold."""

import contextlib
import copy
import json
import random
import unicodedata
from collections.abc import Iterator
from typing import Any

import yaml

PLAIN: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.5, 1e308, float("nan"), float("inf")),
    *(10**30, -(10**400), "", " ", "x", "nan", "NaN", "../../x", "\ud800", "\x00", "\x1b[31m"),
    *("A" * 9999, [], {}, [[]], [None], {"a": 1}, {"": []}, ["A", "B"], {"value": "x"}),
    *(-0.0, 5e-324, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, "12", "-1", "1e400", "0x10", "١٢"),
    *("2024-02-30", "12:30:45", "\ufeff", "\ufffe", "a\x00b", "\u2028", "é", "e\u0301", "%s{0}"),
    *(["x"] * 1000, {"a": {"a": {"a": {}}}}, "{{ 7 * 7 }}", "{% for %}", "<script>", "=1+1"),
]

YAML_WORDS = [
    *("2024-01-01", "2024-13-45", "1_000", "0o17", "1:30", ".inf", "-.NaN", "~", "yes", "&a [*a]"),
    *("!!python/object/apply:os.getcwd []", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]"),
    *("!!timestamp 2024-01-01", "!!int x", "!!float 1e999", "!custom x", "!function a.b", "*gone"),
    *("{? [a, b] : c}", "{1: a, true: b, ~: c}", "<<: 3", "|\n  a", "? x", "2024-01-01T99:99:99Z"),
]


def odd(rng: random.Random) -> Any:
    """A value that hardly belongs anywhere."""
    match rng.randrange(8):
        case 0:
            return nested(rng.choice([3, 50, 99, 101, 300]))
        case 1:
            return rng.randint(-(10**6), 10**6)
        case 2:
            return "".join(map(chr, rng.choices(range(1, 0x2FF), k=rng.randint(0, 12))))
    return copy.deepcopy(rng.choice(PLAIN))


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    keys = list(value) if isinstance(value, dict) else []
    for key in keys or range(len(value) if isinstance(value, list) else 0):
        yield from places(value[key], (*here, key))


KINDS = [
    *("replace", "replace", "replace", "take out", "add", "double", "borrow", "rename"),
    *("swap", "alike", "other type", "thousand", "empty"),
]


def mutate(value: Any, rng: random.Random) -> Any:
    """The value with one to three of its places changed in kind."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        found = list(places(value))
        if not found:
            return odd(rng)
        way = rng.choice(found)
        inner, last = at(value, way[:-1]), way[-1]
        match rng.choice(KINDS):
            case "replace":
                inner[last] = odd(rng)
            case "take out":
                del inner[last]
            case "add" if isinstance(inner, dict):
                inner[rng.choice(["odd", "", "name", "value", "\ud800"])] = odd(rng)
            case "add" | "double" if isinstance(inner, list):
                inner.insert(last, copy.deepcopy(inner[last]))
            case "borrow":  # what stands elsewhere, of a kind that is right there
                inner[last] = copy.deepcopy(at(value, rng.choice(found)))
            case "rename" if isinstance(inner, dict):
                inner[f"{last}x"] = inner.pop(last)
            case "swap":
                other = rng.choice(found)
                if other[: len(way)] != way and way[: len(other)] != other:
                    theirs = at(value, other[:-1])
                    inner[last], theirs[other[-1]] = theirs[other[-1]], inner[last]
            case "alike" if isinstance(inner, dict):  # a name that some reader takes for the same
                inner[alike(str(last), rng)] = copy.deepcopy(inner[last])
            case "other type":
                inner[last] = of_another_type(inner[last], rng)
            case "thousand" if isinstance(inner, list) and len(found) < 2_000:
                inner[last:last] = [copy.deepcopy(inner[last]) for _ in range(1_000)]
            case "empty":
                inner[last] = type(inner[last])() if inner[last] is not None else {}
    return value


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def alike(name: str, rng: random.Random) -> str:
    ways = [
        *(
            name.upper(),
            name.title(),
            f" {name}",
            f"{name}\n",
            f"{name}\u200b",
            name.replace("_", "-"),
        ),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name),
        unicodedata.normalize("NFD", f"{name}é"),
    ]
    return rng.choice(ways)


def of_another_type(value: Any, rng: random.Random) -> Any:
    """As nearly the same value as another type holds."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        ways: list[Any] = [str(value), [value], {"value": value}]
        if isinstance(value, int | float):
            ways += [bool(value), float(value), -value, value * 1e300, value + 2**64]
        if isinstance(value, str):
            ways += [len(value), value.encode("utf-8", "replace").hex(), list(value[:50])]
            ways += [float(value)]
        return rng.choice(ways)
    return [value]


def spoil(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a text as other programs, editors and breaking disks leave them."""
    cut = rng.randint(0, len(data))
    match rng.randrange(9):
        case 0:
            return b"\xef\xbb\xbf" * rng.randint(1, 2) + data
        case 1:
            return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\n\r"]))
        case 2:
            return data[:cut]
        case 3:
            return data.decode("utf-8", "replace").encode(
                rng.choice(["utf-16", "utf-16-le", "utf-32", "gbk", "latin-1"]), "replace"
            )
        case 4:
            middle = [b"\xff", b"\xe4\xb8", b"\xed\xa0\x80", b"\x00", b"\x1a", b"\xc0\x80"]
            return data[:cut] + rng.choice(middle) + data[cut:]
        case 5:
            return (
                data[:cut] + rng.choice([b"[", b'{"a":', b"- ", b"\t", b"("]) * 10_000 + data[cut:]
            )
        case 6:
            return data + data[cut:]
        case 7:
            return data[:cut] + data[cut + rng.randint(1, 9) :]
    return b"" if rng.random() < 0.2 else data[cut:] + data[:cut]


def as_yaml(value: Any, rng: random.Random | None = None) -> str:
    with contextlib.suppress(Exception):
        text = yaml.safe_dump(value, allow_unicode=True)
        if rng is not None and rng.random() < 0.15:  # what YAML makes of a word that JSON lacks
            lines = text.splitlines()
            number = rng.randrange(len(lines))
            name, colon, _ = lines[number].partition(": ")
            lines[number] = f"{name}{colon}{rng.choice(YAML_WORDS)}"
            text = "\n".join(lines)
        return text
    return json.dumps(value)
