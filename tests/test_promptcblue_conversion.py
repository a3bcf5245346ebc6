"""From original CBLUE files (invented ones, in their layouts) to PromptCBLUE records."""

import json
import shutil
from pathlib import Path

import pytest
from promptcblue_data import read_lines

from mingmoe_eval.cblue_conversion.convert import convert
from mingmoe_eval.cli import main
from mingmoe_eval.errors import DataError, UsageError
from mingmoe_eval.promptcblue.catalogue import TASKS
from mingmoe_eval.promptcblue.doc_records import docs_of, target_of
from mingmoe_eval.promptcblue.parsing import parse_answer
from mingmoe_eval.promptcblue.scorer import score_files

CBLUE = Path(__file__).parent / "data" / "cblue"


def first(name, source=CBLUE):
    return next(r for r in convert(source).records if r["task_dataset"] == name)


def test_every_task_gets_records_with_every_field():
    done = convert(CBLUE)
    assert set(done.by_task) == set(TASKS)
    assert not done.unwritable
    rows = list(enumerate(done.records, 1))
    for task in TASKS.values():
        assert len(docs_of(task, rows, name="converted")) == done.by_task[task.name]


def test_the_records_are_gold_to_the_scorer(tmp_path, capsys):
    output = tmp_path / "data" / "dev.jsonl"
    assert main(["convert", "cblue", str(CBLUE), "--output", str(output)]) == 0
    assert "NOT COMPARABLE" in capsys.readouterr().err
    card = score_files(output, output)
    assert card.success
    assert card.scores["score"] == pytest.approx(1, abs=1e-8)


def test_an_entity_record():
    record = first("CMeEE-V2")
    assert record["target"].split("\n")[0] == "上述句子中的实体包含："
    assert "疾病实体：急性肾盂肾炎" in record["target"]
    assert "药物实体：" in record["target"].split("\n")
    assert record["input"].endswith("\n答：")
    assert record["answer_choices"] == list(TASKS["CMeEE-V2"].labels)


def test_relations_offered_are_those_there_and_four_more():
    record = first("CMeIE")
    assert len(record["answer_choices"]) == 3 + 4
    lines = record["target"].split("\n")
    assert "具有病因关系的头尾实体对如下：头实体为带状疱疹，尾实体为水痘病毒再激活。" in lines
    assert len(lines) == 7


def test_dialogues_become_four_tasks():
    assert first("IMCS-V2-NER")["target"].endswith("症状实体：烧，咳嗽\n医学检查检验实体：")
    assert first("IMCS-V2-DAC")["target"] == "关于症状的询问"
    assert "患者：38度9" in first("IMCS-V2-MRG")["input"]
    assert first("IMCS-V2-SR")["target"].split("\n")[1:] == [
        "发热：无法根据上下文确定病人是否患有该症状",
        "咳嗽：无法根据上下文确定病人是否患有该症状",
    ]


def test_a_file_of_one_dialogue_task_gives_that_task_alone(tmp_path):
    shutil.copy(CBLUE / "IMCS-V2_dev.json", tmp_path / "IMCS-V2-SR_dev.json")
    assert set(convert(tmp_path).by_task) == {"IMCS-V2-SR"}


def test_the_last_turn_of_the_doctor_is_the_reply():
    record = first("MedDG")
    assert record["target"].startswith("考虑胃食管反流")
    assert record["target"] not in record["input"]


def test_chance_is_in_the_seed_alone():
    assert convert(CBLUE).records == convert(CBLUE).records
    assert convert(CBLUE, seed=1).records != convert(CBLUE).records


def test_at_most_so_many_records_a_task():
    assert max(convert(CBLUE, most=2).by_task.values()) == 2


def test_gold_that_the_format_cannot_hold_is_left_out_and_counted(tmp_path):
    rows = [
        {"text": "甲，乙综合征", "entities": [{"entity": "甲，乙综合征", "type": "dis"}]},
        {"text": "肺炎", "entities": [{"entity": "肺炎", "type": "dis"}]},
    ]
    (tmp_path / "CMeEE-V2_dev.json").write_text(json.dumps(rows), "utf-8")
    done = convert(tmp_path)
    assert (done.by_task, done.unwritable) == ({"CMeEE-V2": 1}, {"CMeEE-V2": 1})


def test_rows_of_another_layout_are_all_named(tmp_path):
    rows = [{"text": "甲"}, {"text": "乙", "entities": [{"entity": "乙", "type": "xyz"}]}]
    (tmp_path / "CMeEE-V2_dev.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(DataError, match=r"(?s)row 1: KeyError: 'entities'.*row 2: KeyError: 'xyz'"):
        convert(tmp_path)


def test_a_folder_without_cblue_files_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"CMeEE-V2_dev\.json"):
        convert(tmp_path)
    with pytest.raises(UsageError, match=r"CMeEE-V2_test\.json"):
        convert(CBLUE, split="test")


UNLABELLED = {
    "CMeEE-V2": [{"text": "肺炎", "entities": []}, {"text": "哮喘", "entities": []}],
    "CMeIE": [{"text": "肺炎"}],
    "CHIP-CDN": [{"text": "左膝痛"}, {"text": "右膝痛"}],
    "CHIP-CDEE": [{"text": "咳嗽三天", "event": []}],
    "CHIP-MDCFNPC": [
        {
            "dialog_info": [
                {"sender": "患者", "text": "咳嗽", "ner": [{"mention": "咳嗽", "attr": ""}]}
            ]
        }
    ],
    "IMCS-V2-NER": {"1": {"dialogue": [{"speaker": "患者", "sentence": "咳嗽"}]}},
    "IMCS-V2-SR": {"1": {"dialogue": [{"speaker": "患者", "sentence": "咳嗽"}]}},
    "IMCS-V2-DAC": {"1": {"dialogue": [{"speaker": "患者", "sentence": "咳嗽"}]}},
    "IMCS-V2-MRG": {"1": {"dialogue": [{"speaker": "患者", "sentence": "咳嗽"}]}},
    "CHIP-CTC": [{"id": "s1", "text": "年龄大于18岁", "label": ""}],
    "CHIP-STS": [{"id": "1", "text1": "糖尿病能治吗", "text2": "糖尿病能好吗", "label": ""}],
    "KUAKE-QIC": [{"id": "s1", "query": "心肌缺血怎么治", "label": ""}],
    "KUAKE-QQR": [{"id": "s1", "query1": "天价输液", "query2": "输液价格"}],
    "KUAKE-QTR": [{"id": "s1", "query": "咳嗽", "title": "咳嗽怎么办", "label": ""}],
    "MedDG": [[{"id": "Patients", "Sentence": "咳嗽"}]],
}


@pytest.mark.parametrize("task", UNLABELLED)
def test_the_unlabelled_file_of_a_test_set_is_no_gold(task, tmp_path, capsys):
    (tmp_path / f"{task}_test.json").write_text(json.dumps(UNLABELLED[task]), "utf-8")
    output = tmp_path / "out.jsonl"
    command = ["convert", "cblue", str(tmp_path), "--split", "test", "--output", str(output)]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"{task}_test.json: none of its" in told
    assert "Traceback" not in told
    assert not output.exists()


def test_every_file_that_cannot_be_used_is_told(tmp_path):
    for task in ("CMeEE-V2", "CHIP-CDN"):
        (tmp_path / f"{task}_test.json").write_text(json.dumps(UNLABELLED[task]), "utf-8")
    (tmp_path / "MedDG_test.json").write_text("3", "utf-8")
    with pytest.raises(DataError, match=r"(?s)CMeEE.*CHIP-CDN.*MedDG_test\.json holds no records"):
        convert(tmp_path, split="test")


@pytest.mark.parametrize("row", [3, None, "甲", [], {"text": "甲", "normalized_result": ["乙"]}])
def test_a_row_of_any_other_shape_is_named(row, tmp_path):
    rows = [{"text": "左膝痛", "normalized_result": "膝痛"}, row]
    (tmp_path / "CHIP-CDN_dev.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(DataError, match=r"row 2: "):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (
            "CHIP-CDEE",
            [
                {
                    "text": "痛",
                    "event": [
                        {
                            "core_name": "痛",
                            "tendency": "",
                            "character": "突发",
                            "anatomy_list": [],
                        }
                    ],
                }
            ],
        ),
        (
            "IMCS-V2-SR",
            {
                "1": {
                    "dialogue": [
                        {"speaker": "患者", "sentence": "痛", "local_implicit_info": {"痛": "-1"}}
                    ]
                }
            },
        ),
    ],
)
def test_a_value_that_would_be_read_as_another_is_refused(task, rows, tmp_path):
    (tmp_path / f"{task}_dev.json").write_text(json.dumps(rows), "utf-8")
    with pytest.raises(DataError, match=r"row 1: (TypeError|KeyError)"):
        convert(tmp_path)


def test_a_sentence_without_entities_in_a_labelled_file_is_gold(tmp_path):
    rows = [
        {"text": "无特殊", "entities": []},
        {"text": "肺炎", "entities": [{"entity": "肺炎", "type": "dis"}]},
    ]
    (tmp_path / "CMeEE-V2_dev.json").write_text(json.dumps(rows), "utf-8")
    assert convert(tmp_path).by_task == {"CMeEE-V2": 2}


def test_copies_of_a_file_count_once_and_are_noted(tmp_path, capsys):
    once = convert(CBLUE)
    for folder in ("a", "b"):
        shutil.copytree(CBLUE, tmp_path / folder)
    twice = convert(tmp_path)
    assert twice.records == once.records
    ids = [(record["task_dataset"], record["sample_id"]) for record in twice.records]
    assert len(ids) == len(set(ids))
    assert len(twice.notes) == 16
    output = str(tmp_path / "out.jsonl")
    assert main(["convert", "cblue", str(tmp_path), "--output", output]) == 0
    assert "note: CMeEE-V2: copies of one file, read once: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("CMeEE-V2_dev.json", "old/CMeEE-V2_dev.json"),
        ("CMeEE-V2_dev.json", "CMeEE-V2_dev.jsonl"),
        ("CMeIE_dev.jsonl", "CMeIE-V2_dev.jsonl"),
        ("IMCS-V2_dev.json", "IMCS-V2-SR_dev.json"),
    ],
)
def test_two_different_files_of_one_task_are_refused_by_name(first, second, tmp_path):
    (tmp_path / "old").mkdir()
    original = (CBLUE / first).read_text("utf-8")
    (tmp_path / first).write_text(original, "utf-8")
    (tmp_path / second).write_text(original + "\n", "utf-8")
    with pytest.raises(DataError, match="different files are there for one task") as caught:
        convert(tmp_path)
    assert str(tmp_path / first) in str(caught.value)
    assert str(tmp_path / second) in str(caught.value)


def test_the_downloads_dialogues_lie_in_one_folder_a_task_each_with_its_labels(tmp_path):
    dialogues = json.loads((CBLUE / "IMCS-V2_dev.json").read_text("utf-8"))
    kept = {"IMCS-V2-DAC": "dialogue_act", "IMCS-V2-NER": "BIO_label"}
    for task, field in kept.items():
        own = {
            key: {
                "dialogue": [
                    {name: turn[name] for name in ("sentence_id", "speaker", "sentence", field)}
                    for turn in dialogue["dialogue"]
                ]
            }
            for key, dialogue in dialogues.items()
        }
        (tmp_path / task).mkdir()
        (tmp_path / task / "IMCS-V2_dev.json").write_text(json.dumps(own), "utf-8")
    done, whole = convert(tmp_path), convert(CBLUE)
    assert set(done.by_task) == set(kept)
    assert done.records == [r for r in whole.records if r["task_dataset"] in kept]


def test_a_sentence_whose_tags_are_not_one_a_character_is_left_out_and_counted(tmp_path):
    turns = [
        {"speaker": "患者", "sentence": "咳嗽", "BIO_label": "B-Symptom I-Symptom"},
        {"speaker": "患者", "sentence": "有点咳嗽", "BIO_label": "B-Symptom I-Symptom"},
    ]
    (tmp_path / "IMCS-V2-NER_dev.json").write_text(json.dumps({"1": {"dialogue": turns}}), "utf-8")
    done = convert(tmp_path)
    assert (done.by_task, done.unwritable) == ({"IMCS-V2-NER": 1}, {"IMCS-V2-NER": 1})


def test_converted_records_say_from_what(tmp_path):
    assert {record["converted_from"] for record in convert(CBLUE).records} == {"CBLUE"}


def test_a_number_from_converted_records_is_marked_wherever_it_is_shown(tmp_path, capsys):
    output = tmp_path / "data" / "promptcblue" / "dev.jsonl"
    assert main(["convert", "cblue", str(CBLUE), "--output", str(output)]) == 0
    assert main(["score", "promptcblue", "--gold", str(output), "--predictions", str(output)]) == 0
    assert "NOT COMPARABLE: records converted from CBLUE" in capsys.readouterr().out


def test_queries_and_documents_without_text_are_named(tmp_path):
    for name in ("KUAKE-IR_dev.tsv", "KUAKE-IR_dev_query.txt", "corpus.tsv"):
        shutil.copy(CBLUE / name, tmp_path)
    with (tmp_path / "KUAKE-IR_dev.tsv").open("a") as file:
        file.write("q-unheard\td-unheard\n")
    with pytest.raises(DataError, match=r"(?s)no text.*d-unheard.*q-unheard"):
        convert(tmp_path)


def test_retrieval_needs_its_corpus(tmp_path):
    shutil.copy(CBLUE / "KUAKE-IR_dev.tsv", tmp_path)
    shutil.copy(CBLUE / "KUAKE-IR_dev_query.txt", tmp_path)
    with pytest.raises(DataError, match=r"corpus\.tsv"):
        convert(tmp_path)


@pytest.mark.parametrize("name", list(TASKS))
def test_writing_an_answer_is_the_inverse_of_reading_it(name):
    task = TASKS[name]
    sample = Path(__file__).parents[1] / "tasks" / "promptcblue" / "sample.jsonl"
    for record in read_lines(sample):
        if record["task_dataset"] == name:
            choices = record["answer_choices"] or ()
            answer = parse_answer(task, record["target"], choices)
            assert target_of(task, answer, choices) == record["target"]
