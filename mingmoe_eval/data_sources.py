"""Where a task's records come from: a local folder, the hub, or the bundled invented sample.

One of the three, never a silent stand-in for another: records that are not where they were said to
be are an error that tells where was looked and what else would do.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.hub import HubReader, HubSet, read_hub
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.record_files import SUFFIXES, Row, parse_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Records and where they were read: `fingerprint` is the SHA-256 of the bytes they came as."""

    kind: Literal["data-dir", "hub", "sample"]
    path: str
    fingerprint: str
    rows: tuple[Row, ...]
    commit: str | None = None
    """The data set's commit on the hub; None when there is none, or nobody could look it up."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows without their numbers."""
        return [dict(row.fields) for row in self.rows]

    def with_rows(self, rows: Iterable[Row]) -> Self:
        """The same source, of which only some rows, or rows made from them, are used."""
        return replace(self, rows=tuple(rows))

    def joined_with(self, other: "Source", rows: Iterable[Row]) -> Self:
        """Rows that were put together from this source and another one."""
        both = hashlib.sha256(f"{self.fingerprint} {other.fingerprint}".encode()).hexdigest()
        path = f"{self.path} + {other.path}"
        return replace(self, path=path, fingerprint=both, rows=tuple(rows))


@dataclass(frozen=True, slots=True)
class UnusableRow:
    """A row that could be read but not used; it is left out, counted, and never scored."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


class Docs(list[dict[str, Any]]):
    """The docs of one split as plain dicts, with what lm-eval asks of a data set.

    Plain dicts, because reading an Arrow table row by row costs more than the rest of a task.

    Attributes:
        source: Where the records came from.
        unusable: The rows that could not become docs.
        notes: What a reader of the numbers must know, for instance that rows are unusable.
        marks: Why numbers over these docs are not the benchmark's, for instance that rows are
            missing; gate and table refuse a run with marks unless told otherwise.
    """

    def __init__(
        self,
        docs: Iterable[dict[str, Any]] = (),
        *,
        source: Source | None = None,
        unusable: Sequence[UnusableRow] = (),
        notes: Sequence[str] = (),
        marks: Sequence[str] = (),
    ) -> None:
        super().__init__(docs)
        self.source = source
        self.unusable = tuple(unusable)
        self.notes = tuple(notes)
        self.marks = tuple(marks)

    @property
    def features(self) -> dict[str, None]:
        """The fields of the docs, as the keys of a mapping, which is where lm-eval looks."""
        return dict.fromkeys(self[0]) if self else {}


def records_of(
    folder: str | Sequence[str],
    stems: Sequence[str],
    *,
    data_dir: str | None,
    sample: bool,
    sample_file: str | None = None,
    file: str | None = None,
    hub: HubSet | None = None,
    header: Sequence[str] = (),
    hub_reader: HubReader = read_hub,
) -> Source:
    """The records of one split of one data set.

    Args:
        folder: Names of the data set's folder below `data_dir`; the first that holds a file counts.
        stems: File names without suffix, below the folder, the first that exists counts. `*` stands
            for anything.
        data_dir: The user's local data, or None.
        sample: Read the bundled invented records instead.
        sample_file: The sample below `tasks/`; by default `<folder>/sample.jsonl`.
        file: A file of its own, which has the records wherever the user's other data are.
        hub: Where the hub has the records; used only when neither of the above is asked for.
        header: Column names of the data set's CSV files that come without any.
        hub_reader: How the hub is read.

    Raises:
        MissingDataError: there are no such records; the message says where was looked.
        DataError: the records cannot be read; the message lists every bad line.
        UsageError: both a local folder and the sample are asked for.
    """
    folders = (folder,) if isinstance(folder, str) else tuple(folder)
    if sample and data_dir is not None:
        raise UsageError(
            f"--sample and --data-dir {data_dir} exclude each other: the one means invented "
            "records, the other yours"
        )
    if sample:
        path = tasks_dir() / (sample_file or f"{folders[0]}/sample.jsonl")
        if not path.is_file():
            raise MissingDataError(f"no sample is bundled for {folders[0]}: {path} is not there")
        return _read(path, "sample", header)
    if file is not None:
        return _read(Path(file), "data-dir", header)
    if data_dir is not None:
        return _read(_find(Path(data_dir), folders, stems, hub), "data-dir", header)
    return _from_hub(hub, folders[0], stems, hub_reader)


def _read(path: Path, kind: Literal["data-dir", "sample"], header: Sequence[str]) -> Source:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    rows = parse_rows(data, name=str(path), suffix=path.suffix, header=header)
    if not rows:
        raise DataError(f"{path} holds no records")
    digest = hashlib.sha256(data).hexdigest()
    return Source(kind=kind, path=str(path), fingerprint=digest, rows=tuple(rows))


def _find(data_dir: Path, folders: Sequence[str], stems: Sequence[str], hub: HubSet | None) -> Path:
    if not data_dir.is_dir():
        raise MissingDataError(f"--data-dir {data_dir}: there is no such folder")
    for folder in folders:
        for stem in stems:
            for suffix in SUFFIXES:
                if path := _only_file(data_dir, f"{folder}/{stem}{suffix}"):
                    return path
    raise MissingDataError(_nothing_found(data_dir, folders, stems, hub))


def _only_file(data_dir: Path, pattern: str) -> Path | None:
    """The file that a pattern below `data_dir` stands for, if any; two would be a guess."""
    parts = PurePosixPath(pattern)
    if parts.is_absolute() or ".." in parts.parts:
        raise UsageError(f"{pattern!r} leads out of --data-dir {data_dir}")
    if "*" not in pattern:
        path = data_dir / pattern
        return path if path.is_file() else None
    found = sorted(path for path in data_dir.glob(_glob(pattern)) if path.is_file())
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise DataError(f"more than one file could be meant; leave one of them there: {names}")
    return found[0] if found else None


def _glob(pattern: str) -> str:
    """Only `*` is special: official file names hold brackets."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def _nothing_found(
    data_dir: Path, folders: Sequence[str], stems: Sequence[str], hub: HubSet | None
) -> str:
    wanted = ", ".join(f"{folders[0]}/{stem}" for stem in stems)
    download = f", or leave --data-dir out to download {hub}" if hub else ""
    return (
        f"no records in --data-dir {data_dir}: looked for {wanted} "
        f"(as {', '.join(SUFFIXES)}); {_what_is_there(data_dir, folders)}. Put the file there, "
        f"name another --data-dir{download}, or try the invented records of --sample"
    )


def _what_is_there(data_dir: Path, folders: Sequence[str]) -> str:
    for name in folders:
        if (data_dir / name).is_dir():
            return f"the folder {name} holds {_listing((data_dir / name).iterdir())}"
    return f"there is no folder {folders[0]}, only {_listing(data_dir.iterdir())}"


def _listing(paths: Iterator[Path]) -> str:
    names = sorted(path.name for path in paths)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more if names else "nothing"


def _from_hub(
    hub: HubSet | None, folder: str, stems: Sequence[str], hub_reader: HubReader
) -> Source:
    if hub is None:
        raise MissingDataError(
            f"{folder} cannot be downloaded: get it from its authors and name its place with "
            f"--data-dir DIR (then DIR/{folder}/{stems[0]}.jsonl is read), or try the invented "
            "records of --sample"
        )
    logger.warning("downloading %s, as neither --data-dir nor --sample is given", hub)
    try:
        records, commit = hub_reader(hub)
    except Exception as error:  # whatever `datasets`, its HTTP client or the data set raise
        raise MissingDataError(
            f"{hub} could not be downloaded ({type(error).__name__}: {error}); name a local copy "
            f"with --data-dir DIR (then DIR/{folder}/{stems[0]}.jsonl is read), or try the "
            "invented records of --sample"
        ) from error
    text = json.dumps(records, sort_keys=True, ensure_ascii=False, default=str)
    return Source(
        kind="hub",
        path=str(hub),
        fingerprint=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        rows=tuple(Row(number, record) for number, record in enumerate(records, 1)),
        commit=commit,
    )
