"""The profile `lenient`: our own, forgiving reading. Its scores are not PromptCBLUE scores.

It answers one question: how much of a low official score is a matter of format? Both sides are read
by these rules: full-width and half-width forms are one, a missing header, bullets, bold marks and a
thinking block do no harm, and a label is looked for inside a longer reply.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from mingmoe_eval.promptcblue.catalogue import (
    EVENT_KEYS,
    MRG_SECTIONS,
    NO_STANDARD_TERM,
    STS_SYNONYMS,
    Answer,
    CblueTask,
    Choices,
    Item,
)

_HALF_WIDTH = {full: full - 0xFEE0 for full in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0x0D: "\n"}
# A list's number or a quotation mark is markup; before a digit it may be the text's own (38.5,
# 38、39, > 38), and no two texts may become equal by losing what tells them apart.
_BULLET = re.compile(r"\s*(?:[-*•·#]+\s+|>+\s+(?!\d)|\d{1,3}[.)、](?!\d)\s*)?")
_EDGES = " \t\n'\"“”‘’「」《》【】[](){}*_`.。,;:!?、"
_SAYS_NONE = frozenset({"无", "没有", "暂无", "none", "None", NO_STANDARD_TERM})


def fold_width(text: str) -> str:
    """Full-width ASCII forms and blanks as half-width ones; every line break as LF."""
    return text.replace("\r\n", "\n").translate(_HALF_WIDTH)


def fold_answer(answer: Answer) -> Answer:
    """An answer that was parsed elsewhere, in the forms that this profile compares."""
    if isinstance(answer, str):
        return fold_width(answer).strip()
    if isinstance(answer, dict):
        return {key: fold_width(value).strip() for key, value in answer.items()}
    return [{key: _fold_value(value) for key, value in item.items()} for item in answer]


def parse_answer(task: CblueTask, text: str, choices: Choices) -> Answer:
    """Read one text, gold or model output; never raises for any text."""
    said = fold_width(text).rpartition("</think>")[2].replace("**", "")
    options = [fold_width(choice) for choice in choices]
    match task.family:
        case "ner":
            return list(_entities(said, options))
        case "relations":
            return list(_triples(said))
        case "events":
            return list(_events(said))
        case "normalisation":
            return _terms(said, options)
        case "status":
            return list(_findings(said, options, task.fallback_status))
        case "classification" | "matching":
            return _label(said, task, choices)
        case "generation":
            is_report = task.task_type == "report_generation"
            return _sections(said) if is_report else said.strip()


def _entities(said: str, options: Sequence[str]) -> Iterable[Item]:
    longest_first = sorted(options, key=len, reverse=True)
    for line in _lines(said):
        option = next((o for o in longest_first if line.startswith(o)), None)
        label, colon, listed = line.partition(":")
        if option and colon and label.rstrip() in {option, f"{option}实体"}:
            yield from ({"entity": entity, "type": option} for entity in _split_list(listed))


def _triples(said: str) -> Iterable[Item]:
    parts = said.split("关系的头尾实体对")
    for before, after in pairwise(parts):
        relation = before.rpartition("\n")[2].rpartition("具有")[2].strip(_EDGES)
        for pair in after.split("头实体")[1:]:
            subject, found, tail = pair.partition("尾实体")
            if found:
                yield {
                    "predicate": relation,
                    "subject": subject.lstrip("为: ").rstrip(" ,;、\n"),
                    "object": re.split("[。\n]", tail, maxsplit=1)[0].lstrip("为: ").rstrip(" ,;."),
                }


def _events(said: str) -> Iterable[Item]:
    for line in _lines(said):
        pieces = [piece.strip().partition(":") for piece in line.split(";")]
        values = {key: value.strip() for key, colon, value in pieces if colon and key in EVENT_KEYS}
        if values:
            yield {
                key: values.get(key, "")
                if key in EVENT_KEYS[:2]
                else sorted(set(_split_list(values.get(key, ""))))
                for key in EVENT_KEYS
            }


def _terms(said: str, options: Sequence[str]) -> list[Item]:
    pieces = {piece.strip(_EDGES) for piece in re.split("[,;\n]", said)}
    # An offered term may itself hold a comma or end in a bracket: the search finds those.
    chosen = {o for o in options if o.strip(_EDGES) in pieces} or _mentioned(said, options)
    chosen.discard(NO_STANDARD_TERM)
    return [{"entity": term, "type": "normalization"} for term in options if term in chosen]


def _findings(said: str, options: Sequence[str], fallback: str) -> Iterable[Item]:
    for line in _lines(said):
        mention, colon, status = line.rpartition(":")
        if colon and mention.strip() and (bare := status.strip(_EDGES)):
            named = {bare} if bare in options else _mentioned(bare, options)
            yield {"entity": mention.strip(), "attr": named.pop() if len(named) == 1 else fallback}


def _label(said: str, task: CblueTask, choices: Choices) -> str:
    """The one label that is named, in the spelling of the data; else the whole text."""
    synonyms = STS_SYNONYMS if task.name == "CHIP-STS" else {}
    spelling = {fold_width(label): label for label in (*choices, *task.labels, *synonyms)}
    known = list(spelling)
    lines = list(_lines(said)) or [""]
    for part in (said, lines[-1], lines[0]):
        bare = part.strip(_EDGES)
        exact = {label for label in known if label.strip(_EDGES) == bare}
        named = exact or _mentioned(part, known)
        if len(named) == 1:
            label = spelling[named.pop()].strip()
            return synonyms.get(label, label)
    return said.strip()


def _sections(said: str) -> dict[str, str]:
    found: dict[str, str] = {}
    current = None
    for line in _lines(said):
        label, colon, rest = line.partition(":")
        if colon and label.strip(_EDGES) in MRG_SECTIONS:
            current = label.strip(_EDGES)
            found[current] = rest.strip()
        elif current:
            found[current] = f"{found[current]}{line}".strip()
    return found


def _lines(said: str) -> Iterable[str]:
    """Lines with something on them, without the bullet or number in front."""
    bare = (_BULLET.sub("", line, count=1).strip() for line in said.split("\n"))
    return (line for line in bare if line)


def _split_list(listed: str) -> list[str]:
    """By commas; by enumeration marks where there is no comma."""
    mark = "," if "," in listed else "、"
    pieces = (piece.strip().rstrip("。") for piece in listed.split(mark))
    return [piece for piece in pieces if piece and piece not in _SAYS_NONE]


def _mentioned(text: str, labels: Iterable[str]) -> set[str]:
    """Labels that occur in the text; one inside a longer one (相关 in 不相关) does not count."""
    found = set()
    for label in sorted(filter(None, labels), key=len, reverse=True):
        if label in text:
            found.add(label)
            text = text.replace(label, "\n")
    return found


def _fold_value(value: object) -> object:
    if isinstance(value, str):
        return fold_width(value).strip()
    if isinstance(value, list):
        return sorted({fold_width(str(piece)).strip() for piece in value})
    return value
