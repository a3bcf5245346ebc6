"""Faults of exam papers that were copied by hand or scanned: found and named, never mended."""

import re
from collections.abc import Mapping

_OPTION_LABEL = re.compile(r"(?<![A-Za-z])([A-E])\s*[.．、:：]")
_PICTURE = re.compile(r"如图|图示|见图|上图|下图|<img|\.(?:png|jpe?g|gif)\b", re.IGNORECASE)


def transcription_fault(stem: str, options: Mapping[str, str]) -> str | None:
    """What is wrong with a transcribed question, or None."""
    texts = {"question": stem, **{f"option {letter}": text for letter, text in options.items()}}
    for place, text in texts.items():
        if _holds_option_block(text):
            return f"the {place} holds a second block of options"
        if _PICTURE.search(text):
            return f"the {place} needs a picture"
        if "\ufffd" in text:
            return f"the {place} holds an unreadable character"
    return None


def _holds_option_block(text: str) -> bool:
    """Three labels in a row: one alone may be a blood group or a vitamin."""
    return "ABC" in "".join(_OPTION_LABEL.findall(text))
