"""CMExam's rules: every option whose letter or text occurs in the answer part of the reply.

The letter test fires on any capital letter, so that free text inflates multiple answers.
Source: github.com/williamliujl/CMExam, src/evaluation/evaluate_lora_result.py (`parse_options`).
"""

from collections.abc import Mapping

from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode


def read(reply: str, options: Mapping[str, str], single: bool) -> str | None:
    """The letters in option order, from the first line if the reply goes on to explain (解释)."""
    answer = reply.split("\n", 1)[0].strip() if "解释" in reply else reply
    named = [letter for letter, text in options.items() if _occurs(letter, text, answer)]
    return "".join(named) or None


def _occurs(letter: str, text: str, answer: str) -> bool:
    # The script splits an option at blanks and keeps the first part of its text only.
    up_to_first_blank = text.split()[:1]
    return letter in answer or any(part in answer for part in up_to_first_blank)


MODE = CompatMode(read)
