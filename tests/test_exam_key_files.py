import pytest

from mingmoe_eval.errors import DataError
from mingmoe_eval.exams.conversion import join_key
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.record_files import Row

BENCHMARKS = benchmarks()

CMB = BENCHMARKS["cmb_exam"].part("test")
PUBMEDQA = BENCHMARKS["pubmedqa_test"].part("test")


def rows(*records):
    return [Row(number, record) for number, record in enumerate(records, 1)]


def joined(questions, keys, part=CMB):
    return [dict(row.fields) for row in join_key(rows(*questions), rows(*keys), part, name="key")]


def test_a_key_is_joined_by_id_whatever_the_order_and_the_type_of_the_id():
    questions = [{"id": 1, "question": "a"}, {"id": "2", "question": "b"}]
    assert joined(questions, [{"id": 2, "answer": "B"}, {"id": "1", "answer": "AC"}]) == [
        {"id": 1, "question": "a", "answer": "AC"},
        {"id": "2", "question": "b", "answer": "B"},
    ]


def test_a_question_that_the_key_does_not_know_stays_without_key():
    assert joined([{"id": 1}, {"id": 2}], [{"id": 1, "answer": "A"}]) == [
        {"id": 1, "answer": "A"},
        {"id": 2},
    ]


@pytest.mark.parametrize(("field", "value"), [("id", "18"), ("pmid", "18"), ("pubid", 18)])
def test_pubmedqa_s_ground_truth_picks_out_the_test_part(field, value):
    questions = [{"id": "17", "QUESTION": "a"}, {field: value, "QUESTION": "b"}]
    assert joined(questions, [{"18": "no"}], PUBMEDQA) == [
        {field: value, "QUESTION": "b", "final_decision": "no"}
    ]


def test_a_key_of_other_questions_is_refused_with_every_contradiction():
    questions = [
        {"id": 1, "exam_type": "医师考试", "exam_class": "规培结业"},
        {"id": 2, "exam_type": "护理考试"},
    ]
    keys = [
        {"id": 1, "exam_type": "药师考试", "exam_class": "执业医师", "answer": "A"},
        {"id": 2, "exam_type": "护理考试", "answer": "A"},
    ]
    with pytest.raises(DataError) as caught:
        joined(questions, keys)
    assert "id 1: exam_type is '医师考试', the key says '药师考试'" in str(caught.value)
    assert "id 1: exam_class" in str(caught.value)
    assert "id 2" not in str(caught.value)


def test_two_answers_for_one_id_are_refused():
    with pytest.raises(DataError, match="id 1: A and B"):
        joined([{"id": 1}], [{"id": 1, "answer": "A"}, {"id": 1, "answer": "B"}])


def test_a_key_record_without_answer_is_refused():
    with pytest.raises(DataError, match="without `id` or `answer`"):
        joined([{"id": 1}], [{"id": 1, "answer": "A"}, {"id": 2}])
