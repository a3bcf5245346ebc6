"""How official scripts read replies, by name, so that published numbers can be reproduced.

These modes guess, or count any capital letter: use them to meet a published number, never for a
number of our own. Each reads the reply as it is, thinking blocks included, as its script does.
"""

from collections.abc import Mapping

from mingmoe_eval.errors import UsageError
from mingmoe_eval.metrics.answer_reading.compat import cmb, cmexam, cmmlu, huatuo2, ming, o1
from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode

MODES: Mapping[str, CompatMode] = {
    "huatuo2": huatuo2.MODE,
    "cmb": cmb.MODE,
    "cmexam": cmexam.MODE,
    "cmmlu-random": cmmlu.MODE,
    "ming": ming.DIRECT,
    "ming-cot": ming.REASONED_CHINESE,
    "ming-cot-en": ming.REASONED_ENGLISH,
    o1.NAME: o1.MODE,
}


def compat_mode(name: str) -> CompatMode:
    """The mode of that name; an unknown name is refused with the list of the known ones."""
    if name not in MODES:
        known = ", ".join(("default", *MODES))
        raise UsageError(f"no way of reading answers is named {name!r}; known are {known}")
    return MODES[name]


__all__ = ["MODES", "CompatMode", "compat_mode"]
