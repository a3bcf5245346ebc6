"""CMeEE-V2 and IMCS-V2-NER: one line a type, `TYPE实体：a，b`, under a header line."""

from mingmoe_eval.promptcblue.answers import Choices, Item


def parse_entities(text: str, choices: Choices) -> list[Item]:
    """The entities that the official parser reads; types that were no option vanish.

    The header is scanned like any line, so its absence and remarks around the lists do no harm.
    """
    lines = text.split("\n")
    return [
        {"entity": entity, "type": option}
        for option in choices
        for line in lines
        # The colon is not part of the test, and nothing may stand before the type.
        if line.startswith(f"{option}实体")
        for entity in _entities(line, option)
    ]


def _entities(line: str, option: str) -> list[str]:
    # Every occurrence goes, not the leading one only. A half-width colon does not match, and then
    # the whole prefix stays on the first entity.
    listed = line.replace(f"{option}实体：", "").split("，")
    return [stripped for entity in listed if (stripped := entity.strip())]
