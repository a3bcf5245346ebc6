"""The suites labels, tuples and text: hand-made records, and numbers worked out by hand."""

import json

import pytest
from sklearn.metrics import f1_score

from mingmoe_eval import scoring
from mingmoe_eval.data_sources import Source
from mingmoe_eval.errors import DataError
from mingmoe_eval.exams.benchmarks import Benchmark, Part
from mingmoe_eval.metrics.label_reading import read_label
from mingmoe_eval.metrics.rouge import rouge
from mingmoe_eval.promptcblue.catalogue import task_named
from mingmoe_eval.promptcblue.measures import measure_of
from mingmoe_eval.promptcblue.parsing import parse_answer
from mingmoe_eval.record_files import Row
from mingmoe_eval.records import Response, TaskSettings
from mingmoe_eval.suites.conversion import docs_of_records, prompt_of
from mingmoe_eval.suites.tuples import SUITE, tuple_facts

PARTS = {"test": Part(files=("test",))}


def entry(**facts):
    return Benchmark(name="own", parts=PARTS, **facts)


def docs_of(chosen, *records):
    rows = tuple(Row(n, record) for n, record in enumerate(records, 1))
    return docs_of_records(
        chosen, Source(kind="data-dir", path="own.jsonl", fingerprint="f", rows=rows)
    )


def result_of(suite, docs, replies, **settings):
    chosen = TaskSettings(suite=suite, version=1.0, **settings)
    samples = [
        scoring.make_sample("own", n, doc, "prompt", Response(text=reply), chosen)
        for n, (doc, reply) in enumerate(zip(docs, replies, strict=True))
    ]
    return scoring.fold_task("own", samples, chosen), samples


# --- labels ----------------------------------------------------------------------------------

TRIAGE = ("emergency", "urgent", "not urgent")


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("urgent", "urgent"),
        ("Not urgent.", "not urgent"),
        ("**Emergency**", "emergency"),
        ("The answer is: Urgent", "urgent"),
        ('{"label": "urgent"}', "urgent"),
        ("<think>emergency?</think>\nurgent", "urgent"),
        ("<think>emergency", None),
        ("This is an emergency, since the pain radiates.", "emergency"),
        ("It is not an emergency.", None),
        ("It is not an emergency but urgent.", "urgent"),
        ("It is urgent or an emergency.", None),
        ("The case is hard.", None),
        ("An emergency would need shock.\nAnswer: not urgent", "not urgent"),
        ("resurgent", None),
        ("", None),
    ],
)
def test_the_label_that_a_reply_states_is_read(reply, label):
    assert read_label(reply, TRIAGE).label == label


def test_a_label_inside_a_longer_one_is_not_named():
    assert read_label("两句话不相关。", ["相关", "不相关"]).label == "不相关"
    assert read_label("答案：相关", ["相关", "不相关"]).label == "相关"


def test_a_reply_cut_off_counts_only_with_an_announced_label():
    assert read_label("An emergency would need", TRIAGE, cut_off=True).label is None
    assert read_label("Label: urgent\nbecause", TRIAGE, cut_off=True).label == "urgent"


def test_labels_are_folded_as_scikit_learn_does():
    chosen = entry(suite="labels", labels=TRIAGE, prompt="{{ note }}")
    gold = ["emergency", "urgent", "urgent", "not urgent", "not urgent", "not urgent"]
    said = ["emergency", "urgent", "not urgent", "not urgent", "not urgent", "urgent"]
    docs = docs_of(chosen, *({"note": f"n{n}", "answer": label} for n, label in enumerate(gold)))
    result, samples = result_of("labels", docs, said)
    assert result.main.value == pytest.approx(4 / 6)
    for average in ("macro", "weighted"):
        expected = f1_score(gold, said, average=average)
        assert result.metrics[f"{average}_f1"].value == pytest.approx(expected)
    assert result.chance == pytest.approx(1 / 3)
    assert result.breakdowns["label"]["urgent"].value == pytest.approx(1 / 2)
    assert prompt_of("Note: {{ note }}", samples[0].doc) == "Note: n0"
    main, _ = result_of("labels", docs, said, metric="macro_f1")
    assert main.main.value == main.metrics["macro_f1"].value
    assert 0.2 < main.chance < 0.4


def test_labels_may_come_from_the_file_or_the_record():
    chosen = entry(suite="labels", prompt="{{ note }}")
    docs = docs_of(chosen, {"note": "a", "answer": "x"}, {"note": "b", "answer": "y"})
    assert [doc["labels"] for doc in docs] == [["x", "y"], ["x", "y"]]
    own = docs_of(chosen, {"note": "a", "answer": "x", "labels": "x | z"})
    assert own[0]["labels"] == ["x", "z"]
    with pytest.raises(DataError, match="all x, so that there is nothing to decide"):
        docs_of(chosen, {"note": "a", "answer": "x"})


def test_an_answer_that_is_no_label_makes_a_row_unusable():
    chosen = entry(suite="labels", labels=("x", "y"), prompt="{{ note }}")
    docs = docs_of(chosen, {"note": "a", "answer": "x"}, {"note": "b", "answer": "z"})
    assert [str(row) for row in docs.unusable] == [
        "line 2: the answer 'z' is none of the labels x, y"
    ]


def test_under_the_official_profile_the_whole_output_is_the_label():
    chosen = entry(suite="labels", labels=("x", "y"), prompt="{{ note }}")
    docs = docs_of(chosen, {"note": "a", "answer": "x"}, {"note": "b", "answer": "y"})
    replies = ["The answer is x", " y\n"]
    lenient, _ = result_of("labels", docs, replies)
    official, _ = result_of("labels", docs, replies, profile="official")
    assert (lenient.main.value, official.main.value) == (1.0, 0.5)


# --- tuples ----------------------------------------------------------------------------------

NER = entry(suite="tuples", shape="entities", labels=("疾病", "症状"), prompt="{{ text }}")
ITEMS = [{"entity": "肺炎", "type": "疾病"}, {"entity": "咳嗽", "type": "症状"}]


@pytest.mark.parametrize(
    "reply",
    [
        "上述句子中的实体包含：\n疾病实体：肺炎\n症状实体：咳嗽",
        "疾病: 肺炎\n症状: 咳嗽",
        json.dumps(ITEMS, ensure_ascii=False),
        '```json\n[{"text": "肺炎", "label": "疾病"}, {"text": "咳嗽", "label": "症状"}]\n```',
        '{"疾病": ["肺炎"], "症状": ["咳嗽"]}',
        '{"entities": [["肺炎", "疾病"], ["咳嗽", "症状"]]}',
        "| entity | type |\n|---|---|\n| 肺炎 | 疾病 |\n| 咳嗽 | 症状 |",
        "<think>[]</think>肺炎 | 疾病\n咳嗽 | 症状",
    ],
)
def test_entities_are_read_in_every_common_spelling(reply):
    (doc,) = docs_of(NER, {"text": "t", "answer": ITEMS})
    result, samples = result_of("tuples", [doc], [reply])
    assert json.loads(samples[0].answered) == ITEMS
    assert result.main.value == 1.0


def test_gold_may_be_a_text_in_the_same_spellings():
    docs = docs_of(
        NER,
        {"text": "a", "answer": "疾病实体：肺炎\n症状实体：咳嗽"},
        {"text": "b", "answer": {"疾病": ["肺炎"]}},
        {"text": "c", "answer": []},
        {"text": "d", "answer": "无"},
    )
    assert [doc["items"] for doc in docs] == [ITEMS, ITEMS[:1], [], []]


def test_micro_f1_is_over_all_docs():
    docs = docs_of(NER, {"text": "a", "answer": ITEMS}, {"text": "b", "answer": ITEMS[:1]})
    # found 1 + 1, invented 1 + 0, missed 1 + 0: precision 2/3, recall 2/3
    result, samples = result_of("tuples", docs, ["疾病：肺炎，感冒", "疾病：肺炎"])
    assert result.main.metric == "f1"
    assert result.main.value == pytest.approx(2 / 3)
    assert result.metrics["precision"].value == pytest.approx(2 / 3)
    assert [s.score for s in samples] == [pytest.approx(0.5), 1.0]
    # diseases: found 2, invented 1, missed 0
    assert result.breakdowns["label"]["疾病"].value == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert result.breakdowns["label"]["症状"].value == 0.0


def test_official_reading_is_that_of_promptcblue():
    task = task_named("CMeEE-V2")
    text = "上述句子中的实体包含：\n疾病实体：肺炎，感冒\n症状实体:咳嗽"  # a half-width colon
    chosen = entry(suite="tuples", shape="entities", labels=("疾病", "症状"), prompt="{{ text }}")
    (doc,) = docs_of(chosen, {"text": "t", "answer": ITEMS})
    result, samples = result_of("tuples", [doc], [text], profile="official")
    read = parse_answer(task, text, ("疾病", "症状"))
    assert json.loads(samples[0].answered) == read
    compared = measure_of(task).compare(ITEMS, read)
    assert samples[0].counts == compared.counts
    assert result.main.value == pytest.approx(measure_of(task).corpus([compared])["f1"])


def test_a_reply_that_says_nothing_is_unanswered_and_one_that_says_none_is_not():
    (doc,) = docs_of(NER, {"text": "t", "answer": []})
    _, said = result_of("tuples", [doc] * 3, ["无", "I do not know what you mean.", ""])
    assert [s.status for s in said] == ["scored", "unanswered", "unanswered"]
    assert [s.score for s in said] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("facts", "answer", "reply"),
    [
        (
            {"shape": "relations", "labels": ("临床表现",)},
            [{"subject": "肺炎", "predicate": "临床表现", "object": "咳嗽"}],
            "具有临床表现关系的头尾实体对如下：头实体为肺炎，尾实体为咳嗽。",
        ),
        (
            {"shape": "findings", "labels": ("阳性", "阴性")},
            [{"entity": "咳嗽", "attr": "阳性"}],
            "咳嗽：阳性",
        ),
        ({"shape": "terms", "labels": ("肺炎", "感冒")}, ["肺炎"], "肺炎"),
        (
            {"shape": "tuples", "keys": ("drug", "dose")},
            [{"drug": "Aspirin", "dose": "100 mg"}],
            "aspirin | 100 MG",  # case does not matter
        ),
    ],
)
def test_each_shape_has_its_lines(facts, answer, reply):
    chosen = entry(suite="tuples", prompt="{{ text }}", **facts)
    (doc,) = docs_of(chosen, {"text": "t", "answer": answer})
    result, _ = result_of("tuples", [doc], [reply])
    assert result.main.value == 1.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "no answer"),
        ("gibberish", "holds no entities"),
        ([{"name": "x"}], "is no list of entity, type"),
        ([{"entity": "x", "type": "药物"}], "type 药物 is none of the labels"),
    ],
)
def test_gold_that_is_none_makes_a_row_unusable(answer, message):
    docs = docs_of(NER, {"text": "a", "answer": ITEMS}, {"text": "b", "answer": answer})
    assert message in str(docs.unusable[0])


@pytest.mark.parametrize("reply", ["[" * 50_000, "{" * 50_000, "[[1," * 20_000, "|" * 50_000])
def test_hostile_replies_are_read_quickly(reply):
    (doc,) = docs_of(NER, {"text": "t", "answer": ITEMS})
    _, samples = result_of("tuples", [doc], [reply])
    assert samples[0].score == 0.0


# --- text ------------------------------------------------------------------------------------


def test_texts_are_scored_by_rouge():
    chosen = entry(suite="text", prompt="{{ dialogue }}")
    docs = docs_of(
        chosen, {"dialogue": "a", "answer": "多喝水 休息"}, {"dialogue": "b", "answer": "去医院"}
    )
    replies = ["<think>x</think>多喝水", "去医院"]
    result, samples = result_of("text", docs, replies)
    pairs = [rouge("多喝水", "多喝水 休息"), rouge("去医院", "去医院")]
    assert result.main.metric == "rougeL"
    assert result.main.value == pytest.approx(sum(p.rouge_l for p in pairs) / 2)
    assert result.metrics["rouge1"].value == pytest.approx(sum(p.rouge1 for p in pairs) / 2)
    assert result.metrics["exact"].value == 0.5
    exact, _ = result_of("text", docs, replies, metric="exact")
    assert exact.main.value == 0.5
    assert samples[0].answered == "多喝水"


# --- what all have in common -----------------------------------------------------------------


def test_what_a_prompt_shows_must_be_in_the_records():
    chosen = entry(suite="text", prompt="{{ note }} {{ age }}", fields={"note": "病历"})
    with pytest.raises(DataError, match=r"(?s)it has answer.*age: no field 'age'.*'病历'"):
        docs_of(chosen, {"answer": "x"})
    docs = docs_of(
        chosen,
        {"病历": "n", "age": 3, "answer": "x"},
        {"病历": None, "age": 3, "answer": "x"},
        {"病历": "n", "age": 3, "answer": " "},
    )
    assert docs[0]["record"] == {"age": 3, "note": "n"}
    assert docs[0]["question"] == "3\nn"
    assert [str(row) for row in docs.unusable] == ["line 2: no note", "line 3: no answer"]


def test_the_same_record_twice_has_two_ids_and_tags_and_clusters_are_kept():
    chosen = entry(suite="text", prompt="{{ note }}", tag_fields={"ward": "station"})
    record = {"note": "n", "answer": "x", "station": 3, "cluster": "case 1"}
    first, second = docs_of(chosen, record, record)
    assert second["id"] == first["id"] + "-2"
    assert (first["tags"], first["cluster"]) == ({"ward": "3"}, "case 1")


def test_a_metric_that_a_suite_lacks_is_refused():
    (doc,) = docs_of(entry(suite="text", prompt="{{ n }}"), {"n": "n", "answer": "x"})
    with pytest.raises(DataError, match="no metric named 'bleu'; the suite has rougeL"):
        result_of("text", [doc], ["x"], metric="bleu")


@pytest.mark.parametrize("labels", [(), ("symptom", "drug")])
@pytest.mark.parametrize(
    "reply",
    [
        '{"entities": [{"entity": "fever", "type": "symptom"}]}',
        '{"symptom": ["fever"]}',
        'Allergies: []. Entities: [{"entity": "fever", "type": "symptom"}]',
    ],
)
def test_json_is_read_in_whatever_form_it_comes(labels, reply):
    facts = tuple_facts(
        answer=[{"entity": "fever", "type": "symptom"}], shape="entities", keys=(), labels=labels
    )
    score = SUITE.score_doc(facts, Response(text=reply), TaskSettings(suite="tuples"))
    assert (score.value, score.counts) == (1.0, {"tp": 1, "fp": 0, "fn": 0})


def test_a_label_that_nobody_offered_is_wrong_and_takes_nothing_from_the_others():
    facts = tuple_facts(
        answer=[{"entity": "fever", "type": "symptom"}],
        shape="entities",
        keys=(),
        labels=("symptom", "drug"),
    )
    reply = '{"symptom": ["fever"], "vital sign": ["39 C"]}'
    score = SUITE.score_doc(facts, Response(text=reply), TaskSettings(suite="tuples"))
    assert score.counts == {"tp": 1, "fp": 1, "fn": 0}
