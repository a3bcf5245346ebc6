"""The seven tasks with one label as answer: IMCS-V2-DAC, CHIP-CTC, CHIP-STS and KUAKE-*."""

STS_SYNONYMS = {"相同": "是的", "不同": "不是"}
"""One CHIP-STS template offers 相同/不同; the evaluator counts in 是的/不是."""


def parse_label(text: str, task_name: str) -> str:
    """The whole output, trimmed. No label is searched in it, and any text is a class of its own."""
    label = text.strip()
    return STS_SYNONYMS.get(label, label) if task_name == "CHIP-STS" else label
