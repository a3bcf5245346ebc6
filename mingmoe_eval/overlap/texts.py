"""What is compared: the telling parts of a test question, and training records as texts."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import DataError
from mingmoe_eval.record_files import SUFFIXES, parse_rows


@dataclass(frozen=True, slots=True)
class Item:
    """A test question as parts, the telling one first; equal for docs that ask the same.

    The key is no part of it: training data without the answer gives a question away no less.
    """

    parts: tuple[str, ...]


def item_of(doc: Mapping[str, Any]) -> Item:
    """The item of a doc: of an exam question, of a PromptCBLUE record, or of anything else."""
    question, options = doc.get("question"), doc.get("options")
    if isinstance(question, str) and isinstance(options, Mapping):
        # Options are often too short to be looked for one by one.
        return Item(
            (question, "\n".join(map(str, options.values())), str(doc.get("context") or ""))
        )
    if isinstance(doc.get("input"), str) and "target" in doc:
        return Item((doc["input"],))
    return Item(tuple(texts_in(doc)))


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, in order, whatever the fields are called."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += reversed(list(value.values()))
        elif isinstance(value, list | tuple):
            waiting += reversed(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingText:
    """The records of some files, each joined to one text, with where it stands: `file:line`."""

    texts: tuple[str, ...]
    places: tuple[str, ...]
    fingerprints: tuple[tuple[str, str], ...] = ()
    """Each file with the SHA-256 of its bytes."""


def read_training(paths: Sequence[Path]) -> TrainingText:
    """Every text of every record, of any shape: turns, instructions, plain text.

    Raises:
        DataError: a file cannot be read, or holds no records; every bad line is listed.
    """
    texts: list[str] = []
    places: list[str] = []
    fingerprints: list[tuple[str, str]] = []
    for path in paths:
        data = _bytes_of(path)
        rows = parse_rows(data, name=str(path), suffix=_suffix(path))
        if not rows:
            raise DataError(f"{path} holds no records")
        texts += ["\n".join(texts_in(row.fields)) for row in rows]
        places += [f"{path}:{row.number}" for row in rows]
        fingerprints.append((str(path), hashlib.sha256(data).hexdigest()))
    return TrainingText(texts=tuple(texts), places=tuple(places), fingerprints=tuple(fingerprints))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"--train {path} cannot be read: {error.strerror or error}") from error


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise DataError(f"--train {path}: not a file of records ({', '.join(SUFFIXES)})")
    return path.suffix
