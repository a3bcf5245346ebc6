import dataclasses
import json

from mingmoe_eval.exams.records import Question, docs_of, stem_key

QUESTION = Question(question="Which?", options={"A": "x", "B": "y"}, answer="B", single=True)


def test_a_doc_is_plain_json_with_sorted_letters():
    [doc] = docs_of([QUESTION])
    assert json.loads(json.dumps(doc)) == doc
    assert doc["options"] == {"A": "x", "B": "y"}
    assert (doc["answer"], doc["single"], doc["cluster"]) == ("B", True, None)


def test_a_doc_s_id_does_not_depend_on_what_stands_before_it():
    other = dataclasses.replace(QUESTION, question="Another?")
    assert docs_of([other, QUESTION])[1]["id"] == docs_of([QUESTION])[0]["id"]


def test_a_corrected_key_or_a_new_tag_keeps_the_id():
    corrected = dataclasses.replace(QUESTION, answer="A", tags={"step": "1"})
    assert corrected.content_id == QUESTION.content_id


def test_other_options_or_another_context_make_another_id():
    ids = {
        QUESTION.content_id,
        dataclasses.replace(QUESTION, options={"A": "y", "B": "x"}).content_id,
        dataclasses.replace(QUESTION, context="A text.").content_id,
    }
    assert len(ids) == 3


def test_repeated_questions_have_ids_of_their_own():
    ids = [doc["id"] for doc in docs_of([QUESTION] * 3)]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]


def test_stems_are_equal_up_to_width_case_blanks_and_punctuation():
    assert stem_key({"question": "Vitamin Ｃ 缺乏，可引起（ ）。"}) == stem_key(
        {"question": "vitamin c缺乏可引起"}
    )
    assert stem_key({"question": "a"}) != stem_key({"question": "b"})
