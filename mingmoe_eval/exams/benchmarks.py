"""The facts of a data set, read from the `_data.yaml` beside its tasks.

Where its files lie, how big its official parts are, what it tells a candidate: everything that a
loader must know and that no file says of itself. A mistake in such a file is refused with its name
and the field, never passed over.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from mingmoe_eval.errors import DataError, UsageError
from mingmoe_eval.exams.fields import Declares
from mingmoe_eval.hub import HubSet
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.metrics.number_reading import Kind

FACTS_FILE = "_data.yaml"
"""Its underscore tells lm-eval, and our own catalogue, that it defines no task."""

# Data sets call it validation, val or dev; all of them are understood.
_VALIDATION = ("val", "validation", "dev")


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One split of a data set.

    Attributes:
        files: Its file names without suffix, below the data set's folder; `*` stands for anything.
        rows: Its official number of rows; a file with another number is marked in every output.
        hub: Its place on the hub.
        sample: The invented records that stand in with --sample, beside the facts.
        key_files: Files that hold the key apart from the questions, joined by `id`.
        key_field: Which field takes a key from such a file.
        key_selects: The part is made of the questions that its key names; the file holds others.
        blocks: The files that make up the part together, where it is not one; `{block}` in `files`
            stands for each of them.
    """

    files: tuple[str, ...]
    rows: int | None = None
    hub: HubSet | None = None
    sample: str | None = None
    key_files: tuple[str, ...] = ()
    key_field: str = "answer"
    key_selects: bool = False
    blocks: tuple[str, ...] = ()


class Benchmark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One exam, or other set of records, as a leaf task sees it.

    Attributes:
        name: What messages call it; the name of its plain task.
        suite: What is asked for, and by which scorer: an option, a number.
        fields: Of suites other than `choice`: which field of a record holds what, where it is not
            called so: `answer: Ground Truth Answer`.
        kind: Of `number`: what is asked for; by default what a record's answer looks like.
        unit: Of `number`: the unit of answers and limits, where the records do not say it.
        tolerance: Of `number`: the share of the answer that a reply may miss, where records have no
            limits.
        day_first: Of `number`: 3/4/2024 is the third of April.
        folders: Its folder below --data-dir, then what third parties call it.
        parts: Its splits by name; the first is the one that is tested by default.
        shots: Where worked examples come from: a part's name, or a part that is never tested.
        declares: What the exam says about the number of right options.
        most_options: More options than this mean that a file is another data set's.
        tags: Tags of every question.
        tag_fields: Tag by field of the record.
        subjects: The subjects, each a benchmark of its own, with their official rows; `{subject}`
            in the name and in file names stands for one of them.
        subject: Rows that name another subject are left out.
        sources: What files that hold several exams call this one, in a row's `source`.
        rows_where: Only rows with these values in these fields are the benchmark's.
        key_counts_from: Which number as a key means the first option; None where the files say it.
        id_field: Which field holds what the exam itself calls a question.
        calculations: Questions without options are calculations; else they are unusable.
        needs_context: A question without its text is not this benchmark's question.
        transcribed: The papers were copied by hand: look for the faults that this brings.
        header: Column names of CSV files that come without any.
        keyless: What to do about records without a key.
    """

    name: str
    folders: tuple[str, ...]
    parts: dict[str, Part]
    suite: Literal["choice", "number"] = "choice"
    fields: dict[str, str] = {}
    kind: Kind | None = None
    unit: str = ""
    tolerance: float = 0.0
    day_first: bool = False
    shots: str | Part | None = None
    declares: Declares = "one right option"
    most_options: int | None = None
    tags: dict[str, str] = {}
    tag_fields: dict[str, str] = {}
    subjects: dict[str, int | None] = {}
    subject: str | None = None
    sources: tuple[str, ...] = ()
    rows_where: dict[str, Any] = {}
    key_counts_from: int | None = None
    id_field: str = ""
    calculations: bool = False
    needs_context: bool = False
    transcribed: bool = False
    header: tuple[str, ...] = ()
    keyless: str = "Use a part whose key is public, or add the key to the records"

    def part(self, split: str | None) -> Part:
        """The split that is asked for, or the one that is tested by default.

        Raises:
            UsageError: there is no such split; the message lists those there are.
        """
        if split is None:
            return next(iter(self.parts.values()))
        # C-Eval's dev part is another than its val part: it holds the worked examples.
        aliases = _VALIDATION if not isinstance(self.shots, Part) else ("validation",)
        if split in aliases and "val" in self.parts:
            split = "val"
        if split not in self.parts:
            raise UsageError(f"{self.name} has no split {split!r}; it has {', '.join(self.parts)}")
        return self.parts[split]

    @property
    def examples(self) -> Part | None:
        """The part that worked examples are taken from."""
        return self.parts[self.shots] if isinstance(self.shots, str) else self.shots


def benchmark_named(name: str) -> Benchmark:
    """The benchmark that a task's `benchmark: NAME` means.

    Raises:
        DataError: no facts file has it, or one cannot be read.
    """
    known = benchmarks()
    if name not in known:
        raise DataError(f"no {FACTS_FILE} describes a benchmark {name!r}: {', '.join(known)}")
    return known[name]


@functools.cache
def benchmarks(folder: Path | None = None) -> Mapping[str, Benchmark]:
    """Every benchmark whose facts stand below a folder (default: that of the bundled tasks).

    Raises:
        DataError: a file is no YAML, or a field is unknown or of another kind; it is named.
    """
    files = sorted((folder or tasks_dir()).rglob(FACTS_FILE))
    return {one.name: one for path in files for one in _read(path)}


def _read(path: Path) -> Iterator[Benchmark]:
    try:
        facts = yaml.safe_load(path.read_text("utf-8"))
        named = msgspec.convert(facts, dict[str, dict[str, Any]])
        for name, values in named.items():
            family = msgspec.convert({**values, "name": name}, Benchmark)
            if isinstance(family.shots, str) and family.shots not in family.parts:
                raise ValueError(f"{name}: shots come from {family.shots!r}, which is no part")
            if not family.parts:
                raise ValueError(f"{name}: no parts")
            beside = _with_samples_beside(family, path.parent)
            yield from _by_subject(beside) if family.subjects else [beside]
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error


def _with_samples_beside(one: Benchmark, folder: Path) -> Benchmark:
    def found(part: Part) -> Part:
        sample = str(folder / part.sample) if part.sample else None
        return msgspec.structs.replace(part, sample=sample)

    return msgspec.structs.replace(
        one,
        parts={name: found(part) for name, part in one.parts.items()},
        shots=found(one.shots) if isinstance(one.shots, Part) else one.shots,
    )


def _by_subject(family: Benchmark) -> Iterator[Benchmark]:
    """One benchmark a subject; its official rows are those of the part that is tested."""
    tested = next(iter(family.parts))
    for subject, rows in family.subjects.items():
        parts = {name: _of_subject(part, subject) for name, part in family.parts.items()}
        parts[tested] = msgspec.structs.replace(parts[tested], rows=rows)
        shots = family.shots
        yield msgspec.structs.replace(
            family,
            name=family.name.replace("{subject}", subject),
            parts=parts,
            shots=_of_subject(shots, subject) if isinstance(shots, Part) else shots,
            tags={**family.tags, "subject": subject},
            subject=subject,
        )


def _of_subject(part: Part, subject: str) -> Part:
    hub = part.hub
    if hub is not None:
        config = hub.config and hub.config.replace("{subject}", subject)
        hub = HubSet(id=hub.id, split=hub.split, config=config, files=hub.files)
    files = tuple(name.replace("{subject}", subject) for name in part.files)
    return msgspec.structs.replace(part, files=files, hub=hub)
