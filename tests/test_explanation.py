"""Why a run's number differs from a published one; expected values are calculated by hand."""

import dataclasses
import json

import pytest
from report_runs import exam_run, exam_samples

from mingmoe_eval.cli import main
from mingmoe_eval.errors import UsageError
from mingmoe_eval.explanation import explain_run, right_answers
from mingmoe_eval.explanation.lists import lists_of, share_by_chance
from mingmoe_eval.metrics.uncertainty import wilson_interval
from mingmoe_eval.records import Response, TaskSettings
from mingmoe_eval.run_store import save_run
from mingmoe_eval.scoring import fold_task, make_sample
from mingmoe_eval.task_catalog import load_catalog

MING = {
    "agronomy": 169,
    "clinical_knowledge": 237,
    "college_medicine": 273,
    "genetics": 176,
    "nutrition": 145,
    "traditional_chinese_medicine": 185,
    "virology": 169,
}
APOLLO = {"anatomy": 148, **{name: n for name, n in MING.items() if name != "agronomy"}}


def samples_of(task, questions, right, *, wrong="B", response="答案是{}。"):
    """So many questions, the first of them right; all others answered `wrong`, or not at all."""

    def reply(number):
        letter = "A" if number < right else wrong
        return letter, response.format(letter) if letter else "不知道。"

    samples = exam_samples(task, questions, reply)
    more = {"question_type": "", "context": "", "tags": {}, "cluster": None}
    return [dataclasses.replace(s, doc={**s.doc, **more, "id": str(s.position)}) for s in samples]


def cmmlu_run(sizes, right, **facts):
    """A run over these subjects with so many right answers in all."""
    samples = {}
    for name, questions in sizes.items():
        taken = min(right, questions)
        samples[f"cmmlu_med_{name}"] = samples_of(f"cmmlu_med_{name}", questions, taken)
        right -= taken
    return exam_run("ours", samples, **facts)


def cell_of(run, key="medcare", model="MedCare-7B", column=0):
    (one, *_) = explain_run(run, key, model=model)
    return one.columns[column], one.columns[column].cells[0]


@pytest.mark.parametrize(
    ("percentage", "decimals", "questions", "right"),
    [
        (64.33, 2, 1354, 871),  # 871 / 1354 = 64.328 %
        (64.33, 2, 1333, None),  # 857 / 1333 = 64.291 %, 858 / 1333 = 64.366 %
        (47.29, 2, 480, 227),  # 47.2917 %
        (47.7, 1, 480, 229),  # 47.708 %
        (47.8, 1, 480, None),  # 229 give 47.7, 230 give 47.9
        (65.85, 2, 41, 27),  # 65.854 %
        (62.4, 1, 41, None),  # 25 give 61.0, 26 give 63.4
        (0.0, 2, 480, 0),
        (100.0, 2, 480, 480),
    ],
)
def test_a_printed_percentage_is_a_whole_number_of_right_answers_or_is_none(
    percentage, decimals, questions, right
):
    assert right_answers(percentage, decimals, questions) == right


def test_every_whole_number_is_found_and_so_many_numbers_fit_by_chance():
    for questions in (41, 480, 1333, 1354):
        printed = {round(100 * right / questions, 2) for right in range(questions + 1)}
        assert all(right_answers(number, 2, questions) is not None for number in printed)
        fitting = sum(right_answers(n / 100, 2, questions) is not None for n in range(10_001))
        assert fitting / 10_001 == pytest.approx(share_by_chance(2, questions), abs=2e-4)


def test_the_lists_of_cmmlu_are_apollo_s_and_ming_s():
    lists = {one.name: one.questions for one in lists_of("cmmlu_ming", load_catalog())}
    assert lists == {"cmmlu_ming": 1354, "cmmlu_med": 1333}
    assert [one.questions for one in lists_of("pharmacist2023_tcm", load_catalog())] == [480, 960]
    assert lists_of("promptcblue_cmeie", load_catalog()) == []


def test_a_run_over_1333_questions_cannot_be_compared_with_numbers_over_1354():
    column, cell = cell_of(cmmlu_run(APOLLO, 800))
    assert [(f.list.questions, f.fitting, f.cells) for f in column.lists] == [
        (1354, 15, 15),
        (1333, 2, 15),
    ]
    assert (column.over.name, column.own.n) == ("cmmlu_ming", 1333)
    assert (cell.outcome, cell.difference) == ("not comparable", None)
    assert "lacks cmmlu_med_agronomy (169)" in cell.reasons[0]
    # Anatomy's 148 are right and no part of the other list: 652 of 1,185, and agronomy all or none.
    assert column.readings[0].value.value == pytest.approx(652 / 1185)
    assert column.bounds == pytest.approx((652 / 1354, (652 + 169) / 1354))
    assert "--tasks cmmlu_ming " in column.rerun[0]


def test_a_run_over_1354_questions_can_and_is_the_same_compatible_or_different():
    for right, outcome in ((871, "same"), (899, "compatible"), (1000, "different")):
        column, cell = cell_of(cmmlu_run(MING, right))
        assert (cell.outcome, column.bounds) == (outcome, None)
        assert cell.published.interval == wilson_interval(871, 1354)
        assert cell.difference.value == pytest.approx((right - 871) / 1354)
    # Newcombe 1998, method 10, from both Wilson intervals.
    (low_a, high_a), (low_b, high_b) = wilson_interval(1000, 1354), wilson_interval(871, 1354)
    gap = 129 / 1354
    low = gap - ((1000 / 1354 - low_a) ** 2 + (high_b - 871 / 1354) ** 2) ** 0.5
    high = gap + ((high_a - 1000 / 1354) ** 2 + (871 / 1354 - low_b) ** 2) ** 0.5
    assert cell.difference.interval == pytest.approx((low, high))


def test_apollo_s_numbers_are_over_its_own_list():
    column, cell = cell_of(cmmlu_run(APOLLO, 800), "apollo", "Apollo-7B")
    assert column.over.name == "cmmlu_med"
    assert cell.outcome in ("same", "compatible", "different")


def test_what_moves_a_number_is_named():
    marked = cmmlu_run(MING, 871, spec={"sample": True})
    assert "not over the benchmark: invented sample" in cell_of(marked)[1].reasons[0]
    run = cmmlu_run(MING, 871)
    short = {t: dataclasses.replace(r, marks=("9 rows",)) for t, r in run.results.items()}
    reasons = cell_of(dataclasses.replace(run, results=short))[1].reasons
    assert reasons[0] == "cmmlu_med_agronomy: 9 rows"


def test_the_official_reading_of_the_source_is_tried_and_can_give_the_printed_number():
    """HuatuoGPT-II counts a reply without a letter as B: 40 of those keys here are B."""
    task = "pharmacist2023_pharmacy"
    listed = samples_of(task, 480, 189, wrong=None)
    docs = [
        dataclasses.replace(s, doc={**s.doc, "answer": "B"}, expected="B")
        if 400 <= s.position < 440
        else s
        for s in listed
    ]
    run = exam_run("ours", {task: docs})
    column, cell = cell_of(run, "huatuogpt2", "HuatuoGPT-II (7B)")
    by_mode = {r.mode: (round(r.value.value * 480), r.of_the_source) for r in column.readings}
    assert by_mode["default"] == (189, False)
    assert by_mode["huatuo2"] == (229, True)
    assert cell.printed == "47.7"  # 229 of 480
    assert (cell.outcome, cell.reading) == ("same", "huatuo2")


def test_letters_that_were_compared_are_read_in_one_way_alone():
    task = "usmle_ll"
    samples = [
        dataclasses.replace(s, log_likelihoods=(-1.0, -2.0), response=None)
        for s in samples_of(task, 20, 10)
    ]
    column, _ = cell_of(exam_run("ours", {task: samples}), "apollo", "Apollo-7B")
    assert [reading.mode for reading in column.readings] == ["default"]
    assert column.form == "letters"


def test_other_shots_are_another_number():
    run = exam_run("ours", {"usmle": samples_of("usmle", 1273, 700)})
    results = {t: dataclasses.replace(r, num_fewshot=5) for t, r in run.results.items()}
    _, cell = cell_of(dataclasses.replace(run, results=results), "huatuogpt-o1", "BioMistral-7B")
    assert cell.outcome == "not comparable"
    assert "0-shot there, 5-shot here" in cell.reasons


def test_a_slot_that_nobody_could_read_stays_one():
    run = exam_run("ours", {"cmexam": samples_of("cmexam", 20, 10)})
    _, cell = cell_of(run, "sparsedoctor", "SparseDoctor")
    assert (cell.printed, cell.outcome) == ("–", "not comparable")


def test_f1_and_rouge_are_scored_under_every_profile_and_compare_with_nothing_printed():
    """Ten pairs that mean the same, seven of them answered so: F1 of the class 14 / 17."""
    task, settings = "promptcblue_chip_sts", TaskSettings(suite="promptcblue")
    samples = [
        make_sample(
            task,
            number,
            {
                "task_dataset": "CHIP-STS",
                "target": "是的",
                "answer_choices": ["是的", "不是"],
                "input": f"第{number}对",
            },
            f"第{number}对",
            Response(text="是的" if number < 7 else "不是"),
            settings,
        )
        for number in range(10)
    ]
    run = exam_run("ours", {task: samples}, results={task: fold_task(task, samples, settings)})
    column, cell = cell_of(run, "promptcblue", "ChatGPT")
    modes = [reading.mode for reading in column.readings]
    assert modes == ["as it stands", *(f"profile {p}" for p in ("official", "legacy", "lenient"))]
    assert column.own.value == pytest.approx(14 / 17)
    assert (cell.printed, cell.outcome, column.lists) == ("71.08", "not comparable", ())
    assert "the source: dev set; source prints fractions" in cell.reasons
    assert cell.reasons[-1].startswith("the printed number lies inside")


@pytest.mark.parametrize(
    ("key", "model", "message"),
    [
        ("nobody", None, "no published results under 'nobody'"),
        ("medcare", "GPT-9", "no row of a model named 'GPT-9'; it has"),
        ("promptcblue", None, "ours has no task that promptcblue prints a number for"),
    ],
)
def test_refuses_what_cannot_be_explained(key, model, message):
    with pytest.raises(UsageError, match=message):
        explain_run(exam_run("ours", {"usmle": samples_of("usmle", 5, 2)}), key, model=model)


def test_the_verb_gives_one_page_on_the_console_as_markdown_and_as_json(tmp_path, capsys):
    folder = save_run(cmmlu_run(APOLLO, 800), tmp_path / "run")
    page, data = tmp_path / "page.md", tmp_path / "page.json"
    words = ["explain", str(folder), "--published", "medcare", "--row", "medcare-7b"]
    assert main([*words, "--markdown", str(page), "--json", str(data)]) == 0
    for text in (capsys.readouterr().out, page.read_text("utf-8").replace("\\", "")):
        assert "1,354 questions: 15 of 15 printed cells are whole numbers" in text
        assert "not comparable" in text
        assert "48.15 to 60.64 %" in text  # 652 / 1354, 821 / 1354
        assert "why: the published numbers are over the 1,354 questions of cmmlu_ming" in text
    assert main(words[:-2]) == 0
    assert "of every cell: the published numbers are over" in capsys.readouterr().out
    columns = json.loads(data.read_text("utf-8"))["explanations"][0]["columns"]
    assert columns[0]["over"]["questions"] == 1354
    assert columns[0]["cells"][0]["outcome"] == "not comparable"


def test_several_repeats_of_a_question_are_one_question():
    once = cmmlu_run(MING, 899)
    again = {
        task: [*of, *(dataclasses.replace(s, repeat=1) for s in of)]
        for task, of in once.samples.items()
    }
    results = {
        task: dataclasses.replace(
            result, repeats=2, counts=dataclasses.replace(result.counts, docs=len(again[task]))
        )
        for task, result in once.results.items()
    }
    columns = [
        cell_of(dataclasses.replace(once, **changes))[0]
        for changes in ({}, {"samples": again, "results": results})
    ]
    assert columns[1].own == columns[0].own
    assert columns[1].own.n == 1354
    assert columns[1].run_over == columns[0].run_over
    assert [r.value for r in columns[1].readings] == [r.value for r in columns[0].readings]
