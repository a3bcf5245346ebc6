r"""Answers announced in so many words: "故选AC", "the answer is (B)", `\boxed{D}`, {"answer": "C"}.

When a reply announces several answers, the last one counts: chat models reason first and may
change their mind, and the final sentence is what an examiner would mark.
"""

import re
from collections.abc import Iterator

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, last_matches
from mingmoe_eval.metrics.answer_reading.letters import Statement, statement_at

_CHINESE_LINK = r"(?:应该?是|应当是|应该?为|应当为|就是|只有|是|(?<![因认作成称分视])为|选择?|[:=])"
_STRONG_CUES = (
    # 答案是B / 答案：B / 【答案】B / 答案应为 B; no negation and no letter between noun and link
    r"答案(?:[\s*_\"'”’】\]」)]{0,6}(?=[A-Z(])|(?-i:[^\n。;!?A-Z【不非没未]){0,20}?"
    r"(?:有|包括|" + _CHINESE_LINK + "))",
    # 正确选项是B / 正确的有A、C / 最佳选择为D
    r"(?<!不)(?:正确|最佳|合适|恰当|符合题意|最终|最优)的?(?:选项|选择|一项|项|说法|叙述|描述"
    r"|搭配|组合)?\s?(?:有|包括|" + _CHINESE_LINK + ")",
    r"(?:选项|选择|结论)\s?(?:应该?|应当)?(?:是|(?<!因)为)|(?<![^\n])(?:选项|选择|结论)\s?:",
    # 故选B / 应选AC / 选择D
    r"选(?!项|择题)(?:择|取|定)?[了的]?(?:答案|选项)?(?:是|为|:)?",
    r"而是|应该是|应当是|应是|应为|当选的?(?:是|为)",
    r"\\boxed\s?\{",
    # the answer is / Answer: / "answer": / correct option would be
    r"\b(?:answers?|(?:correct|best|right|final|appropriate|chosen|selected|my)\s"
    r"(?:options?|choices?|ones?|selection|response|letter))\b"
    r"(?:[\s\"'*_(\[–—-]{1,4}(?=[A-Z](?![A-Za-z]))"
    r"|[^\n.!?;]{0,60}?(?:\b(?:is|are|be|was)\b|[:=→]|->))",
    r"\b(?:choose|chose|select|selected|pick|picked|go with|opt for|going with"
    r"|lean(?:ing)? towards?)\b|\bcorrect\s?:",
    r"\bnot\s\(?[A-Z]\)?,?\s(?:but|rather)\b(?:\srather)?",
)
# Weak cues also open other sentences, so the letters must end the sentence or the line.
_WEAK_CUES = (
    r"(?:因此|所以|综上所述|综上|故|可知|可见|得出|我认为|我觉得)[,:\s是为]{0,3}",
    r"(?:错误|不正确|不符合(?:题意)?|不属于)(?-i:[^\n。;A-Z]){0,8}?(?:有|包括|"
    + _CHINESE_LINK
    + ")",
    r"最(?-i:[^\n。;,A-Z]){1,16}?(?:是|(?<!因)为|:)",
    r"\b(?:therefore|thus|hence|so|conclusion)\b[,:]?|\bit(?:['’]s|\sis)\b",
    r"\b(?:diagnosis|treatment|step|management|cause|option|choice|statement|drug)\b"
    r"[^\n.!?;]{0,30}?\b(?:is|be)\b",
)
_STRONG = re.compile("|".join(f"(?:{cue})" for cue in _STRONG_CUES), re.IGNORECASE)
_WEAK = re.compile("|".join(f"(?:{cue})" for cue in _WEAK_CUES), re.IGNORECASE)

_NEGATED_BEFORE = re.compile(
    r"(?:不|误|错|勿|未|没有?|莫|(?<![分特鉴性判区])别|若|如果|假如|漏)(?:应该?|能|可以?|要|宜|会|必|得|再)?$"
    r"|(?:\bnot|n['’]t|\bnever|\bcannot|\bif you)\s{1,3}(?:\w{1,10}\s)?$",
    re.IGNORECASE,
)
_NEGATED_WITHIN = re.compile(
    r"\bnot\b(?!\s\(?[A-Z]\)?,?\s(?:but|rather))|n['’]t\b|\bcannot\b|\bnever\b|\bnone\b"
    r"|\bincorrect\b|\bwrong\b|解析|分析|解释|explanation|analysis|reasoning|rationale",
    re.IGNORECASE,
)
_REJECTED_AFTER = re.compile(
    r"[\s*)]{0,3}(?:选项|项|options?)?\s?(?:的说法)?(?:都|均)?(?:是|为|is|are)?\s?"
    r"(?:错|不正确|不对|incorrect|wrong|not\b|false)"
    r"|[\s*)]{0,3}(?:吗|么|\?)",
    re.IGNORECASE,
)


def announced(case: Case) -> Reading | None:
    """The answer after the last cue that states one."""
    return _last(case, _STRONG, must_end_sentence=False)


def concluded(case: Case) -> Reading | None:
    """The answer after the last word that merely draws a conclusion: "therefore, B."."""
    return _last(case, _WEAK, must_end_sentence=True)


def _last(case: Case, cues: re.Pattern[str], *, must_end_sentence: bool) -> Reading | None:
    for cue, statement in _statements(case, cues):
        if case.single and statement.hedged:
            continue
        if must_end_sentence and not statement.ends_sentence(case.text):
            continue
        rule = "the option's text after an answer cue" if statement.by_text else "an answer cue"
        return case.decide(statement.letters, rule, case.text[cue.start() : statement.end])
    return None


def _statements(case: Case, cues: re.Pattern[str]) -> Iterator[tuple[re.Match[str], Statement]]:
    """The cues that state something, the last one first."""
    for cue in reversed(last_matches(cues, case.text)):
        if _NEGATED_BEFORE.search(case.text, max(0, cue.start() - 16), cue.start()):
            continue
        if _NEGATED_WITHIN.search(cue.group()):
            continue
        statement = statement_at(case, cue.end())
        if statement and not _REJECTED_AFTER.match(case.text, statement.end):
            yield cue, statement
