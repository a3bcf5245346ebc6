"""Questions that hang together: what data sets do not say and their text shows."""

import dataclasses
from types import SimpleNamespace

import pytest
from gate_runs import flipped, make_run, make_samples

from mingmoe_eval.comparison import compare
from mingmoe_eval.exams.cases import clusters_of

CASE = "患者,男,62岁。反复上腹痛10年,加重1周,伴反酸、嗳气,服抑酸药后缓解。查体:剑突下轻压痛。"
ENGLISH = (
    "A 62-year-old man has had epigastric pain for ten years. It is worse at night and better "
    "after meals. He takes no drugs. "
)


def asked(*questions, **facts):
    return [SimpleNamespace(doc={"question": q, **facts}, cluster=None) for q in questions]


def groups(clusters):
    """The places that share a cluster, in order."""
    return [
        [place for place, one in enumerate(clusters) if one == name]
        for name in dict.fromkeys(c for c in clusters if c is not None)
    ]


@pytest.mark.parametrize(
    "questions",
    [
        (CASE + "最可能的诊断是", "糖尿病的诊断标准是", CASE + "首选的检查是"),
        (f"62. {CASE}最可能的诊断是", "糖尿病", f"63. {CASE}首选的检查是"),
        (f"(62~63题共用题干){CASE}诊断是", "糖尿病", f"(62~63题共用题干){CASE}检查是"),
        (
            ENGLISH + "What is the diagnosis?",
            "What is insulin?",
            ENGLISH + "What is the next step?",
        ),
    ],
)
def test_a_case_before_several_questions_is_one_cluster(questions):
    assert groups(clusters_of(asked(*questions))) == [[0, 2]]


@pytest.mark.parametrize(
    "questions",
    [
        # MedQA's own words: as much as exam questions without a case in common begin with.
        (
            "A 27-year-old man presents to the emergency department with chest pain. He smokes.",
            "A 27-year-old man presents to the emergency department with a rash. He is well.",
        ),
        ("下列说法错误的是", "下列说法错误的是"),
        ("Which of the following is true?", "Which of the following is true?"),
    ],
)
def test_what_exam_questions_begin_with_is_no_case(questions):
    assert clusters_of(asked(*questions)) == [None, None]


def test_an_instruction_before_every_question_is_no_case():
    questions = [f"{ENGLISH}Question {number}?" for number in range(40)]
    assert set(clusters_of(asked(*questions))) == {None}


def test_a_context_or_a_block_of_five_options_is_shared():
    five, three = ({c: f"option {c}" for c in letters} for letters in ("ABCDE", "ABC"))
    assert groups(clusters_of(asked("one", "two", options=five))) == [[0, 1]]
    assert clusters_of(asked("one", "two", options=three)) == [None, None]
    assert groups(clusters_of(asked("one", "two", context="An abstract."))) == [[0, 1]]


def test_what_the_data_set_says_stands():
    questions = asked(CASE + "诊断是", CASE + "检查是", CASE + "治疗是")
    questions[0].cluster = "B1"
    clusters = clusters_of(questions)
    assert clusters[0] == "B1"
    assert groups(clusters) == [[0], [1, 2]]


def test_a_comparison_takes_a_case_for_one_draw():
    def cased(run):
        samples = [
            dataclasses.replace(
                s, doc={"question": f"第{s.position // 4}例。{CASE}问题{s.position}"}
            )
            for s in run.samples["usmle"]
        ]
        return dataclasses.replace(run, samples={"usmle": samples})

    right = [1.0] * 24 + [0.0] * 16
    baseline = make_run("main", {"usmle": make_samples(right)})
    candidate = make_run("new", {"usmle": make_samples(flipped(right, lost=8, gained=0))})
    task = compare(cased(baseline), cased(candidate)).tasks["usmle"]
    assert task.clusters == 10
    assert task.paired.test == "cluster sign flip"
