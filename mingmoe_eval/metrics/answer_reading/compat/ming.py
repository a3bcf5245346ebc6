"""MING's rules: one set for direct answers, one each for reasoned Chinese and English replies.

Source: github.com/MediaBrain-SJTU/MING, ming/eval/eval_em.py (`answer_acc`, `multiplechoice_acc`,
`multiplechoice_en_acc`). The scripts test the key against the reply; here the letters that any
key would be tested against are read first, with the same outcome for keys of letters A to E.
"""

import re
from collections.abc import Mapping

from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode

_LETTER = re.compile(r"[A-E]")
_CALLED_RIGHT = re.compile(r"([A-E])对")
# Looked for from the first letter of a run only: from each of them would take quadratic time.
_WRONG_AND_SO_THE_ANSWER = re.compile(r"(?<![A-E])([A-E]+)错，为本题正确答案")
_LONGEST_KEY = 5
_ALTERNATIVES = "/"


def read_direct(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """The first capital A-E anywhere, also for multiple-answer items."""
    first = _LETTER.search(reply)
    return first.group() if first else None


def read_reasoned_chinese(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """All capitals A-E after 答案为 on the last line, else the options called 对 or named as wrong.

    Without the cue the script accepts two things; both are given, separated by `/`.
    """
    # What follows the last run of two blank lines is cut off first.
    cued = _after_cue("答案为", reply.rsplit("\n\n\n", 1)[0])
    if cued is not None:
        return _letters(cued)
    called_right = _letters("".join(_CALLED_RIGHT.findall(reply))) or ""
    runs = _WRONG_AND_SO_THE_ANSWER.findall(reply)
    # The script looks for the key before these words, so that each end of a run would do.
    ends = [run[-_LONGEST_KEY:] for run in runs]
    named = sorted({end[start:] for end in ends for start in range(len(end))})
    return _ALTERNATIVES.join(filter(None, (called_right, *named))) or None


def read_reasoned_english(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """All capitals A-E after "The answer is" on the last line."""
    cued = _after_cue("The answer is ", reply)
    return None if cued is None else _letters(cued)


def any_alternative(answered: str | None, gold: str) -> bool:
    """The key is one of the alternatives that were read."""
    return answered is not None and gold in answered.split(_ALTERNATIVES)


def contains_single_key(answered: str | None, gold: str) -> bool:
    """A key of one letter need only be among the letters; a longer one must equal them."""
    return answered is not None and (gold in answered if len(gold) == 1 else gold == answered)


def _after_cue(cue: str, reply: str) -> str | None:
    """What follows the cue on the last line; the scripts' patterns cannot cross a line's end."""
    last_line = reply.removesuffix("\n").rpartition("\n")[2]
    _, found, rest = last_line.partition(cue)
    return rest if found else None


def _letters(passage: str) -> str | None:
    return "".join(sorted(set(_LETTER.findall(passage)))) or None


DIRECT = CompatMode(read_direct)
REASONED_CHINESE = CompatMode(read_reasoned_chinese, any_alternative)
REASONED_ENGLISH = CompatMode(read_reasoned_english, contains_single_key)
