"""Find the original CBLUE files in a folder and make PromptCBLUE records of them."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mingmoe_eval.cblue_conversion import layouts
from mingmoe_eval.cblue_conversion.examples import Example
from mingmoe_eval.errors import DataError, UsageError, offence_list
from mingmoe_eval.promptcblue.catalogue import TASKS

_SUFFIXES = (".json", ".jsonl", ".tsv")
_ManyReader = Callable[[Any, str, random.Random], Iterable[Example]]

_ROW_READERS: Mapping[str, layouts.RowReader] = {
    "CMeEE-V2": layouts.read_cmeee,
    "CMeIE": layouts.read_cmeie,
    "CHIP-CDEE": layouts.read_cdee,
    "CHIP-MDCFNPC": layouts.read_mdcfnpc,
    "MedDG": layouts.read_meddg,
    **layouts.LABEL_READERS,
}
_IMCS_TASKS = ("IMCS-V2-NER", "IMCS-V2-SR", "IMCS-V2-DAC", "IMCS-V2-MRG")


@dataclass(slots=True)
class Conversion:
    """The records, how many each task has, and how many examples the format cannot hold."""

    records: list[dict[str, Any]] = field(default_factory=list)
    unwritable: Counter[str] = field(default_factory=Counter)

    @property
    def by_task(self) -> Counter[str]:
        """How many records each task has."""
        return Counter(record["task_dataset"] for record in self.records)


def convert(source: Path, *, split: str = "dev", most: int = 600, seed: int = 0) -> Conversion:
    """Convert every file of one split that is found below `source`.

    Args:
        source: A folder, searched whole, or one file.
        split: What the file names end in: train, dev or test.
        most: At most so many records a task, drawn at random (test A has 600 for most tasks).
        seed: Of everything that is left to chance.

    Raises:
        UsageError: There is no such folder, or nothing to convert in it.
        DataError: A file has another layout; lists each bad row.
    """
    files = list(_files(source, split))
    if not files:
        raise UsageError(
            f"{source}: no CBLUE file of the split {split!r}, such as CMeEE-V2_{split}.json"
        )
    examples: dict[str, list[Example]] = {}
    for name, path in files:
        for example in _examples(name, path, split, seed):
            if name not in _IMCS_TASKS or name == example.task:
                examples.setdefault(example.task, []).append(example)
    done = Conversion()
    for task in TASKS:
        _convert_task(examples.get(task, []), done, most=most, seed=seed)
    return done


def _convert_task(examples: list[Example], done: Conversion, *, most: int, seed: int) -> None:
    if not examples:
        return
    written = [(example, example.to_record()) for example in examples]
    records = [record for _, record in written if record is not None]
    if lost := len(written) - len(records):
        done.unwritable[examples[0].task] = lost
    if len(records) > most:
        chosen = sorted(random.Random(seed).sample(range(len(records)), most))
        records = [records[index] for index in chosen]
    done.records += records


def _files(source: Path, split: str) -> Iterator[tuple[str, Path]]:
    """Task name (IMCS-V2 for all four of it) and path of each file that has a place here."""
    names = [*TASKS, "CMeIE-V2", "IMCS-V2"]
    paths = sorted(source.rglob("*")) if source.is_dir() else [source]
    for path in paths:
        stem = path.stem.removesuffix(f"_{split}")
        known = stem in names and stem != path.stem and path.suffix in _SUFFIXES
        if known and path.is_file():
            yield "CMeIE" if stem == "CMeIE-V2" else stem, path


def _examples(name: str, path: Path, split: str, seed: int) -> Iterator[Example]:
    """Every example of one file, the file's rows that have another layout refused together."""
    offences = []
    rows = _rows(name, path)
    read = _reader(name, rows)
    for number, row in rows.items():
        # Chance depends on the row alone, so that one row or file more changes no other record.
        chance = random.Random(f"{seed} {name} {number}")
        try:
            yield from read(row, f"{split}-{number}", chance)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            offences.append(f"row {number}: {type(error).__name__}: {error}")
    if offences:
        raise DataError(offence_list(f"{path}: not the layout of CBLUE's {name}", offences))


def _reader(name: str, rows: Mapping[str, Any]) -> _ManyReader:
    if name in _IMCS_TASKS or name == "IMCS-V2":
        return lambda row, number, chance: layouts.examples_of_dialogue(number, row)
    one = layouts.cdn_reader(list(rows.values())) if name == "CHIP-CDN" else _ROW_READERS[name]
    return lambda row, number, chance: [one(row, number, chance)]


def _rows(name: str, path: Path) -> dict[str, Any]:
    """The file's rows by number, or by dialogue id; JSON, JSON Lines or, for KUAKE-IR, TSV."""
    try:
        if name == "KUAKE-IR":
            return dict(_numbered(layouts.retrieval_rows(path)))
        text = path.read_text("utf-8-sig")
        content = _json(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return content if isinstance(content, dict) else dict(_numbered(content))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        return [json.loads(line) for line in text.split("\n") if line.strip()]


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(number), row) for number, row in enumerate(rows, start=1))
