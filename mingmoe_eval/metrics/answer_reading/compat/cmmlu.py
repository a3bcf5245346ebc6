"""CMMLU's rules: a ladder of Chinese patterns for A-D, and a random letter where all fail.

A silent model earns about 25 % this way. The script's draw differs from run to run; ours is drawn
from the reply and the options, so that the same run is scored the same way twice.
Source: github.com/haonan-li/CMMLU, src/mp_utils.py (`extract_choice`).
"""

import hashlib
import random
import re
from collections.abc import Iterator, Mapping

from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode

_LETTERS = "ABCD"
_LETTER = re.compile(r"[ABCD]")
_PATTERNS = tuple(
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


def read(reply: str, options: Mapping[str, str], single: bool) -> str:
    """The letter of the first rung that matches; never None."""
    if reply[:1] in set(_LETTERS):
        return reply[0]
    return next(_ladder(reply), None) or _drawn(reply, options)


def _ladder(reply: str) -> Iterator[str]:
    """The letters that the rungs read, the first rung's first."""
    lines = reply.split("\n")
    yield from (match[1] for pattern in _PATTERNS if (match := pattern.search(reply)))
    yield from _after_cue(lines)
    yield from _last_letter_before("当选", lines)
    yield from _last_letter_before("正确", lines)
    if weak := _WEAK_PATTERN.search(reply):
        yield weak[1]
    mentioned = _LETTER.findall(reply)
    if len(mentioned) == 1:
        yield mentioned[0]


def _after_cue(lines: list[str]) -> Iterator[str]:
    for line in lines:
        cue = _CUE_BEFORE_ANY_LETTER.search(line)
        if cue and (letter := _LETTER.search(line, cue.end())):
            yield letter.group()


def _last_letter_before(word: str, lines: list[str]) -> Iterator[str]:
    """On the first line with a letter before the word: the last letter before it.

    The script gets there by matching again and again within its own match, which takes quadratic
    time.
    """
    for line in lines:
        first = _LETTER.search(line)
        stop = line.find(word, first.end()) if first else -1
        if stop >= 0:
            yield _LETTER.findall(line[:stop])[-1]


def _drawn(reply: str, options: Mapping[str, str]) -> str:
    seed = "\n".join((reply, *options.values())).encode("utf-8", "surrogatepass")
    return random.Random(hashlib.sha256(seed).digest()).choice(_LETTERS)


MODE = CompatMode(read)
