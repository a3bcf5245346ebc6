"""The columns of a table, and the number of each: what a run has, or what a source prints."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mingmoe_eval.comparison import Comparison, compare
from mingmoe_eval.errors import IncomparableRunsError
from mingmoe_eval.labels import Labels
from mingmoe_eval.metrics.showing import scaled
from mingmoe_eval.metrics.significance import significance_marks
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.published import PublishedRow
from mingmoe_eval.records import Better, MetricValue, Run, Unit

Form = Literal["direct", "cot", "letters"]

SUFFIXES: Mapping[str, str] = MappingProxyType({"direct": "", "cot": "_cot", "letters": "_ll"})
"""What the name of a task ends with in each form; a table never mixes forms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        key: What published rows call it.
        heading: What stands over it.
        section: What stands over several neighbours, or "".
        task: The task whose main metric it shows, without the suffix of a form; "" for an average.
        tag: The tag by which the task is split; None: the whole task.
        part: The tag's value.
        mean_of: The keys of the columns that it is the plain mean of.
    """

    key: str
    heading: str
    section: str = ""
    task: str = ""
    tag: str | None = None
    part: str = ""
    mean_of: tuple[str, ...] = ()

    @property
    def is_average(self) -> bool:
        """Whether the column is computed from others."""
        return bool(self.mean_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A set of columns, and what a reader must know of the choice."""

    name: str
    title: str
    remark: str
    columns: tuple[Column, ...]


_QUESTION_TYPES = (
    ("optimal", "Opt", "Optimal Choice"),
    ("matched", "Match", "Matched Selection"),
    ("integrated", "Integ", "Integrated Analysis"),
    ("multiple", "Multi", "Multiple Choice"),
)

_NLP_TASKS = (
    "CMeEE-V2",
    "CMeIE",
    "CHIP-CDN",
    "CHIP-CDEE",
    "CHIP-MDCFNPC",
    "IMCS-V2-NER",
    "IMCS-V2-SR",
    "IMCS-V2-DAC",
    "IMCS-V2-MRG",
    "CHIP-CTC",
    "CHIP-STS",
    "KUAKE-IR",
    "KUAKE-QIC",
    "KUAKE-QQR",
    "KUAKE-QTR",
    "MedDG",
)

# Published key, heading, task.
_EXAMS = (
    ("pharmacist2023/average", "Pharmacist", "pharmacist2023"),
    ("usmle", "MedQA", "usmle"),
    ("mcmle", "MCMLE", "mcmle"),
    ("medmcqa", "MedMCQA", "medmcqa_val"),
    ("mmlu_med", "MMLU-Med", "mmlu_med"),
    ("cmb_exam", "CMB", "cmb_exam"),
    ("cmexam", "CMExam", "cmexam"),
    ("cmmlu_med", "CMMLU-Med", "cmmlu_med"),
    ("ceval_med", "C-Eval-Med", "ceval_med"),
)


def _track(task: str, section: str) -> tuple[Column, ...]:
    parts = tuple(
        Column(
            key=f"{task}/{key}",
            heading=heading,
            section=section,
            task=task,
            tag="question_type",
            part=part,
        )
        for key, heading, part in _QUESTION_TYPES
    )
    return (*parts, Column(key=f"{task}/total", heading="Total", section=section, task=task))


_PHARMACIST = (
    *_track("pharmacist2023_pharmacy", "Pharmacy"),
    *_track("pharmacist2023_tcm", "TCM"),
    Column(
        key="pharmacist2023/average",
        heading="AVG",
        mean_of=("pharmacist2023_pharmacy/total", "pharmacist2023_tcm/total"),
    ),
)

# The columns of MedCare's first table that are tasks here; MMedBench's Chinese part is not.
_MEDCARE = (
    ("mcmle", "MCMLE", "mcmle"),
    ("cmb_exam", "CMB", "cmb_exam"),
    ("cmexam", "CMExam", "cmexam"),
    ("cmmlu_ming", "CMMLU", "cmmlu_ming"),
    ("ceval_ming", "C-Eval", "ceval_ming"),
    ("pharmacist2023_pharmacy/total", "PLE Pharmacy", "pharmacist2023_pharmacy"),
    ("pharmacist2023_tcm/total", "PLE TCM", "pharmacist2023_tcm"),
)

_OURS = "The choice and order of the columns are ours, not a paper's."


def _with_average(columns: Sequence[Column], key: str) -> tuple[Column, ...]:
    keys = tuple(column.key for column in columns)
    return (*columns, Column(key=key, heading="Average", mean_of=keys))


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "ming-nlp": Layout(
            name="ming-nlp",
            title="Sixteen medical NLP tasks (PromptCBLUE)",
            remark=_OURS,
            columns=_with_average(
                [
                    Column(
                        key=f"promptcblue/{name}",
                        heading=name,
                        task=f"promptcblue_{name.lower().replace('-', '_')}",
                    )
                    for name in _NLP_TASKS
                ],
                "promptcblue/average",
            ),
        ),
        "ming-exams": Layout(
            name="ming-exams",
            title="Medical licensing exams",
            remark=_OURS,
            columns=_with_average(
                [Column(key=key, heading=heading, task=task) for key, heading, task in _EXAMS],
                "exams/average",
            ),
        ),
        "medcare": Layout(
            name="medcare",
            title="Chinese medical exams, as MedCare reports them",
            remark="CMMLU is over the 1,354 questions with agronomy, C-Eval over 41 of its val "
            "part. MedCare's average is over MMedBench's Chinese part too, and is left out.",
            columns=tuple(
                Column(key=key, heading=heading, task=task) for key, heading, task in _MEDCARE
            ),
        ),
        "pharmacist": Layout(
            name="pharmacist",
            title="Pharmacist licensing exam 2023, by track and question type",
            remark="TCM is traditional Chinese medicine. Total weighs every question the same; AVG "
            "is the mean of the two totals.",
            columns=_PHARMACIST,
        ),
    }
)


def generic_layout(runs: Sequence[Run], labels: Labels) -> Layout:
    """Every task of the runs, groups first; published keys where a layout knows the task."""
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    groups = {name for run in runs for name, result in run.results.items() if result.is_group}
    keys = {c.task: c.key for name in LAYOUTS for c in LAYOUTS[name].columns if c.tag is None}
    ordered = sorted(tasks, key=lambda task: task not in groups)
    columns = (
        Column(key=keys.get(task, task), heading=labels.task(task).en, task=task)
        for task in ordered
    )
    return Layout(name="generic", title="Results", remark="", columns=tuple(columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of a table.

    Attributes:
        amount: The value, in % if it is a share, or None where there is none.
        decimals: With how many decimals it is known; a cited value never gets more.
        interval: Like the amount, or None.
        unit: The value's; cited values are shares.
        better: In which direction it is better.
        stars: Marks of significance against the baseline.
        suspect: Why a cited value cannot be right; such a cell is never ranked.
        remarks: What a reader must know of it.
    """

    amount: float | None = None
    decimals: int = 1
    interval: tuple[float, float] | None = None
    unit: Unit = "share"
    better: Better = "higher"
    stars: str = ""
    suspect: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A run against the baseline: the comparison, or why there is none."""

    comparison: Comparison | None = None
    refusal: str = ""

    def stars(self, task: str) -> str:
        """The marks of the adjusted p-value of a task, or of a group."""
        if self.comparison is None:
            return ""
        one = self.comparison.tasks.get(task) or self.comparison.groups.get(task)
        return significance_marks(one.p_adjusted) if one else ""

    def tests(self, tasks: Collection[str]) -> list[str]:
        """The names of the tests that these tasks and groups went through."""
        if self.comparison is None:
            return []
        leaves, groups = self.comparison.tasks.values(), self.comparison.groups.values()
        named = [(one.task, one.paired.test) for one in leaves]
        named += [(one.task, one.paired.test) for one in groups if one.paired]
        return [test for task, test in named if task in tasks]


def tested(baseline: Run, run: Run, *, allow: frozenset[str]) -> Tested:
    """Test a run against the baseline, unless they differ in more than their model."""
    try:
        return Tested(comparison=compare(baseline, run, allow=allow))
    except IncomparableRunsError as error:
        offences = [line[4:] for line in str(error).splitlines() if line.startswith("  - ")]
        return Tested(refusal="; ".join(offences) or str(error))


def run_cells(
    run: Run, columns: Sequence[Column], *, suffix: str, decimals: int, against: Tested
) -> list[Cell]:
    """A run's cells; an average only where all its columns have a number."""
    values: dict[str, MetricValue] = {}
    for column in columns:
        if not column.is_average and (value := _value(run, column, suffix)):
            values[column.key] = value
    for column in columns:
        if column.is_average and all(key in values for key in column.mean_of):
            values[column.key] = mean_of_parts([values[key] for key in column.mean_of])
    return [
        _run_cell(
            values.get(column.key),
            decimals=decimals,
            # Parts and averages are not tested: tasks and groups are.
            stars="" if column.tag else against.stars(column.task + suffix),
        )
        for column in columns
    ]


def published_cells(row: PublishedRow, columns: Sequence[Column], *, decimals: int) -> list[Cell]:
    """A published row's cells, with no more decimals than the source prints."""
    return [
        Cell(
            amount=row.values.get(column.key),
            decimals=min(decimals, row.decimals),
            suspect=row.suspect.get(column.key, ""),
            remarks=_only(row.remarks, column.key),
        )
        for column in columns
    ]


def _value(run: Run, column: Column, suffix: str) -> MetricValue | None:
    result = run.results.get(column.task + suffix)
    if result is None:
        return None
    value = (
        result.main
        if column.tag is None
        else result.breakdowns.get(column.tag, {}).get(column.part)
    )
    return value if value and value.n else None


def _run_cell(value: MetricValue | None, *, decimals: int, stars: str) -> Cell:
    if value is None:
        return Cell(decimals=decimals)
    low, high = value.interval or (math.nan, math.nan)
    return Cell(
        amount=scaled(value.value, value.unit),
        decimals=decimals,
        interval=value.interval and (scaled(low, value.unit), scaled(high, value.unit)),
        unit=value.unit,
        better=value.better,
        stars=stars,
    )


def _only(remarks: Mapping[str, str], key: str) -> tuple[str, ...]:
    return (remarks[key],) if key in remarks else ()
