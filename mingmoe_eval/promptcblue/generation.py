"""IMCS-V2-MRG: six report sections, one a line, under a header line. MedDG: one reply."""

from mingmoe_eval.promptcblue.catalogue import MRG_SECTIONS


def parse_report(text: str) -> dict[str, str]:
    """The sections that were found, in official order; a later line of the same section wins.

    The first line goes unread: without a header the chief complaint is lost. Lines that do not
    start with a section's name (continuations, indented ones) are lost too.
    """
    lines = text.strip().split("\n")[1:]
    return {
        # After the last occurrence: a section that names itself again keeps the end only.
        section: line.split(f"{section}：")[-1].strip()
        for section in MRG_SECTIONS
        for line in lines
        if line.startswith(f"{section}：")
    }


def parse_reply(text: str) -> str:
    """The whole output, trimmed; line breaks inside it stay."""
    return text.strip()
