"""Training data as texts, one a record, whatever its fields are called."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mingmoe_eval.errors import DataError
from mingmoe_eval.overlap.questions import texts_in
from mingmoe_eval.record_files import SUFFIXES, parse_rows


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
