"""What is wrong with an output whose text the official parser reads otherwise than a person would.

A kind is named only where content is lost or distorted, so the share of outputs with any kind is a
task's rate of parse failures. The official scorer tells nothing of this.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mingmoe_eval.promptcblue.catalogue import (
    EVENT_KEYS,
    MRG_SECTIONS,
    NO_STANDARD_TERM,
    CblueTask,
    Choices,
)
from mingmoe_eval.promptcblue.parsing import parse_answer

WELL_FORMED = "well-formed"

_SAYS_NONE = ("没有指定类型", "上述句子没有指定类型")
"""How targets of some editions say that there is nothing of the offered types."""


def kinds_of_fault(task: CblueTask, text: str, choices: Choices) -> list[str]:
    """The kinds of fault in one output, each once; none for a well-formed one."""
    if not text.strip():
        return ["empty output"]
    faults = list(dict.fromkeys(_faults(task, text, choices)))
    # A reply must say that there is nothing: a greeting, of which nothing is read either, does not.
    if not faults and not parse_answer(task, text, choices) and not _says_nothing(task, text):
        return ["nothing that could be read"]
    return faults


def describe(task: CblueTask, text: str, choices: Choices) -> str:
    """The same in one line; `WELL_FORMED` for no fault."""
    return "; ".join(kinds_of_fault(task, text, choices)) or WELL_FORMED


def most_frequent(descriptions: Iterable[str], *, most: int = 10) -> list[tuple[str, int]]:
    """The most frequent kinds among descriptions, with how many outputs show each."""
    kinds = Counter(k for d in descriptions if d != WELL_FORMED for k in d.split("; "))
    return sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0]))[:most]


def _says_nothing(task: CblueTask, text: str) -> bool:
    """Whether a reply without items is the form's own way to say so: a header, or empty lists."""
    match task.family:
        case "ner" | "relations":
            return True  # their faults see to it that some type or relation has a line
        case "normalisation":
            return text.strip() == NO_STANDARD_TERM
        case _:
            return text.strip().rstrip("：:") == task.header.rstrip("：")


def _faults(task: CblueTask, text: str, choices: Choices) -> Iterator[str]:
    lines = text.split("\n")
    match task.family:
        case "ner":
            yield from _entity_faults(lines, choices)
        case "relations":
            yield from _relation_faults(lines, choices)
        case "normalisation":
            yield from _term_faults(lines, choices)
        case "events":
            yield from _event_faults(lines)
        case "status":
            yield from _status_faults(lines, choices)
        case "classification" | "matching":
            yield from _label_faults(text.strip(), {*choices, *task.labels})
        case "generation" if task.task_type == "report_generation":
            yield from _report_faults(text.strip().split("\n"))


def _entity_faults(lines: Sequence[str], choices: Choices) -> Iterator[str]:
    listed = any(line.startswith(f"{option}实体") for line in lines for option in choices)
    if not listed and not lines[0].startswith(_SAYS_NONE):
        yield "no line of an offered type"
    offered = tuple(f"{option}实体" for option in choices)
    for line in lines:
        started = line.startswith(offered)
        if any(line.startswith(f"{option}:") for option in offered):
            yield "half-width colon after the type"
        elif "实体：" in line and not started:
            begins = line.lstrip(" \t-*•").startswith(offered)
            yield "something before the type" if begins else "type that was not offered"
        elif started and not line.startswith(tuple(f"{option}：" for option in offered)):
            yield "no colon after the type"
        # The types after the first one of a line are taken for its entities.
        if started and sum(f"{option}：" in line for option in dict.fromkeys(offered)) > 1:
            yield "several types on one line"


def _relation_faults(lines: Sequence[str], choices: Choices) -> Iterator[str]:
    starts = [line.partition("关系的头尾实体对")[0] for line in lines if "关系的头尾实体对" in line]
    if not starts and not lines[0].startswith(_SAYS_NONE):
        yield "no relation line"
    for start in starts:
        if not start.startswith("具有"):
            yield "something before 具有"
        elif start[2:].strip() not in choices:
            yield "relation that was not offered"
    for line in lines:
        *before, pairs = line.split("关系的头尾实体对")
        units = pairs.removeprefix("如下：").split("。")
        if before and not pairs.startswith("如下："):
            yield "no 如下： after the relation"  # the line's beginning stays on its first subject
        if len(before) > 1:
            yield "several relations on one line"
        if any("头实体为" in unit and "，尾实体为" not in unit for unit in units):
            yield "head without tail"
        elif before and any(unit.strip() and "，尾实体为" not in unit for unit in units):
            yield "text that is no pair"
        if "头实体为" in line and not before:
            yield "pair on a line without relation"


def _term_faults(lines: Sequence[str], choices: Choices) -> Iterator[str]:
    if len(lines) > 1:
        yield "more than one line"
    pieces = [piece.strip() for piece in lines[-1].split("，")]
    if any(p and p not in choices and p != NO_STANDARD_TERM for p in pieces):
        yield "term that was not offered"


def _event_faults(lines: Sequence[str]) -> Iterator[str]:
    starts = tuple(f"{key}：" for key in EVENT_KEYS)
    if any(start in lines[0] for start in starts):
        yield "no header line"
    for line in lines[1:]:
        pieces = line.split("；")
        if not line.strip():
            yield "blank line"
        elif not any(piece.startswith(starts[0]) for piece in pieces):
            yield "line without 主体词"
        elif any(line.count(start) > 1 for start in starts):
            yield "several events on one line"
        elif any(not piece.startswith(starts) for piece in pieces if piece.strip()):
            yield "text that is no attribute"


def _status_faults(lines: Sequence[str], choices: Choices) -> Iterator[str]:
    if any(f"：{status}" in lines[0] for status in choices if status):
        yield "no header line"
    for line in lines[1:]:
        parts = line.split("：")
        if len(parts) == 2 and parts[1] not in choices:
            yield "status that was not offered"
        elif len(parts) != 2 and line.strip():
            yield "line that is no finding"


def _label_faults(label: str, known: set[str]) -> Iterator[str]:
    if label not in known:
        named = any(option in label for option in known if option)
        yield "label inside a longer text" if named else "label that does not exist"


def _report_faults(lines: Sequence[str]) -> Iterator[str]:
    if any(lines[0].startswith(f"{section}：") for section in MRG_SECTIONS):
        yield "no header line"
    starts = [s for line in lines[1:] for s in MRG_SECTIONS if line.startswith(f"{s}：")]
    if len(set(starts)) < len(MRG_SECTIONS):
        yield "section missing"
    if len(starts) < sum(bool(line.strip()) for line in lines[1:]):
        yield "line outside the sections"
