"""CMeIE: one line a relation, `具有REL关系的头尾实体对如下：` and any number of pairs.

A pair is `头实体为H，尾实体为T。`; there is no header line.
"""

from mingmoe_eval.promptcblue.answers import Item


def parse_triples(text: str) -> list[Item]:
    """The triples that the official parser reads; the relation need not be among the options."""
    return [triple for line in text.split("\n") for triple in _triples(line)]


def _triples(line: str) -> list[Item]:
    # The first two characters are taken for 具有, whatever they are: anything before it on the
    # line ends up in the relation of all its triples.
    relation = line.split("关系的头尾实体对")[0][2:].strip()
    triples = []
    for pair in line.replace(f"具有{relation}关系的头尾实体对如下：", "").split("。"):
        parts = pair.split("，尾实体为")
        if len(parts) >= 2:
            subject = parts[0].replace("头实体为", "").strip()
            tail = parts[1].replace("尾实体为", "").strip()
            triples.append({"predicate": relation, "subject": subject, "object": tail})
    return triples
