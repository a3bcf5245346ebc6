"""CHIP-MDCFNPC and IMCS-V2-SR: one finding a line, `MENTION：STATUS`, under a header line."""

from mingmoe_eval.promptcblue.answers import Choices, Item


def parse_findings(text: str, choices: Choices, *, fallback: str) -> list[Item]:
    """The findings after the first line; a status that was no option becomes `fallback`.

    The first line goes unread, so an output without header loses its first finding.
    """
    findings = []
    for line in text.split("\n")[1:]:
        parts = line.split("：")
        if len(parts) == 2:
            mention, status = parts
            # The status is not trimmed: one blank more and it is no option.
            known = status if status in choices else fallback
            findings.append({"entity": mention.strip(), "attr": known})
    return findings
