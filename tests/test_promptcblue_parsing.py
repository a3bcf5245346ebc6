"""The official parsers' rules, one case a rule; expected values by hand from the rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mingmoe_eval.errors import UnknownTaskError, UsageError
from mingmoe_eval.promptcblue.catalogue import TASKS, task_named
from mingmoe_eval.promptcblue.parsing import parse_answer, profile_named

TYPES = ("疾病", "药物")


def parse(name, text, choices=(), profile="official"):
    return parse_answer(task_named(name), text, choices, profile)


def entities(text, choices=TYPES):
    return [(item["type"], item["entity"]) for item in parse("CMeEE-V2", text, choices)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "上述句子中的实体包含：\n疾病实体：肺炎，哮喘\n药物实体：",
            [("疾病", "肺炎"), ("疾病", "哮喘")],
        ),
        ("疾病实体：肺炎", [("疾病", "肺炎")]),
        ("药物实体：青霉素\n疾病实体：肺炎", [("疾病", "肺炎"), ("药物", "青霉素")]),
        ("疾病实体： 肺炎 ，，　哮喘　", [("疾病", "肺炎"), ("疾病", "哮喘")]),
        ("疾病实体：肺炎，肺炎", [("疾病", "肺炎"), ("疾病", "肺炎")]),
        ("疾病实体：肺炎、哮喘,感冒", [("疾病", "肺炎、哮喘,感冒")]),
        ("疾病实体:肺炎", [("疾病", "疾病实体:肺炎")]),
        ("疾病实体肺炎", [("疾病", "疾病实体肺炎")]),
        ("疾病实体：肺疾病实体：炎", [("疾病", "肺炎")]),
        (" 疾病实体：肺炎", []),
        ("症状实体：咳嗽\n以上是全部实体。", []),
        ("疾病实体：肺炎\r\n药物实体：", [("疾病", "肺炎")]),
        ("疾病实体：肺炎\u2028药物实体：青霉素", [("疾病", "肺炎\u2028药物实体：青霉素")]),
        ("", []),
    ],
)
def test_entities(text, expected):
    assert entities(text) == expected


def triples(text):
    return [tuple(item.values()) for item in parse("CMeIE", text, ("病因",))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "具有病因关系的头尾实体对如下：头实体为甲，尾实体为乙。头实体为丙，尾实体为丁。",
            [("病因", "甲", "乙"), ("病因", "丙", "丁")],
        ),
        ("具有病因关系的头尾实体对如下：", []),
        ("具有没问过关系的头尾实体对如下：头实体为甲，尾实体为乙。", [("没问过", "甲", "乙")]),
        ("头实体为甲，尾实体为乙。", [("体为甲，尾实体为乙。", "甲", "乙")]),
        ("具有病因关系的头尾实体对如下：头实体为，尾实体为。", [("病因", "", "")]),
        (
            "具有病因关系的头尾实体对如下：头实体为甲，尾实体为乙，尾实体为丙。",
            [("病因", "甲", "乙")],
        ),
        ("具有病因关系的头尾实体对如下：头实体为甲,尾实体为乙。", []),
        (
            "好的：具有病因关系的头尾实体对如下：头实体为甲，尾实体为乙。",
            [("：具有病因", "好的：具有病因关系的头尾实体对如下：甲", "乙")],
        ),
    ],
)
def test_triples(text, expected):
    assert triples(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("肺炎， 哮喘 ，肺炎", ["肺炎", "哮喘"]),
        ("标准词是：\n肺炎", ["肺炎"]),
        ("肺炎\n", []),
        ("肺炎,哮喘", []),
        ("感冒，肺炎", ["肺炎"]),
        ("没有对应的标准化实体", []),
    ],
)
def test_terms(text, expected):
    answer = parse("CHIP-CDN", text, ("肺炎", "哮喘"))
    assert [item["entity"] for item in answer] == expected
    assert {item["type"] for item in answer} <= {"normalization"}


NOTHING = {"主体词": "", "发生状态": "", "描述词": [], "解剖部位": []}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "头\n主体词：痛；发生状态：否定；描述词：轻，,重；解剖部位：左膝， 腰 ",
            [
                {
                    "主体词": "痛",
                    "发生状态": "否定",
                    "描述词": ["轻", ",重"],
                    "解剖部位": ["左膝", "腰"],
                }
            ],
        ),
        ("主体词：痛", []),
        ("头\n主体词：痛\n", [{**NOTHING, "主体词": "痛"}, NOTHING]),
        ("头\n以上", [NOTHING]),
        ("头\n主体词：痛； 描述词：轻", [{**NOTHING, "主体词": "痛"}]),
        ("头\n主体词：痛；主体词：痒", [{**NOTHING, "主体词": "痒"}]),
        (
            "头\n主体词：描述词：痛",
            [{**NOTHING, "主体词": "描述词：痛", "描述词": ["痛"]}],
        ),
        ("头\n主体词：痛主体词：痒", [{**NOTHING, "主体词": "痛痒"}]),
    ],
)
def test_events(text, expected):
    assert parse("CHIP-CDEE", text) == expected


HAS, HAS_NOT, UNCLEAR = "患有该症状", "没有患有该症状", "无法根据上下文确定病人是否患有该症状"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("头\n咳嗽：患有该症状\n 发热 ：没有患有该症状", [("咳嗽", HAS), ("发热", HAS_NOT)]),
        ("咳嗽：患有该症状", []),
        ("头\n咳嗽：患有该症状 ", [("咳嗽", UNCLEAR)]),
        ("头\n咳嗽： 患有该症状", [("咳嗽", UNCLEAR)]),
        ("头\n咳嗽：重：患有该症状\n咳嗽", []),
        ("头\n：患有该症状", [("", HAS)]),
        ("头\n以上：", [("以上", UNCLEAR)]),
    ],
)
def test_findings(text, expected):
    answer = parse("IMCS-V2-SR", text, (HAS_NOT, HAS, UNCLEAR))
    assert [(item["entity"], item["attr"]) for item in answer] == expected


def test_an_unknown_status_of_mdcfnpc_is_a_label_that_does_not_exist_but_for_legacy():
    [found] = parse("CHIP-MDCFNPC", "头\n咳嗽：有", ("未患有症状疾病",))
    assert found["attr"] == "不标注"
    [found] = parse("CHIP-MDCFNPC", "头\n咳嗽：有", ("未患有症状疾病",), "legacy")
    assert found["attr"] == "无实际意义的不标注或者和病人当前的状态独立不标注"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("KUAKE-IR", " 相关\n", "相关"),
        ("KUAKE-IR", "答案：相关", "答案：相关"),
        ("KUAKE-IR", "相同", "相同"),
        ("CHIP-STS", "相同", "是的"),
        ("CHIP-STS", "\u3000不同", "不是"),
        ("CHIP-STS", "", ""),
    ],
)
def test_labels(name, text, expected):
    assert parse(name, text, ("相关",)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("头\n主诉：咳嗽。\n诊断：\n建议： 休息 ", {"主诉": "咳嗽。", "诊断": "", "建议": "休息"}),
        ("主诉：咳嗽。\n诊断：感冒", {"诊断": "感冒"}),
        ("\n\n头\n主诉：咳嗽", {"主诉": "咳嗽"}),
        ("头\n主诉：咳嗽\n三天\n 诊断：感冒", {"主诉": "咳嗽"}),
        ("头\n主诉：甲\n主诉：乙", {"主诉": "乙"}),
        ("头\n主诉：甲主诉：乙", {"主诉": "乙"}),
        ("头\n建议:休息", {}),
        ("", {}),
    ],
)
def test_report_sections(text, expected):
    assert parse("IMCS-V2-MRG", text) == expected


def test_a_reply_is_trimmed_and_keeps_its_line_breaks():
    assert parse("MedDG", " 多喝水\n早睡 ") == "多喝水\n早睡"


def test_legacy_widens_the_first_hundred_marks_of_each_kind():
    text = "疾病实体:" + ",".join(["肺"] * 102)
    listed = [e["entity"] for e in parse("CMeEE-V2", text, TYPES, "legacy")]
    assert listed == ["肺"] * 100 + ["肺,肺"]


def test_there_are_sixteen_tasks_in_eight_families():
    assert len(TASKS) == 16
    assert len({task.family for task in TASKS.values()}) == 8
    assert task_named("CMeIE-V2") is TASKS["CMeIE"]


def test_label_sets_have_the_documented_sizes():
    sizes = {name: len(task.labels) for name, task in TASKS.items() if task.labels}
    assert sizes == {
        "CMeEE-V2": 9,
        "CMeIE": 44,
        "CHIP-CDEE": 3,
        "IMCS-V2-NER": 5,
        "CHIP-MDCFNPC": 4,
        "IMCS-V2-SR": 3,
        "IMCS-V2-DAC": 16,
        "CHIP-CTC": 44,
        "CHIP-STS": 2,
        "KUAKE-IR": 2,
        "KUAKE-QIC": 11,
        "KUAKE-QQR": 4,
        "KUAKE-QTR": 4,
    }


def test_unknown_names_are_refused():
    with pytest.raises(UnknownTaskError, match=r"'CMeEE'; did you mean .*'CMeEE-V2'"):
        task_named("CMeEE")
    with pytest.raises(UsageError, match="official, legacy, lenient"):
        profile_named("strict")


ODD = st.text(alphabet=st.characters(), max_size=200) | st.text(
    alphabet="实体：:，,；;。\n\r\u2028\u202e\u200f\x00\ud800 主诉具有关系的头尾为病疾",
    max_size=200,
)


@settings(max_examples=200, deadline=None)
@given(text=ODD, choices=st.lists(st.sampled_from(["疾病", "是的", "", "病因"]), max_size=3))
def test_no_text_makes_any_parser_raise(text, choices):
    for task in TASKS.values():
        for profile in ("official", "legacy", "lenient"):
            parse_answer(task, text, choices, profile)


@pytest.mark.parametrize("profile", ["official", "legacy", "lenient"])
@pytest.mark.parametrize(
    "text", ["疾病实体：" * 20_000, "头实体为" * 25_000, "：\n" * 50_000, "主体词：；" * 20_000]
)
def test_a_reply_of_a_hundred_kilobytes_is_read_in_no_time(text, profile):
    for task in TASKS.values():
        parse_answer(task, text, task.labels, profile)
