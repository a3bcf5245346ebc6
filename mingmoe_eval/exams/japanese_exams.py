"""What is particular to Japan's medical licensing exams: JMLE and IgakuQA.

Some questions ask for a number and have no options. The answer sheet has one circle a digit, and
the question shows how they stand: "解答：①．②③ g/gCr"; a key is the digits, with or without the
point that the sheet already has. In JMLE2026-Bench the options stand in the question's own text.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_NUMBERED = re.compile(r"^\s*\d{1,2}[\s\u3000]+")
_OPTION_LINE = re.compile(r"^[ \t\u3000]*(?P<letter>[a-h])[ \t\u3000]+(?=\S)", re.MULTILINE)
_OPTION_ROW = re.compile(r"^\|\s*(?P<letter>[a-h])\s*\|(?P<cells>[^\n]+)\|\s*$", re.MULTILINE)


def with_options_apart(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A record of JMLE2026-Bench with its options in a field of their own, and its stem alone.

    Where the options are the rows of a table, the table stays in the stem, which it explains. A
    calculation has none, and keeps its text.
    """
    text = _NUMBERED.sub("", str(fields.get("question_text") or ""))
    lines = _from_a_on(list(_OPTION_LINE.finditer(text)))
    if lines:
        ends = [line.start() for line in lines[1:]] + [len(text)]
        options = {
            line["letter"]: " ".join(text[line.end() : end].split())
            for line, end in zip(lines, ends, strict=True)
        }
        return {**fields, "question_text": text[: lines[0].start()].strip(), "options": options}
    rows = _from_a_on(list(_OPTION_ROW.finditer(text)))
    options = {row["letter"]: " | ".join(map(str.strip, row["cells"].split("|"))) for row in rows}
    return {**fields, "question_text": text.strip(), "options": options or None}


def _from_a_on(found: list[re.Match[str]]) -> list[re.Match[str]]:
    """The last run of letters from a on without a gap; a lone "a" is a word of the question."""
    starts = [at for at, match in enumerate(found) if match["letter"] == "a"]
    run = found[starts[-1] :] if starts else []
    in_order = all(match["letter"] == chr(ord("a") + at) for at, match in enumerate(run))
    return run if len(run) >= 2 and in_order else []


_SHEET = re.compile(r"解答\s*:\s*(?P<form>[^\n]*)")
_CIRCLED = "①②③④⑤⑥⑦⑧⑨"
_FORM = re.compile(rf"[0-9.,\s{_CIRCLED}]*[{_CIRCLED}]")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])-?(?:\d+(?:,\s?\d{3})*(?:\.\d+)?|\.\d+)(?![\d.]*\d)")
# What stands before the number that answers: the frame of JMLE2026-Bench, or words for it.
_ANSWERS = re.compile(
    r"(?:【\s*(?:最終)?回答\s*】|(?:最終)?(?:答え|解答|回答|正解)\s*(?:は|:)|\\boxed\s*\{"
    r"|\b(?:final\s+)?answer\s*(?:is|:)|答案\s*(?:是|为|為|:))"
    rf"[^\n\d{_CIRCLED}]{{0,20}}?(?={_NUMBER.pattern})",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"[=≒≈]|約|となる|である|です|だ。|求め|therefore|thus|about|approximately", re.I
)
_SHORT_REPLY = 40


def number_asked_for(stem: str, key: str) -> str | None:
    """The number that a key means, with the point where the answer sheet has it; None for none.

    "04" on a sheet of "①.②" is 0.4, and "130" on one of "1, ①②③" is 1130.
    """
    text = _plain(key)
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return None
    sheet = _SHEET.search(_half_width(stem))
    form = _FORM.match(sheet["form"].strip()) if sheet else None
    if form is None:
        return text
    digits = text.replace(".", "")
    places = sum(circle in _CIRCLED for circle in form.group())
    if places != len(digits):
        return text
    left = iter(digits)
    filled = "".join(next(left) if c in _CIRCLED else c for c in form.group())
    return _plain(re.sub(r"\s", "", filled))


def read_number(reply: str, *, cut_off: bool = False) -> str | None:
    """The number that a reply answers with; None where none is stated.

    Behind the last words for an answer; else the only number of a reply of a few words, or of a
    last line that concludes. A number that merely occurs is a step of the calculation.

    Args:
        reply: The reply without its thinking.
        cut_off: Generation ended at its token limit: only an answer stated before then counts, and
            "12" may have been about to become 12.5.
    """
    text = _half_width(reply)
    for cue in reversed(list(_ANSWERS.finditer(text))):
        said = _NUMBER.match(text, cue.end())
        if said and not (cut_off and said.end() >= len(text.rstrip())):
            return _plain(said.group())
    if cut_off:
        return None
    last_line = text.strip().rpartition("\n")[2]
    numbers = _NUMBER.findall(last_line)
    short = len(text.strip()) <= _SHORT_REPLY and "\n" not in text.strip()
    if len(numbers) == 1 and (short or _CONCLUDES.search(last_line)):
        return _plain(numbers[0])
    return None


def same_number(answered: str | None, key: str) -> bool:
    """Whether an answer is the key's number: 0.4 is 0.40."""
    return answered is not None and Decimal(_plain(answered)) == Decimal(_plain(key))


def _plain(number: str) -> str:
    return re.sub(r",\s?", "", _half_width(number).strip())


# Not NFKC, which makes the circles of an answer sheet digits.
_HALF_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | {ord("−"): "-", 0x3000: " "}


def _half_width(text: str) -> str:
    return text.translate(_HALF_WIDTH)
