r"""Read the answer to a multiple-choice item out of a free-text reply.

A reply answers with what it asserts. In order:

1. what is no part of the answer is stripped (`reply_text`): thinking, Markdown, a next question;
   announcements in Spanish, French, Korean and Japanese are put into English (`translation`)
2. a reply that is nothing but letters, or one option's text, is that answer
3. references to options are marked (`mentions`), sentences read for what they state (`statements`)
4. the firmest kind of statement decides, and of that kind the last: a final answer, an announced
   one, a conclusion, the letter that the reply opens with, a pointer, then the same by text
5. else verdicts on the options ("A正确 B错误"), by elimination too
6. else, in a reply of a sentence or two, the only option that it mentions

A statement of several options answers no single-answer item, one with "or" answers none at all, and
one that says "none of them" answers nothing. A letter that is no option, a refusal, a walk through
the options and a reasoning that was cut off before its conclusion leave the item unanswered.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mingmoe_eval.metrics.answer_reading import wording
from mingmoe_eval.metrics.answer_reading.compat import compat_mode
from mingmoe_eval.metrics.answer_reading.mentions import (
    BARE_MARK,
    GROUP,
    LETTER_MARK,
    MARK,
    OR,
    SET_OFF_MARK,
    Item,
    by_text,
    letters_of,
    mark,
    small,
    spelled,
)
from mingmoe_eval.metrics.answer_reading.reply_text import statement_text, visible_reply
from mingmoe_eval.metrics.answer_reading.statements import (
    Force,
    Sentence,
    Statement,
    Verdict,
    faulted,
    favoured,
    judged,
    sentences,
    set_off,
    stated,
)
from mingmoe_eval.metrics.answer_reading.translation import in_english

DEFAULT = "default"

_LONGEST_QUOTE = 80
_SHORT_REPLY = 160
_SHORT_MENTION = 64
_LONG_REPLY = 100
_NAMES = {
    Force.TENTATIVE: "the only option held possible",
    Force.CONCLUDED_BY_TEXT: "a conclusion on an option's text",
    Force.ANNOUNCED_BY_TEXT: "the option's text after an answer cue",
    Force.POINTED: "a conclusion points to it",
    Force.OPENED: "letters at the start",
    Force.CONCLUDED: "a conclusion",
    Force.ANNOUNCED: "an answer cue",
    Force.FINAL: "a final answer",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """The letters that a reply was read to give, by which rule, and from which words.

    `letters` are sorted, unique and among the options; None means unanswered.
    """

    letters: tuple[str, ...] | None
    rule: str
    quote: str = ""

    @property
    def answered(self) -> str | None:
        """The letters as one string, such as `AC`."""
        return None if self.letters is None else "".join(self.letters)


def read_answer(
    reply: str,
    options: Mapping[str, str],
    *,
    single: bool,
    mode: str = DEFAULT,
    cut_off: bool = False,
) -> Reading:
    """Read the option letters that a reply gives; takes any string, and never raises for one.

    Args:
        reply: The raw reply, thinking blocks included.
        options: Option texts by letter, `A` to `Z`, gaps allowed.
        single: Whether the item has exactly one right answer.
        mode: `default`, or the name of an official script's rules (see `compat`). Such a mode
            sees the reply as it is; use `compat_mode` for the string that the script compares.
        cut_off: Whether generation ended at its token limit. Then only a stated answer counts.
    """
    if mode != DEFAULT:
        return _as_mode_reads(reply, options, single, mode)
    visible = visible_reply(reply)
    if not visible.text:
        return _unanswered("the reasoning was cut off" if visible.cut_off else "the reply is empty")
    item = Item.of(options, single=single)
    head, whole = statement_text(in_english(visible.text, options))
    cut_off = cut_off or _breaks_off(visible.text)
    reading = _read(head, item, cut_off=cut_off and head == whole)
    if reading.letters is None and head != whole and len(head) <= _SHORT_REPLY:
        reading = _read(whole, item, cut_off=cut_off)
    if reading.letters is None and visible.cut_off:
        return _unanswered("the reasoning was cut off", visible.text)
    return reading


_FULL_STOP = re.compile(
    r"[.。!?:;)\]}>\"'”’」』*`$|\d~A-Z-]\s*\Z|√\s*\Z|[a-z]{2}(?:ue|ong|ct|se)\s*\Z"
)


_TERMINAL = re.compile(r"[.。!)」”\"]\s*\Z")


def _breaks_off(visible: str) -> bool:
    """Whether a reply of some length stops within a sentence: cut off, whatever the run says."""
    return len(visible) > _LONG_REPLY and not _FULL_STOP.search(visible[-12:])


def _as_mode_reads(reply: str, options: Mapping[str, str], single: bool, mode: str) -> Reading:
    raw = compat_mode(mode).read(reply, options, single)
    letters = tuple(sorted({letter for letter in raw or "" if letter in options}))
    return Reading(letters or None, f"as {mode} reads", raw or "")


def _read(text: str, item: Item, *, cut_off: bool) -> Reading:
    if not item.texts:
        return _unanswered("the item has no options")
    if whole := _whole(text, item):
        return whole
    marked = mark(text, item)
    spread = sentences(marked)
    walk = _walk(marked)
    statements = _statements(marked, spread, walk, item)
    verdicts = [] if _settled(statements, item) else [v for each in spread for v in judged(each)]
    statements += _opening(text, marked, item, walk, verdicts, cut_off=cut_off)
    if _ends_with_all_options(marked, item, walk):
        # The question and its options repeated: what its stem says of an option is no answer.
        statements = [s for s in statements if not by_text(s.marks)]
    if cut_off:
        statements = [s for s in statements if s.force >= Force.OPENED]
    if decided := _decided(statements, verdicts, marked, item):
        return decided
    if cut_off:
        return _unanswered("cut off at its token limit before an answer", text)
    if found := _by_verdicts(verdicts, item):
        return found
    if statements:
        return _decide(statements, marked, item)
    if item.single and not walk and _FULL_STOP.search(text[-12:]) and not _REFUSAL.search(text):
        if left := _left_standing(marked, spread, verdicts):
            return _answer([left], item, "the only option set off and not passed over", text)
        if len(faults := set("".join(faulted(each) for each in spread))) == 1 and not any(
            v.right for v in verdicts
        ):
            return _answer(
                letters_of(faults.pop()), item, "the only option called wrong in conclusion", text
            )
    if refused := _REFUSAL.search(text):
        return _unanswered("a refusal", text[refused.start() :])
    if walk:
        return _unanswered("goes through the options without deciding", text)
    return _only_mention(text, marked, item, verdicts)


def _statements(
    marked: str, spread: Sequence[Sentence], walk: Mapping[int, str], item: Item
) -> list[Statement]:
    """What the reply states, back from its end to where nothing before could change the reading."""
    found: list[Statement] = []
    final_possible = any(words in marked for words in ("inal", "最终", "最后", "答案"))
    for sentence in reversed(spread):
        new = [s for s in stated(sentence) if not _is_label(s, marked, walk)]
        if item.single:
            # "let's sum up all the answers:" opens a list, and is not this question's answer
            new = [s for s in new if marked[s.words : s.words + 7].lower() != "answers"]
        found = new + found
        if item.single and any(s.force is Force.FINAL for s in new):
            break
        if not final_possible and _settled(new, item):
            break
    return found


def _settled(statements: Sequence[Statement], item: Item) -> bool:
    """Whether no verdict and no earlier statement can outrank these."""
    return item.single and any(s.force >= Force.ANNOUNCED for s in statements)


def _left_standing(
    marked: str, spread: Sequence[Sentence], verdicts: Sequence[Verdict]
) -> str | None:
    """The option set off in a plain sentence, where all others that are named are passed over."""
    wrong = {letter for v in verdicts if not v.right for letter in letters_of(v.marks)}
    left = set_off(marked) - wrong
    # A line that opens with a letter begins a walk through the options, if only a short one.
    plain = [s for s in spread if s.start == 0 or not re.match(LETTER_MARK, s.text)]
    hinted = set().union(*(favoured(each) for each in plain))
    return left.pop() if len(left) == 1 and left <= hinted else None


# --- 2. nothing but letters or a text -------------------------------------------------------------

_BARE = re.compile(
    r"[\s\"'()\[\]{}【】「」<>#.:-]{0,12}(?:(?:选项|选|答案|options?\b|answer\b)[\s:(]{0,4})?"
    r"(?P<letters>[A-Za-z](?:(?:[\s、,;/&+|.()]{0,4}|\s?(?:and|和|与|及)\s?)[A-Za-z]){0,25})"
    r"(?:选项|项)?[\s\"'()\[\]{}【】「」<>.。:、,;!-]{0,12}",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"[\s\"'()\[【「]{0,4}(?:选项|options? )?(?P<letter>[A-Za-z])[)\]\"'】」]{0,2}(?: ?[.:、,)]"
    r"|(?=[ \u4e00-\u9fff]))\s*"
)
_CUE_AT_START = re.compile(
    r"\s*(?:(?:so |therefore,? )?(?:the )?(?:correct |final |best |right )*(?:answer|choice"
    r"|option)(?: is| would be)?\s?:?\s"
    r"|[【\[]?(?:正确|参考|最终)?(?:答案|选项)(?:应?[是为])?[】\]]?\s?:?\s?)",
    re.IGNORECASE,
)
_EDGES = " \t\n.。,:;!\"'()[]【】「」“”-"


def _whole(text: str, item: Item) -> Reading | None:
    """The reading of a reply that is one option's text, with or without its letter, or letters."""
    cue = _CUE_AT_START.match(text)
    text = text[cue.end() :] if cue else text
    core = text.strip(_EDGES)
    label = _LABEL.match(text)
    if label and (words := item.texts.get(label["letter"].upper())):
        if text[label.end() :].strip(_EDGES).casefold() == words.strip(_EDGES).casefold() != "":
            return _answer([label["letter"].upper()], item, "a letter with its text", text)
        rest = text[label.end() :].strip(_EDGES)
        if rest and item.with_text(rest):
            return _unanswered("a letter with another option's text", text)
    bare = _BARE.fullmatch(text)
    same = item.with_text(core)
    if len(core) == 1 and core.isupper() and core in item.texts:
        return _answer([core], item, "bare letters", text)
    if same and not (
        bare and len(core) == 1 and core.upper() in item.texts and same != [core.upper()]
    ):
        if len(same) > 1:
            return _unanswered("the text of two options", text)
        if item.single or not item.letter_like(core):
            return _answer(same, item, "the option's text", text)
    if bare and (letters := _bare_list(bare["letters"], item)):
        if same and letters != same:
            return _unanswered("a letter and another option's text at once", text)
        return _answer(letters, item, "bare letters", text)
    return None


def _bare_list(given: str, item: Item) -> list[str] | None:
    listed = re.sub(r"\band\b", ",", given, flags=re.IGNORECASE)
    letters = [letter for letter in listed if letter.isascii() and letter.isalpha()]
    if all(letter.isupper() for letter in letters):
        ordered = letters == sorted(set(letters))
        return letters if ordered or set(letters) <= set(item.texts) else None
    # Small letters side by side may be a word: they must be options, in order.
    if not listed.islower():
        return None
    upper = [letter.upper() for letter in letters]
    in_order = upper == sorted(set(upper)) and set(upper) <= set(item.texts)
    return upper if in_order or len(upper) == 1 else None


# --- 3. what the reply opens with, and walks -----------------------------------------------------

_LINE_LABEL = re.compile(
    rf"^\s?(?:\d{{1,2}}[.)] ?)?(?:(?:answers?|choices?) )?(?P<mark>{LETTER_MARK})",
    re.MULTILINE | re.IGNORECASE,
)
_INLINE_LABEL = re.compile(
    rf"(?:^|[;。\n]|\. |, ?(?={LETTER_MARK} ?[:-])) ?"
    rf"(?P<mark>{LETTER_MARK}){LETTER_MARK}{{0,3}}(?:(?<={SET_OFF_MARK})"
    rf"| ?(?:[.:、,)-]|项))"
)
_MARKS_AT_START = re.compile(rf"[\s\"'(\[#.:-]{{0,8}}(?P<group>{GROUP})(?P<sign>[^\n]{{0,2}})")


_ANSWERS_AT_START = re.compile(
    r"(?:选项|项)?\s?(?:[.:、,。;)!\n(\[{<-]|$|因为|理由|原因|解析|because\b|since\b|as\b|is\b|是"
    r"|based\b|due\b|\Z)"
)


def _walk(marked: str) -> dict[int, str]:
    """Labels that go through the options, by position: several lines or clauses with a letter."""
    labels = {
        m.start("mark"): m["mark"]
        for m in (*_LINE_LABEL.finditer(marked), *_INLINE_LABEL.finditer(marked))
    }
    distinct = {letters_of(label)[0] for label in labels.values()}
    return labels if len(distinct) > 1 else {}


_ONE_LINE_AND_CUE = re.compile(r"[^\n]*(?:\n\s{0,4}(?:answer|答案)\s?:?\s{0,4})?", re.IGNORECASE)


def _ends_with_all_options(marked: str, item: Item, walk: Mapping[int, str]) -> bool:
    """Whether the reply's last lines are all of the options, with nothing behind them."""
    named = {letters_of(label)[0] for label in walk.values()}
    return named == set(item.texts) and bool(_ONE_LINE_AND_CUE.fullmatch(marked, max(walk)))


def _is_label(statement: Statement, marked: str, walk: Mapping[int, str]) -> bool:
    """Whether a statement reads a label of a walk as the answer: "Answer B: ... Answer C: ..."."""
    if statement.start not in walk:
        return False
    line = marked.rfind("\n", 0, statement.start) + 1
    head = marked[line : statement.start].strip().lower()
    return head in ("answer", "answers", "choice", "choices")


def _opening(
    text: str,
    marked: str,
    item: Item,
    walk: dict[int, str],
    verdicts: Sequence[Verdict],
    *,
    cut_off: bool,
) -> list[Statement]:
    opening = _MARKS_AT_START.match(marked)
    if opening is None:
        return []
    marks, start = opening["group"], opening.start("group")
    if by_text(marks):
        return []
    first_line, _, rest = marked.partition("\n")
    alone = not first_line[opening.end("group") :].strip(_EDGES)
    starts_at_top = letters_of(marks)[0] == next(iter(item.texts))
    if not item.single and starts_at_top and _echo_breaks_off(text, item):
        return []
    if start in walk and (starts_at_top or (alone and _bare_lines(marked) > 1)):
        return []
    if cut_off and starts_at_top and opening["sign"][:1] in (".", ":", ")", "、") and not alone:
        return []
    if any(letters_of(v.marks) == letters_of(marks) for v in verdicts[:1]):
        return []
    called_right = {letter for v in verdicts if v.right for letter in letters_of(v.marks)}
    if called_right and not called_right & set(letters_of(marks)):
        return []
    if opening["sign"][:1] in ("?", "和") or re.match(
        r"(?:选项|项)?\s?(?:is|was|are)?\s?(?:不|错|incorrect|wrong|not\b|false)",
        marked[opening.end("group") :],
        re.I,
    ):
        return []
    if not alone and not _ANSWERS_AT_START.match(marked, opening.end("group")):
        return []
    if len(set(letters_of(marks))) > 1 and not alone and item.single:
        return []
    force = Force.ANNOUNCED if alone and rest else Force.OPENED
    return [Statement(marks, force, start, start, bare=alone)]


def _echo_breaks_off(text: str, item: Item) -> bool:
    """Whether a reply that repeats options, each with its text, stops within one of the texts."""
    first_lines, _, last = text.rpartition("\n")
    label = _LABEL.match(last)
    if not first_lines or label is None:
        return False
    words = item.folded.get(label["letter"].upper(), "")
    said = last[label.end() :].strip(_EDGES).casefold()
    return bool(said) and len(said) < len(words) and words.startswith(said)


def _bare_lines(marked: str) -> int:
    return sum(
        1 for line in marked.split("\n", 60)[:60] if re.fullmatch(rf"\s?{MARK}[\s.:]{{0,2}}", line)
    )


# --- 4. to 6. deciding ---------------------------------------------------------------------------


def _decided(
    statements: Sequence[Statement], verdicts: Sequence[Verdict], marked: str, item: Item
) -> Reading | None:
    """The reading by the firmest statements; those by text give way to verdicts by letter."""
    if not statements:
        return None
    strongest = max(s.force for s in statements)
    if strongest <= Force.TENTATIVE:
        return None
    by_verdict = _by_verdicts([v for v in verdicts if not by_text(v.marks)], item)
    if strongest <= Force.ANNOUNCED_BY_TEXT and by_verdict and by_verdict.letters:
        return by_verdict
    if not item.single and strongest <= Force.OPENED and by_verdict and by_verdict.letters:
        return by_verdict
    decided = _decide([s for s in statements if s.force == strongest], marked, item)
    called_right = set(by_verdict.letters or ()) if by_verdict and not item.single else set()
    # 正确的有甲（A对）、乙（C对）: the cue reaches the first of the list alone.
    return (
        by_verdict
        if by_verdict and set(decided.letters or called_right) < called_right
        else decided
    )


def _decide(statements: Sequence[Statement], marked: str, item: Item) -> Reading:
    last = max(statements, key=lambda s: s.start)
    quote = spelled(marked[last.words : last.words + 4 * _LONGEST_QUOTE])
    if not last.marks:
        return _unanswered("says that no option is right", quote)
    force = last.force
    if force <= Force.CONCLUDED_BY_TEXT or force is Force.TENTATIVE:
        several = {tuple(sorted(set(letters_of(s.marks)))) for s in statements if s.marks}
        if len(several) > 1 and force is Force.TENTATIVE:
            return _unanswered("mentions several options without deciding", quote)
    marks = last.marks
    if not item.single and force is Force.FINAL:
        # D错，为本题正确答案。E错，为本题正确答案。
        each = [s.marks for s in statements if "本题" in marked[s.start : s.start + 12]]
        marks = "".join(each) or marks
    if OR in marks:
        return _unanswered("mentions several options without deciding", quote)
    named = last.start == last.words and force in (Force.FINAL, Force.CONCLUDED)
    rule = "bare letters" if last.bare else "named as the answer" if named else _NAMES[force]
    return _answer(letters_of(marks), item, rule, quote)


def _by_verdicts(verdicts: Sequence[Verdict], item: Item) -> Reading | None:
    """The options that the reply calls right; of two verdicts on one option the later counts.

    Without a right one, a single-answer item whose other options are all called wrong is read by
    elimination. When all options but one are called right, the item asked for the wrong one
    ("which is false?"), and the odd one out is the answer; this needs three options or more.
    """
    verdict = {
        letter: v.right for v in verdicts for letter in letters_of(v.marks) if letter in item.texts
    }
    right = [letter for letter in verdict if verdict[letter]]
    wrong = [letter for letter in verdict if not verdict[letter]]
    quote = ", ".join(f"{letter} {'right' if verdict[letter] else 'wrong'}" for letter in verdict)
    everything = len(item.texts)
    if not item.single:
        return _answer(right, item, "verdicts on the options", quote) if right else None
    if len(right) == 1:
        return _answer(right, item, "verdicts on the options", quote)
    if len(wrong) == 1 and len(right) == everything - 1 >= 2:
        return _answer(wrong, item, "the odd one out of the verdicts", quote)
    if right:
        return _unanswered("calls several options right", quote)
    left = [letter for letter in item.texts if letter not in wrong]
    ever_right = {letter for v in verdicts if v.right for letter in letters_of(v.marks)}
    if ever_right & set(wrong):
        return _unanswered("contradicts itself", quote)
    if len(left) == 1 and everything > 1:
        return _answer(left, item, "all other options are called wrong", quote)
    return None


_REFUSAL = re.compile(
    r"无法(?:直接)?(?:回答|确定|判断|给出|提供|作答|选择|得出)|不能(?:回答|提供|确定|作答|判断)"
    r"|抱歉|对不起|作为(?:一个|一名)?(?:AI|人工智能|语言模型)|信息不足|不知道|不清楚|我不确定"
    r"|\bI(?:'m| am) (?:sorry|unable|not able|not sure|an AI)"
    r"|\bI (?:can ?not|can't|could not|do not|don't) "
    r"(?:answer|provide|determine|know|give|help)"
    r"|\b(?:cannot|can't) be (?:determined|answered)|\bunable to (?:answer|determine)"
    r"|\bas an AI\b|\b(?:not enough|insufficient) information",
    re.IGNORECASE,
)
_REJECTED_BEFORE = re.compile(
    # "les propositions fausses sont B et E", "la incorrecta es la B"
    r"(?:\b(?:fausses?|inexactes?|incorrectes?|falsas?|incorrectas?)\b|不是|并非|不属于|不包括|不考虑|而非|除了?|(?:排|剔)除了?|(?:不|别|勿|莫)(?:应该?|应当|能"
    r"|可以?|要|宜|会|该)?选?择?"
    r"|\b(?:not|cannot|except|rul\w+ out|rather than|unlike|exclud\w+|eliminat\w+|against|no|so is"
    r"|so are|one of)\b"
    r"|n't)[^\n。.;,]{0,14}$",
    re.IGNORECASE,
)


def _only_mention(text: str, marked: str, item: Item, verdicts: Sequence[Verdict]) -> Reading:
    """The only option that a reply of a sentence or two mentions; a longer one must say more."""
    if not item.single and _echo_breaks_off(text, item):
        return _unanswered("repeats the options and breaks off", text)
    groups, lowered = list(re.finditer(GROUP, marked)), small(marked)
    called_wrong = {letter for v in verdicts if not v.right for letter in letters_of(v.marks)}
    kept = [
        g
        for g in groups
        if not _REJECTED_BEFORE.search(marked, max(0, g.start() - 30), g.start())
        and not wording.OF_OTHERS.search(lowered, max(0, g.start() - 60), g.start())
        and not (
            re.fullmatch(BARE_MARK, g.group())
            and re.match(r" ?(?!(?:is|because)\b)[A-Za-z]", marked[g.end() :])
        )
        and not (g.start() and marked[g.start() - 1] == "\n" and item.single)
        and not called_wrong & set(letters_of(g.group()))
        and not re.match(
            r"[^.。,;\n]{0,12}(?:不|错|排除|除外|ruled out|excluded|unlikely|\bnot\b"
            r"|아니|아닙|아닌|틀[린렸]|では?な|じゃな|误|\bpas\b|\bno (?:es|son)\b)",
            marked[g.end() : g.end() + 24],
        )
    ]
    scopes = (wording.HYPOTHETICAL, wording.UNSURE) if not item.single else (wording.HYPOTHETICAL,)
    if not kept or any(words.search(lowered) for words in scopes):
        return _unanswered("no answer found", text)
    letters = list(dict.fromkeys(letter for g in kept for letter in letters_of(g.group())))
    if (item.single and len(letters) > 1) or any(OR in g.group() for g in kept):
        return _unanswered("mentions several options without deciding", text)
    longest = _SHORT_MENTION if all(by_text(g.group()) for g in kept) else _SHORT_REPLY
    lengths = len(text) + sum("\u4e00" <= c <= "\u9fff" for c in text[:_SHORT_REPLY])
    if lengths > longest:
        return _unanswered("no answer found", text)
    by_letter = not all(by_text(g.group()) for g in kept)
    behind = marked[kept[-1].end() :].strip(_EDGES)
    if by_letter and (behind or len(text) > 60) and not _TERMINAL.search(text[-4:]):
        return _unanswered("no answer found", text)
    rule = (
        "the option's text"
        if all(by_text(g.group()) for g in kept)
        else "the only letter in the reply"
    )
    return _answer(letters, item, rule, text)


def _answer(letters: Sequence[str], item: Item, rule: str, quote: str) -> Reading:
    """The reading of stated letters.

    A letter that is no option leaves the item unanswered: dropping it would turn `AF` into a right
    `A`. So do several letters where exactly one is right.
    """
    stated_letters = set(letters)
    if not stated_letters <= set(item.texts):
        return _unanswered("names a letter that is no option", quote)
    if item.single and len(stated_letters) > 1:
        return _unanswered("mentions several options without deciding", quote)
    return Reading(tuple(sorted(stated_letters)), rule, _shorten(quote))


def _unanswered(why: str, quote: str = "") -> Reading:
    return Reading(None, why, _shorten(quote))


def _shorten(text: str) -> str:
    """A text on one line, cut to what a report's table can show."""
    line = " ".join(text[: 4 * _LONGEST_QUOTE].split())
    return line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 1] + "…"
