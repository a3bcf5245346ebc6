"""Numbers that others published, each with its source, its table and the doubts about it.

One JSON file a source. A null value is a slot that nobody could read: it stays visible and is
never filled from memory. Values are percentages with the decimals that the source prints.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypedDict

from mingmoe_eval.errors import UsageError
from mingmoe_eval.json_files import JsonFault, as_record, read_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a source asked and read, as far as anybody knows; None and absent is unknown.

    Attributes:
        form: `direct` or `cot`.
        reading: By form, the official reading modes (`metrics.answer_reading.compat`) of its
            scripts.
        prompt: What its script asks with.
        decoding: How its script generates.
        note: Where this is known from, and what is not.
    """

    form: str | None = None
    reading: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prompt: str | None = None
    decoding: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """One published table.

    Attributes:
        columns: Column key -> its facts: benchmark, subset, metric, and perhaps a caveat.
        decimals: How many decimals the source prints.
        protocol: How the source asked and read.
    """

    source: str
    table: str
    citation: str
    note: str
    decimals: int
    columns: Mapping[str, Mapping[str, str]]
    rows: tuple["PublishedRow", ...]
    protocol: Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One model's row of one published table.

    Attributes:
        model: The model's name as the source gives it.
        citation: Source, table and arXiv number.
        note: How the row was read, and what the source says of its protocol.
        n_shot: Demonstrations in the prompt, as the source states them; None where it does not.
        values: Column key -> percentage; None where the number could not be read.
        decimals: How many decimals the source prints.
        suspect: Column key -> why the printed value cannot be right as it stands.
        remarks: Column key -> what a reader must know to compare the value.
    """

    model: str
    citation: str
    note: str
    n_shot: str | None
    values: Mapping[str, float | None]
    decimals: int
    suspect: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)


class _Row(TypedDict):
    model: str
    n_shot: str | int | None
    values: dict[str, float | None]


class _Table(TypedDict):
    table: str
    decimals: int
    note: str
    columns: dict[str, dict[str, str]]
    rows: list[_Row]


class _Source(TypedDict):
    """What a file of somebody's must hold to be cited from."""

    source: str
    arxiv: str | None
    tables: list[_Table]


def published_keys() -> tuple[str, ...]:
    """The sources that can be cited, by the key that `--published` takes."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".json")))


def published_rows(keys: Sequence[str]) -> list[PublishedRow]:
    """Every row of the named sources, in the order asked for.

    Args:
        keys: Of sources that are here, or the paths of files such as `import` writes.

    Raises:
        UsageError: some keys are unknown, or a file is none of these; all keys are named.
    """
    return [row for table in published_tables(keys) for row in table.rows]


def published_tables(keys: Sequence[str]) -> list[PublishedTable]:
    """Every table of the named sources, in the order asked for.

    Raises:
        UsageError: some keys are unknown; all of them are named.
    """
    known = published_keys()
    if unknown := [key for key in keys if key not in known and not _is_file(key)]:
        raise UsageError(
            f"no published results under {', '.join(map(repr, unknown))}; "
            f"there are: {', '.join(known)}"
        )
    sources = [_read(key) for key in keys]
    return [_table(source, table) for source in sources for table in source["tables"]]


def _is_file(key: str) -> bool:
    return key.endswith(".json") and Path(key).is_file()


def _read(key: str) -> dict[str, Any]:
    if _is_file(key):
        data = read_object(Path(key), UsageError)
        try:
            as_record(_Source, data, of="")
        except JsonFault as fault:
            raise UsageError(f"{key} holds no numbers to cite: {fault}") from fault
        return data
    text = resources.files(__name__).joinpath(f"{key}.json").read_text("utf-8")
    own: dict[str, Any] = json.loads(text)
    return own


def _table(source: Mapping[str, Any], table: Mapping[str, Any]) -> PublishedTable:
    parts = (source["source"], table["table"], source["arxiv"] and f"arXiv:{source['arxiv']}")
    citation = ", ".join(part for part in parts if part)
    return PublishedTable(
        source=source["title"],
        table=table["table"] or "",
        citation=citation,
        note=table["note"],
        decimals=table["decimals"],
        columns=table["columns"],
        rows=tuple(_row(citation, table, row) for row in table["rows"]),
        protocol=Protocol(**source.get("protocol", {})),
    )


def _row(citation: str, table: Mapping[str, Any], row: Mapping[str, Any]) -> PublishedRow:
    caveats = {
        key: column["caveat"] for key, column in table["columns"].items() if "caveat" in column
    }
    return PublishedRow(
        model=row["model"],
        citation=citation,
        note="; ".join(part for part in (table["note"], row.get("note")) if part),
        n_shot=None if row["n_shot"] is None else str(row["n_shot"]),
        values=row["values"],
        decimals=table["decimals"],
        suspect=row.get("suspect", {}),
        remarks=caveats | row.get("remarks", {}),
    )
