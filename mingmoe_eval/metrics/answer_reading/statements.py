"""What each sentence of a marked reply asserts about the options, and how firmly.

A sentence is read only as far as the scope of its words goes: what stands under a negation, in a
question, under a condition, behind "rather than" or beside "could be" is no answer. An `OR` in a
group, or several options where one is asked for, makes a statement that answers nothing; it still
is a statement, and the last one made decides.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from mingmoe_eval.metrics.answer_reading import wording
from mingmoe_eval.metrics.answer_reading.mentions import (
    GROUP,
    OR,
    SET_OFF_MARK,
    by_text,
    letters_of,
    small,
)

_TOKEN = re.compile(GROUP)
_SET_OFF = re.compile(SET_OFF_MARK)


class Force(IntEnum):
    """How firmly a statement answers the question; a firmer one outranks a later one."""

    TENTATIVE = 1  # "it could be B", 可能是B
    CONCLUDED_BY_TEXT = 2  # "the most likely diagnosis is pneumonia"
    ANNOUNCED_BY_TEXT = 3  # "the answer is pneumonia"
    POINTED = 4  # "..., that is option B", "so B"
    OPENED = 5  # the reply opens with it: "B. Pneumonia. The patient ..."
    CONCLUDED = 6  # "B is the best choice", 最可能的诊断是B
    ANNOUNCED = 7  # "the answer is B", 故选B
    FINAL = 8  # "final answer: B", a box, a JSON field


@dataclass(frozen=True, slots=True)
class Statement:
    """Marks that a sentence states as the answer; none where it says that no option is right.

    `start` is where the marks stand, `words` where the words that state them begin.
    """

    marks: str
    force: Force
    start: int
    words: int
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sentence calls options: right or wrong."""

    marks: str
    right: bool


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a marked reply in small letters, where it starts, and how it ends."""

    text: str
    start: int
    ending: str

    @property
    def asks(self) -> bool:
        """Whether it is a question, which states nothing."""
        return "?" in self.ending


_BOUNDARY = re.compile(r"[\n。;!?]+|\.(?=[\s\"')]|$)")


def sentences(marked: str) -> list[Sentence]:
    """The sentences, in order, that hold a mark or deny all options.

    Small letters: patterns that need not fold the case run several times faster.
    """
    lowered = small(marked)
    wanted = [m.start() for m in _TOKEN.finditer(lowered)]
    if any(words in lowered for words in wording.NONE_NEEDS):
        wanted += [m.start() for m in wording.NONE.finditer(lowered)]
    if not wanted:
        return []
    wanted.sort()
    found, start, next_wanted = [], 0, 0
    for end, ending in (
        *((b.start(), b.group()) for b in _BOUNDARY.finditer(lowered)),
        (len(lowered), ""),
    ):
        if next_wanted < len(wanted) and wanted[next_wanted] < end:
            found.append(Sentence(lowered[start:end], start, ending))
            while next_wanted < len(wanted) and wanted[next_wanted] < end:
                next_wanted += 1
        start = end + len(ending)
    return found


def stated(sentence: Sentence) -> Iterator[Statement]:
    """The statements of one sentence."""
    text = sentence.text
    groups = list(_TOKEN.finditer(text))
    denied = wording.NONE.search(text)
    if denied and not wording.NONE_OF_OTHERS.search(text):
        force = Force.ANNOUNCED if wording.IS_NONE.search(text) else Force.POINTED
        yield Statement("", force, sentence.start, sentence.start)
        # "none of them fits exactly, so we select the closest, option A"
        behind = [g for g in groups if g.start() > denied.end()]
        yield from _cued(sentence.start, text, behind)
        return
    if not groups or sentence.asks:
        return
    if turned := wording.NOT_BUT.search(text):
        marks = turned["g"] or turned["h"] or turned["i"]
        start = sentence.start + turned.start()
        yield Statement(marks, Force.ANNOUNCED, start, start)
        return
    supposed = wording.HYPOTHETICAL.search(text)
    if supposed and not wording.CONCLUDES.search(text, supposed.end()):
        return
    if wording.LEFT_OPEN.search(text):
        return
    if above := wording.PREFERRED.search(text):
        marks = above["g"] or above["h"] or above["i"] or above["j"]
        start = sentence.start + above.start()
        yield Statement(marks, Force.POINTED, start, start)
    yield from _cued(sentence.start, text, groups)
    yield from _predicated(sentence.start, text, groups)
    yield from _concluded(sentence.start, text, groups)


def _cued(start: int, sentence: str, groups: list[re.Match[str]]) -> Iterator[Statement]:
    """Answers announced in so many words: "故选AC", "the answer is (B)"."""
    for cue in wording.CUE.finditer(sentence):
        group = next((g for g in groups if g.start() >= cue.end()), None)
        if group is None:
            return
        if wording.CUE_NEGATED_BEFORE.search(sentence, max(0, cue.start() - 24), cue.start()):
            continue
        link = sentence[cue.end() : group.start()]
        links = wording.LINKS[str(cue.lastgroup)]
        if len(link) > 160 or not any(pattern.fullmatch(link) for pattern in links):
            continue
        if wording.ELSEWHERE.search(link) or wording.REJECTED_AFTER.match(sentence, group.end()):
            continue
        adjacent = cue.lastgroup == "english" and not link.strip()
        if adjacent and wording.IS_SUBJECT.match(sentence, group.end()):
            continue
        if cue.lastgroup == "verb" and wording.REASON_OF_VERB_CUE.match(sentence, group.end()):
            continue
        force = Force.FINAL if cue.lastgroup == "final" else Force.ANNOUNCED
        if by_text(group.group()) and force is Force.ANNOUNCED:
            force = Force.ANNOUNCED_BY_TEXT
        if wording.UNSURE.search(link):
            force = Force.TENTATIVE
        yield Statement(group.group(), force, start + group.start(), start + cue.start())


def _predicated(start: int, sentence: str, groups: list[re.Match[str]]) -> Iterator[Statement]:
    """Options of which the sentence says that they are the answer: "B is the best choice"."""
    for number, group in enumerate(groups):
        follows = groups[number + 1].start() if number + 1 < len(groups) else len(sentence)
        behind = sentence[group.end() : follows]
        if not any(words in behind for words in wording.PREDICATE_NEEDS):
            continue
        named = wording.NAMED_CHINESE.match(behind)
        made = wording.MAKES.search(
            sentence, max(0, group.start() - 24), group.start()
        ) and wording.MADE.match(behind)
        predicate = (
            named
            or made
            or wording.IS_DEFINITE_ENGLISH.match(behind)
            or wording.IS_DEFINITE_CHINESE.match(behind)
        )
        predicate = predicate or (wording.MAKES_IT.search(behind) if len(groups) == 1 else None)
        predicate = predicate or (
            wording.BEST_DESCRIBES.match(behind) if not by_text(group.group()) else None
        )
        if not predicate:
            continue
        said = predicate.group()
        if not named and wording.NEGATION.search(said):
            continue
        if wording.ASKS.match(behind, predicate.end()):
            continue
        if not named and wording.OTHERWISE.search(
            sentence, max(0, group.start() - 30), group.start()
        ):
            continue
        force = Force.FINAL if named else Force.CONCLUDED
        if by_text(group.group()):
            if not wording.NAMES_THE_ANSWER.search(said):
                continue  # "mannitol is the drug of choice" is a fact in passing
            force = Force.CONCLUDED_BY_TEXT
        elif wording.UNSURE.search(said):
            force = Force.TENTATIVE
        yield Statement(group.group(), force, start + group.start(), start + group.start())


def _concluded(start: int, sentence: str, groups: list[re.Match[str]]) -> Iterator[Statement]:
    """Options that a conclusion arrives at: "the most likely cause is B", "so B", "即选项D"."""
    cut = wording.OTHERWISE.search(sentence, groups[0].end())
    main = [g for g in groups if cut is None or g.start() < cut.start()]
    group = _named_by_all(main) or _after_is(sentence, main)
    if group is None or sentence[group.end() : group.end() + 1] in ("对", "错", "√", "×"):
        return  # a verdict in brackets, 故影响视力（C对）: `judged` weighs it against the others
    before = sentence[: group.start()]
    text_only = by_text(group.group())
    superlative = wording.SUPERLATIVE.search(before)
    if wording.MAY_BE.search(before):
        yield Statement(group.group(), Force.TENTATIVE, start + group.start(), start)
        return
    if verdict_follows(sentence, group):
        return  # 所以C也是准确的: a verdict, which `judged` weighs against those on other options
    if superlative and _arrives(sentence, superlative.end(), group):
        force = Force.CONCLUDED_BY_TEXT if text_only else Force.CONCLUDED
        if wording.UNSURE.search(before):
            force = Force.TENTATIVE
        yield Statement(group.group(), force, start + group.start(), start)
        return
    if superlative and not text_only and _is_set_off_behind(sentence, superlative.end(), group):
        yield Statement(group.group(), Force.POINTED, start + group.start(), start)
        return
    concludes = wording.CONCLUDES.search(before)
    points = wording.THAT_IS.search(before)
    scope = (
        before[concludes.end() :]
        if concludes
        else before[points.start() - 3 :]
        if points
        else before
    )
    behind = sentence[group.end() : group.end() + 60]
    if (
        wording.NEGATION.search(scope)
        or wording.UNSURE.search(scope)
        or wording.NEGATION.search(behind)
    ):
        return
    if concludes or (points and not text_only):
        if text_only and not (
            wording.ENDS_SENTENCE.match(sentence, group.end()) or wording.IS_BEFORE.search(before)
        ):
            return
        force = Force.CONCLUDED_BY_TEXT if text_only else Force.POINTED
        yield Statement(group.group(), force, start + group.start(), start)


def _arrives(sentence: str, superlative: int, group: re.Match[str]) -> bool:
    """Whether a superlative's clause leads to the group: "... is", and the clause is over."""
    link = sentence[superlative : group.start()]
    linked = wording.LINK_REQUIRED.fullmatch(link) or wording.LINK_CHINESE_REQUIRED.fullmatch(link)
    return bool(
        linked
        and not wording.OPPOSED.search(link)
        and wording.ENDS_CLAUSE.match(sentence, group.end())
        and not wording.REJECTED_AFTER.match(sentence, group.end())
    )


def _is_set_off_behind(sentence: str, superlative: int, group: re.Match[str]) -> bool:
    """Whether a superlative is said to be something that the option stands behind in brackets.

    "The most likely diagnosis is Bipolar II disorder (Option A)", where A is spelled otherwise.
    """
    link = sentence[superlative : group.start()]
    return bool(
        _SET_OFF.fullmatch(group.group())
        and len(link) < 250
        and wording.IS.search(link)
        and not wording.OPPOSED.search(link)
        and not wording.NEGATION.search(sentence, group.end(), group.end() + 40)
    )


def verdict_follows(sentence: str, group: re.Match[str]) -> bool:
    """Whether the group's own verdict stands right behind it: "B is true", B是正确的."""
    return bool(
        wording.VERDICT_ENGLISH.match(sentence, group.end())
        or wording.VERDICT_CHINESE.match(sentence, group.end())
    )


def _named_by_all(groups: list[re.Match[str]]) -> re.Match[str] | None:
    """The last of groups that all name the same options: "a D-dimer test, that is (Option C)"."""
    named = {tuple(sorted(letters_of(g.group()))) for g in groups}
    return groups[-1] if len(named) == 1 else None


def _after_is(sentence: str, groups: list[re.Match[str]]) -> re.Match[str] | None:
    """Of several groups the one that directly follows "is": "among A to D the cause is B"."""
    found = [
        g
        for g in groups
        if wording.IS_RIGHT_BEFORE.search(sentence[max(0, g.start() - 5) : g.start()])
    ]
    return found[0] if len(found) == 1 else None


def judged(sentence: Sentence) -> Iterator[Verdict]:
    """The verdicts of one sentence: "A. 正确", "（A对）", "A and C are correct", "B: false"."""
    if sentence.asks:
        return
    text = sentence.text
    label = wording.LABEL.match(text)
    for group in _TOKEN.finditer(text):
        if OR in group.group():
            continue
        found = wording.VERDICT_ENGLISH.match(text, group.end()) or wording.VERDICT_CHINESE.match(
            text, group.end()
        )
        if not found and label and label.start(1) == group.start():
            found = wording.VERDICT_AT_END.search(text, group.end())
        if found and not wording.ASKS.match(text, found.end()):
            yield Verdict(group.group(), found["wrong"] is None)
        elif not by_text(group.group()) and _passed_over(text, group):
            yield Verdict(group.group(), False)


def _passed_over(sentence: str, group: re.Match[str]) -> bool:
    """Whether options are passed over: "the other options (A, B, D)", "A and C are less likely"."""
    if wording.OTHERS_BEFORE.search(sentence, max(0, group.start() - 40), group.start()):
        return True
    if wording.REJECTS.search(sentence, max(0, group.start() - 24), group.start()):
        return True
    return bool(wording.DISFAVOURED.match(sentence, group.end()))


def set_off(marked: str) -> set[str]:
    """The options that a reply sets off by their letters, in whatever scope."""
    groups = (g.group() for g in _TOKEN.finditer(marked))
    return {letter for g in groups if _SET_OFF.search(g) for letter in letters_of(g)}


def favoured(sentence: Sentence) -> set[str]:
    """The options set off in a sentence that says nothing against any option."""
    against = (
        wording.NEGATION,
        wording.UNSURE,
        wording.OTHERWISE,
        wording.OF_OTHERS,
        wording.HYPOTHETICAL,
    )
    if sentence.asks or any(words.search(sentence.text) for words in against):
        return set()
    return set_off(sentence.text)


def faulted(sentence: Sentence) -> str:
    """The one option that a conclusion calls wrong: it answers "which is wrong?". 所以选项C错误."""
    groups = list(_TOKEN.finditer(sentence.text))
    if len(groups) != 1 or not wording.CONCLUDES.search(sentence.text, 0, groups[0].start()):
        return ""
    wrong = [v for v in judged(sentence) if not v.right and not by_text(v.marks)]
    return (
        wrong[0].marks
        if wrong and wording.STRONGLY_WRONG.search(sentence.text, groups[0].end())
        else ""
    )
