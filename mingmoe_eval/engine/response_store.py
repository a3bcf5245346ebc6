"""Answers of models on disk, each under everything that it depends on (SQLite).

A key covers the model's function, the exact token ids and the generation settings, so that an
answer can never be another model's, or an older prompt's. Every row carries a checksum. Writes
are committed at once; two processes may share a store, and either may be killed at any moment.
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.engine.tokenisation import Tokens
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.locations import CACHE_VARIABLE
from mingmoe_eval.records import Finish

# "MMoE": tells our files from other programs' databases.
_APPLICATION_ID = 0x4D4D6F45
_SCHEMA_VERSION = 1
_WAIT_SECONDS = 60
_KEYS_A_QUERY = 500
_KEY_BYTES = 16
_CHECKSUM_BYTES = 8
_SORTED_JSON = json.JSONEncoder(sort_keys=True)
_ELSEWHERE = (
    f"name another place ({CACHE_VARIABLE} for the store of all runs, --output for a run's own), "
    "or run without a store (--no-cache)"
)

_Row = tuple[bytes, Any, bytes]


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A log-likelihood with its greedy flag, or a text with its length and its end.

    `failure`: why a text means nothing; `thought_tokens`: of its tokens, None where nobody counted;
    `forced`: its thought was closed for it.
    """

    log_likelihood: float | None = None
    greedy: bool = False
    text: str | None = None
    generated_tokens: int = 0
    finish: Finish = "none"
    failure: str = ""
    thought_tokens: int | None = None
    forced: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether it may be kept: a number that is not finite is a failure, not an answer."""
        return not self.failure and (
            self.log_likelihood is None or math.isfinite(self.log_likelihood)
        )


def answer_key(function: str, tokens: Tokens, asked: Mapping[str, Any]) -> bytes:
    """The key of one answer: the model's function, the token ids, and what was asked of them."""
    head = _SORTED_JSON.encode([function, asked]).encode()
    digest = hashlib.blake2b(len(head).to_bytes(8, "big") + head, digest_size=_KEY_BYTES)
    digest.update(tokens.tobytes())
    return digest.digest()


class ResponseStore:
    """One store file. Every failure of disk or file is a RunStoreError with advice."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._advice("open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None
            )
            self._prepare()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, StoredAnswer]:
        """The answers that are there; a row that fails its checksum counts as not there."""
        return {key: _decode(text) for key, text, _ in self._rows("answers", "answer", keys)}

    def put(self, answers: Iterable[tuple[bytes, StoredAnswer]]) -> None:
        """Store answers, all or none of them; on return they survive the end of this process."""
        texts = [(key, _encode(answer)) for key, answer in answers if answer.is_sound]
        if not texts:
            return
        rows = [(key, text, _checksum(key, text)) for key, text in texts]
        with self._advice("write to"), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)

    def get_routing(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The routing counts that are there, packed as they were put."""
        return {key: data for key, data, _ in self._rows("routing", "counts", keys)}

    def put_routing(self, counts: Mapping[bytes, bytes]) -> None:
        """Store packed routing counts, all or none of them."""
        rows = [(key, data, _checksum(key, data)) for key, data in counts.items()]
        if rows:
            with self._advice("write to"), self._transaction():
                self._connection.executemany(
                    "INSERT OR REPLACE INTO routing VALUES (?, ?, ?)", rows
                )

    def close(self) -> None:
        """Release the file; a closed store can no longer be used."""
        self._connection.close()

    def __len__(self) -> int:
        with self._advice("read"):
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def _rows(self, table: str, column: str, keys: Sequence[bytes]) -> Iterator[_Row]:
        with self._advice("read"):
            for first in range(0, len(keys), _KEYS_A_QUERY):
                part = keys[first : first + _KEYS_A_QUERY]
                marks = ",".join("?" * len(part))
                rows: list[_Row] = self._connection.execute(
                    f"SELECT key, {column}, checksum FROM {table} WHERE key IN ({marks})", part
                ).fetchall()
                yield from (row for row in rows if row[2] == _checksum(row[0], row[1]))

    def _prepare(self) -> None:
        if not self._is_new():
            self._refuse_foreign()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            # Asked again inside: another process may have been quicker.
            if self._is_new():
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                self._connection.execute(
                    "CREATE TABLE answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL,"
                    " checksum BLOB NOT NULL) WITHOUT ROWID"
                )
            # A table by itself: older stores of this schema do without, and stay readable.
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS routing (key BLOB PRIMARY KEY, counts BLOB NOT NULL,"
                " checksum BLOB NOT NULL)"
            )

    def _is_new(self) -> bool:
        return not self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk ends the transaction by itself.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _refuse_foreign(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION_ID:
            raise RunStoreError(
                f"{self.path} is a database, but no response store of mingmoe-eval; "
                f"{_ELSEWHERE}, or move this one away"
            )
        if version != _SCHEMA_VERSION:
            raise RunStoreError(
                f"{self.path} is a response store of schema {version}, this version writes "
                f"{_SCHEMA_VERSION}; move it away, and a new one is made"
            )

    @contextmanager
    def _advice(self, deed: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RunStoreError(
                f"cannot {deed} the response store {self.path}: {error}; {_way_out(error)}"
            ) from error
        except OSError as error:
            raise RunStoreError(
                f"cannot {deed} the response store {self.path}: {error.strerror or error}; "
                f"{_ELSEWHERE}"
            ) from error


def _way_out(error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return f"free some space and run again: what was stored so far is kept; or {_ELSEWHERE}"
    if "locked" in text:
        return (
            f"another process has held it for {_WAIT_SECONDS} seconds; end that one, or "
            f"{_ELSEWHERE} (on a network disk SQLite's locks often do not work)"
        )
    if "readonly" in text or "unable to open" in text:
        return f"make it writable, or {_ELSEWHERE}"
    return "the file is damaged or of another kind; move it away, and a new one is made"


def _encode(answer: StoredAnswer) -> str:
    # JSON writes a float with all digits that tell it apart: it comes back bit for bit.
    if answer.text is None:
        return json.dumps([answer.log_likelihood, answer.greedy])
    row = [answer.text, answer.generated_tokens, answer.finish]
    if answer.thought_tokens is not None:  # a reply of a server is stored whole, without
        row += [answer.thought_tokens, answer.forced]
    return json.dumps(row)


def _decode(text: str) -> StoredAnswer:
    first, *rest = json.loads(text)
    if isinstance(first, str):
        # Rows of version 0.1.0 end here.
        thought_tokens, forced = rest[2:] or (None, False)
        return StoredAnswer(
            text=first,
            generated_tokens=rest[0],
            finish=rest[1],
            thought_tokens=thought_tokens,
            forced=forced,
        )
    return StoredAnswer(log_likelihood=first, greedy=rest[0])


def _checksum(key: bytes, content: str | bytes) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(key + data, digest_size=_CHECKSUM_BYTES).digest()
