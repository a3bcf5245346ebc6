"""The shapes of a parsed answer, for gold and prediction alike, as the official files have them."""

from collections.abc import Sequence
from typing import Any

Item = dict[str, Any]
"""One entity, triple, event or finding: official key -> text, or list of texts (CHIP-CDEE)."""

Answer = list[Item] | dict[str, str] | str
"""Items of a structured task, sections of a report (IMCS-V2-MRG), or a label or reply."""

Choices = Sequence[str]
"""The options shown in the prompt; none for CHIP-CDEE, IMCS-V2-MRG and MedDG."""
