"""Which option letters a reply gives: our own rules (`reader`) and the official ones (`compat`)."""

from mingmoe_eval.metrics.answer_reading.compat import (
    MODES,
    O1,
    CompatMode,
    compat_mode,
    head_and_tail,
)
from mingmoe_eval.metrics.answer_reading.reader import DEFAULT, Reading, read_answer

__all__ = [
    "DEFAULT",
    "MODES",
    "O1",
    "CompatMode",
    "Reading",
    "compat_mode",
    "head_and_tail",
    "read_answer",
]
