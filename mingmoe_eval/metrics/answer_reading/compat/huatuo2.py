"""HuatuoGPT-II's rules, for the 2023 pharmacist exam: a reply without an answer counts as B.

Source: github.com/FreedomIntelligence/HuatuoGPT-II, evaluation/scorer.py (`match_choice3`, and
`test_choice` for the B and for the first letter of single-letter keys).
"""

import re
from collections.abc import Mapping

from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode

_CUE = re.compile(r"答案[是为]")
_CUED_LETTER = re.compile(r"[A-E]")
_LETTER_RUN = re.compile(r"(?<![A-Za-z])[A-E]+(?![A-Za-z])")
_WHEN_NOTHING_MATCHES = "B"


def read(reply: str, options: Mapping[str, str], single: bool) -> str:
    """Letters after the first cue, else options by text, else the first well-formed run, else B."""
    letters = _after_cue(reply) or _by_text_or_run(reply, options) or _WHEN_NOTHING_MATCHES
    return letters[0] if single else letters


def correct(answered: str | None, gold: str) -> bool:
    """Equal strings; against a key of one letter only the first letter of the answer counts."""
    return (answered or "")[: 1 if len(gold) == 1 else None] == gold


def _after_cue(reply: str) -> str:
    """The letters up to the full stop, as far as each comes later in the alphabet than the last."""
    cue = _CUE.search(reply)
    if cue is None:
        return ""
    kept = ""
    for letter in _CUED_LETTER.findall(reply[cue.end() :].split("。", 1)[0]):
        if letter > kept[-1:]:
            kept += letter
    return kept


def _by_text_or_run(reply: str, options: Mapping[str, str]) -> str:
    found = [(reply.find(text), letter) for letter, text in options.items() if text]
    in_order = sorted((hit for hit in found if hit[0] >= 0), key=lambda hit: hit[0])
    quoted = "".join(letter for _, letter in in_order)
    if quoted and quoted == "".join(sorted(quoted)):
        return quoted
    return next((run for run in _LETTER_RUN.findall(reply) if _well_formed(run)), quoted)


def _well_formed(run: str) -> bool:
    return run == "".join(sorted(set(run)))


MODE = CompatMode(read, correct)
