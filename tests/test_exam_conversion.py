import pytest

from mingmoe_eval.errors import DataError
from mingmoe_eval.exams.conversion import convert, rows_of_exam
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.record_files import Row

BENCHMARKS = benchmarks()


def converted(benchmark, *records):
    rows = [Row(number, record) for number, record in enumerate(records, 1)]
    return convert(rows, BENCHMARKS[benchmark], name="file")


def refusal(benchmark, *records):
    with pytest.raises(DataError) as caught:
        converted(benchmark, *records)
    return str(caught.value)


def reasons(benchmark, *records):
    return dict(converted(benchmark, *records).unusable)


PAIRS = [{"key": "A", "value": "w"}, {"key": "B", "value": "x"}, {"key": "C", "value": "y"}]
COLUMNS = {"A": "w", "B": "x", "C": "y"}
COP = {"question": "?", "opa": "w", "opb": "x", "opc": "y", "opd": "z"}

SHAPES = {
    "MedQA, official": (
        "usmle",
        {"question": "?", "options": COLUMNS, "answer": "x", "answer_idx": "B", "meta_info": "s"},
    ),
    "MedQA, key/value options": (
        "mcmle",
        {"question": "?", "options": PAIRS, "answer": "x", "answer_idx": "B"},
    ),
    "MedQA, -hf": (
        "usmle",
        {"sent1": "?", "sent2": "", "ending0": "w", "ending1": "x", "ending2": "y", "label": 1},
    ),
    "MedQA, key as text": ("usmle", {"question": "?", "options": COLUMNS, "answer": "x"}),
    "MedQA, key as letter": ("usmle", {"question": "?", "options": COLUMNS, "answer": "B"}),
    "reshaped": (
        "mcmle",
        {"question": "?", "options": "(A) w\n(B) x\n(C) y", "answer": "(B)", "source": "s"},
    ),
    "MMLU, hub": (
        "mmlu_med_anatomy",
        {"question": "?", "subject": "anatomy", "choices": ["w", "x", "y"], "answer": 1},
    ),
    "MMLU, columns": ("mmlu_med_anatomy", {"question": "?", **COLUMNS, "answer": "B"}),
    "CMMLU": ("cmmlu_med_virology", {"": "0", "Question": "?", **COLUMNS, "Answer": "B"}),
    "C-Eval": (
        "ceval_med_physician",
        {"id": 0, "question": "?", **COLUMNS, "answer": "B", "explanation": "why"},
    ),
    "CMExam, newlines": ("cmexam", {"Question": "?", "Options": "A w\nB x\nC y", "Answer": "B"}),
    "CMExam, backslash n": (
        "cmexam",
        {"Question": "?", "Options": "A w\\nB x\\nC y", "Answer": "B", "Explanation": "why"},
    ),
    "CMExam, key/value": ("cmexam", {"Question": "?", "Options": PAIRS, "Answer": "B"}),
    "CMB": (
        "cmb_exam",
        {
            "question": "?",
            "option": {**COLUMNS, "D": "", "E": None},
            "answer": "B",
            "question_type": "单项选择题",
        },
    ),
    "pharmacist": (
        "pharmacist2023_tcm",
        {"question": "?", **COLUMNS, "E": "", "answer": "B", "question_type": "Optimal Choice"},
    ),
    "MedXpertQA, GitHub": (
        "medxpertqa",
        {
            "question": "?\nAnswer Choices: (A) w (B) x (C) y",
            "options": [{"letter": c, "content": text} for c, text in COLUMNS.items()],
            "label": ["B"],
        },
    ),
    "MedXpertQA, hub": ("medxpertqa", {"question": "?", "options": COLUMNS, "label": "B"}),
    "MMLU-Pro": (
        "mmlu_pro_health",
        {"question": "?", "options": ["w", "x", "y"], "answer": "B", "answer_index": 1},
    ),
    "SuperGPQA": (
        "supergpqa_medicine",
        {"question": "?", "options": ["w", "x", "y"], "answer": "x", "answer_letter": "B"},
    ),
    "Medbullets": ("medbullets_op4", {**COP, "opd": "", "answer_idx": "B", "answer": "x"}),
    "CareQA": (
        "usmle",
        {"question": "?", "op1": "w", "op2": "x", "op3": "y", "op4": "", "answer": "B"},
    ),
    "HEAD-QA": (
        "usmle",
        {
            "qtext": "?",
            "answers": [{"aid": n, "atext": text} for n, text in enumerate("wxy", 1)],
            "ra": 2,
        },
    ),
    "FrenchMedMCQA": (
        "usmle",
        {"question": "?", "answers": {"a": "w", "b": "x", "c": "y"}, "correct_answers": ["b"]},
    ),
    "FrenchMedMCQA, hub": (
        "usmle",
        {
            "question": "?",
            "answer_a": "w",
            "answer_b": "x",
            "answer_c": "y",
            "correct_answers": [1],
        },
    ),
}


SHAPES |= {
    "IgakuQA": (
        "igakuqa_2018",
        {"problem_id": "112A1", "problem_text": "?", "choices": ["w", "x", "y"], "answer": ["b"]},
    ),
    "JMLE2026-Bench": (
        "jmle2026",
        {
            "question_id": "120A-1",
            "question_text": "1\u3000?\n\na\u3000w\n\nb\u3000x\n\nc\u3000y",
            "answer": ["b"],
        },
    ),
    "KorMedMCQA": ("kormedmcqa_nurse", {"question": "?", **COLUMNS, "answer": 2, "cot": ""}),
    "CareQA, hub": (
        "careqa_es",
        {"question": "?", "op1": "w", "op2": "x", "op3": "y", "op4": None, "cop": 2},
    ),
}


@pytest.mark.parametrize(("benchmark", "record"), SHAPES.values(), ids=SHAPES)
def test_every_shape_gives_the_same_question(benchmark, record):
    [question] = converted(benchmark, record).questions
    assert question.question == "?"
    assert question.options == {"A": "w", "B": "x", "C": "y"}
    assert question.answer == "B"


@pytest.mark.parametrize("values", [("4", "1"), (4, 1), (4.0, 1.0)])
def test_a_cop_of_4_means_that_medmcqa_counts_from_1(values):
    records = [{**COP, "cop": value} for value in values]
    assert [q.answer for q in converted("medmcqa_val", *records).questions] == ["D", "A"]


def test_a_cop_of_0_means_that_medmcqa_counts_from_0():
    records = [{**COP, "cop": value} for value in (0, 3)]
    assert [q.answer for q in converted("medmcqa_val", *records).questions] == ["A", "D"]


@pytest.mark.parametrize("values", [(1, 2, 3), (0, 4)])
def test_a_cop_that_could_count_from_either_is_refused_with_the_way_to_say_it(values):
    message = refusal("medmcqa_val", *({**COP, "cop": value} for value in values))
    assert '"cop_base": 0 or "cop_base": 1' in message


@pytest.mark.parametrize(("base", "answer"), [(0, "C"), (1, "B")])
def test_records_may_say_where_cop_counts_from(base, answer):
    [question] = converted("medmcqa_val", {**COP, "cop": 2, "cop_base": base}).questions
    assert question.answer == answer


def test_withheld_medmcqa_labels_are_refused_with_the_way_out():
    message = refusal("medmcqa_val", {**COP, "cop": -1}, {**COP, "cop": -1})
    assert "no row can be used" in message
    assert "use its validation part" in message


PUBMEDQA = {"QUESTION": "?", "CONTEXTS": ["One.", "Two."], "LONG_ANSWER": "Secret."}


@pytest.mark.parametrize(
    "record",
    [
        {**PUBMEDQA, "final_decision": "maybe"},
        {
            "question": "?",
            "context": {"contexts": ["One.", "Two."], "labels": []},
            "long_answer": "Secret.",
            "final_decision": "maybe",
        },
    ],
    ids=["GitHub", "hub"],
)
def test_pubmedqa_has_a_context_and_three_words(record):
    [question] = converted("pubmedqa_test", record).questions
    assert question.context == "One.\nTwo."
    assert question.options == {"A": "yes", "B": "no", "C": "maybe"}
    assert question.answer == "C"


def test_pubmedqa_without_its_abstract_is_another_task():
    message = refusal("pubmedqa_test", {"QUESTION": "?", "final_decision": "yes"})
    assert "no abstract" in message


@pytest.mark.parametrize(("decision", "reason"), [("perhaps", "is not yes, no"), ("", "no key")])
def test_pubmedqa_knows_three_decisions(decision, reason):
    good = {**PUBMEDQA, "final_decision": "no"}
    bad = {**PUBMEDQA, "final_decision": decision}
    assert reason in reasons("pubmedqa_test", good, bad)[2]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "?", "label_text": "B"}, "no field for the question"),
        ({"question": "?", "answer": "B"}, "no field for the options"),
        ({"question": "?", "options": COLUMNS, **COLUMNS, "answer": "B"}, "in options and A"),
        ({"question": "?", "Question": "!", **COLUMNS, "answer": "B"}, "in question and Question"),
        ({"question": "?", **COLUMNS, "answer": "B", "label": 0}, "in answer and label"),
    ],
)
def test_an_unknown_or_ambiguous_shape_is_refused_with_its_fields(record, expected):
    message = refusal("usmle", record)
    assert expected in message
    assert f"Its fields are: {', '.join(sorted(record))}" in message


def test_questions_without_key_are_refused_with_the_way_out():
    record = {"id": 1, "question": "?", "option": COLUMNS, "question_type": "单项选择题"}
    message = refusal("cmb_exam", record)
    assert "no answer key" in message
    assert "CMB-test-choice-answer.json" in message


def test_rows_that_cannot_be_used_are_reported_and_the_others_kept():
    def record(**changes):
        return {"Question": "?", "Options": "A w\nB x", "Answer": "A"} | changes

    result = converted(
        "cmexam",
        record(),
        record(Answer="nan"),
        record(Answer="C"),
        record(Question=" "),
        record(Options="A w"),
        record(Answer="BA"),
    )
    assert [question.answer for question in result.questions] == ["A", "AB"]
    assert dict(result.unusable) == {
        2: "no key",
        3: "the key C is not among the options A, B",
        4: "no question text",
        5: "1 option",
    }


def test_letter_and_text_of_medqa_must_not_contradict_each_other():
    good = {"question": "?", "options": COLUMNS, "answer": "not one of them", "answer_idx": "B"}
    assert reasons("usmle", good, {**good, "answer": "y"}) == {
        2: "answer_idx says B, answer is the text of C"
    }


def test_a_letter_that_is_another_option_s_text_is_not_guessed_at():
    blood = {"question": "?", "options": {"A": "B", "B": "A", "C": "O"}}
    good = {**blood, "answer": "C"}
    assert (
        "is a letter, and the text of option B"
        in reasons("usmle", good, {**blood, "answer": "A"})[2]
    )


def test_two_letters_for_a_question_with_one_right_option_are_reported():
    good = {"question": "?", **COLUMNS, "answer": "B"}
    assert "has one right option" in reasons("mmlu_med_anatomy", good, {**good, "answer": "AB"})[2]


def test_a_five_option_file_is_not_taken_for_the_four_option_set():
    record = {"question": "?", "options": dict(zip("ABCDE", "vwxyz", strict=True)), "answer": "E"}
    assert "5 options a question, usmle has 4" in refusal("usmle", record)
    assert converted("usmle_5opt", record).questions


def test_cmexam_says_nothing_about_the_number_of_right_options():
    record = {"Question": "?", "Options": "A w\nB x", "Answer": "A", "Clinical Department": "内科"}
    [question] = converted("cmexam", record | {"Disease Group": "不符合"}).questions
    assert question.single is False
    assert question.tags == {"department": "内科"}


@pytest.mark.parametrize(
    ("written", "name", "single"),
    [
        ("单项选择题", "Single Choice", True),
        ("多项选择题", "Multiple Choice", False),
        ("Multiple Choice", "Multiple Choice", False),
        ("Integrated Analysis", "Integrated Analysis", True),
        ("最佳选择题", "Optimal Choice", True),
    ],
)
def test_question_types_declare_how_many_options_are_right(written, name, single):
    record = {"question": "?", **COLUMNS, "answer": "B", "question_type": written}
    [question] = converted("pharmacist2023_pharmacy", record).questions
    assert question.single is single
    assert question.tags == {"track": "pharmacy", "question_type": name}


def test_an_unknown_question_type_is_reported():
    good = {"question": "?", **COLUMNS, "answer": "B", "question_type": "Optimal Choice"}
    assert (
        "unknown question_type 'Essay'"
        in reasons("pharmacist2023_tcm", good, {**good, "question_type": "Essay"})[2]
    )


def test_matched_questions_over_one_block_of_options_form_a_cluster():
    def record(stem, kind, a):
        return {"question": stem, "A": a, "B": "x", "answer": "B", "question_type": kind}

    questions = converted(
        "pharmacist2023_tcm",
        record("1", "Matched Selection", "w"),
        record("2", "Matched Selection", "w"),
        record("3", "Matched Selection", "v"),
        record("4", "Optimal Choice", "w"),
    ).questions
    clusters = [question.cluster for question in questions]
    assert clusters[0] == clusters[1]
    assert len(set(clusters)) == 3
    assert clusters[3] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"C": "y A.甲 B.乙 C.丙 D.丁"}, "option C holds a second block of options"),
        ({"question": "1. A．甲\nB．乙\nC．丙"}, "question holds a second block of options"),
        ({"question": "如图所示的结构属于"}, "question needs a picture"),
        ({"A": "<img src=1.png>"}, "option A needs a picture"),
        ({"question": "�酸"}, "question holds an unreadable character"),
        ({"A": "", "B": "", "C": ""}, "no options"),
        ({"question": ""}, "no question text"),
        ({"answer": "AB"}, "has one right option"),
    ],
)
def test_faults_of_transcribed_papers_are_reported(changes, reason):
    good = {"question": "?", **COLUMNS, "answer": "B", "question_type": "Matched Selection"}
    assert reason in reasons("pharmacist2023_tcm", good, {**good, **changes})[2]


def test_one_labelled_letter_in_a_stem_is_no_second_block():
    good = {"question": "维生素A. 缺乏可引起", **COLUMNS, "answer": "B"}
    assert not reasons("pharmacist2023_tcm", good)


def test_multiple_keys_of_transcribed_papers_are_put_in_order():
    record = {"question": "?", **COLUMNS, "answer": "C,A", "question_type": "Multiple Choice"}
    [question] = converted("pharmacist2023_tcm", record).questions
    assert question.answer == "AC"


def sourced(*sources):
    return [Row(n, {"question": "?", "source": source}) for n, source in enumerate(sources, 1)]


def test_of_a_file_that_holds_several_exams_only_the_rows_of_this_one_count():
    rows = sourced("medqa-mcmle", "cmexam", "cmb-single", "CMExam", "cmmlu-medical")
    own = rows_of_exam(rows, BENCHMARKS["cmexam"], name="zh.json")
    assert [row.number for row in own] == [2, 4]


def test_a_file_without_a_row_of_this_exam_is_refused_with_what_it_holds():
    rows = sourced("medqa-mcmle", "medqa-mcmle", "cmb-single")
    with pytest.raises(DataError, match=r"no row of cmexam.*medqa-mcmle \(2\), cmb-single \(1\)"):
        rows_of_exam(rows, BENCHMARKS["cmexam"], name="zh.json")


@pytest.mark.parametrize("source", [None, "", "人民卫生出版社", "textbook, p. 12", 7])
def test_a_source_that_names_no_exam_says_nothing(source):
    rows = sourced(source, source)
    assert rows_of_exam(rows, BENCHMARKS["cmexam"], name="file") == rows


@pytest.mark.parametrize(
    ("benchmark", "keys", "reason"),
    [
        ("mmlu_pro_health", {"answer": "B", "answer_index": 2}, "answer_index counts to C"),
        ("supergpqa_medicine", {"answer": "y", "answer_letter": "B"}, "answer is the text of C"),
    ],
)
def test_two_keys_that_speak_of_two_options_are_reported(benchmark, keys, reason):
    row = {"question": "?", "options": ["w", "x", "y"], **keys}
    good = {**row, "answer_index": 1} if "answer_index" in keys else {**row, "answer": "x"}
    [told] = reasons(benchmark, good, row).values()
    assert told.endswith(reason)


GPQA = {
    "Question": "?",
    "Correct Answer": "w",
    **{f"Incorrect Answer {n}": text for n, text in enumerate("xyz", 1)},
    "High-level domain": "Biology",
}


def test_gpqa_s_options_stand_in_an_order_of_their_own_and_the_key_with_them():
    [question] = converted("gpqa_biology", GPQA).questions
    assert sorted(question.options.values()) == ["w", "x", "y", "z"]
    assert question.options[question.answer] == "w"
    turned = {**GPQA, "Incorrect Answer 1": "z", "Incorrect Answer 3": "x"}
    assert converted("gpqa_biology", turned).questions == (question,)
    stems = (converted("gpqa_biology", {**GPQA, "Question": f"{n}?"}) for n in range(40))
    assert {one.questions[0].answer for one in stems} == set("ABCD")


def test_a_gpqa_row_whose_right_option_is_a_wrong_one_too_is_unusable():
    twice = {**GPQA, "Incorrect Answer 2": "w"}
    found = converted("gpqa_biology", GPQA, twice)
    assert found.unusable == ((2, "the right option's text is another option's too, or blank"),)


JMLE = {
    "question_text": "1\u3000どれか。2つ選べ。\na\u3000w\nb\u3000x\nc\u3000y",
    "answer": ["c", "a"],
}
CASE = {"group_id": "120B-41-42", "context_text": "84歳の男性。"}


def test_an_exam_that_says_how_many_options_are_right_hands_it_on():
    [question] = converted("jmle2026", {**JMLE, "question_id": "120A-1"}).questions
    assert (question.answer, question.choose, question.single) == ("AC", 2, False)
    assert question.to_doc("1")["choose"] == 2
    assert question.to_doc("1")["question_id"] == "120A-1"


def test_questions_on_one_case_show_it_and_hang_together():
    rows = [{**JMLE, "serial_group": CASE, "question_id": f"120B-{n}"} for n in (41, 42)]
    both = converted("jmle2026", *rows).questions
    assert {(one.context, one.cluster) for one in both} == {("84歳の男性。", "120B-41-42")}


def test_a_calculation_is_a_question_without_options_where_the_exam_has_them():
    asked = {"question_text": "求めよ。\n解答：①②", "answer": ["28"]}
    [question, _] = converted("jmle2026", asked, JMLE).questions
    assert (question.options, question.answer, question.single) == ({}, "28", True)
    unreadable = converted("jmle2026", {**asked, "answer": ["a"]}, JMLE).unusable
    assert unreadable == ((1, "no options, and the key ['a'] is no number"),)


def test_docs_of_exams_without_these_facts_are_as_they_were():
    [question] = converted("usmle", {"question": "?", "options": COLUMNS, "answer": "B"}).questions
    assert not {"choose", "question_id"} & question.to_doc("1").keys()


@pytest.mark.parametrize("key", ["--5", "-", "1-2", "\u0665"])
def test_what_only_looks_like_a_number_is_no_key_and_no_crash(key):
    rows = [Row(1, {"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": n})
            for n in (0, 1, key)]  # fmt: skip
    found = convert(rows, benchmarks()["medmcqa_val"], name="f")
    assert (len(found.questions), len(found.unusable)) == (2, 1)
