"""The layouts of the original CBLUE files, and how each becomes examples.

Field names from the CBLUE repository (README and format checkers). One function a task: a row of
the file, its number and a source of chance in, an example out; then the two that differ, IMCS-V2
(one file behind four tasks) and KUAKE-IR (three files behind one).
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mingmoe_eval.cblue_conversion import codes
from mingmoe_eval.cblue_conversion.examples import Example
from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.promptcblue.catalogue import MRG_SECTIONS
from mingmoe_eval.promptcblue.label_sets import (
    CMEEE_TYPES,
    CMEIE_RELATIONS,
    DAC_INTENTS,
    IMCS_NER_TYPES,
    MDCFNPC_STATUSES,
    SR_STATUSES,
)

Row = Mapping[str, Any]
_Turn = Mapping[str, Any]
RowReader = Callable[[Row, str, random.Random], Example]

_OTHER_RELATIONS = 4
_OTHER_TERMS = 7

_TURNS_BEFORE = 4
"""How many turns a question about the intent of one shows before it."""

_QUERY_FILES = ("{stem}_query.txt", "{stem}.query.txt")


_ANSWER_FIELDS = {
    "CMeEE-V2": "entities",
    "CMeIE": "spo_list",
    "CHIP-CDN": "normalized_result",
    "CHIP-CDEE": "event",
    "IMCS-V2-MRG": "report",
}
_TURN_FIELDS = {
    "IMCS-V2-NER": "BIO_label",
    "IMCS-V2-SR": "local_implicit_info",
    "IMCS-V2-DAC": "dialogue_act",
}


def is_labelled(task: str, row: Any) -> bool:
    """Whether a row has anything that gold could be made of.

    Test files have the layout of the others, with their answers empty or gone. In a labelled file
    a row may be without an answer too (a sentence without entities), but not every row.
    """
    if task == "MedDG":
        return isinstance(row, list) and any(
            turn.get("id") == "Doctor" and turn.get("Sentence") for turn in row
        )
    if not isinstance(row, Mapping):
        return False
    match task:
        case "CHIP-MDCFNPC":
            turns = row.get("dialog_info") or ()
            return any(found.get("attr") for turn in turns for found in turn.get("ner") or ())
        case _ if task in _TURN_FIELDS:
            return any(turn.get(_TURN_FIELDS[task]) for turn in row.get("dialogue") or ())
        case _:
            return row.get(_ANSWER_FIELDS.get(task, "label")) not in (None, "", [], {})


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
    # Rows of another layout are refused one by one, when they are read.
    known = (r for r in rows if isinstance(r, dict) and isinstance(r.get("normalized_result"), str))
    all_terms = sorted({term for row in known for term in _terms(row)})

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
                "发生状态": event["tendency"] or "",
                "描述词": _texts(event["character"]),
                "解剖部位": _texts(event["anatomy_list"]),
            }
            for event in row["event"]
        ],
    )


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):  # of a text, every character would be an item
        raise TypeError(f"{values!r} is not a list")
    return values


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


def examples_of_dialogue(
    dialogue_id: str, dialogue: Mapping[str, Any], task: str
) -> Iterator[Example]:
    """IMCS-V2: every example that one annotated dialogue gives to one of its four tasks.

    Layout from the data set's repository (lemuria-wchen/imcs21-cblue): dialogue id -> {self_report,
    dialogue: [{speaker, sentence, dialogue_act, BIO_label, local_implicit_info}], report: [two]}.
    """
    if task == "IMCS-V2-MRG":
        yield from [_report(dialogue_id, dialogue)] if dialogue.get("report") else []
        return
    turns: Sequence[_Turn] = dialogue["dialogue"]
    for index, turn in enumerate(turns):
        turn_id = f"{dialogue_id}-{turn.get('sentence_id', index + 1)}"
        if task == "IMCS-V2-NER":
            yield _entities(turn_id, turn)
        elif task == "IMCS-V2-DAC":
            yield _intent(turn_id, turns[max(0, index - _TURNS_BEFORE) : index + 1])
        elif turn.get("local_implicit_info"):
            yield _symptoms(turn_id, turns[max(0, index - 2) : index], turn)


def _entities(turn_id: str, turn: _Turn) -> Example:
    tags = turn["BIO_label"].split(" ")
    # One tag a character: otherwise every entity after the first slip would be another text.
    fits = len(tags) == len(turn["sentence"])
    found = dict.fromkeys(_spans(turn["sentence"], tags))
    return Example(
        task="IMCS-V2-NER",
        sample_id=turn_id,
        slots={"text": turn["sentence"]},
        answer=[{"entity": entity, "type": codes.IMCS_NER[kind]} for entity, kind in found]
        if fits
        else None,
        choices=IMCS_NER_TYPES,
    )


def _spans(sentence: str, tags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Entities with their type, from one BIO tag a character."""
    start = None
    for place, tag in enumerate([*tags, "O"]):
        if start is not None and not tag.startswith("I-"):
            yield sentence[start:place], tags[start].removeprefix("B-")
            start = None
        if tag.startswith("B-"):
            start = place


def _intent(turn_id: str, turns: Sequence[_Turn]) -> Example:
    return Example(
        task="IMCS-V2-DAC",
        sample_id=turn_id,
        slots={"text": _written(turns)},
        answer=codes.DAC[turns[-1]["dialogue_act"]],
        choices=DAC_INTENTS,
    )


def _symptoms(turn_id: str, before: Sequence[_Turn], turn: _Turn) -> Example:
    symptoms: Mapping[str, str] = turn["local_implicit_info"]
    return Example(
        task="IMCS-V2-SR",
        sample_id=turn_id,
        slots={"history": _written(before) or "（无）", "text": _written([turn])},
        answer=[{"entity": s, "attr": codes.SR[str(code)]} for s, code in symptoms.items()],
        choices=SR_STATUSES,
    )


def _report(dialogue_id: str, dialogue: Mapping[str, Any]) -> Example:
    """The first of the two reference reports is gold."""
    report = dialogue["report"][0]
    said = dialogue.get("self_report", dialogue.get("self-report", ""))
    return Example(
        task="IMCS-V2-MRG",
        sample_id=dialogue_id,
        slots={"text": f"患者自述：{said}\n{_written(dialogue['dialogue'])}"},
        answer={name: report[name].replace("\n", "").strip() for name in MRG_SECTIONS},
    )


def _written(turns: Sequence[_Turn]) -> str:
    return "\n".join(f"{turn['speaker']}：{turn['sentence']}" for turn in turns)


def retrieval_rows(path: Path) -> Iterator[dict[str, str]]:
    """KUAKE-IR: a pair for each line `query id, document id`, the right document or another's.

    `corpus.tsv` and the file of queries are looked for beside `path`. Half of the pairs, drawn at
    random, get a document of another query, so the irrelevant ones are easier than PromptCBLUE's.

    Raises:
        DataError: The queries or the documents, or some of them, are not there.
    """
    pairs = [(query, document) for query, document in _cells(path)]
    queries = dict(_cells(_beside(path, [name.format(stem=path.stem) for name in _QUERY_FILES])))
    wanted = {document for _, document in pairs}
    corpus = _cells(_beside(path, ["corpus.tsv"]))
    documents = {key: text for key, text in corpus if key in wanted}
    if strangers := {q for q, _ in pairs} - queries.keys() | wanted - documents.keys():
        raise DataError(
            offence_list(
                f"{path}: ids of which the files beside it have no text", sorted(strangers)
            )
        )
    right = set(pairs)
    chance = random.Random(path.stem)
    for query, document in pairs:
        other_query, other = chance.choice(pairs)
        swapped = other_query != query and chance.random() < 0.5 and (query, other) not in right
        yield {
            "query": queries[query],
            "document": documents[other if swapped else document],
            "label": str(int(not swapped)),
        }


def _beside(path: Path, names: list[str]) -> Path:
    for name in names:
        if (path.parent / name).is_file():
            return path.parent / name
    raise DataError(f"{path} needs {' or '.join(names)} beside it")


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            key, tab, value = line.rstrip("\n").partition("\t")
            if tab:
                yield key, value
