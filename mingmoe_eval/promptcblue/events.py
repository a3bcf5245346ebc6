"""CHIP-CDEE: a header, then one event a line.

An event is `主体词：x；发生状态：y；描述词：a，b；解剖部位：c`.
"""

from mingmoe_eval.promptcblue.answers import Item
from mingmoe_eval.promptcblue.catalogue import EVENT_KEYS


def parse_events(text: str) -> list[Item]:
    """One event for every line after the first, whatever the line holds.

    A blank line or a closing remark is thus an event without attributes: one false positive a
    sample, however many there are, for scoring is over sets.
    """
    return [_event(line) for line in text.split("\n")[1:]]


def _event(line: str) -> Item:
    values = dict.fromkeys(EVENT_KEYS, "")
    for piece in line.split("；"):
        rest = piece
        for key in EVENT_KEYS:
            # No trimming before the test: a blank after ； loses the attribute. What remains is
            # held against the later keys too, so one piece can fill two of them.
            if rest.startswith(f"{key}："):
                rest = rest.replace(f"{key}：", "").strip()
                values[key] = rest
    subject, state, descriptions, sites = (values[key] for key in EVENT_KEYS)
    listed = (subject, state, _listed(descriptions), _listed(sites))
    return dict(zip(EVENT_KEYS, listed, strict=True))


def _listed(joined: str) -> list[str]:
    return [stripped for piece in joined.split("，") if (stripped := piece.strip())]
