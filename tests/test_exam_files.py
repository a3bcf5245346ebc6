"""Exams as people keep them: whatever hand made the file, the same questions come out."""

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.exams.exam_files import columns_said, read_exam_file, split_form
from mingmoe_eval.exams.exam_tables import say_columns
from mingmoe_eval.task_catalog import load_catalog

QUESTIONS = [
    ("心脏位于", ("腹腔", "胸腔", "颅腔", "盆腔"), "B"),
    ("人体最大的器官是", ("皮肤", "肝", "肺", "脑"), "A"),
    ("属于消化腺的是", ("肝", "胰", "脾", "肾"), "AB"),
]


def sheet(path, lines, **sheets):
    with pd.ExcelWriter(path, engine="openpyxl") as book:
        frame = pd.DataFrame(lines)
        frame.to_excel(book, sheet_name="题库", header=False, index=False)
        for name, more in sheets.items():
            pd.DataFrame(more).to_excel(book, sheet_name=name, header=False, index=False)
    return path


def questions(exam):
    return [(q.question, tuple(q.options.values()), q.answer) for q in exam.converted.questions]


def test_a_spreadsheet_with_a_title_blank_lines_and_full_width_letters(tmp_path):
    lines = [
        ["某医院2026年护理考试题库", None, None, None, None, None, None],
        [None] * 7,
        ["序号", "题干", "Ａ", "Ｂ", "Ｃ", "Ｄ", "答案"],
        *([n, q, *options, key] for n, (q, options, key) in enumerate(QUESTIONS, 1)),
        [None] * 7,
    ]
    exam = read_exam_file(sheet(tmp_path / "ward exam.xlsx", lines))
    assert questions(exam) == QUESTIONS
    assert exam.name == "ward_exam"
    assert exam.language == "zh"
    assert exam.found[:4] == (
        "question: 题干",
        "options: Ａ to Ｄ",
        "answer: 答案, 1 of 3 with several letters",
        "3 questions",
    )
    assert {q.single for q in exam.converted.questions} == {False}


def test_a_header_over_two_lines_with_a_merged_cell_over_the_options(tmp_path):
    lines = [
        ["题目", "选项", None, None, None, "正确答案"],
        [None, "A", "B", "C", "D", None],
        *([q, *options, key] for q, options, key in QUESTIONS),
    ]
    assert questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines))) == QUESTIONS


@pytest.mark.parametrize(
    "names",
    [
        ("选项A", "选项B", "选项C", "选项D"),
        ("A选项", "B选项", "C选项", "D选项"),
        ("Option A", "Option B", "Option C", "Option D"),
        ("choice_1", "choice_2", "choice_3", "choice_4"),
        ("选项一", "选项二", "选项三", "选项四"),
        ("opa", "opb", "opc", "opd"),
    ],
)
def test_options_go_by_many_names(tmp_path, names):
    lines = [["问题", *names, "标准答案"], *([q, *o, k] for q, o, k in QUESTIONS)]
    assert questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines))) == QUESTIONS


@pytest.mark.parametrize(
    "cell",
    [
        "A. {0}\nB. {1}\nC. {2}\nD. {3}",
        "A.{0} B.{1} C.{2} D.{3}",
        "Ａ．{0}；Ｂ．{1}；Ｃ．{2}；Ｄ．{3}",
        "(A) {0}\n(B) {1}\n(C) {2}\n(D) {3}",
    ],
)
def test_options_in_one_cell(tmp_path, cell):
    lines = [["题干", "选项", "答案"], *([q, cell.format(*o), k] for q, o, k in QUESTIONS)]
    assert questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines))) == QUESTIONS


def test_options_below_the_question_in_the_same_cell(tmp_path):
    cell = "{0}（　）\nA．{1} B．{2}\nC．{3} D．{4}"
    lines = [["题目", "答案"], *([cell.format(q, *o), k] for q, o, k in QUESTIONS)]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert [(o, k) for _, o, k in questions(exam)] == [(o, k) for _, o, k in QUESTIONS]
    assert questions(exam)[0][0] == "心脏位于（　）"


@pytest.mark.parametrize(
    ("keys", "first"),
    [((2, 1, "1,2", 4), None), (("1", "0", "0,1", 3), None), ((2, 1, "1、2", 3), "1")],
)
def test_answers_may_be_numbers(tmp_path, keys, first):
    rows = [*QUESTIONS, ("第四题", ("甲", "乙", "丙", "丁"), "D" if first is None else "C")]
    lines = [
        ["题干", "A", "B", "C", "D", "答案"],
        *([q, *o, key] for (q, o, _), key in zip(rows, keys, strict=True)),
    ]
    columns = {"first": first} if first else {}
    assert questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines), columns)) == rows


def test_as_many_as_a_question_has_options_says_that_numbers_count_from_1(tmp_path):
    """The fifth column is there for one question alone, and no answer is 5."""
    lines = [
        ["题干", "A", "B", "C", "D", "E", "答案"],
        ["第一题", "甲", "乙", "丙", "丁", None, 4],
        ["第二题", "甲", "乙", "丙", "丁", "戊", 2],
    ]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert [key for _, _, key in questions(exam)] == ["D", "B"]


def test_numbers_answer_options_that_stand_below_the_question(tmp_path):
    cell = "{0}\nA．{1} B．{2}\nC．{3} D．{4}"
    keys = ["2", "1", "1,4"]
    lines = [["题目", "答案"]]
    lines += [[cell.format(q, *o), key] for (q, o, _), key in zip(QUESTIONS, keys, strict=True)]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert [key for _, _, key in questions(exam)] == ["B", "A", "AD"]


@pytest.mark.parametrize(
    "key", ["AB", "a b", "A、B", "Ａ，Ｂ", "A和B", "A+B", "答案：AB", "选A、B", "AB。", "①②", "B,A"]
)
def test_letters_are_written_in_many_ways(tmp_path, key):
    (q, o, k), *_ = (one for one in QUESTIONS if one[2] == "AB")
    lines = [["题干", "A", "B", "C", "D", "答案"], [q, *o, key], ["？", *o, "④"]]
    if "①" not in key:
        lines[2][-1] = "D"
    assert questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines)))[0] == (q, o, k)


def test_numbers_that_could_count_from_either_are_refused(tmp_path):
    lines = [["题干", "A", "B", "C", "D", "答案"], ["?", "a", "b", "c", "d", 2]]
    with pytest.raises(DataError, match="--columns first=1"):
        read_exam_file(sheet(tmp_path / "a.xlsx", lines))


def test_questions_that_are_right_or_wrong_get_two_options(tmp_path):
    lines = [
        ["题干", "A", "B", "答案"],
        ["心脏在胸腔", None, None, "对"],
        ["肝在胸腔", None, None, "×"],
        ["最大的器官", "皮肤", "肝", "A"],
    ]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert questions(exam) == [
        ("心脏在胸腔", ("对", "错"), "A"),
        ("肝在胸腔", ("对", "错"), "B"),
        ("最大的器官", ("皮肤", "肝"), "A"),
    ]
    assert exam.found[-1].startswith("2 questions are answered right or wrong")
    assert {q.single for q in exam.converted.questions} == {True}


def test_the_type_of_a_question_says_how_many_are_right(tmp_path):
    lines = [
        ["题型", "题干", "A", "B", "C", "D", "答案"],
        ["单选题", *QUESTIONS[0][:1], *QUESTIONS[0][1], "B"],
        ["多选题", *QUESTIONS[2][:1], *QUESTIONS[2][1], "A、B"],
    ]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert [q.single for q in exam.converted.questions] == [True, False]


def test_the_same_exam_from_every_kind_of_file(tmp_path):
    frame = pd.DataFrame(
        [[q, *o, k] for q, o, k in QUESTIONS], columns=["question", *"ABCD", "answer"]
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, encoding="gb18030")
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_excel(tmp_path / "a.xlsx", index=False, engine="openpyxl")
    records = frame.to_dict("records")
    (tmp_path / "a.json").write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    (tmp_path / "a.jsonl").write_text(lines, "utf-8")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 7
    for path in files:
        assert questions(read_exam_file(path)) == QUESTIONS, path


def test_a_row_that_gives_no_question_is_named_by_its_line_in_the_sheet(tmp_path):
    lines = [
        ["题干", "A", "B", "答案"],
        ["?", "a", "b", "A"],
        ["??", "a", "b", "E"],
        ["???", "a", "b", None],
    ]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert exam.converted.unusable == (
        (3, "the key E is not among the options A, B"),
        (4, "no key"),
    )


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (["题干", "问题", "A", "B", "答案"], "question: it could be 题干, 问题"),
        (["题干", "x", "A", "B", "答案", "正确答案"], "answer: it could be 答案, 正确答案"),
        (["题干", "x", "A", "B", "结果"], "answer: no column is called so"),
    ],
)
def test_what_is_not_clear_is_refused_and_can_be_said(tmp_path, header, reason):
    row = ["?", "??", "a", "b", "A", "B"][: len(header)]
    path = sheet(tmp_path / "a.xlsx", [header, row])
    with pytest.raises(DataError, match=reason):
        read_exam_file(path)
    said = {"question": "题干", "answer": header[-1] if "结果" in header else "答案"}
    [question] = read_exam_file(path, said).converted.questions
    assert (question.question, question.answer) == ("?", "A")


def test_several_sheets_are_refused_until_one_is_named(tmp_path):
    lines = [["题干", "A", "B", "答案"], ["?", "a", "b", "A"]]
    path = sheet(tmp_path / "a.xlsx", lines, 说明=[["请勿外传"]])
    with pytest.raises(DataError, match="several sheets with content: 题库, 说明"):
        read_exam_file(path)
    assert len(read_exam_file(path, {"sheet": "题库"}).converted.questions) == 1
    with pytest.raises(UsageError, match="no sheet '第三'"):
        read_exam_file(path, {"sheet": "第三"})


@pytest.mark.parametrize(
    ("name", "data", "kind", "reason"),
    [
        ("a.xlsx", b"not a zip", DataError, "no spreadsheet that can be read"),
        ("a.csv", b"", DataError, "no line among the first 15"),
        ("a.csv", "题干,A,B,答案\n".encode(), DataError, "a header and no questions"),
        ("a.csv", b"\xff\xff\xff\xff", DataError, "neither UTF-8 nor GB 18030"),
        ("a.csv", "项目,金额\n药,3\n".encode(), DataError, "names a question or an answer"),
        ("a.json", b"[1]", DataError, "not a JSON object"),
    ],
)
def test_files_that_are_no_exam_are_refused(tmp_path, name, data, kind, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(kind, match=reason):
        read_exam_file(tmp_path / name)


def test_a_path_that_leads_nowhere_is_said():
    with pytest.raises(MissingDataError, match="there is no such file"):
        read_exam_file(Path("nowhere.xlsx"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./ward.xlsx", ("ward.xlsx", "direct")),
        ("exams/a.CSV", ("exams/a.CSV", "direct")),
        ("ward.xlsx_ll", ("ward.xlsx", "letters")),
        ("ward.v2.json_cot", ("ward.v2.json", "cot")),
        ("usmle", None),
        ("usmle_ll", None),
        ("mmlu_med_*", None),
        ("a.yaml", None),
    ],
)
def test_a_suffix_tells_a_file_from_a_task(name, expected):
    found = split_form(name)
    assert expected == (found and (str(found[0]), found[1]))


def test_a_file_that_is_not_there_is_told_with_what_may_be_meant(tmp_path):
    (tmp_path / "考核 题库.csv").write_text("题目,A,B,答案\n心,甲,乙,A\n", "utf-8")
    for name, meant in (
        ("考核题库.csv", f"there is no such file; did you mean {tmp_path / '考核 题库.csv'}?"),
        (
            "甲.csv，乙.csv",
            "there is no such file; several tasks are separated by ',', not by '，'",
        ),
        ("ward.xlsx", "there is no such file"),
    ):
        with pytest.raises(MissingDataError) as caught:
            read_exam_file(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {meant}"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        *(("单选", "Single Choice"), ("單選題", "Single Choice"), ("判断", "Single Choice")),
        *(("A1型题", "Single Choice"), ("A3/A4型题", "Single Choice"), ("A型", "Single Choice")),
        *(("多选", "Multiple Choice"), ("复选题", "Multiple Choice"), ("X型题", "Multiple Choice")),
        *(("B1型题", "Matched Selection"), ("基础", ""), ("A", ""), ("A卷", "")),
    ],
)
def test_short_names_and_item_types_of_medical_exams_are_kinds_of_question(tmp_path, said, kind):
    key = "A|C" if kind == "Multiple Choice" else "A"
    lines = [["题型", "题干", "A", "B", "C", "答案"], [said, "哪些？", "甲", "乙", "丙", key]]
    (question,) = read_exam_file(sheet(tmp_path / "a.xlsx", lines)).converted.questions
    assert question.tags.get("question_type", "") == kind
    assert question.answer == key.replace("|", "")
    assert question.single == (kind != "Multiple Choice")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        *(("A|C", "AC"), ("A｜C", "AC"), ("A.C.", "AC"), ("A & C", "AC"), ("A, B and C", "ABC")),
        *(("Option B", "B"), ("option2", "B"), ("option1; Option3", "AC"), ("选项C", "C")),
    ],
)
def test_letters_of_an_answer_are_found_between_whatever_parts_them(tmp_path, said, answer):
    lines = [
        ["question", "option1", "option2", "option3", "answer"],
        ["Which?", "an and", "b or c", "d", said],
    ]
    (question,) = read_exam_file(sheet(tmp_path / "a.xlsx", lines)).converted.questions
    assert question.answer == answer


def test_cells_may_be_parted_by_semicolons_and_accents_are_no_chinese(tmp_path):
    text = "question;A;B;réponse;answer\nQuelle fièvre est fréquente, et où?;la grippe;l'été;x;B\n"
    path = tmp_path / "a.csv"
    path.write_text(text, "utf-8")
    (question,) = read_exam_file(path).converted.questions
    assert (question.question, question.answer) == ("Quelle fièvre est fréquente, et où?", "B")
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match="neither UTF-8 nor GB 18030"):
        read_exam_file(path)
    mixed = "question,A,B,answer\n维生素C与CT检查：选哪个a？,甲A,乙B型,A\n"
    path.write_bytes(mixed.encode("gb18030"))
    assert read_exam_file(path).converted.questions[0].question == "维生素C与CT检查：选哪个a？"


def test_of_two_columns_that_part_a_table_the_better_one_is_taken_and_the_other_named(tmp_path):
    header = ["章节", "科目", "类型", "题型", "题干", "A", "B", "答案"]
    lines = [header, ["第一章", "内科", "护理", "单选题", "?", "a", "b", "A"]]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert [row.fields["subject"] for row in exam.rows] == ["内科"]
    assert [row.fields["question_type"] for row in exam.rows] == ["单选题"]
    assert "subject: 科目, not 章节 (--columns subject=章节 takes it)" in exam.found
    assert "type: 题型, not 类型 (--columns type=类型 takes it)" in exam.found
    chosen = read_exam_file(tmp_path / "a.xlsx", {"subject": "章节"})
    assert [row.fields["subject"] for row in chosen.rows] == ["第一章"]


def test_columns_and_a_sheet_are_said_of_those_of_several_files_that_have_them(tmp_path):
    lines = [["题干", "A", "B", "答案"], ["?", "a", "b", "A"]]
    two = sheet(tmp_path / "two.xlsx", lines, 说明=[["请勿外传"]])
    other = tmp_path / "other.csv"
    other.write_text("题干,A,B,结果\n??,a,b,B\n", encoding="utf-8")
    names = [str(two), str(other)]
    said = {"sheet": "题库", "answer": "结果"}
    exams = [task.exam for task in load_catalog().select(names, columns=said).leaves]
    assert [questions(exam) for exam in exams] == [
        [("?", ("a", "b"), "A")],
        [("??", ("a", "b"), "B")],
    ]
    with pytest.raises(UsageError, match="--columns subject=科: none of the 2 files has it"):
        load_catalog().select(names, columns={**said, "subject": "科"})


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("答案", "--columns answer=答案"),
        ("right answer", "--columns 'answer=right answer'"),
        ("答案(必填)", "--columns 'answer=答案(必填)'"),
        ("it's", "--columns 'answer=it'\"'\"'s'"),
        ("答案,必填", '--columns \'{"answer": "答案,必填"}\''),
    ],
)
def test_the_option_that_a_hint_names_is_read_as_it_was_meant(name, typed):
    option = say_columns("answer", name)
    assert option == typed
    assert columns_said(shlex.split(option)[1]) == {"answer": name}


CASE = "患者，男，45岁，反复上腹痛3年，加重1周。"


def test_a_case_stands_with_each_of_its_questions_wherever_the_sheet_has_it(tmp_path):
    asked = [["最可能的诊断是", "胃溃疡", "胃癌", "A"], ["首选检查", "胃镜", "B超", "A"]]
    blank = [None] * 3
    expected = [(f"{CASE}\n{q}", (a, b), key) for q, a, b, key in asked]
    column = [["病例", "问题", "A", "B", "答案"], *([CASE, *one] for one in asked)]
    own_line = [["题干", "A", "B", "答案"], [f"（1～2题共用题干）{CASE}", *blank], *asked]
    two_lines = [["题干", "A", "B", "答案"], ["(1-2题共用题干)", *blank], [CASE, *blank], *asked]
    for name, lines in (("column", column), ("own_line", own_line), ("two_lines", two_lines)):
        assert questions(read_exam_file(sheet(tmp_path / f"{name}.xlsx", lines))) == expected, name
    alone = ["感冒的病原体多为", "病毒", "细菌", "A"]
    behind = sheet(tmp_path / "behind.xlsx", [*own_line, alone])
    assert questions(read_exam_file(behind))[2][0] == "感冒的病原体多为"
    marks = [["案例", "题干", "A", "B", "答案"], *(["否", *one] for one in asked)]
    plain = sheet(tmp_path / "marks.xlsx", marks)
    assert [q for q, _, _ in questions(read_exam_file(plain))] == ["最可能的诊断是", "首选检查"]


def test_options_that_questions_share_stand_with_each_of_them(tmp_path):
    lines = [
        ["题干", "选项", "答案"],
        ["（3～4题共用备选答案）", "A.胃镜 B.CT C.B超", None],
        ["消化性溃疡首选", None, "A"],
        ["胆结石首选", None, "C"],
    ]
    assert questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines))) == [
        ("消化性溃疡首选", ("胃镜", "CT", "B超"), "A"),
        ("胆结石首选", ("胃镜", "CT", "B超"), "C"),
    ]


@pytest.mark.parametrize(
    ("answer", "letters"), [("肝；胰", "AB"), ("脾", "C"), ("B、", "B"), ("A，C；", "AC")]
)
def test_answers_as_the_texts_of_options_or_with_a_sign_behind_them(tmp_path, answer, letters):
    lines = [["题干", "A", "B", "C", "答案"], ["属于", "肝", "胰", "脾", answer]]
    [(_, _, key)] = questions(read_exam_file(sheet(tmp_path / "a.xlsx", lines)))
    assert key == letters


def test_dates_that_a_spreadsheet_made_of_options_are_refused_by_line(tmp_path):
    day = pd.Timestamp("2025-01-02").to_pydatetime()
    lines = [["题干", "A", "B", "答案"], ["每日几次", day, "3-4次", "A"], ["?", "a", "b", "A"]]
    with pytest.raises(DataError, match=r"made dates of options[^\n]*\n  - line 2: A is 2025-01"):
        read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    lines[1] = ["哪天建院", day, pd.Timestamp("1950-05-01").to_pydatetime(), "A"]
    first = questions(read_exam_file(sheet(tmp_path / "b.xlsx", lines)))[0]
    assert first == ("哪天建院", ("2025-01-02", "1950-05-01"), "A")


def test_what_a_person_should_look_at_is_counted(tmp_path):
    lines = [
        ["题干", "选项", "答案"],
        ["如图所示，诊断为", "A:肺炎|B:结核", "A"],
        ["同一题", "A:甲|B:乙", "A"],
        ["同一题", "A:甲|B:乙", "B"],
        ["4.判断", None, "Ｆ"],
    ]
    exam = read_exam_file(sheet(tmp_path / "a.xlsx", lines))
    assert exam.found[-2:] == (
        "questions that speak of a picture, which no model is shown: 1",
        "questions that stand there once more: 1, 1 of them with another answer",
    )
    assert [(o, k) for _, o, k in questions(exam)] == [
        (("肺炎", "结核"), "A"),
        (("甲", "乙"), "A"),
        (("甲", "乙"), "B"),
        (("对", "错"), "B"),
    ]
