"""The suite scorer: from replies to samples to the very numbers of the file scorer."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from promptcblue_data import HERE, SETS, read_lines
from sklearn.metrics import classification_report

from mingmoe_eval.errors import DataError
from mingmoe_eval.promptcblue import scoring
from mingmoe_eval.promptcblue.catalogue import TASKS
from mingmoe_eval.promptcblue.malformed import describe
from mingmoe_eval.promptcblue.measures import compared_label, guessing_level
from mingmoe_eval.promptcblue.scorer import score_files
from mingmoe_eval.records import Counts, MetricValue, Response, Sample, TaskResult, TaskSettings
from mingmoe_eval.scoring import fold_task, make_sample

FOLDER = HERE / "synthetic"
SUITE = TaskSettings(suite="promptcblue")
RECORDS = read_lines(FOLDER / "records.jsonl")


def samples_of(variant, **more):
    replies = {
        (line["task_dataset"], line["sample_id"]): line["prediction"]
        for line in read_lines(FOLDER / "variants" / variant / "predictions.jsonl")
    }
    made = {name: [] for name in TASKS}
    for doc in RECORDS:
        name = doc["task_dataset"]
        text = replies[name, doc["sample_id"]]
        sample = make_sample(
            name,
            len(made[name]),
            doc,
            doc["input"],
            Response(text=text),
            dataclasses.replace(SUITE, **more),
        )
        # What a rescore has is what was on disk.
        made[name].append(Sample.from_json(json.loads(json.dumps(sample.to_json()))))
    return made


@pytest.mark.parametrize("variant", ["gold", "mixed_0", "struct_quirks", "halfwidth"])
@pytest.mark.parametrize("profile", ["official", "legacy"])
def test_folding_samples_gives_the_numbers_of_the_file_scorer_to_the_last_bit(variant, profile):
    card = score_files(
        FOLDER / "records.jsonl",
        FOLDER / "variants" / variant / "predictions.jsonl",
        profile=profile,
    )
    results = {}
    for name, samples in samples_of(variant, profile=profile).items():
        task = TASKS[name]
        result = fold_task(task.lm_eval_name, samples, dataclasses.replace(SUITE, profile=profile))
        assert result.metrics["score"].value == card.scores[task.score_key]
        low, high = result.main.interval
        assert low <= result.main.value <= high
        results[task.lm_eval_name] = result
    assert scoring.fold_group(results, {})["score"].value == card.scores["score"]


def label_samples(name, golds, replies, profile="official"):
    docs = [
        {
            "input": f"第{number}问",
            "target": gold,
            "answer_choices": list(TASKS[name].labels),
            "task_type": TASKS[name].task_type,
            "task_dataset": name,
            "sample_id": str(number),
        }
        for number, gold in enumerate(golds)
    ]
    settings = dataclasses.replace(SUITE, profile=profile)
    return [
        make_sample("t", i, doc, doc["input"], Response(text=reply), settings)
        for i, (doc, reply) in enumerate(zip(docs, replies, strict=True))
    ]


@pytest.mark.parametrize(
    ("name", "average"),
    [("KUAKE-IR", "weighted"), ("KUAKE-QIC", "macro"), ("CHIP-STS", "weighted")],
)
def test_labels_lose_the_nuls_at_their_end_as_in_scikit_learns_arrays(name, average):
    first, second = TASKS[name].labels[:2]
    golds = [first, first, second, second, first, second]
    replies = [f"{first}\0", f"{first}\0\0", f"\0{second}", second, "\0", f"{second}\0。"]
    samples = label_samples(name, golds, replies)
    report = classification_report(golds, replies, output_dict=True, zero_division=0)
    expected = report[f"{average} avg"]["f1-score"]
    assert fold_task("t", samples, SUITE).main.value == pytest.approx(expected, abs=1e-12)
    labels = [compared_label(sample) for sample in samples]
    assert labels == [first, first, f"\0{second}", second, "", f"{second}\0。"]
    by_label = fold_task("t", samples, SUITE).breakdowns["label"]
    assert by_label[first].value == pytest.approx(2 * 2 / (3 + 2))


def test_an_empty_reply_to_qtr_counts_as_another_label_for_the_evaluator_of_may_2023():
    # That evaluator's list began with 完全不匹配, which is no label of the data.
    name, default = "KUAKE-QTR", "完全不匹配或者没有参考价值"
    golds = [default, default, "完全匹配"]
    replies = ["", default, ""]
    for profile, labels, correct in (
        ("official", [default, default, default], [1, 1, 0]),
        ("legacy", ["完全不匹配", default, "完全不匹配"], [0, 1, 0]),
        ("lenient", [default, default, default], [1, 1, 0]),
    ):
        samples = label_samples(name, golds, replies, profile)
        assert [sample.score for sample in samples] == correct
        assert [compared_label(sample) for sample in samples] == labels
        stored = [Sample.from_json(json.loads(json.dumps(s.to_json()))) for s in samples]
        assert [compared_label(sample) for sample in stored] == labels
        settings = dataclasses.replace(SUITE, profile=profile)
        result = fold_task("t", samples, settings)
        report = classification_report(golds, labels, output_dict=True, zero_division=0)
        expected = report["weighted avg"]["f1-score"]
        assert result.main.value == pytest.approx(expected, abs=1e-12)
        assert set(result.breakdowns["label"]) == {*golds, *labels}


def test_a_failed_sample_does_not_count():
    samples = samples_of("gold")["CHIP-STS"]
    failed = dataclasses.replace(samples[0], status="failed", score=None, answered=None)
    result = fold_task("sts", [failed, *samples[1:]], SUITE)
    assert (result.main.value, result.main.n, result.counts.failed) == (1.0, 9, 1)


def test_an_empty_reply_is_unanswered_and_stands_for_the_default_label():
    doc = next(d for d in RECORDS if d["task_dataset"] == "KUAKE-IR" and d["target"] == "相关")
    score = scoring.score_doc(doc, Response(text=" \n"), SUITE)
    assert (score.answered, score.value, score.reading) == (None, 1.0, "empty output")


@pytest.mark.parametrize("thought", ["<think>{}？</think>\n\n", "[THINK]{}[/THINK]", ""])
def test_a_reply_is_scored_as_what_stands_behind_its_thoughts(thought):
    doc = next(doc for doc in RECORDS if doc["task_dataset"] == "KUAKE-QIC")
    other = next(one for one in doc["answer_choices"] if one != doc["target"])
    plain = scoring.score_doc(doc, Response(text=doc["target"]), SUITE)
    assert plain.value == 1.0
    reply = thought.format(other) + doc["target"]
    assert scoring.score_doc(doc, Response(text=reply), SUITE) == plain
    unended = scoring.score_doc(doc, Response(text=f"<think>{doc['target']}"), SUITE)
    assert (unended.value, unended.answered) == (0.0, None)


def test_the_names_that_comparisons_rely_on():
    names = {name: set(scoring.fold(s, SUITE)) for name, s in samples_of("gold").items()}
    assert {"score", "f1", "precision", "recall", "malformed"} == names["CMeEE-V2"]
    assert {"score", "macro_f1", "accuracy"} < names["CHIP-CTC"]
    assert {"score", "weighted_f1", "accuracy"} < names["KUAKE-QTR"]
    assert {"score", "rouge1", "rouge2", "rougeL"} < names["MedDG"]
    counts = {name: set(s[0].counts) for name, s in samples_of("gold").items()}
    assert counts["CMeEE-V2"] == {"tp", "fp", "fn"}
    assert {"rougeL", "pairs", "rougeL:主诉"} < counts["IMCS-V2-MRG"]


def test_expected_is_the_label_as_it_is_compared():
    doc = {**RECORDS[0], "task_dataset": "CHIP-STS", "target": " 相同", "answer_choices": []}
    assert scoring.expected(doc) == "是的"
    assert scoring.expected(RECORDS[0]) == RECORDS[0]["target"]
    assert guessing_level([{**doc, "answer_choices": None}]) is None


def ner_samples(reply):
    doc = {
        "input": "找出实体：肺炎患者用青霉素，肺部湿啰音。",
        "target": "上述句子中的实体包含：\n疾病实体：肺炎\n药物实体：青霉素\n身体部位实体：肺部",
        "answer_choices": ["疾病", "药物", "身体部位"],
        "task_type": "ner",
        "task_dataset": "CMeEE-V2",
        "sample_id": "1",
    }
    return [make_sample("t", 0, doc, doc["input"], Response(text=reply), SUITE)]


def shares(table):
    return {name: (row.value, row.n) for name, row in table.items()}


def test_breakdowns_show_each_type_by_sets_and_by_bio_tags():
    reply = "头\n疾病实体：肺炎，哮喘\n药物实体：青霉素\n身体部位实体：肺"
    tables = scoring.breakdowns(ner_samples(reply), SUITE)
    by_label = {kind: row.value for kind, row in tables["label"].items()}
    # 哮喘 is invented: precision 1/2, recall 1.
    assert by_label == pytest.approx({"疾病": 2 / 3, "药物": 1.0, "身体部位": 0.0})
    # It is not in the prompt, so the BIO view cannot show it; 肺 is another span than 肺部.
    by_tag = {kind: row.value for kind, row in tables["tag"].items()}
    assert by_tag == pytest.approx({"疾病": 1.0, "药物": 1.0, "身体部位": 0.0})
    assert shares(tables["entities not in the prompt"]) == {"gold": (0.0, 3), "replies": (0.25, 4)}
    assert "malformed" not in tables


NESTED = {
    "input": "找出实体：右肺上叶腺癌患者行右肺上叶切除术，术后出现肺炎。",
    "target": "上述句子中的实体包含：\n疾病实体：右肺上叶腺癌，肺炎\n"
    "身体部位实体：右肺上叶，肺，右肺\n医疗程序实体：右肺上叶切除术\n临床表现实体：肺炎",
    "answer_choices": ["疾病", "身体部位", "医疗程序", "临床表现"],
    "task_type": "ner",
    "task_dataset": "CMeEE-V2",
    "sample_id": "1",
}


def tag_rows(doc, reply):
    sample = make_sample("t", 0, doc, doc["input"], Response(text=reply), SUITE)
    tables = scoring.breakdowns([sample], TaskSettings())
    return shares(tables["tag"]), shares(tables["entities not in the prompt"])


def test_the_right_answer_is_right_by_tags_however_its_entities_are_nested():
    rows, unplaced = tag_rows(NESTED, NESTED["target"])
    assert rows == {"疾病": (1, 2), "身体部位": (1, 3), "医疗程序": (1, 1), "临床表现": (1, 1)}
    assert unplaced == {"gold": (0, 7), "replies": (0, 7)}


def test_a_part_of_a_nested_answer_is_right_by_tags_in_any_order():
    # One of three parts found, the entity around it not; 右肺上叶腺 is invented, within another.
    reply = "头\n身体部位实体：右肺\n疾病实体：右肺上叶腺，肺炎"
    rows, unplaced = tag_rows(NESTED, reply)
    assert rows["身体部位"] == (pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3)), 3)
    assert rows["疾病"] == (0.5, 2)
    assert rows["临床表现"] == (0, 1)
    assert unplaced == {"gold": (0, 7), "replies": (0, 3)}


def test_gold_that_is_not_in_the_prompt_is_counted():
    doc = {**NESTED, "target": NESTED["target"] + "，咯血"}
    rows, unplaced = tag_rows(doc, doc["target"])
    assert rows["临床表现"] == (1, 1)
    assert unplaced == {"gold": (1 / 8, 8), "replies": (1 / 8, 8)}


@pytest.mark.parametrize("folder", [f for f in SETS if f.is_dir()], ids=str)
def test_gold_itself_is_right_by_tags(folder):
    docs = [doc for doc in read_lines(folder / "records.jsonl") if doc["task_type"] == "ner"]
    for doc in docs:
        sample = make_sample("t", 0, doc, doc["input"], Response(text=doc["target"]), SUITE)
        tags = scoring.breakdowns([sample], TaskSettings()).get("tag", {})
        assert {row.value for row in tags.values()} <= {1.0}


def test_one_doc_leaves_doubt_in_the_score_and_in_every_breakdown():
    for name, samples in samples_of("mixed_0").items():
        alone = samples[:1]
        folded = scoring.fold(alone, SUITE)
        tables = scoring.breakdowns(alone, SUITE)
        of_labels = [*tables.get("label", {}).values(), *tables.get("section", {}).values()]
        for value in (*folded.values(), *of_labels):
            low, high = value.interval
            assert 0 <= low <= value.value <= high <= 1, name
            assert high - low > 0.5, name


def test_breakdowns_name_what_is_malformed():
    tables = scoring.breakdowns(ner_samples("疾病实体:肺炎\n手术实体：无"), SUITE)
    assert {kind: row.value for kind, row in tables["malformed"].items()} == {
        "half-width colon after the type": 1.0,
        "type that was not offered": 1.0,
    }


GREETING = "您好，很高兴为您服务。"
NOTHING = "nothing that could be read"
ONE_LINE = {
    "CMeEE-V2": ("疾病实体：肺炎 药物实体：青霉素", "several types on one line"),
    "CMeIE": (
        "具有病因关系的头尾实体对如下：头实体为甲，尾实体为乙。"
        "具有并发症关系的头尾实体对如下：头实体为甲，尾实体为丙。",
        "several relations on one line",
    ),
    "CHIP-CDEE": (
        "头\n主体词：咳；发生状态：；主体词：痛；发生状态：",
        "several events on one line",
    ),
    "CHIP-MDCFNPC": ("头：咳嗽：未患有症状疾病", "no header line"),
    "IMCS-V2-SR": ("头：咳嗽：患有该症状 发热：患有该症状", "no header line"),
    "IMCS-V2-MRG": ("头\n主诉：咳嗽 现病史：三天", "section missing"),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_reply_of_which_nothing_is_read_is_malformed(task):
    if task.name == "MedDG":  # any text is a reply
        return
    choices = task.labels or ("肺炎", "哮喘")
    for text in (GREETING, GREETING * 3, "，", task.header * 1024 or GREETING * 1024):
        assert describe(task, text, choices) != "well-formed"
    if task.header:
        lines = "\n".join([task.header] * 1024)
        assert describe(task, lines, choices) != "well-formed"


@pytest.mark.parametrize("name", ["CHIP-CDEE", "CHIP-MDCFNPC", "IMCS-V2-SR"])
def test_a_greeting_and_a_repeated_header_have_a_kind_of_their_own(name):
    task = TASKS[name]
    assert describe(task, GREETING, task.labels) == NOTHING
    assert describe(task, task.header * 1024, task.labels) == NOTHING
    assert describe(TASKS["CHIP-CDN"], "，，", ("肺炎",)) == NOTHING


@pytest.mark.parametrize("name", ONE_LINE)
def test_items_that_share_a_line_are_malformed(name):
    text, kind = ONE_LINE[name]
    assert kind in describe(TASKS[name], text, TASKS[name].labels).split("; ")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("CMeEE-V2", "疾病实体 肺炎", "no colon after the type"),
        ("CMeIE", "具有病因关系的头尾实体对如下：甲，乙", "text that is no pair"),
        (
            "CMeIE",
            "具有病因关系的头尾实体对如下:头实体为甲，尾实体为乙。",
            "no 如下： after the relation",
        ),
        ("CHIP-CDEE", "头\n主体词：痛；描述词:重", "text that is no attribute"),
        ("CHIP-CDEE", "头\n主体词：痛； 描述词：重", "text that is no attribute"),
        ("CHIP-CDEE", "头\n主体词：痛 主体词：痒", "several events on one line"),
        ("CMeEE-V2", "疾病实体：肺炎\r药物实体：青霉素", "several types on one line"),
    ],
)
def test_content_that_the_official_parser_loses_has_a_kind(name, text, kind):
    assert describe(TASKS[name], text, TASKS[name].labels) == kind


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：\n药物实体："),
        ("IMCS-V2-NER", "上述句子没有指定类型实体"),
        ("CMeIE", "具有病因关系的头尾实体对如下："),
        ("CHIP-CDN", "没有对应的标准化实体"),
        ("CHIP-CDEE", "上述句子中的临床发现事件如下："),
        ("CHIP-MDCFNPC", "上述对话中临床发现实体以及其阴阳性判别如下："),
        ("IMCS-V2-SR", "当前对话中的症状及其阴阳性判断为："),
    ],
)
def test_saying_that_there_is_nothing_is_well_formed(name, text):
    assert describe(TASKS[name], text, TASKS[name].labels) == "well-formed"


def test_a_report_is_broken_down_by_section():
    tables = scoring.breakdowns(samples_of("gold")["IMCS-V2-MRG"], SUITE)
    assert list(tables["section"]) == ["主诉", "现病史", "辅助检查", "既往史", "诊断", "建议"]
    assert all(row.value == pytest.approx(1, abs=1e-8) for row in tables["section"].values())


@pytest.mark.parametrize("folder", [f for f in SETS if f.is_dir()], ids=str)
def test_gold_itself_is_well_formed(folder):
    for doc in read_lines(folder / "records.jsonl"):
        score = scoring.score_doc(doc, Response(text=doc["target"]), SUITE)
        assert score.reading == "well-formed"


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.characters(), max_size=100))
def test_no_reply_makes_the_scorer_raise(text):
    for doc in {d["task_dataset"]: d for d in RECORDS}.values():
        for profile in ("official", "legacy", "lenient"):
            sample = make_sample(
                "t",
                0,
                doc,
                doc["input"],
                Response(text=text),
                dataclasses.replace(SUITE, profile=profile),
            )
            assert 0 <= sample.score <= 1


def result(name, value, half):
    interval = (value - half, value + half)
    main = MetricValue(value=value, n=10, interval=interval)
    return TaskResult(
        task=name, main_metric="score", metrics={"score": main}, counts=Counts(docs=10)
    )


def test_the_overall_score_is_the_mean_of_sixteen_with_their_errors_combined():
    members = {t.lm_eval_name: result(t.lm_eval_name, 0.5, 0.04) for t in TASKS.values()}
    members["promptcblue_meddg"] = result("promptcblue_meddg", 0.18, 0.04)
    metrics = scoring.fold_group(members, {})
    assert metrics["score"].value == pytest.approx(0.48)
    # sqrt(16 * 0.04^2) / 16
    assert metrics["score"].interval == pytest.approx((0.47, 0.49))
    assert metrics["score"].n == 160
    assert metrics["score_generation"].value == pytest.approx(0.34)


def test_the_overall_score_is_refused_unless_all_sixteen_are_there():
    members = {t.lm_eval_name: result(t.lm_eval_name, 0.5, 0.04) for t in TASKS.values()}
    del members["promptcblue_meddg"], members["promptcblue_cmeie"]
    with pytest.raises(DataError, match="promptcblue_cmeie, promptcblue_meddg"):
        scoring.fold_group(members, {})


def test_a_group_weighted_by_size_is_refused():
    with pytest.raises(DataError, match="plain means"):
        scoring.fold_group({}, {}, weight_by_size=True)


def test_a_family_is_folded_whole_or_not_at_all():
    names = ["promptcblue_cmeee_v2", "promptcblue_imcs_v2_ner"]
    members = {name: result(name, 0.5, 0.04) for name in names}
    assert scoring.fold_group(members, {})["score"].value == 0.5
    with pytest.raises(DataError, match="promptcblue_imcs_v2_ner"):
        scoring.fold_group({names[0]: members[names[0]]}, {})
