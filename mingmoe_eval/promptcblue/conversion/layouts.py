"""The original CBLUE files with one example a row, and how each becomes an answer.

Field names from the CBLUE repository (README and format checkers). One function a task: a row of
the file, its number and a source of chance in, an example out.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mingmoe_eval.promptcblue.conversion import codes
from mingmoe_eval.promptcblue.conversion.examples import Example
from mingmoe_eval.promptcblue.label_sets import CMEEE_TYPES, CMEIE_RELATIONS, MDCFNPC_STATUSES

Row = Mapping[str, Any]
RowReader = Callable[[Row, str, random.Random], Example]

_OTHER_RELATIONS = 4
_OTHER_TERMS = 7


def read_cmeee(row: Row, number: str, chance: random.Random) -> Example:
    """CMeEE-V2: {text, entities: [{entity, type: a three-letter code}]}."""
    del chance
    found = {(e["entity"], codes.CMEEE[e["type"]]) for e in row["entities"]}
    return Example(
        task="CMeEE-V2",
        sample_id=number,
        slots={"text": row["text"]},
        answer=[{"entity": entity, "type": kind} for entity, kind in sorted(found)],
        choices=CMEEE_TYPES,
    )


def read_cmeie(row: Row, number: str, chance: random.Random) -> Example:
    """CMeIE: {text, spo_list: [{predicate, subject, object: {@value}}]}.

    Offered are the relations that occur and four that do not, in random order.
    """
    triples = [(s["predicate"], s["subject"], s["object"]["@value"]) for s in row["spo_list"]]
    present = {relation for relation, _, _ in triples}
    absent = [relation for relation in CMEIE_RELATIONS if relation not in present]
    choices = [*sorted(present), *chance.sample(absent, _OTHER_RELATIONS)]
    chance.shuffle(choices)
    return Example(
        task="CMeIE",
        sample_id=number,
        slots={"text": row["text"]},
        answer=[{"predicate": p, "subject": s, "object": o} for p, s, o in dict.fromkeys(triples)],
        choices=tuple(choices),
    )


def cdn_reader(rows: Sequence[Row]) -> RowReader:
    """CHIP-CDN: {text, normalized_result: terms joined by ##}.

    Offered are the right terms and seven others of the same file, in random order: the list of all
    standard terms is not among the files.
    """
    all_terms = sorted({term for row in rows for term in _terms(row)})

    def read(row: Row, number: str, chance: random.Random) -> Example:
        right = _terms(row)
        others = [term for term in all_terms if term not in right]
        choices = [*right, *chance.sample(others, min(_OTHER_TERMS, len(others)))]
        chance.shuffle(choices)
        return Example(
            task="CHIP-CDN",
            sample_id=number,
            slots={"text": row["text"]},
            answer=[{"entity": term, "type": "normalization"} for term in right],
            choices=tuple(choices),
        )

    return read


def read_cdee(row: Row, number: str, chance: random.Random) -> Example:
    """CHIP-CDEE: {text, event: [{core_name, tendency, character: [], anatomy_list: []}]}."""
    del chance
    return Example(
        task="CHIP-CDEE",
        sample_id=number,
        slots={"text": row["text"].replace("\n", " ")},
        answer=[
            {
                "主体词": event["core_name"] or "",
                "发生状态": event["tendency"],
                "描述词": list(event["character"]),
                "解剖部位": list(event["anatomy_list"]),
            }
            for event in row["event"]
        ],
    )


def read_mdcfnpc(row: Row, number: str, chance: random.Random) -> Example:
    """CHIP-MDCFNPC: {dialog_info: [{sender, text, ner: [{mention, attr}]}]}."""
    del chance
    turns = row["dialog_info"]
    # A mention that comes again with another status keeps its last one.
    found = {n["mention"]: n["attr"] or "不标注" for turn in turns for n in turn["ner"]}
    return Example(
        task="CHIP-MDCFNPC",
        sample_id=number,
        slots={
            "text": "\n".join(f"{turn['sender']}：{turn['text']}" for turn in turns),
            "mentions": "，".join(found),
        },
        answer=[{"entity": m, "attr": codes.MDCFNPC[attr]} for m, attr in found.items()],
        choices=MDCFNPC_STATUSES,
    )


def read_meddg(row: Any, number: str, chance: random.Random) -> Example:
    """MedDG: [{id: Patients or Doctor, Sentence}]; the doctor's last turn is asked for."""
    del chance
    last = max(i for i, turn in enumerate(row) if turn["id"] == "Doctor")
    names = {"Doctor": "医生"}
    history = [f"{names.get(turn['id'], '患者')}：{turn['Sentence']}" for turn in row[:last]]
    return Example(
        task="MedDG",
        sample_id=number,
        slots={"text": "\n".join(history)},
        answer=row[last]["Sentence"].strip(),
    )


def label_reader(
    task_name: str,
    meanings: Mapping[str, str],
    *,
    text: str,
    other: Sequence[str] = (),
) -> RowReader:
    """A task with one label: {id, <text>, <one of other>, label}; `meanings` spell it out."""

    def read(row: Row, number: str, chance: random.Random) -> Example:
        del chance
        slots = {"text": row[text].strip()}
        if second := next((name for name in other if name in row), None):
            slots["other"] = row[second].strip()
        return Example(
            task=task_name,
            sample_id=number,
            slots=slots,
            answer=meanings[str(row["label"])],
            choices=tuple(dict.fromkeys(meanings.values())),
        )

    return read


LABEL_READERS: Mapping[str, RowReader] = {
    "CHIP-CTC": label_reader("CHIP-CTC", codes.CTC, text="text"),
    "CHIP-STS": label_reader("CHIP-STS", codes.STS, text="text1", other=("text2",)),
    "KUAKE-QIC": label_reader("KUAKE-QIC", codes.QIC, text="query"),
    "KUAKE-IR": label_reader("KUAKE-IR", codes.IR, text="query", other=("document",)),
    "KUAKE-QQR": label_reader("KUAKE-QQR", codes.QQR, text="query1", other=("query2", "title")),
    "KUAKE-QTR": label_reader("KUAKE-QTR", codes.QTR, text="query", other=("title",)),
}


def _terms(row: Row) -> list[str]:
    return [term for term in row["normalized_result"].split("##") if term]
