"""How official scripts read replies, by name, so that published numbers can be reproduced.

These modes guess, or count any capital letter: use them to meet a published number, never for a
number of our own. Each reads the reply as it is, thinking blocks included, as its script does.
They stay exactly as the scripts are: what is odd in a script is odd here.
"""

import difflib
import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import eq

from mingmoe_eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class CompatMode:
    """One official script's rules.

    `read(reply, options, single)` gives the string that the script compares, None where it reads
    nothing; `correct(read, gold)` says whether the script would count that string as right.
    """

    read: Callable[[str, Mapping[str, str], bool], str | None]
    correct: Callable[[str | None, str], bool] = eq


def compat_mode(name: str) -> CompatMode:
    """The mode of that name; an unknown name is refused with the list of the known ones."""
    if name not in MODES:
        known = ", ".join(("default", *MODES))
        raise UsageError(f"no way of reading answers is named {name!r}; known are {known}")
    return MODES[name]


# --- HuatuoGPT-II, for the 2023 pharmacist exam: a reply without an answer counts as B.
# Source: github.com/FreedomIntelligence/HuatuoGPT-II, evaluation/scorer.py (`match_choice3`, and
# `test_choice` for the B and for the first letter of single-letter keys).

_HUATUO2_CUE = re.compile(r"答案[是为]")
_A_TO_E = re.compile(r"[A-E]")
_LETTER_RUN = re.compile(r"(?<![A-Za-z])[A-E]+(?![A-Za-z])")
_WHEN_NOTHING_MATCHES = "B"


def _huatuo2(reply: str, options: Mapping[str, str], single: bool) -> str:
    """Letters after the first cue, else options by text, else the first well-formed run, else B."""
    letters = (
        _huatuo2_after_cue(reply) or _huatuo2_text_or_run(reply, options) or _WHEN_NOTHING_MATCHES
    )
    return letters[0] if single else letters


def _huatuo2_correct(answered: str | None, gold: str) -> bool:
    """Equal strings; against a key of one letter only the first letter of the answer counts."""
    return (answered or "")[: 1 if len(gold) == 1 else None] == gold


def _huatuo2_after_cue(reply: str) -> str:
    """The letters up to the full stop, as far as each comes later in the alphabet than the last."""
    cue = _HUATUO2_CUE.search(reply)
    if cue is None:
        return ""
    kept = ""
    for letter in _A_TO_E.findall(reply[cue.end() :].split("。", 1)[0]):
        if letter > kept[-1:]:
            kept += letter
    return kept


def _huatuo2_text_or_run(reply: str, options: Mapping[str, str]) -> str:
    found = [(reply.find(text), letter) for letter, text in options.items() if text]
    in_order = sorted((hit for hit in found if hit[0] >= 0), key=lambda hit: hit[0])
    quoted = "".join(letter for _, letter in in_order)
    if quoted and quoted == "".join(sorted(quoted)):
        return quoted
    runs = _LETTER_RUN.findall(reply)
    return next((run for run in runs if run == "".join(sorted(set(run)))), quoted)


# --- CMB: letters after a cue, else every capital A-G; neither sorted nor made unique, and compared
# as they are, so that `BA` is wrong for `AB`.
# Source: github.com/FreedomIntelligence/CMB, src/utils.py (`match_choice`,
# `extract_ans`), score.py.

_CMB_CUE = re.compile(r"(?:答案|正确选项)(?:是|：|为|应该是|应该为)")
_FULL_STOP = re.compile(r"[。.]")
_A_TO_G = re.compile(r"[A-G]")


def _cmb(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """The letters between the first cue and the next full stop, else those of the whole reply."""
    cue = _CMB_CUE.search(reply)
    passage = _FULL_STOP.split(reply[cue.end() :], maxsplit=1)[0] if cue else reply
    letters = "".join(_A_TO_G.findall(passage))
    return letters[: 1 if single else None] or None


# --- CMExam: every option whose letter or text occurs in the answer part of the reply. The letter
# test fires on any capital letter, so that free text inflates multiple answers.
# Source: github.com/williamliujl/CMExam, src/evaluation/evaluate_lora_result.py (`parse_options`).


def _cmexam(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """The letters in option order, from the first line if the reply goes on to explain (解释)."""
    answer = reply.split("\n", 1)[0].strip() if "解释" in reply else reply
    named = [letter for letter, text in options.items() if _cmexam_occurs(letter, text, answer)]
    return "".join(named) or None


def _cmexam_occurs(letter: str, text: str, answer: str) -> bool:
    # The script splits an option at blanks and keeps the first part of its text only.
    up_to_first_blank = text.split()[:1]
    return letter in answer or any(part in answer for part in up_to_first_blank)


# --- CMMLU: a ladder of Chinese patterns for A-D, and a random letter where all fail, so that a
# silent model earns about 25 %. The script's draw differs from run to run; ours is drawn from the
# reply and the options, so that the same run is scored the same way twice.
# Source: github.com/haonan-li/CMMLU, src/mp_utils.py (`extract_choice`).

_A_TO_D = re.compile(r"[ABCD]")
_CMMLU_PATTERNS = tuple(
    map(
        re.compile,
        (
            r"答案(?:选项)?[是为]：? ?([ABCD])",
            r"答案[是为]选项 ?([ABCD])",
            r"故?选择?：? ?([ABCD])",
            r"([ABCD]) ?选?项[是为]?正确",
            r"正确的?选项[是为] ?([ABCD])",
            r"答案(?:应该)?[是为]([ABCD])",
            r"选项 ?([ABCD]) ?[是为]?正确",
            r"选择答案 ?([ABCD])",
            r"答案?：?([ABCD])",
            r"([ABCD])(?:选?项)?是?符合题意",
            r"答案选项：? ?([ABCD])",
        ),
    )
)
_CUE_BEFORE_ANY_LETTER = re.compile(r"答案(?:选项)?为")
_WEAK_PATTERN = re.compile(r"[^不]是：? ?([ABCD])")


def _cmmlu(reply: str, options: Mapping[str, str], single: bool) -> str:
    """The letter of the first rung that matches; never None."""
    if _A_TO_D.match(reply):
        return reply[0]
    return next(_cmmlu_ladder(reply), None) or _drawn(reply, options)


def _cmmlu_ladder(reply: str) -> Iterator[str]:
    """The letters that the rungs read, the first rung's first."""
    lines = reply.split("\n")
    yield from (match[1] for pattern in _CMMLU_PATTERNS if (match := pattern.search(reply)))
    yield from _cmmlu_after_cue(lines)
    yield from _last_letter_before("当选", lines)
    yield from _last_letter_before("正确", lines)
    if weak := _WEAK_PATTERN.search(reply):
        yield weak[1]
    mentioned = _A_TO_D.findall(reply)
    if len(mentioned) == 1:
        yield mentioned[0]


def _cmmlu_after_cue(lines: list[str]) -> Iterator[str]:
    for line in lines:
        cue = _CUE_BEFORE_ANY_LETTER.search(line)
        if cue and (letter := _A_TO_D.search(line, cue.end())):
            yield letter.group()


def _last_letter_before(word: str, lines: list[str]) -> Iterator[str]:
    """On the first line with a letter before the word: the last letter before it.

    The script gets there by matching again and again within its own match, which takes quadratic
    time.
    """
    for line in lines:
        first = _A_TO_D.search(line)
        stop = line.find(word, first.end()) if first else -1
        if stop >= 0:
            yield _A_TO_D.findall(line[:stop])[-1]


def _drawn(reply: str, options: Mapping[str, str]) -> str:
    seed = "\n".join((reply, *options.values())).encode("utf-8", "surrogatepass")
    return random.Random(hashlib.sha256(seed).digest()).choice("ABCD")


# --- MING: one set of rules for direct answers, one each for reasoned Chinese and English replies.
# The scripts test the key against the reply; here the letters that any key would be tested against
# are read first, with the same outcome for keys of letters A to E.
# Source: github.com/MediaBrain-SJTU/MING, ming/eval/eval_em.py (`answer_acc`, `multiplechoice_acc`,
# `multiplechoice_en_acc`).

_CALLED_RIGHT = re.compile(r"([A-E])对")
# Looked for from the first letter of a run only: from each of them would take quadratic time.
_WRONG_AND_SO_THE_ANSWER = re.compile(r"(?<![A-E])([A-E]+)错，为本题正确答案")
_LONGEST_KEY = 5
_ALTERNATIVES = "/"


def _ming(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """The first capital A-E anywhere, also for multiple-answer items."""
    first = _A_TO_E.search(reply)
    return first.group() if first else None


def _ming_reasoned_chinese(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """All capitals A-E after 答案为 on the last line, else the options called 对 or named as wrong.

    Without the cue the script accepts two things; both are given, separated by `/`.
    """
    # What follows the last run of two blank lines is cut off first.
    cued = _after_cue_on_last_line("答案为", reply.rsplit("\n\n\n", 1)[0])
    if cued is not None:
        return _ming_letters(cued)
    called_right = _ming_letters("".join(_CALLED_RIGHT.findall(reply))) or ""
    runs = _WRONG_AND_SO_THE_ANSWER.findall(reply)
    # The script looks for the key before these words, so that each end of a run would do.
    ends = [run[-_LONGEST_KEY:] for run in runs]
    named = sorted({end[start:] for end in ends for start in range(len(end))})
    return _ALTERNATIVES.join(filter(None, (called_right, *named))) or None


def _ming_reasoned_english(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """All capitals A-E after "The answer is" on the last line."""
    cued = _after_cue_on_last_line("The answer is ", reply)
    return None if cued is None else _ming_letters(cued)


def _any_alternative(answered: str | None, gold: str) -> bool:
    """The key is one of the alternatives that were read."""
    return answered is not None and gold in answered.split(_ALTERNATIVES)


def _contains_single_key(answered: str | None, gold: str) -> bool:
    """A key of one letter need only be among the letters; a longer one must equal them."""
    return answered is not None and (gold in answered if len(gold) == 1 else gold == answered)


def _after_cue_on_last_line(cue: str, reply: str) -> str | None:
    """What follows the cue on the last line; the scripts' patterns cannot cross a line's end."""
    last_line = reply.removesuffix("\n").rpartition("\n")[2]
    _, found, rest = last_line.partition(cue)
    return rest if found else None


def _ming_letters(passage: str) -> str | None:
    return "".join(sorted(set(_A_TO_E.findall(passage)))) or None


# --- HuatuoGPT-o1: the first and the last letter found, and always an answer. The published number
# is the better of the two accuracies over a whole data set, so `read` gives both letters as
# `first/last`; `exams.scoring` folds them.
# Source: the scorer of github.com/FreedomIntelligence/HuatuoGPT-o1 (`match_choice`, `score`), read
# in public copies of it.

O1 = "o1-best-of-head-tail"

_O1_FINAL_HEADING = "## Final Response\n\n"
_O1_STRICT = re.compile(r"answer is\s*([A-N])")
_O1_LOOSE = r"(?:[\u4e00-\u9fff]|\W|^)(?!A )([{letters}])(?:\W|[\u4e00-\u9fff]|$)"
_A_TO_N = "ABCDEFGHIJKLMN"


def _o1(reply: str, options: Mapping[str, str], single: bool) -> str:
    """`first/last`: after the strict cue, else any letter alone, else by text, else by likeness."""
    text = reply.split(_O1_FINAL_HEADING)[-1]
    loose = _O1_LOOSE.format(letters=_A_TO_N[: len(options)] or "A")
    letters = _O1_STRICT.findall(text) or re.findall(loose, text)
    if letters:
        return f"{letters[0]}/{letters[-1]}"
    return _o1_by_text(text.lower(), options) or _o1_most_alike(text.lower(), options)


def head_and_tail(answered: str | None, gold: str) -> tuple[bool, bool]:
    """Whether the first and whether the last letter that HuatuoGPT-o1's rules read is right."""
    first, _, last = (answered or "").partition("/")
    return first == gold, last == gold


def _tail_correct(answered: str | None, gold: str) -> bool:
    return head_and_tail(answered, gold)[1]


def _o1_by_text(text: str, options: Mapping[str, str]) -> str | None:
    named = {letter: words.lower() for letter, words in options.items() if words.lower() in text}
    if not named:
        return None
    # Both look for the latest place: "first" only in that it goes by each text's first occurrence.
    first = max(named, key=lambda letter: text.index(named[letter]))
    last = max(named, key=lambda letter: text.rindex(named[letter]))
    return f"{first}/{last}"


def _o1_most_alike(text: str, options: Mapping[str, str]) -> str:
    def likeness(letter: str) -> float:
        return difflib.SequenceMatcher(None, options[letter].lower(), text).ratio()

    # The last of equally alike options, as in the script.
    best = max(reversed(list(options)), key=likeness)
    return f"{best}/{best}"


MODES: Mapping[str, CompatMode] = {
    "huatuo2": CompatMode(_huatuo2, _huatuo2_correct),
    "cmb": CompatMode(_cmb),
    "cmexam": CompatMode(_cmexam),
    "cmmlu-random": CompatMode(_cmmlu),
    "ming": CompatMode(_ming),
    "ming-cot": CompatMode(_ming_reasoned_chinese, _any_alternative),
    "ming-cot-en": CompatMode(_ming_reasoned_english, _contains_single_key),
    O1: CompatMode(_o1, _tail_correct),
}
