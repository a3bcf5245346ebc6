"""The facts of a data set, as the `_data.yaml` beside its tasks has them.

Where its files lie, how big its official parts are, what it tells a candidate: everything that a
loader must know and that no file says of itself. How it is asked is in `suites.form`; how such a
file is read in `facts_files`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from mingmoe_eval.errors import UsageError
from mingmoe_eval.exams.fields import Declares
from mingmoe_eval.hub import HubSet
from mingmoe_eval.suites.form import Fault, Form, FormName, Several

# Data sets call it validation, val or dev; all of them are understood.
_VALIDATION = ("val", "validation", "dev")

SHOWN_OF_QUESTIONS = ("question", "options", "context", "type", "letters")
"""What a prompt of an exam can show of a question, beside its tags."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One split of a data set.

    Attributes:
        files: Its file names without suffix, below the data set's folder; `*` stands for anything.
        file: Its file beside the facts, with its suffix; then nobody has to say where the data are.
        rows: Its official number of rows; a file with another number is marked in every output.
        hub: Its place on the hub.
        sample: The invented records that stand in with --sample, beside the facts.
        key_files: Files that hold the key apart from the questions, joined by `id`.
        key_field: Which field takes a key from such a file.
        key_selects: The part is made of the questions that its key names; the file holds others.
        blocks: The files that make up the part together, where it is not one; `{block}` in `files`
            stands for each of them.
    """

    files: tuple[str, ...] = ()
    file: str | None = None
    rows: Several | None = None
    hub: HubSet | None = None
    sample: str | None = None
    key_files: tuple[str, ...] = ()
    key_field: str = "answer"
    key_selects: bool = False
    blocks: tuple[str, ...] = ()


class Benchmark(Form, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One exam, or other set of records, as a leaf task sees it.

    Attributes:
        name: What messages call it; the name of its plain task.
        folders: Its folder below --data-dir, then what third parties call it; by default its name.
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
    folders: tuple[str, ...] = ()
    parts: dict[str, Part]
    shots: str | Part | None = None
    declares: Declares = "one right option"
    most_options: int | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    tag_fields: dict[str, str] = msgspec.field(default_factory=dict)
    subjects: dict[str, int | None] = msgspec.field(default_factory=dict)
    subject: str | None = None
    sources: tuple[str, ...] = ()
    rows_where: dict[str, Any] = msgspec.field(default_factory=dict)
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
    def forms(self) -> list[FormName]:
        """The forms in which it can be asked: letters are compared where one option is right."""
        if self.suite != "choice":
            return self.prompts_that_ask
        single = self.declares == "one right option"
        return ["direct", "letters", "cot"] if single else ["direct", "cot"]

    def faults(self) -> Iterator[Fault]:
        """What its values contradict."""
        yield from super().faults()
        if self.suite != "choice":
            return
        known = {*SHOWN_OF_QUESTIONS, *self.tags, *self.tag_fields}
        for name in sorted(self.shown - known - {"answer"}):
            yield (
                "prompt",
                f"{{{{ {name} }}}}: an exam's prompt can show {', '.join(sorted(known))}",
            )

    @property
    def examples(self) -> Part | None:
        """The part that worked examples are taken from."""
        return self.parts[self.shots] if isinstance(self.shots, str) else self.shots
