import math

import pytest

from mingmoe_eval import scoring
from mingmoe_eval.data_sources import Source
from mingmoe_eval.errors import DataError
from mingmoe_eval.exams.benchmarks import Benchmark, Part
from mingmoe_eval.record_files import Row
from mingmoe_eval.records import RequestUsage, Response, TaskSettings
from mingmoe_eval.suites.conversion import docs_of_records
from mingmoe_eval.suites.number import number_facts, process_results

SETTINGS = TaskSettings(suite="number", version=1.0)
# The columns that MedCalc-Bench publishes; the patients are invented.
ROWS = [
    {
        "Patient Note": "A man of 34 years and 70 kg, creatinine 1.2 mg/dL.",
        "Question": "What is his creatinine clearance by Cockcroft-Gault in mL/min?",
        "Ground Truth Answer": "85.880",
        "Lower Limit": "81.586",
        "Upper Limit": "90.174",
        "Category": "lab",
    },
    {
        "Patient Note": "Her last period began on 06/07/2023.",
        "Question": "What is the due date?",
        "Ground Truth Answer": "03/13/2024",
        "Lower Limit": "03/13/2024",
        "Upper Limit": "03/13/2024",
        "Category": "date",
    },
    {
        "Patient Note": "Her last period began on 03/01/2023; today is 10/23/2023.",
        "Question": "What is the gestational age?",
        "Ground Truth Answer": "('33 weeks', '5 days')",
        "Lower Limit": "('33 weeks', '5 days')",
        "Upper Limit": "('33 weeks', '5 days')",
        "Category": "date",
    },
]
MEDCALC = Benchmark(
    name="calc",
    folders=("calc",),
    parts={"test": Part(files=("test",))},
    suite="number",
    fields={
        "question": "Question",
        "context": "Patient Note",
        "answer": "Ground Truth Answer",
        "lower": "Lower Limit",
        "upper": "Upper Limit",
    },
    tag_fields={"category": "Category"},
)


def source(rows):
    numbered = tuple(Row(n, row) for n, row in enumerate(rows, 1))
    return Source(kind="data-dir", path="calc.jsonl", fingerprint="f", rows=numbered)


def test_a_record_becomes_a_doc_with_its_limits():
    docs = docs_of_records(MEDCALC, source(ROWS))
    assert [(d["kind"], d["lower"], d["upper"]) for d in docs] == [
        ("number", 81.586, 90.174),
        ("date", 738958, 738958),  # date(2024, 3, 13).toordinal()
        ("weeks", 236, 236),
    ]
    assert docs[0]["question"] == ROWS[0]["Question"]
    assert docs[0]["context"] == ROWS[0]["Patient Note"]
    assert docs[0]["tags"] == {"category": "lab"}


@pytest.mark.parametrize(
    ("facts", "limits"),
    [
        ({"answer": 80, "tolerance": 0.05}, (76, 84)),
        ({"answer": -80, "tolerance": 0.05}, (-84, -76)),
        ({"answer": "1,200 mg", "unit": "g"}, (1.2, 1.2)),
        ({"answer": 5, "lower": 4}, (4, 5)),
        ({"answer": 5, "lower": "", "upper": None}, (5, 5)),
    ],
)
def test_limits_come_from_the_record_or_from_a_tolerance(facts, limits):
    doc = number_facts(**facts)
    assert (doc["lower"], doc["upper"]) == pytest.approx(limits)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"answer": None}, "no answer"),
        ({"answer": "high"}, "answer: 'high' is no number"),
        ({"answer": 5, "upper": "x"}, "upper: 'x' is no number"),
        ({"answer": 5, "lower": 6, "upper": 7}, "does not lie within 6 to 7"),
        ({"answer": "5 days ago", "kind": "date"}, "is no date"),
    ],
)
def test_an_answer_that_is_none_makes_a_row_unusable(facts, message):
    with pytest.raises(ValueError, match=message):
        number_facts(**facts)


def test_rows_without_an_answer_are_left_out_and_named():
    docs = docs_of_records(MEDCALC, source([*ROWS, {**ROWS[0], "Ground Truth Answer": ""}]))
    assert len(docs) == 3
    assert [str(row) for row in docs.unusable] == ["line 4: no answer"]


def test_fields_that_are_not_there_are_all_named():
    with pytest.raises(DataError, match=r"(?s)it has a.*question: no field 'Question'.*upper: no"):
        docs_of_records(MEDCALC, source([{"a": 1}]))


def test_replies_are_scored_and_folded():
    docs = docs_of_records(MEDCALC, source(ROWS))
    replies = ["So it is 86 mL/min.", "The answer is 2024-03-14.", "I do not know."]
    samples = [
        scoring.make_sample("calc", n, doc, "prompt", Response(text=reply), SETTINGS)
        for n, (doc, reply) in enumerate(zip(docs, replies, strict=True))
    ]
    assert [s.score for s in samples] == [1.0, 0.0, 0.0]
    assert [s.answered for s in samples] == ["86", "2024-03-14", None]
    assert samples[2].status == "unanswered"
    assert [s.expected for s in samples] == [row["Ground Truth Answer"] for row in ROWS]
    result = scoring.fold_task("calc", samples, SETTINGS)
    assert result.main.value == pytest.approx(1 / 3)
    assert result.main.metric == "within_limits"
    # Wilson's interval of 1 in 3, from R: binom.confint(1, 3, method = "wilson")
    assert result.main.interval == pytest.approx((0.0614919, 0.7923404), abs=1e-6)
    assert result.metrics["answered"].value == pytest.approx(2 / 3)
    assert result.chance is None
    by_category = result.breakdowns["category"]
    assert (by_category["lab"].value, by_category["date"].value) == (1.0, 0.0)
    assert result.counts.unanswered == 1


def test_a_reply_cut_off_before_its_answer_earns_nothing():
    (doc, *_) = docs_of_records(MEDCALC, source(ROWS))
    usage = (RequestUsage(prompt_tokens=1, finish="length"),)
    text = "(140 - 34) * 70 / (72 * 1.2) = 86"
    cut = scoring.make_sample("c", 0, doc, "p", Response(text=text, usage=usage), SETTINGS)
    whole = scoring.make_sample("c", 0, doc, "p", Response(text=text), SETTINGS)
    assert (cut.score, whole.score) == (0.0, 1.0)


def test_groups_are_means_of_members_or_pools_of_docs():
    docs = docs_of_records(MEDCALC, source(ROWS))
    parts = {"a": docs[:1], "b": docs[1:]}
    samples = {
        name: [
            scoring.make_sample(name, n, doc, "p", Response(text="86 mL/min"), SETTINGS)
            for n, doc in enumerate(part)
        ]
        for name, part in parts.items()
    }
    results = {name: scoring.fold_task(name, s, SETTINGS) for name, s in samples.items()}
    group = scoring.fold_group("g", "number", results, samples)
    pooled = scoring.fold_group("g", "number", results, samples, weight_by_size=True)
    assert group.main.value == pytest.approx(1 / 2)
    assert pooled.main.value == pytest.approx(1 / 3)
    assert not math.isnan(group.metrics["micro"].value)


def test_stock_lm_eval_gets_the_same_score():
    (doc, *_) = docs_of_records(MEDCALC, source(ROWS))
    assert process_results(doc, ["86"]) == {"within_limits": 1.0, "score": 1.0}
    assert process_results(doc, ["860"]) == {"within_limits": 0.0, "score": 0.0}
