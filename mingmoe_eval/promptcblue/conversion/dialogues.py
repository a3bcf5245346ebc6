"""The IMCS-V2 files: one set of annotated dialogues behind four tasks.

Layout from the data set's repository (lemuria-wchen/imcs21-cblue): dialogue id -> {self_report,
dialogue: [{speaker, sentence, dialogue_act, BIO_label, local_implicit_info}], report: [two]}.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mingmoe_eval.promptcblue.catalogue import MRG_SECTIONS
from mingmoe_eval.promptcblue.conversion import codes
from mingmoe_eval.promptcblue.conversion.examples import Example
from mingmoe_eval.promptcblue.label_sets import DAC_INTENTS, IMCS_NER_TYPES, SR_STATUSES

_Turn = Mapping[str, Any]

_TURNS_BEFORE = 4
"""How many turns a question about the intent of one shows before it."""


def examples_of_dialogue(dialogue_id: str, dialogue: Mapping[str, Any]) -> Iterator[Example]:
    """Every example that one dialogue gives to the four tasks."""
    turns: Sequence[_Turn] = dialogue["dialogue"]
    for index, turn in enumerate(turns):
        turn_id = f"{dialogue_id}-{turn.get('sentence_id', index + 1)}"
        yield _entities(turn_id, turn)
        yield _intent(turn_id, turns[max(0, index - _TURNS_BEFORE) : index + 1])
        if turn.get("local_implicit_info"):
            yield _symptoms(turn_id, turns[max(0, index - 2) : index], turn)
    if dialogue.get("report"):
        yield _report(dialogue_id, dialogue)


def _entities(turn_id: str, turn: _Turn) -> Example:
    found = dict.fromkeys(_spans(turn["sentence"], turn["BIO_label"].split(" ")))
    return Example(
        task="IMCS-V2-NER",
        sample_id=turn_id,
        slots={"text": turn["sentence"]},
        answer=[{"entity": entity, "type": codes.IMCS_NER[kind]} for entity, kind in found],
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
        answer=[{"entity": s, "attr": SR_STATUSES[int(code)]} for s, code in symptoms.items()],
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
