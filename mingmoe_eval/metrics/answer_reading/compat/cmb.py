"""CMB's rules: letters after a cue, else every capital A-G; neither sorted nor made unique.

Strings are compared as they are, so that `BA` is wrong for `AB`.
Source: github.com/FreedomIntelligence/CMB, src/utils.py (`match_choice`, `extract_ans`), score.py.
"""

import re
from collections.abc import Mapping

from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode

_CUE = re.compile(r"(?:答案|正确选项)(?:是|：|为|应该是|应该为)")
_FULL_STOP = re.compile(r"[。.]")
_LETTER = re.compile(r"[A-G]")


def read(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """The letters between the first cue and the next full stop, else those of the whole reply."""
    cue = _CUE.search(reply)
    passage = _FULL_STOP.split(reply[cue.end() :], maxsplit=1)[0] if cue else reply
    letters = "".join(_LETTER.findall(passage))
    return letters[: 1 if single else None] or None


MODE = CompatMode(read)
