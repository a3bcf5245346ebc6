"""Find the original CBLUE files in a folder and make PromptCBLUE records of them."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mingmoe_eval.cblue_conversion import layouts
from mingmoe_eval.cblue_conversion.examples import Example
from mingmoe_eval.errors import DataError, UsageError, offence_list
from mingmoe_eval.json_files import JsonFault, parse, parse_lines
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
    """The records, how many examples the format cannot hold, and what was passed over."""

    records: list[dict[str, Any]] = field(default_factory=list)
    unwritable: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

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
        DataError: Files have another layout, no labels, or tell different things of one task;
            lists each such file, and of another layout each bad row.
    """
    done = Conversion()
    files = _one_file_a_task(_files(source, split), done.notes)
    if not files:
        raise UsageError(
            f"{source}: no CBLUE file of the split {split!r}, such as CMeEE-V2_{split}.json"
        )
    offences = []
    for task, path in files.items():
        try:
            _convert_task(_examples(task, path, split, seed), done, most=most, seed=seed)
        except DataError as error:
            offences.append(str(error))
    if offences:
        raise DataError("\n".join(offences))
    return done


def _convert_task(examples: list[Example], done: Conversion, *, most: int, seed: int) -> None:
    written = [(example, example.to_record()) for example in examples]
    records = [record for _, record in written if record is not None]
    if lost := len(written) - len(records):
        done.unwritable[examples[0].task] = lost
    if len(records) > most:
        chosen = sorted(random.Random(seed).sample(range(len(records)), most))
        records = [records[index] for index in chosen]
    done.records += records


def _files(source: Path, split: str) -> Iterator[tuple[str, Path]]:
    """Every file below `source` that has a place here, once for each task that it is behind."""
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        name = path.stem.removesuffix(f"_{split}")
        if name == path.stem or path.suffix not in _SUFFIXES or not path.is_file():
            continue
        if name == "IMCS-V2":
            # The downloads have it in one folder a task, each perhaps with that task's labels only.
            own = path.resolve().parent.name
            yield from ((task, path) for task in ([own] if own in _IMCS_TASKS else _IMCS_TASKS))
        elif name in (*TASKS, "CMeIE-V2"):
            yield name.removesuffix("-V2") if name == "CMeIE-V2" else name, path


def _one_file_a_task(found: Iterable[tuple[str, Path]], notes: list[str]) -> dict[str, Path]:
    """The file of each task, in the order of the tasks; copies of one file count once.

    Raises:
        DataError: Two different files are there for one task: both would double its records.
    """
    by_task: dict[str, list[Path]] = {}
    for task, path in found:
        by_task.setdefault(task, []).append(path)
    offences = []
    for task, paths in by_task.items():
        names = ", ".join(map(str, paths))
        if len({_content(path) for path in paths}) > 1:
            offences.append(f"{task}: {names}")
        elif len(paths) > 1:
            notes.append(f"{task}: copies of one file, read once: {names}")
    if offences:
        headline = "different files are there for one task; leave one of them there"
        raise DataError(offence_list(headline, offences))
    return {task: by_task[task][0] for task in TASKS if task in by_task}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _examples(task: str, path: Path, split: str, seed: int) -> list[Example]:
    """Every example that one file gives to one task; rows of another layout refused together."""
    rows = _rows(task, path)
    read = _reader(task, rows)
    examples: list[Example] = []
    offences = []
    labelled = False
    for number, row in rows.items():
        # Chance depends on the row alone, so that one row or file more changes no other record.
        chance = random.Random(f"{seed} {task} {number}")
        try:
            labelled = labelled or layouts.is_labelled(task, row)
            examples += read(row, f"{split}-{number}", chance)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            offences.append(f"row {number}: {type(error).__name__}: {error}")
    if not labelled:
        raise DataError(
            f"{path}: none of its {len(rows):,} rows has an answer of {task}, as in the unlabelled "
            "file of a test set, which is no gold; convert another split, or leave the file out"
        )
    if offences:
        raise DataError(offence_list(f"{path}: not the layout of CBLUE's {task}", offences))
    return examples


def _reader(task: str, rows: Mapping[str, Any]) -> _ManyReader:
    if task in _IMCS_TASKS:
        return lambda row, number, chance: layouts.examples_of_dialogue(number, row, task)
    one = layouts.cdn_reader(list(rows.values())) if task == "CHIP-CDN" else _ROW_READERS[task]
    return lambda row, number, chance: [one(row, number, chance)]


def _rows(task: str, path: Path) -> dict[str, Any]:
    """The file's rows by number, or by dialogue id; JSON, JSON Lines or, for KUAKE-IR, TSV."""
    try:
        if task == "KUAKE-IR":
            return dict(_numbered(layouts.retrieval_rows(path)))
        content = _json(path.read_bytes())
    except (OSError, ValueError, JsonFault) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if isinstance(content, dict):
        return content
    if isinstance(content, list):
        return dict(_numbered(content))
    raise DataError(f"{path} holds no records")


def _json(data: bytes) -> Any:
    try:
        return parse(data)
    except JsonFault:
        values = [value for _, value in parse_lines(data)]
        if len(values) < 2 or any(isinstance(value, JsonFault) for value in values):
            raise
        return values


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(number), row) for number, row in enumerate(rows, start=1))
