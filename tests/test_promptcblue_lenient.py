"""The forgiving profile: what it forgives, and that it never takes a right answer away."""

import json
import random

import pytest
from promptcblue_data import SETS, read_lines, write_lines

from mingmoe_eval.promptcblue.catalogue import TASKS, task_named
from mingmoe_eval.promptcblue.parsing import parse_answer
from mingmoe_eval.promptcblue.scorer import score_files

SETS_HERE = [folder for folder in SETS if folder.is_dir()]


def lenient(name, text, choices=()):
    return parse_answer(task_named(name), text, choices, "lenient")


def test_entities_behind_bullets_bold_marks_and_half_width_marks():
    reply = "好的。\n- **疾病**: 肺炎, 哮喘。\n2. 药物实体：无"
    assert lenient("CMeEE-V2", reply, ("疾病", "药物")) == [
        {"entity": "肺炎", "type": "疾病"},
        {"entity": "哮喘", "type": "疾病"},
    ]


def test_triples_over_several_lines():
    reply = "具有病因关系的头尾实体对如下:\n头实体为甲, 尾实体为乙。\n头实体为丙,尾实体为丁."
    assert lenient("CMeIE", reply) == [
        {"predicate": "病因", "subject": "甲", "object": "乙"},
        {"predicate": "病因", "subject": "丙", "object": "丁"},
    ]


def test_terms_before_a_closing_line_break():
    choices = ("肺炎(细菌性)", "哮喘")
    expected = [{"entity": choices[0], "type": "normalization"}]
    assert lenient("CHIP-CDN", "标准词：肺炎（细菌性）。\n", choices) == expected
    assert lenient("CHIP-CDN", "没有对应的标准化实体", choices) == []


def test_events_without_header_and_with_a_closing_remark():
    reply = "主体词：痛； 描述词：重，轻\n以上是全部事件。"
    event = {"主体词": "痛", "发生状态": "", "描述词": ["轻", "重"], "解剖部位": []}
    assert lenient("CHIP-CDEE", reply) == [event]


def test_findings_without_header():
    reply = "咳嗽: 患有该症状。\n发热：病人没有患有该症状"
    choices = TASKS["IMCS-V2-SR"].labels
    assert lenient("IMCS-V2-SR", reply, choices) == [
        {"entity": "咳嗽", "attr": "患有该症状"},
        {"entity": "发热", "attr": "没有患有该症状"},
    ]


@pytest.mark.parametrize(
    ("name", "reply", "expected"),
    [
        ("KUAKE-IR", "答案：不相关。", "不相关"),
        ("KUAKE-IR", "<think>相关还是不相关？</think>相关", "相关"),
        ("KUAKE-IR", "先看是否相关。\n不相关", "不相关"),
        ("KUAKE-IR", "相关？不相关？", "相关?不相关?"),
        ("CHIP-STS", "它们的意思相同。", "是的"),
        ("CHIP-CTC", "体征（医生检测)", "体征(医生检测）"),
        ("KUAKE-QIC", "", ""),
    ],
)
def test_labels_inside_a_longer_reply(name, reply, expected):
    assert lenient(name, reply, TASKS[name].labels) == expected


def test_report_sections_without_header_over_several_lines():
    reply = "**主诉**: 咳嗽\n三天\n## 诊断：感冒"
    assert lenient("IMCS-V2-MRG", reply) == {"主诉": "咳嗽三天", "诊断": "感冒"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("38.5", "39.5"),
        ("38、39度", "37、39度"),
        ("1.5mg", "2.5mg"),
        ("12)3", "13)3"),
        ("> 38度", "38度"),
        ("１.5", "２.5"),
    ],
)
def test_numbers_of_the_text_are_not_taken_for_those_of_a_list(one, other):
    def read(text):
        return (
            lenient("IMCS-V2-MRG", f"头\n现病史：发热\n{text}"),
            lenient("CHIP-MDCFNPC", f"头\n{text}：患有该症状", ("患有该症状",)),
            lenient("CHIP-CDEE", f"头\n主体词：{text}"),
        )

    assert all(a != b for a, b in zip(read(one), read(other), strict=True))


def test_numbers_of_a_list_are_markup():
    reply = "1. 主诉：咳嗽\n2、诊断：感冒\n3)建议：多喝水\n > 38.5度"
    assert lenient("IMCS-V2-MRG", reply) == {
        "主诉": "咳嗽",
        "诊断": "感冒",
        "建议": "多喝水> 38.5度",
    }


def gold_as_predictions(folder, path, order):
    rows = [
        {"sample_id": r["sample_id"], "task_dataset": r["task_dataset"], "prediction": r["target"]}
        for r in read_lines(folder / "records.jsonl")
    ]
    order(rows)
    return write_lines(path, rows)


@pytest.mark.parametrize("folder", SETS_HERE, ids=str)
def test_gold_against_itself_scores_as_officially(folder, tmp_path):
    predictions = gold_as_predictions(folder, tmp_path / "gold.jsonl", lambda rows: None)
    official = score_files(folder / "records.jsonl", predictions)
    card = score_files(folder / "records.jsonl", predictions, profile="lenient")
    assert card.scores == pytest.approx(official.scores, abs=1e-9)


def test_no_order_of_either_file_changes_a_score(tmp_path):
    folder = SETS[0]
    variant = folder / "variants" / "char_noise" / "predictions.jsonl"
    first = score_files(folder / "records.jsonl", variant, profile="lenient")
    for seed in range(3):
        shuffled = []
        for path in (folder / "records.jsonl", variant):
            rows = read_lines(path)
            random.Random(seed).shuffle(rows)
            shuffled.append(write_lines(tmp_path / path.name, rows))
        card = score_files(*shuffled, profile="lenient")
        assert card.scores == first.scores
        assert card.detail == first.detail


def test_a_missing_prediction_counts_as_empty_and_is_noted(tmp_path):
    folder = SETS[0]
    predictions = gold_as_predictions(folder, tmp_path / "gold.jsonl", lambda rows: rows.pop(0))
    dropped = read_lines(folder / "records.jsonl")[0]["task_dataset"]
    card = score_files(folder / "records.jsonl", predictions, profile="lenient")
    assert card.success
    assert card.notes == (f"{dropped}: 1 predictions are missing, taken for empty",)
    assert card.scores[TASKS[dropped].score_key] < 1


def test_an_id_that_comes_twice_is_refused(tmp_path):
    folder = SETS[0]
    predictions = gold_as_predictions(
        folder, tmp_path / "gold.jsonl", lambda rows: rows.append(rows[0])
    )
    card = score_files(folder / "records.jsonl", predictions, profile="lenient")
    assert [fault.problem for fault in card.faults] == ["this id comes more than once"] * 2


def test_predictions_of_unknown_samples_are_left_out_and_noted(tmp_path):
    folder = SETS[0]
    predictions = gold_as_predictions(
        folder,
        tmp_path / "gold.jsonl",
        lambda rows: rows.append({**rows[0], "sample_id": "unheard-of"}),
    )
    card = score_files(folder / "records.jsonl", predictions, profile="lenient")
    assert len(card.notes) == 1
    assert "1 predictions of unknown samples left out" in card.notes[0]


def test_half_width_output_loses_little(tmp_path):
    folder = SETS[0]
    predictions = folder / "variants" / "halfwidth" / "predictions.jsonl"
    card = score_files(folder / "records.jsonl", predictions, profile="lenient")
    assert card.scores["score"] > 0.98
    assert score_files(folder / "records.jsonl", predictions).scores["score"] < 0.6


def test_a_structured_file_is_folded_too(tmp_path):
    gold = json.loads((SETS[0] / "gold_structured.json").read_text("utf-8"))
    wide = json.dumps(gold, ensure_ascii=False).replace("21-羟", "２１－羟")
    (tmp_path / "wide.json").write_text(wide, "utf-8")
    card = score_files(SETS[0] / "gold_structured.json", tmp_path / "wide.json", profile="lenient")
    assert card.scores["CMeIE-Micro-F1"] == 1
