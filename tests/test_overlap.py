"""Test questions in training data: what is found, what is not, and what a run scores without."""

import dataclasses
import json
import random

import pytest
from doubles import ScriptedLM

from mingmoe_eval.cli import main
from mingmoe_eval.errors import DataError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.overlap import (
    Item,
    SearchRules,
    by_id,
    find_overlap,
    item_of,
    read_training,
    scores_with_and_without,
    search,
)
from mingmoe_eval.overlap.search import contains, words_of
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run

STEM = "一名四十五岁男性患者反复上腹隐痛三年，夜间加重，胃镜示十二指肠球部溃疡，首选的治疗药物是"
OPTIONS = {"A": "奥美拉唑", "B": "西咪替丁", "C": "氢氧化铝", "D": "硫糖铝"}
LINES = "\n".join(OPTIONS.values())
ENGLISH = (
    "A 24-year-old woman who uses tampons comes to the emergency department with sudden fever, "
    "hypotension and a diffuse red rash. Which mechanism explains the action of the toxin?"
)


def invented(rng, length):
    return "".join(chr(rng.randint(0x4E00, 0x9000)) for _ in range(length))


def shares(items, texts, **rules):
    found = search([Item(parts) for parts in items], texts, SearchRules(**rules))
    return {(m.item, m.record): (m.share, m.exact) for m in found.matches}


def test_words_are_characters_or_pieces_of_four_letters_and_a_letter_alone_is_none():
    assert words_of("Ａ．青霉素 B) pneumonia, 3天, vitamin C") == [
        *["青", "霉", "素", "pneu", "moni", "3", "天", "vita", "min"]
    ]


@pytest.mark.parametrize(
    ("words", "part", "held"),
    [
        (["ab", "c1"], ["ab", "c1"], True),
        (["ab", "c1", "d2"], ["c1", "d2"], True),
        (["ab", "c1"], ["b", "c1"], False),
        (["ab"], ["ab", "c1"], False),
    ],
)
def test_a_part_is_held_as_whole_words_in_one_piece(words, part, held):
    assert contains(words, part) is held


@pytest.mark.parametrize(
    "record",
    [
        STEM,
        f"请回答下列单选题：{STEM}？\nA.奥美拉唑\nB.西咪替丁\n答案：A",
        "前文" * 500 + STEM + "后文" * 500,
        STEM.replace("，", ", ").replace("十", " 十 "),
    ],
)
def test_a_question_is_found_word_by_word_whatever_stands_around_it(record):
    assert shares([(STEM, LINES, "")], ["无关的一段文字", record]) == {(0, 1): (1.0, True)}


def test_case_width_and_punctuation_hide_no_english_question():
    record = ENGLISH.upper().replace(",", " ;").replace("-", "–")
    assert shares([(ENGLISH,)], [record]) == {(0, 0): (1.0, True)}


def test_the_share_is_that_of_the_phrases_that_the_record_holds():
    # 24 different characters make 20 phrases of five; changing the 12th breaks five of them.
    stem = "".join(chr(0x4E00 + 7 * n) for n in range(24))
    record = f"{stem[:11]}改{stem[12:]}"
    assert shares([(stem,)], [record]) == {(0, 0): (0.75, False)}
    assert shares([(stem,)], [record], threshold=0.76) == {}


def test_the_share_is_that_of_one_record_not_of_all_together():
    half = len(STEM) // 2
    assert shares([(STEM,)], [STEM[:half], STEM[half:]]) == {}


def test_a_short_question_is_looked_for_with_its_options():
    parts = ("下列说法正确的是", "青霉素属于大环内酯类\n红霉素属于四环素类", "")
    assert shares([parts], ["下列说法正确的是：糖尿病患者应当注意饮食"]) == {}
    record = "下列说法正确的是 A. 青霉素属于大环内酯类 B. 红霉素属于四环素类"
    assert shares([parts], [record]) == {(0, 0): (1.0, True)}


def test_a_question_without_enough_words_is_too_general_and_said_to_be():
    found = search([Item(("下列正确的是", "对\n错", ""))], ["下列正确的是 对 错"])
    assert found.matches == ()
    assert found.too_general == {0}


def test_stock_phrases_of_many_questions_make_no_match():
    rng = random.Random(0)
    opening = "根据临床表现和辅助检查结果，下列诊断中可能性最大的是"
    stems = [opening + invented(rng, 15) for _ in range(30)]
    assert shares([(stem,) for stem in stems], [opening + "与此无关的另一个问题"]) == {}


def test_template_words_of_many_records_make_no_match():
    template = "请判断下面两个语句的语义关系，选项为相同、不同、无法判断，并说明理由"
    rng = random.Random(0)
    records = [template + invented(rng, 9) for _ in range(200)]
    item = (template + "头孢克洛颗粒的用法用量",)
    assert shares([item], records) == {}
    assert shares([item], [*records, template + "头孢克洛颗粒的用法用量"]) == {
        (0, 200): (1.0, True)
    }


def test_a_question_repeated_a_thousand_times_is_still_found():
    found = search([Item((STEM,))], [STEM] * 1000)
    assert [(m.record, m.records, m.exact) for m in found.matches] == [(0, 1000, True)]


def slow_share(stem, record, words=5):
    def phrases(text):
        cut = words_of(text)
        return {tuple(cut[i : i + words]) for i in range(len(cut) - words + 1)}

    return len(phrases(stem) & phrases(record)) / len(phrases(stem))


def test_shares_equal_the_slow_formula_over_sets():
    rng = random.Random(1)
    stems = ["".join(rng.choices("甲乙丙丁戊己庚辛", k=30)) for _ in range(8)]
    texts = [
        "".join(rng.choices("甲乙丙丁戊己庚辛", k=4)) + stems[n % 8][n % 5 :] for n in range(40)
    ]
    rules = SearchRules(threshold=0.01, most_items=99, most_records=99)
    found = search([Item((stem,)) for stem in stems], texts, rules)
    assert len(found.matches) == 8
    for match in found.matches:
        best = max(slow_share(stems[match.item], text) for text in texts)
        assert match.share == pytest.approx(best, abs=1e-12)
        assert slow_share(stems[match.item], texts[match.record]) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(
    ("items", "texts"), [([], ["x"]), ([(STEM,)], []), ([("",)], [""]), ([], [])]
)
def test_nothing_to_look_for_or_in_finds_nothing(items, texts):
    assert shares(items, texts) == {}


def test_an_item_never_holds_the_answer():
    doc = {"question": STEM, "options": OPTIONS, "answer": "A", "context": ""}
    assert item_of(doc) == item_of({**doc, "answer": "B"}) == Item((STEM, LINES, ""))
    assert item_of({"input": "句子", "target": "是"}) == Item(("句子",))
    assert item_of({"q": "x", "n": 1, "c": ["y", {"z": "w"}]}) == Item(("x", "y", "w"))


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": STEM}, {"from": "gpt", "value": "A"}]},
        {"messages": [{"role": "user", "content": STEM}]},
        {"instruction": "回答", "input": STEM, "output": "A"},
        {"text": STEM},
    ],
)
def test_training_records_of_any_shape_are_read(tmp_path, record):
    file = tmp_path / "train.jsonl"
    file.write_text("\n" + json.dumps(record, ensure_ascii=False) + "\n", "utf-8")
    overlap = find_overlap(
        {"t": by_id([{"question": STEM, "options": OPTIONS}])}, read_training([file])
    )
    (doc,) = overlap.tasks["t"].seen
    assert (doc.place, doc.exact) == (f"{file}:2", True)


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("b.jsonl", "{oops"), ("c.txt", "x")]
)
def test_training_files_that_cannot_be_read_are_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        read_training([tmp_path / name])
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        read_training([tmp_path / "gone.jsonl"])


def run_that_knows(letter, folder, tasks=("usmle",)):
    spec = RunSpec(model="scripted", tasks=tasks, sample=True)
    lm = ScriptedLM(reply=lambda prompt: letter)
    return evaluate(spec, folder=folder, open_model=lambda *_: lm)


def training_of(tmp_path, docs):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"text": doc["question"]}) + "\n" for doc in docs), "utf-8")
    return file


def test_scores_without_the_seen_docs_are_those_of_the_others(tmp_path):
    run = run_that_knows("A", tmp_path / "r")
    samples = run.samples["usmle"]
    file = training_of(tmp_path, [s.doc for s in samples[:4]])
    docs = {"usmle": {s.doc_id: s.doc for s in samples}}
    overlap = find_overlap(docs, read_training([file]))
    assert [doc.doc_id for doc in overlap.tasks["usmle"].seen] == [s.doc_id for s in samples[:4]]
    scores = scores_with_and_without(run, overlap)["usmle"]
    assert scores["all"] == run.results["usmle"].main
    assert scores["seen"].n == 4
    assert scores["unseen"].n == len(samples) - 4
    right = sum(s.doc["answer"] == "A" for s in samples[4:])
    assert scores["unseen"].value == right / (len(samples) - 4)


def test_a_group_is_folded_without_the_seen_docs_too(tmp_path):
    run = run_that_knows("A", tmp_path / "r", tasks=("pharmacist2023",))
    first = run.samples["pharmacist2023_pharmacy"]
    docs = {task: {s.doc_id: s.doc for s in samples} for task, samples in run.samples.items()}
    overlap = find_overlap(docs, read_training([training_of(tmp_path, [s.doc for s in first[:3]])]))
    found = {doc.doc_id for doc in overlap.tasks["pharmacist2023_pharmacy"].seen}
    scores = scores_with_and_without(run, overlap)
    assert found
    assert scores["pharmacist2023"]["all"].n - scores["pharmacist2023"]["unseen"].n == len(found)


def test_a_task_all_of_whose_docs_were_seen_has_no_score_without_them(tmp_path):
    run = run_that_knows("A", tmp_path / "r")
    samples = run.samples["usmle"]
    overlap = find_overlap(
        {"usmle": {s.doc_id: s.doc for s in samples}},
        read_training([training_of(tmp_path, [s.doc for s in samples])]),
    )
    assert set(scores_with_and_without(run, overlap)["usmle"]) == {"all", "seen"}


def test_equal_docs_are_told_apart_as_a_run_does():
    doc = {"question": STEM, "options": OPTIONS}
    first, second = by_id([doc, doc])
    assert second == f"{first}#2"


def test_the_command_writes_what_it_found_beside_the_run_without_any_text(tmp_path, capsys):
    run = run_that_knows("B", tmp_path / "r")
    file = training_of(tmp_path, [run.samples["usmle"][2].doc])
    arguments = ["overlap", "--train", str(file), "--run", str(tmp_path / "r"), "--json", "-"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "r" / "overlap.json").read_text("utf-8"))
    (doc,) = said["tasks"]["usmle"]["seen_docs"]
    assert doc["doc_id"] == run.samples["usmle"][2].doc_id
    assert said["scores"]["usmle"]["unseen"]["n"] == len(run.samples["usmle"]) - 1
    assert run.samples["usmle"][2].doc["question"][:30] not in json.dumps(said)
    assert dataclasses.asdict(load_run(tmp_path / "r").spec) == dataclasses.asdict(run.spec)


def test_the_command_looks_for_tasks_before_anything_is_run(tmp_path, capsys):
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "nothing of the kind"}\n')
    assert main(["overlap", "--train", str(file), "--tasks", "usmle", "--sample"]) == 0
    assert "usmle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--tasks or --run"),
        (["--run", "r", "--sample"], "--run brings its own docs"),
        (["--tasks", "usmle", "--threshold", "0"], "no share"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, capsys, arguments, said):
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "x"}\n')
    assert main(["overlap", "--train", str(file), *arguments]) == 2
    assert said in capsys.readouterr().err
