"""The keys of real records as a benchmark has them, against a reading of the files written here."""

import json
import re
from pathlib import Path

import pytest

from mingmoe_eval.exams.conversion import convert
from mingmoe_eval.exams.facts_files import benchmark_named
from mingmoe_eval.exams.loading import load
from mingmoe_eval.exams.records import docs_of
from mingmoe_eval.record_files import parse_rows

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "exams"
pytestmark = pytest.mark.skipif(
    not REAL.is_dir(), reason="../shared/data/exams, the real records, is not here"
)


def docs(benchmark, folder=REAL):
    return load(benchmark=benchmark, data_dir=str(folder))["test"]


@pytest.fixture(scope="module")
def jmle():
    records = json.loads((REAL / "jmle2026" / "jmle2026_dataset.json").read_text("utf-8"))
    return {record["question_id"]: record for record in records}


def test_jmle_has_its_400_questions_keys_and_numbers_of_options(jmle):
    made = docs("jmle2026")
    assert [doc["question_id"] for doc in made] == list(jmle)
    assert not made.marks
    assert not made.unusable
    for doc in made:
        record = jmle[doc["question_id"]]
        if record["question_type"] == "calculation":
            assert (doc["options"], [doc["answer"]]) == ({}, record["answer"])
        else:
            assert list(doc["answer"].lower()) == sorted(record["answer"])
            assert doc["choose"] == record["num_choices_to_select"]
            assert list(doc["options"]) == ["A", "B", "C", "D", "E"]
        assert doc["tags"]["block"] == record["block"]


def test_jmle_s_options_and_stem_are_the_question_s_text_and_nothing_is_lost(jmle):
    """Read again with another tool: the text without blanks, letters and the number in front."""
    tables = {"120C-71", "120F-14"}
    for doc in docs("jmle2026"):
        if doc["question_id"] in tables or not doc["options"]:
            continue
        record = jmle[doc["question_id"]]
        whole = doc["question"] + "".join(
            letter.lower() + text for letter, text in doc["options"].items()
        )
        printed = re.sub(r"^\s*\d+\s+", "", record["question_text"])
        assert re.sub(r"\s", "", whole) == re.sub(r"\s", "", printed)


def test_jmle_without_pictures_has_302_questions(jmle):
    assert [doc["question_id"] for doc in docs("jmle2026_text")] == [
        name for name, record in jmle.items() if not record["clinical_images"]
    ]


def test_mmlu_pro_keys_are_the_letters_of_the_file():
    path = REAL / "mmlu_pro_health" / "test.first300.jsonl"
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    made = docs_of_file("mmlu_pro_health", path)
    assert len(made) == 300
    for doc, record in zip(made, records, strict=True):
        assert doc["question"] == record["question"].strip()
        assert doc["answer"] == record["answer_idx"]
        assert doc["options"][doc["answer"]] == record["answer"].strip()


@pytest.mark.parametrize("count", [4, 5])
def test_medbullets_keys_are_the_letters_and_texts_of_the_columns(count):
    path = REAL / "medbullets" / f"medbullets_op{count}.first60.json"
    columns = json.loads(path.read_text("utf-8"))
    made = docs_of_file(f"medbullets_op{count}", path)
    assert len(made) == 60
    for number, doc in zip(columns["question"], made, strict=True):
        assert doc["answer"] == columns["answer_idx"][number]
        assert doc["options"][doc["answer"]] == columns["answer"][number].strip()
        assert doc["options"]["D"] == columns["opd"][number].strip()


def docs_of_file(benchmark, path):
    rows = parse_rows(path.read_bytes(), name=path.name, suffix=path.suffix)
    found = convert(rows, benchmark_named(benchmark), name=path.name)
    assert not found.unusable
    return docs_of(found.questions)
