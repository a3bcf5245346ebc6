"""From a text to an answer, by the official rules: eight parsers, gold and output read alike.

Written from PromptCBLUE's post_generate_process.py (August 2023) and MING's copy of it, in its
order. The quirks are the rules: scores compare with published ones only if every one of them is
kept, so what looks like a slip here is the official reading. Common to all parsers: no character is
folded into another (a half-width `:` or `,` is no separator), lines end at LF alone, and any text
is read without an error.
"""

from typing import Literal, get_args

from mingmoe_eval.errors import UsageError
from mingmoe_eval.promptcblue import lenient
from mingmoe_eval.promptcblue.catalogue import (
    EVENT_KEYS,
    MRG_SECTIONS,
    STS_SYNONYMS,
    Answer,
    CblueTask,
    Choices,
    Item,
)

Profile = Literal["official", "legacy", "lenient"]
"""How texts are read.

official: as the evaluator of August 2023 and MING's copy of it, quirks included.
legacy: as the evaluator of May 2023, which early CCKS-2023 teams were scored with.
lenient: our own, for finding out how much of a low score is format; never comparable.
"""


def profile_named(name: str) -> Profile:
    """The profile of that name, or UsageError."""
    for profile in get_args(Profile):
        if name == profile:
            return profile  # type: ignore[no-any-return]
    raise UsageError(f"no profile named {name!r}; there are {', '.join(get_args(Profile))}")


def parse_answer(
    task: CblueTask, text: str, choices: Choices, profile: Profile = "official"
) -> Answer:
    """Read one text, gold or model output: the same rules for both. Never raises for any text."""
    if profile == "lenient":
        return lenient.parse_answer(task, text, choices)
    fallback = task.fallback_status
    if profile == "legacy":
        # Models whose tokenizers emit half-width punctuation depend on this: until August 2023 the
        # first hundred of each kind were taken for full-width ones.
        for half, full in ((":", "："), (",", "，"), (";", "；")):
            text = text.replace(half, full, 100)
        fallback = task.legacy_fallback_status or fallback
    match task.family:
        case "ner":
            return _entities(text, choices)
        case "relations":
            return [triple for line in text.split("\n") for triple in _triples(line)]
        case "normalisation":
            return _terms(text, choices)
        case "events":
            # Every line after the first is an event, whatever it holds. A blank line or a closing
            # remark is thus an event without attributes: one false positive a sample, however many
            # there are, for scoring is over sets.
            return [_event(line) for line in text.split("\n")[1:]]
        case "status":
            return _findings(text, choices, fallback)
        case "classification" | "matching":
            # The whole output is the label. None is searched in it, and any text is a class.
            label = text.strip()
            return STS_SYNONYMS.get(label, label) if task.name == "CHIP-STS" else label
        case "generation":
            return _report(text) if task.task_type == "report_generation" else text.strip()


def default_label(task: CblueTask, profile: Profile) -> str:
    """What an empty label counts as: the first of the evaluator's own list, by luck the right one.

    The parsers leave it empty; it is the scorer that replaces it.
    """
    if profile == "legacy" and task.legacy_default_label:
        return task.legacy_default_label
    return task.default_label


def _entities(text: str, choices: Choices) -> list[Item]:
    """CMeEE-V2, IMCS-V2-NER: a header, then one line a type, `TYPE实体：a，b`.

    The header is scanned like any line, so its absence and remarks around the lists do no harm;
    lines of types that were not offered vanish.
    """
    lines = text.split("\n")
    return [
        {"entity": stripped, "type": option}
        for option in choices
        for line in lines
        # The colon is not part of the test, and nothing may stand before the type.
        if line.startswith(f"{option}实体")
        # Every occurrence goes, not the leading one only. A half-width colon does not match, and
        # then the whole prefix stays on the first entity.
        for entity in line.replace(f"{option}实体：", "").split("，")
        if (stripped := entity.strip())
    ]


def _triples(line: str) -> list[Item]:
    """CMeIE: a line a relation, `具有REL关系的头尾实体对如下：`, with any number of pairs.

    A pair is `头实体为H，尾实体为T。`. There is no header line, and REL need not be an option.
    """
    # The first two characters are taken for 具有, whatever they are: anything before it on the
    # line ends up in the relation of all its triples.
    relation = line.split("关系的头尾实体对")[0][2:].strip()
    triples = []
    for pair in line.replace(f"具有{relation}关系的头尾实体对如下：", "").split("。"):
        parts = pair.split("，尾实体为")
        if len(parts) >= 2:  # a third part goes unread
            subject = parts[0].replace("头实体为", "").strip()
            tail = parts[1].replace("尾实体为", "").strip()
            triples.append({"predicate": relation, "subject": subject, "object": tail})
    return triples


def _terms(text: str, choices: Choices) -> list[Item]:
    """CHIP-CDN: offered terms on one line, separated by full-width commas.

    A term that was not offered is no answer; nor is 没有对应的标准化实体, unless it was offered.
    """
    # Only the last line counts, so a line break at the end leaves no answer.
    last_line = text.split("\n")[-1]
    offered = set(choices)
    # Officially a set, in any order; scoring does not see the order.
    terms = dict.fromkeys(piece.strip() for piece in last_line.split("，"))
    return [{"entity": term, "type": "normalization"} for term in terms if term and term in offered]


def _event(line: str) -> Item:
    """CHIP-CDEE: one event a line, `主体词：x；发生状态：y；描述词：a，b；解剖部位：c`."""
    values = dict.fromkeys(EVENT_KEYS, "")
    for piece in line.split("；"):
        rest = piece
        for key in EVENT_KEYS:
            # No trimming before the test: a blank after ； loses the attribute. What remains is
            # held against the later keys too, so one piece can fill two of them.
            if rest.startswith(f"{key}："):
                rest = rest.replace(f"{key}：", "").strip()
                values[key] = rest
    # Lists, not sets: two events with the same sites in another order differ.
    listed = {
        key: [stripped for piece in values[key].split("，") if (stripped := piece.strip())]
        for key in EVENT_KEYS[2:]
    }
    return {**values, **listed}


def _findings(text: str, choices: Choices, fallback: str) -> list[Item]:
    """CHIP-MDCFNPC, IMCS-V2-SR: a header, then one finding a line, `MENTION：STATUS`."""
    findings = []
    # The first line goes unread: an output without header loses its first finding.
    for line in text.split("\n")[1:]:
        parts = line.split("：")
        if len(parts) == 2:
            mention, status = parts
            # The status is not trimmed: one blank more and it is no option.
            known = status if status in choices else fallback
            findings.append({"entity": mention.strip(), "attr": known})
    return findings


def _report(text: str) -> dict[str, str]:
    """IMCS-V2-MRG: a header, then six sections, one a line; those found, in official order.

    Lines that do not start with a section's name (continuations, indented ones) are lost.
    """
    # Without a header the first section, the chief complaint, is lost.
    lines = text.strip().split("\n")[1:]
    return {
        # After the last occurrence: a section that names itself again keeps the end only. Of two
        # lines of one section the later wins.
        section: line.split(f"{section}：")[-1].strip()
        for section in MRG_SECTIONS
        for line in lines
        if line.startswith(f"{section}：")
    }
