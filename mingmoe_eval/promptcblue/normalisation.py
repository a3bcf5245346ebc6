"""CHIP-CDN: standard terms on one line, separated by full-width commas."""

from mingmoe_eval.promptcblue.answers import Choices, Item


def parse_terms(text: str, choices: Choices) -> list[Item]:
    """The offered terms on the last line, each once.

    Only the last line counts, so a line break at the end leaves no answer. A term that was not
    offered is no answer; neither is 没有对应的标准化实体, unless it was offered.
    """
    last_line = text.split("\n")[-1]
    offered = set(choices)
    terms = dict.fromkeys(piece.strip() for piece in last_line.split("，"))
    return [{"entity": term, "type": "normalization"} for term in terms if term and term in offered]
