"""Spreadsheets by other hands: thirteen layouts of one exam give one exam, through every verb."""

import json
from pathlib import Path

import openpyxl
import pytest

from mingmoe_eval import load_run, rescore
from mingmoe_eval.cli import main
from mingmoe_eval.exams.exam_files import read_exam_file

DEMO = Path(__file__).resolve().parents[1] / "mingmoe_eval" / "demo" / "checkpoints"

QUESTIONS = [
    (
        "成人心肺复苏时胸外按压的频率是",
        ("60～80次/分", "80～100次/分", "100～120次/分", "140次/分"),
        "C",
    ),
    (
        "属于无菌操作原则的有",
        ("操作前洗手", "无菌物品可重复使用", "取物用无菌钳", "跨越无菌区"),
        "AC",
    ),
    ("青霉素皮试阳性者应", ("减量使用", "禁用青霉素", "加用激素", "脱敏注射"), "B"),
    ("体温计消毒后应", ("擦干备用", "加热", "冷冻", "暴晒"), "A"),
    ("输血前须核对的内容有", ("血型", "血袋号", "有效期", "病人姓名"), "ABCD"),
    ("静脉输液时茂菲滴管内液面过高应", ("加压", "拔针", "更换药液", "倾斜输液瓶"), "D"),
]
FULL = str.maketrans("ABCD", "ＡＢＣＤ")


def book(path, lines, *merged):
    sheet = (workbook := openpyxl.Workbook()).active
    for line in lines:
        sheet.append(list(line))
    for cells in merged:
        sheet.merge_cells(cells)
    workbook.save(path)


def traditional(path):
    """Title and header merged, a header of two lines, Traditional Chinese, full width, a note."""
    lines = [
        ["臨床護理考試（一〇五年度）"],
        ["題號", "題目", "選項", None, None, None, "正確答案"],
        [None, None, "Ａ", "Ｂ", "Ｃ", "Ｄ", None],
        *([n, q, *o, "、".join(k).translate(FULL)] for n, (q, o, k) in enumerate(QUESTIONS, 1)),
        [],
        ["註：複選題須全對才給分。"],
    ]
    book(path, lines, "A1:G1", "A2:A3", "B2:B3", "C2:F2", "G2:G3", "A11:G11")


def numbers(path):
    """Answers as numbers from 1, blank lines between questions, options by number."""
    lines = [["序号", "试题内容", "选项1", "选项2", "选项3", "选项4", "标准答案"]]
    for n, (q, o, k) in enumerate(QUESTIONS, 1):
        places = [" ABCD".index(letter) for letter in k]
        lines += [[n, q, *o, places[0] if len(places) == 1 else "，".join(map(str, places))], []]
    book(path, lines)


def one_cell(path):
    """All options in one cell, parted by semicolons, after full-width letters."""
    lines = [["题目", "备选答案", "答案"]]
    for q, o, k in QUESTIONS:
        cell = "；".join(f"{letter}．{text}" for letter, text in zip("ＡＢＣＤ", o, strict=True))
        lines.append([q, cell, ",".join(k)])
    book(path, lines)


def below(path):
    """Options in the lines below the question, in its own column."""
    lines = [["试题", "参考答案"]]
    for q, o, k in QUESTIONS:
        lines.append([q, " ".join(k)])
        lines += [[f"{letter}、{text}", None] for letter, text in zip("ABCD", o, strict=True)]
    book(path, lines)


def shown(path):
    """The answer in the question's brackets too, and words around it in its own column."""
    lines = [["题干（必填）", "选项A（必填）", "选项B（必填）", "选项C", "选项D", "正确答案*"]]
    lines += [[f"{q}（{k}）。", *o, f"答案：{k}"] for q, o, k in QUESTIONS]
    book(path, lines)


def subjects(path):
    """A subject and a kind of question that hold for several lines, as merged cells."""
    kinds = [("单选题", 0), ("多选题", 1)]
    ordered = [one for _, several in kinds for one in QUESTIONS if (len(one[2]) > 1) == several]
    lines = [["科目", "题型", "题干", "A", "B", "C", "D", "答案"]]
    for n, (q, o, k) in enumerate(ordered):
        kind = {0: "单选题", 4: "多选题"}.get(n)
        lines.append(["护理学基础" if n == 0 else None, kind, q, *o, k])
    book(path, lines, "A2:A7", "B2:B5", "B6:B7")


def two_languages(path):
    """The header once more in English below it."""
    lines = [
        ["题目", "A", "B", "C", "D", "答案"],
        ["Question", "Option A", "Option B", "Option C", "Option D", "Answer"],
        *([q, *o, f"选{k.lower()}"] for q, o, k in QUESTIONS),
    ]
    book(path, lines)


def with_notes(path):
    """Letters with blanks and full stops, notes below the table and a second, empty sheet."""
    sheet = (workbook := openpyxl.Workbook()).active
    sheet.append(["编号", "题干", "选项A", "选项B", "选项C", "选项D", "答案", "备注"])
    for n, (q, o, k) in enumerate(QUESTIONS, 1):
        sheet.append([f"H-{n:03}", f"  {q} ", *o, f" {k}。", "护理部"])
    sheet.append([None])
    sheet.append(["合计", None, None, None, None, None, None, "6题"])
    sheet.append(["出题人：护理部"])
    workbook.create_sheet("Sheet2")
    workbook.save(path)


def in_the_question(path):
    """Options below the stem in the same cell, of which some stand side by side."""
    lines = [["题目内容", "答案"]]
    for q, (a, b, c, d), k in QUESTIONS:
        lines.append([f"{q}\nＡ.{a}　Ｂ.{b}\nＣ.{c}　Ｄ.{d}", k])
    book(path, lines)


def reversed_columns(path):
    """The answer first, options named by Chinese numbers, a column that nobody needs between."""
    lines = [["【答案】", "难度", "选项一", "选项二", "选项三", "选项四", "问题"]]
    lines += [["/".join(k), 0.5, *o, q] for q, o, k in QUESTIONS]
    book(path, lines)


def unlettered(path):
    """Options under one merged heading, without letters; the answer repeats its option's text."""
    lines = [["试题", "选项", None, None, None, "答案"]]
    for q, o, k in QUESTIONS:
        lines.append([q, *o, f"{k}．{o['ABCD'.index(k)]}" if len(k) == 1 else k])
    book(path, lines, "B1:E1")


def circles(path):
    """Options after numbers in circles in one cell, and answers as such numbers."""
    lines = [["題目", "備選答案", "答案"]]
    for q, o, k in QUESTIONS:
        cell = " ".join(f"{circle}{text}" for circle, text in zip("①②③④", o, strict=True))
        lines.append([q, cell, "".join("①②③④"["ABCD".index(letter)] for letter in k)])
    book(path, lines)


def answers_called_so(path):
    """Options called 答案A to 答案D beside the column of the right one."""
    lines = [["问题", "答案A", "答案B", "答案C", "答案D", "正确答案", "解析"]]
    lines += [[q, *o, "；".join(k), "略"] for q, o, k in QUESTIONS]
    book(path, lines)


SHEETS = [
    unlettered,
    circles,
    answers_called_so,
    traditional,
    numbers,
    one_cell,
    below,
    shown,
    subjects,
    two_languages,
    with_notes,
    in_the_question,
    reversed_columns,
]


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.__name__)
def test_one_exam_in_thirteen_hands_is_one_exam(tmp_path, sheet):
    path = tmp_path / f"{sheet.__name__}.xlsx"
    sheet(path)
    exam = read_exam_file(path)
    assert exam.converted.unusable == ()
    found = {
        q.question.rstrip("（　）。"): (tuple(q.options.values()), q.answer)
        for q in exam.converted.questions
    }
    assert found == {q: (o, k) for q, o, k in QUESTIONS}
    assert exam.language == "zh"


def told(path):
    return read_exam_file(path).found


def test_what_was_done_to_a_file_is_told(tmp_path):
    path = tmp_path / "a.xlsx"
    shown(path)
    assert "6 questions show their answer in brackets: it is taken out" in told(path)
    with_notes(path)
    assert "2 lines without question, options and answer (9, 10)" in told(path)
    subjects(path)
    exam = read_exam_file(path)
    assert {q.tags["subject"] for q in exam.converted.questions} == {"护理学基础"}
    assert [q.single for q in exam.converted.questions] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("sheet", [traditional, numbers, below], ids=lambda s: s.__name__)
def test_a_hospital_s_sheet_goes_through_every_verb(tmp_path, monkeypatch, capsys, sheet):
    monkeypatch.chdir(tmp_path)
    sheet(Path("ward.xlsx"))
    for name in ("base", "molora-adapter"):
        arguments = ["--model", str(DEMO / name), "--name", name, "--no-cache"]
        tasks = ["--tasks", "ward.xlsx,ward.xlsx_cot"]
        assert main([*tasks, *arguments, "--permute-options", "cyclic"]) == 0
    assert main(["--tasks", "ward.xlsx_ll", *arguments]) == 2
    assert "letters are compared where each question has one right option" in (
        capsys.readouterr().err
    )
    base = load_run("reports/base")
    assert base.results["ward"].main.n == 6
    assert base.results["ward"].metrics["consistency"].n == 6
    assert rescore(base).results["ward"].main.value == base.results["ward"].main.value
    assert main(["compare", "reports/base", "reports/molora-adapter"]) == 0
    assert main(["gate", "reports/base", "--baseline", "reports/base"]) == 0
    assert main(["table", "reports/base", "reports/molora-adapter"]) == 0
    line = json.dumps({"text": QUESTIONS[0][0] + "".join(QUESTIONS[0][1])}, ensure_ascii=False)
    Path("train.jsonl").write_text(line + "\n", "utf-8")
    assert main(["overlap", "--train", "train.jsonl", "--run", "reports/base"]) == 0
    page = Path("page.html")
    both = ["reports/base", "reports/molora-adapter"]
    assert main(["report", *both, "--hashed-docs", "-o", str(page)]) == 0
    text = page.read_text("utf-8")
    assert not any(q in text or any(one in text for one in o[:1]) for q, o, _ in QUESTIONS)


def test_letters_are_compared_on_a_sheet_whose_questions_have_one_right_option(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    lines = [["題幹", "選項Ａ", "選項Ｂ", "選項Ｃ", "選項Ｄ", "標準答案"]]
    lines += [[q, *o, k.translate(FULL)] for q, o, k in QUESTIONS if len(k) == 1]
    book("single.xlsx", lines)
    arguments = ["--model", str(DEMO / "base"), "--name", "one", "--no-cache"]
    assert main(["--tasks", "single.xlsx_ll", *arguments]) == 0
    assert load_run("reports/one").results["single_ll"].main.n == 4
