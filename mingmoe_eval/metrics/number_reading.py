r"""The number, date or time of pregnancy that a reply gives as its answer.

A calculation is full of numbers; the answer is the one that is stated as such: in a box, as "final
answer", as "the answer is", on a line of its own, as a conclusion, behind the last "=". The firmest
of these decides, and of its kind the last. What is a range, a bound ("> 5"), a choice ("4 or 5") or
an operation that nobody worked out is no number, and answers nothing.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Literal

from mingmoe_eval.metrics.answer_reading.reply_text import statement_text, visible_reply

Kind = Literal["number", "date", "weeks"]
"""What is asked for; `weeks` is a time of pregnancy, such as 33 weeks and 5 days."""


@dataclass(frozen=True, slots=True)
class NumberReading:
    """What was read.

    Attributes:
        values: What the words can mean, in the unit that was asked for; several where they leave it
            open: 12 % is 12, or 0.12. A date is its proleptic ordinal, weeks are days. Empty: none.
        answered: The same in plain words; None where nothing could be read.
        rule: By which rule, or why not.
    """

    values: tuple[float, ...]
    answered: str | None
    rule: str

    def within(self, lower: float, upper: float) -> bool:
        """Whether a meaning lies within limits, both of which count, but for rounding."""
        slack = 1e-9 * max(abs(lower), abs(upper))
        return any(lower - slack <= value <= upper + slack for value in self.values)


@dataclass(frozen=True, slots=True)
class _Found:
    """One quantity in a text, with its place; no values: a quantity that says no one number."""

    start: int
    end: int
    values: tuple[float, ...]
    words: str


_Finder = Callable[[str], Iterator[_Found]]


class _Force(IntEnum):
    """How firmly a number is stated; a firmer statement outranks a later one."""

    ALONE = 1  # the only number of a reply
    MENTIONED = 2  # "a clearance of 85"
    OPENED = 3  # the reply begins with it: "85 (rounded from 84.9)"
    LINKED = 4  # "creatinine clearance = 85"
    CONCLUDED = 5  # "so it is 85"
    ON_ITS_OWN_LINE = 6
    ANNOUNCED = 7  # "the answer is 85"
    FINAL = 8  # a box, a JSON field, "final answer: 85"


_RULES = {
    _Force.ALONE: "the only number",
    _Force.MENTIONED: "the last number mentioned",
    _Force.OPENED: "the reply begins with it",
    _Force.LINKED: "the last result",
    _Force.CONCLUDED: "a conclusion",
    _Force.ON_ITS_OWN_LINE: "a line of its own",
    _Force.ANNOUNCED: "an announced answer",
    _Force.FINAL: "a final answer",
}


def read_number(
    reply: str,
    kind: Kind = "number",
    *,
    unit: str = "",
    day_first: bool = False,
    cut_off: bool = False,
) -> NumberReading:
    """Read one reply; never raises for any text.

    Args:
        reply: The raw reply.
        kind: What is asked for.
        unit: The unit that is asked for; a number in another unit of the same dimension is
            converted (1,200 mg of g is 1.2). A unit that is no multiple of it is not looked at.
        day_first: 3/4/2024 is the third of April. Dates that can only be read one way, are.
        cut_off: Generation ended at its token limit: only an answer stated before then counts.
    """
    visible = visible_reply(_spelled(reply))
    stated = statement_text(_signs_kept(visible.text))[0]
    text = _without_steps(_signs_restored(stated))
    find: _Finder = {
        "number": lambda segment: _numbers(segment, unit),
        "date": lambda segment: _dates(segment, day_first),
        "weeks": _weeks,
    }[kind]
    best: tuple[_Force, _Found] | None = None
    for force, found in _statements(text, find):
        if cut_off and found.end >= len(text.rstrip()):
            continue  # "12" may have been about to become 12.5
        if best is None or force >= best[0]:
            best = force, found
    if best is None and not (visible.cut_off or cut_off):
        best = _only(text, find)
    if best is None or ((visible.cut_off or cut_off) and best[0] < _Force.ON_ITS_OWN_LINE):
        return NumberReading((), None, f"no {_NOUNS[kind]} is stated as the answer")
    force, found = best
    if not found.values:
        return NumberReading((), None, f"no one {_NOUNS[kind]}: {found.words}")
    return NumberReading(found.values, found.words, _RULES[force])


_NOUNS = {"number": "number", "date": "date", "weeks": "time in weeks and days"}


# --- Spelling --------------------------------------------------------------------------------

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_POWER = re.compile("(?<=10)[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
# Private use: no reply has them, for `visible_reply` drops those that it has.
_MINUS, _MORE = "\ue000", "\ue001"
_VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_SPELLINGS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\\(?:d|t)?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\times|\\cdot"), "×"),
    (re.compile(r"\\(?:approx|simeq|sim)\b|≅|≃|≒"), "≈"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d)\\[,;!: ](?=\d{3})"), ","),  # a thin blank between thousands
    (re.compile(r"(?<=\d)[\u2009\u202f'’](?=\d{3}(?!\d))"), ","),
    (re.compile(r"\^\s?\{([+-]?\d+)\}"), r"^\1"),
    (re.compile("[½¼¾⅓⅔]"), lambda match: f" {_VULGAR[match[0]]}"),
    # A full-width comma separates clauses and no digits; it would fold to one that may.
    (re.compile("，"), ", "),
)
_SIGN = re.compile(r"(?<![\w.)\]%])[-−](?=\.?\d)")
_BOUND = re.compile(r">(?=\s?\d)")
_STEP = re.compile(r"^[ \t]*\(?(\d{1,2})[.)][ \t]+(?=\S)", re.MULTILINE)


def _spelled(reply: str) -> str:
    """Typeset numbers as plain ones, before folding makes 10³ of 10 and 3."""
    text = _POWER.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), reply)
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text


def _signs_kept(text: str) -> str:
    """At a line's start "-" and ">" are no marks of lists and quotes where a number follows."""
    return _BOUND.sub(_MORE, _SIGN.sub(_MINUS, text))


def _signs_restored(text: str) -> str:
    return text.replace(_MINUS, "-").replace(_MORE, ">")


def _without_steps(text: str) -> str:
    """A text whose lines are numbered from 1 on, without the numbers: they are no results."""
    steps = [match[1] for match in _STEP.finditer(text)]
    return _STEP.sub("", text) if {"1", "2"} <= set(steps) else text


# --- Statements ------------------------------------------------------------------------------

_SENTENCE_END = re.compile(r"\n+|[。;!?]+|(?<!i\.e)(?<!e\.g)(?<!approx)\.(?=\s|$)", re.IGNORECASE)
_FINAL = re.compile(
    r"\b(?:final|overall)\s(?:answer|result|score|value)\b"
    r"|(?:最终|最后|最終)(?:的|的な)?(?:答案|结果|得分|数值|回答|答え)",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"\b(?:answer|ans)\b(?=\s?(?:is|was|=|:|≈|would be|comes))|\banswer\b(?=\s\d)"
    r"|答案|答え|回答|解答",
    re.IGNORECASE,
)
_CONCLUDES = re.compile(
    r"(?:^|[,:;-])\W*(?:(?:therefore|thus|hence|so|consequently|in conclusion|accordingly"
    r"|as a result|overall)\b|因此|所以|故|综上|由此|可得|总之|したがって|よって|ゆえに)",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"=|≈|'s\b|\b(?:is|was|are|be|equals?|gives?|yields?|totals?)\b|为|是|得|等于|共|は",
    re.IGNORECASE,
)
_COLON = re.compile(":")  # behind "the score is 4:" come the parts that it is made of
_WEAK_LINK = re.compile(r"\b(?:approximately|about|of|to)\b|约", re.IGNORECASE)
_RESULT = re.compile(r"[=≈]")
_UNIT_ALONE = re.compile(r"[^\d\n。;!?]{0,40}")
_NEGATED = re.compile(
    r"\b(?:not|never|n't|rather than|instead of)\s{0,2}(?:\w+\s)?$|(?:不是|并非|而非)$", re.I
)


def _statements(text: str, find: _Finder) -> Iterator[tuple[_Force, _Found]]:
    for start, sentence in _sentences(text):
        for force, found in _stated(sentence, find):
            if force is _Force.ON_ITS_OWN_LINE and start and text[start - 1] != "\n":
                continue  # a remark behind another sentence, as in "i.e. 0.45 s"
            here = _Found(found.start + start, found.end + start, found.values, found.words)
            yield force, here


def _sentences(text: str) -> Iterator[tuple[int, str]]:
    """The sentences that hold a number and are no question, with their places."""
    start = 0
    for end in [*_SENTENCE_END.finditer(text), None]:
        sentence = text[start : len(text) if end is None else end.start()]
        asks = end is not None and "?" in end.group()
        if not asks and (any(map(str.isdigit, sentence)) or _WORD.search(sentence)):
            yield start, sentence
        start = len(text) if end is None else end.end()


def _stated(sentence: str, find: _Finder) -> Iterator[tuple[_Force, _Found]]:
    """What one sentence states, if anything."""
    for force, cue in ((_Force.FINAL, _FINAL), (_Force.ANNOUNCED, _ANSWER)):
        cues = list(cue.finditer(sentence))
        if cues and (found := _behind(sentence, cues[-1].end(), find)):
            yield force, found
            return
    every = list(find(sentence))
    if not every:
        return
    opens = not sentence[: every[0].start].strip(" -+*•(\"'约≈~")
    if opens and len(every) == 1 and _UNIT_ALONE.fullmatch(sentence, every[0].end):
        yield _Force.ON_ITS_OWN_LINE, every[0]
        return
    conclusions = list(_CONCLUDES.finditer(sentence))
    if conclusions and (found := _behind(sentence, conclusions[-1].end(), find)):
        yield _Force.CONCLUDED, found
    elif linked := _linked(sentence, every, _LINK) or _linked(sentence, every, _COLON):
        yield _Force.LINKED, linked
    elif opens:
        yield _Force.OPENED, every[0]
    elif linked := _linked(sentence, every, _WEAK_LINK):
        yield _Force.MENTIONED, linked


def _behind(sentence: str, start: int, find: _Finder) -> _Found | None:
    """The quantity stated behind a place: the last one that is linked to, else the first."""
    found = [
        one
        for one in find(sentence)
        if one.start >= start and not _NEGATED.search(sentence, max(0, one.start - 24), one.start)
    ]
    if not found:
        return None
    if linked := _linked(sentence, found, _RESULT):
        return linked
    if linked := _linked(sentence, found, _LINK, start=start):
        return linked
    return _one_of(sentence, found, 0)


def _linked(
    sentence: str, found: list[_Found], link: re.Pattern[str], *, start: int = 0
) -> _Found | None:
    """The last quantity that directly follows a link, and stands in no brackets: "= 85 (8-16)"."""
    chosen, end, depth = None, start, 0
    for place, one in enumerate(found):
        gap = sentence[end : one.start]
        depth += sum(map(gap.count, "([（")) - sum(map(gap.count, ")]）"))
        links = list(link.finditer(gap))
        if depth <= 0 and links and _DIRECT.fullmatch(gap, links[-1].end()):
            chosen = place
        end = one.end
    return None if chosen is None else _one_of(sentence, found, chosen)


def _one_of(sentence: str, found: list[_Found], place: int) -> _Found:
    """A quantity; none where it is one of two: "between 4 and 5", "4 or 5"; "5 of 9 points" is."""
    one = found[place]
    if place + 1 < len(found):
        other = found[place + 1]
        if _ALTERNATIVE.fullmatch(sentence, one.end, other.start):
            return _Found(one.start, other.end, (), sentence[one.start : other.end])
    return one


_DIRECT = re.compile(r"[^;\n]{0,80}")
_ALTERNATIVE = re.compile(
    r"[^\d,.;=]{0,16}?\s?(?:\bor\b|\bto\b|或|至|到)\s?[^\d]{0,6}", re.IGNORECASE
)


def _only(text: str, find: _Finder) -> tuple[_Force, _Found] | None:
    """The one quantity of a reply that has no other."""
    found = [
        _Found(one.start + start, one.end + start, one.values, one.words)
        for start, sentence in _sentences(text)
        for one in find(sentence)
    ]
    meant = {one.values for one in found}
    return (_Force.ALONE, found[-1]) if len(meant) == 1 else None


# --- Numbers ---------------------------------------------------------------------------------

_PLAIN = (
    r"[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?"  # 1,234.5
    r"|[1-9]\d{0,2}(?:\.\d{3})+,\d+"  # 1.234,5
    r"|[1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)"  # 1.234.567
    r"|[1-9]\d{0,2}(?: \d{3})+(?![\d.]|,\d)(?:\.\d+)?"  # 12 345
    r"|\d+,\d{1,2}(?!\d)|0,\d+"  # 12,5
    r"|\d*\.\d+|\d+"
)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^])(?<![A-Za-z]-)(?<!\d[,/])"
    r"(?P<bound>(?:[<>≤≥]=?|(?:less|more|greater|higher|lower|fewer) than|at (?:least|most)|under"
    r"|above|below|大于|小于|超过|低于|高于|不足|至少|至多|不超过)\s?(?:or equal to\s)?)?"
    r"(?P<per_cent>百分之)?(?P<sign>[-+]\s?)?"
    rf"(?:(?P<whole>\d{{1,4}})\s(?P<over>\d{{1,3}})\s?/\s?(?P<under>\d{{1,3}})(?![\d/])"
    rf"|(?P<top>\d+(?:\.\d+)?)\s?/\s?(?P<bottom>[1-9]\d*(?:\.\d+)?)(?![\d/.]|\s?m[2²])"
    rf"|(?P<plain>(?>{_PLAIN})))"
    r"(?P<power>[eE][-+]?\d{1,3}(?![\w.])|\s?[×xX*·]\s?10\s?\^\s?\(?(?P<exponent>[-+]?\d{1,3})\)?"
    r"|\^[-+]?\d{1,3})?"
    r"(?:\s?(?P<scale>(?:thousand|million|billion)\b|千|万|百万|亿))?"
    r"(?:\s?(?:±|\+/-)\s?[\d.]+)?"
    r"(?P<percent>\s?(?:%|per ?cent\b|percent\b))?"
    r"(?!(?:st|nd|rd|th)\b|-[A-Za-z])",  # the 12th, a 3-month course
    re.IGNORECASE,
)
_SCALES = {
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "千": 1e3,
    "万": 1e4,
    "百万": 1e6,
    "亿": 1e8,
}
_DENOMINATOR = re.compile(r"(?:/|\bper\s|每)\s?$", re.IGNORECASE)
_OUT_OF = re.compile(r"\s?(?:\w+\s)?(?:out of|of)\s(?:a (?:total|maximum|possible)\s(?:of\s)?)?\d")
_OPERATED = re.compile(r"\s?(?:[-–—~×*+/÷^]|\bto\b|至|到)\s?\(?\s?[<>]?\d")
_OPERATED_BEFORE = re.compile(r"\d\s?[%)]?\s?[-–—~×*+/÷]\s?$")
# 12/15 is how scores are given, out of what they can reach; 3/4 is no score.
_LEAST_FULL_SCORE = 5
_POINTS = re.compile(r"\s?(?:points?|pts?\b|分)", re.IGNORECASE)
_CHINESE_DIGITS = "零一二两三四五六七八九十"
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORD = re.compile(
    rf"\b(?P<english>{'|'.join((*_WORDS, 'eleven', 'twelve', 'none'))})\b"
    r"|(?P<chinese>[一二三四五六七八九]?十[一二三四五六七八九]?|[零一二两三四五六七八九])(?=\s?(?:分|点|个|项|天|周|岁|次|级|$))",
    re.IGNORECASE,
)
_AND = re.compile(r"\s?(?:and|与|和)\s?(?=\d)")
_BETWEEN = re.compile(r"\b(?:between|from)\s?$|介于$", re.IGNORECASE)


def _numbers(text: str, unit: str) -> Iterator[_Found]:
    """The numbers of a text, but for those that belong to a unit, such as 1.73 m2."""
    found_any = False
    for match in _NUMBER.finditer(text):
        if _DENOMINATOR.search(text, max(0, match.start() - 5), match.start()):
            continue
        found_any = True
        yield _number(text, match, unit)
    if not found_any:
        for match in _WORD.finditer(text):
            value = _value_of_word(match)
            yield _Found(match.start(), match.end(), (value,), f"{value:g}")


def _number(text: str, match: re.Match[str], unit: str) -> _Found:
    start, end = match.span()
    behind = _OPERATED.match(text, end)
    before = _OPERATED_BEFORE.search(text, max(0, start - 6), start)
    ranged = _BETWEEN.search(text, max(0, start - 9), start) and _AND.match(text, end)
    if match["bound"] or behind or before or ranged:
        # Neither end of "4-5", of "4 × 5" or of "> 5" is what is stated.
        stop = behind.end() if behind else end
        return _Found(start, end, (), text[start:stop].strip())
    try:
        value = _value(match)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return _Found(start, end, (), text[start : min(end, start + 40)])
    others: tuple[float, ...] = ()
    if match["top"] and _POINTS.match(text, end):
        value = float(match["top"])  # 5/9 points
    elif match["top"] and float(match["bottom"]) >= _LEAST_FULL_SCORE:
        others = (float(match["top"]),)
    if match["sign"] and match["sign"].strip() == "-":
        value = -value
    unit_said = _UNIT.match(text, end)
    is_percent = bool(match["percent"] or match["per_cent"])
    if is_percent and unit != "%":
        values: tuple[float, ...] = (value, value / 100)
    else:
        values = (value * _factor(unit_said["unit"] if unit_said else "", unit), *others)
    if out_of := _OUT_OF.match(text, end):
        end = out_of.end()
    return _Found(start, end, values, f"{values[0]:.10g}{'%' if is_percent else ''}")


def _value(match: re.Match[str]) -> float:
    if match["whole"]:
        value = int(match["whole"]) + int(match["over"]) / (int(match["under"]) or 1)
    elif match["top"]:
        value = float(match["top"]) / float(match["bottom"])
    else:
        value = float(_with_point(match["plain"]))
    if match["exponent"]:
        value *= 10.0 ** int(match["exponent"])
    elif power := match["power"]:
        base, exponent = (value, int(power[1:])) if power[0] == "^" else (10.0, int(power[1:]))
        value = base**exponent if power[0] == "^" and base else value * 10.0**exponent
    return value * _SCALES.get((match["scale"] or "").lower(), 1.0)


def _with_point(digits: str) -> str:
    """Thousands without their marks, and a point before the decimals."""
    digits = digits.replace(" ", "")
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", digits):
        return digits.replace(",", "")
    if "," in digits or digits.count(".") > 1:
        return digits.replace(".", "").replace(",", ".")
    return digits


def _value_of_word(match: re.Match[str]) -> float:
    if english := match["english"]:
        names = {
            **{word: n for n, word in enumerate(_WORDS)},
            "eleven": 11,
            "twelve": 12,
            "none": 0,
        }
        return float(names[english.lower()])
    digits = match["chinese"].replace("两", "二")
    tens, ten, ones = digits.partition("十")
    if ten:
        return 10.0 * (_CHINESE.index(tens) if tens else 1) + (_CHINESE.index(ones) if ones else 0)
    return float(_CHINESE.index(digits))


_CHINESE = "零一二三四五六七八九"


# --- Units -----------------------------------------------------------------------------------

_UNIT = re.compile(r"\s?(?P<unit>[A-Za-zµμ\u4e00-\u9fff]+(?:\s?/\s?[A-Za-zµμ\u4e00-\u9fff]+)*)")
_BASES = {"g": "g", "gram": "g", "l": "L", "liter": "L", "litre": "L", "mol": "mol", "m": "m",
          "meter": "m", "metre": "m", "eq": "eq", "u": "U", "iu": "U", "pa": "Pa"}  # fmt: skip
_PREFIXES = {"k": 1e3, "d": 0.1, "c": 0.01, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "mc": 1e-6,
             "n": 1e-9, "p": 1e-12, "kilo": 1e3, "deci": 0.1, "centi": 0.01, "milli": 1e-3,
             "micro": 1e-6, "nano": 1e-9, "": 1.0}  # fmt: skip
_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600,
            "hour": 3600, "d": 86400, "day": 86400, "wk": 604800, "week": 604800,
            "天": 86400, "周": 604800, "小时": 3600, "分钟": 60, "秒": 1}  # fmt: skip
_CHINESE_UNITS = {"公斤": "kg", "千克": "kg", "克": "g", "毫克": "mg", "微克": "ug", "升": "l",
                  "毫升": "ml", "米": "m", "厘米": "cm", "毫米": "mm"}  # fmt: skip


def _factor(said: str, wanted: str) -> float:
    """What turns a number in one unit into another of the same dimensions; else 1."""
    if not said or not wanted:
        return 1.0
    mine, theirs = _dimensions(said), _dimensions(wanted)
    if mine is None or theirs is None or mine[0] != theirs[0]:
        return 1.0
    return mine[1] / theirs[1]


def _dimensions(unit: str) -> tuple[tuple[str, ...], float] | None:
    """A unit's dimensions, the first over the others, and its size; None for one not known."""
    names, size = [], 1.0
    for place, part in enumerate(unit.split("/")):
        known = _simple_unit(part.strip())
        if known is None:
            return None
        names.append(known[0])
        size = size / known[1] if place else known[1]
    return tuple(names), size


def _simple_unit(name: str) -> tuple[str, float] | None:
    name = _CHINESE_UNITS.get(name, name)
    lower = name.lower()
    singular = lower[:-1] if len(lower) > 2 and lower.endswith("s") else lower
    for form in (lower, singular):
        if form in _SECONDS:
            return "s", float(_SECONDS[form])
        for prefix, size in _PREFIXES.items():
            if form.startswith(prefix) and (base := _BASES.get(form[len(prefix) :])):
                return base, size
    return None


# --- Dates and weeks -------------------------------------------------------------------------

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month{0}>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
)
_MONTH += r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
_DATE = re.compile(
    r"(?<![\d/.-])(?:(?P<y>\d{4})\s?[-/.年]\s?(?P<m>\d{1,2})\s?[-/.月]\s?(?P<d>\d{1,2})(?!\d)日?"
    r"|(?P<one>\d{1,2})\s?[-/.]\s?(?P<two>\d{1,2})\s?[-/.]\s?(?P<year>\d{4})(?!\d)"
    rf"|\b{_MONTH.format(1)}\.?\s(?P<day1>\d{{1,2}})(?:st|nd|rd|th)?,?\s(?P<year1>\d{{4}})"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH.format(2)}\.?,?\s(?P<year2>\d{{4}}))",
    re.IGNORECASE,
)
_WEEKS = re.compile(
    r"(?<![\d.])(?P<w>\d{1,2})['\"]?\s?"
    r"(?:(?:\s?(?:weeks?|wks?|w|周)['\"]?|\s?[+,])\s?(?:\+|,|and|又|零|&)?\s?['\"]?(?P<d>\d)(?!\d)"
    r"\s?(?:days?|d|天|日)?['\"]?|(?:\s|\+)(?P<sevenths>[0-6])\s?/\s?7)(?:\s?(?:weeks?|周))?"
    r"|(?<![\d.])(?P<only>\d{1,2})['\"]?\s?(?:completed\s)?(?:weeks?|wks?|周)"
    r"|(?<![\d.])(?P<days>\d{1,3})\s?(?:days?|天)",
    re.IGNORECASE,
)


def _dates(text: str, day_first: bool) -> Iterator[_Found]:
    for match in _DATE.finditer(text):
        if (day := _date(match, day_first)) is not None:
            yield _Found(match.start(), match.end(), (float(day.toordinal()),), day.isoformat())


def _date(match: re.Match[str], day_first: bool) -> date | None:
    if match["y"]:
        year, month, day = int(match["y"]), int(match["m"]), int(match["d"])
    elif match["one"]:
        one, two, year = int(match["one"]), int(match["two"]), int(match["year"])
        day, month = (one, two) if (day_first and two <= 12) or one > 12 else (two, one)
    else:
        which = "1" if match["month1"] else "2"
        year, day = int(match[f"year{which}"]), int(match[f"day{which}"])
        month = _MONTHS.index(match[f"month{which}"][:3].lower()) + 1
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _weeks(text: str) -> Iterator[_Found]:
    for match in _WEEKS.finditer(text):
        if match["only"]:
            weeks, days = int(match["only"]), 0
        elif match["days"]:
            weeks, days = divmod(int(match["days"]), 7)
        else:
            weeks, days = int(match["w"]), int(match["sevenths"] or match["d"])
        said = 7 * weeks + days
        yield _Found(match.start(), match.end(), (float(said),), f"{weeks} weeks {days} days")
