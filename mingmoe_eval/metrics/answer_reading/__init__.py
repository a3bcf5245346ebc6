"""Which option letters a reply gives: our own rules (`reader`) and the official ones (`compat`)."""

from mingmoe_eval.metrics.answer_reading.case import Reading
from mingmoe_eval.metrics.answer_reading.compat import MODES, CompatMode, compat_mode
from mingmoe_eval.metrics.answer_reading.reader import DEFAULT, read_answer

__all__ = ["DEFAULT", "MODES", "CompatMode", "Reading", "compat_mode", "read_answer"]
