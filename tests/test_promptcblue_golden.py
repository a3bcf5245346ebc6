"""Parsers and scorer against the recorded output of the official ones."""

import json

import pytest
from promptcblue_data import (
    HERE,
    SETS,
    SHARED,
    VARIANTS,
    absent,
    read_json,
    read_lines,
    write_lines,
)
from sklearn.metrics import classification_report

from mingmoe_eval.metrics.rouge import rouge, tokenize
from mingmoe_eval.promptcblue.catalogue import TASKS, task_named
from mingmoe_eval.promptcblue.parsing import parse_answer
from mingmoe_eval.promptcblue.scorer import score_files

CLOSE = 1e-9


def parsed(records):
    sheet = {}
    for record in records:
        task = task_named(record["task_dataset"])
        answer = parse_answer(task, record["target"], record["answer_choices"] or ())
        sheet.setdefault(task.name, []).append({"sample_id": record["sample_id"], "answer": answer})
    return sheet


def in_any_order(sheet):
    """The official CHIP-CDN parser goes through a set: its order is arbitrary."""
    terms = [
        {**sample, "answer": sorted(sample["answer"], key=lambda item: item["entity"])}
        for sample in sheet["CHIP-CDN"]
    ]
    return {**sheet, "CHIP-CDN": terms}


def with_prediction(folder, variant):
    replies = {
        (line["task_dataset"], line["sample_id"]): line["prediction"]
        for line in read_lines(variant / "predictions.jsonl")
    }
    return [
        {**record, "target": replies[record["task_dataset"], record["sample_id"]]}
        for record in read_lines(folder / "records.jsonl")
    ]


@absent
def test_the_shared_golden_sets_are_where_they_are_looked_for():
    assert all(folder.is_dir() for folder in SETS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parsed_structure_is_the_official_one(variant):
    records = with_prediction(variant.parents[1], variant)
    official = read_json(variant / "parsed_structured.json")
    assert in_any_order(parsed(records)) == in_any_order(official)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gold_parses_as_officially(variant):
    folder = variant.parents[1]
    official = read_json(folder / "gold_structured.json")
    assert in_any_order(parsed(read_lines(folder / "records.jsonl"))) == in_any_order(official)


def assert_official(card, official):
    assert card.success
    assert list(card.scores) == list(official["score_map"])
    assert card.scores == pytest.approx(official["score_map"], abs=CLOSE, rel=0)
    for task, detail in official["detail"].items():
        ours = {name: card.detail[task][name] for name in detail}
        assert ours == pytest.approx(detail, abs=CLOSE, rel=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_score_is_the_official_one(variant):
    card = score_files(variant.parents[1] / "records.jsonl", variant / "predictions.jsonl")
    assert_official(card, read_json(variant / "official_scores.json"))


@pytest.mark.parametrize("gold", ["records.jsonl", "gold_structured.json"])
@pytest.mark.parametrize("shape", ["records", "array", "ming", "structured"])
def test_every_shape_of_predictions_and_of_gold_scores_the_same(gold, shape, tmp_path):
    folder = HERE / "synthetic"
    variant = folder / "variants" / "struct_quirks"
    records = with_prediction(folder, variant)
    predictions = tmp_path / "predictions.jsonl"
    match shape:
        case "records":
            write_lines(predictions, records)
        case "array":
            predictions.write_text(json.dumps(records), "utf-8")
        case "ming":
            rows = [
                {"prompt": r["input"], "text": r["target"], "additional_info": r} for r in records
            ]
            write_lines(predictions, rows)
        case "structured":
            predictions = variant / "parsed_structured.json"
    card = score_files(folder / gold, predictions)
    assert_official(card, read_json(variant / "official_scores.json"))


@pytest.mark.parametrize("folder", [f for f in SETS if f.is_dir()], ids=str)
def test_the_legacy_profile_scores_as_the_evaluator_of_may_2023(folder):
    for name, official in read_json(folder / "legacy_halfwidth_profile.json")["variants"].items():
        predictions = folder / "variants" / name / "predictions.jsonl"
        card = score_files(folder / "records.jsonl", predictions, profile="legacy")
        assert card.scores == pytest.approx(
            with_the_first_default_of_qtr(official["score_map"], folder, predictions),
            abs=CLOSE,
            rel=0,
        )


def with_the_first_default_of_qtr(scores, folder, predictions):
    """The recorded scores, which the parser of May 2023 has with the metrics of August.

    The two evaluators differ where a reply to KUAKE-QTR is empty: the first one's list of labels
    begins with 完全不匹配 (its repository, before 2023-08-28). That score comes from scikit-learn.
    """
    key = TASKS["KUAKE-QTR"].score_key
    gold, said = (
        [line[field].strip() for line in read_lines(path) if line["task_dataset"] == "KUAKE-QTR"]
        for path, field in ((folder / "records.jsonl", "target"), (predictions, "prediction"))
    )
    if all(said):
        return scores
    labels = [label or "完全不匹配" for label in said]
    report = classification_report(gold, labels, output_dict=True, zero_division=0)
    tasks = {name: value for name, value in scores.items() if name != "score"}
    tasks[key] = report["weighted avg"]["f1-score"]
    return {**tasks, "score": sum(tasks.values()) / len(tasks)}


def faulty(sheet, fault):
    """The structured gold file with one fault, as the golden names say."""
    first = {name: samples[0] for name, samples in sheet.items()}
    match fault:
        case "missing_task":
            return {name: samples for name, samples in sheet.items() if name != "MedDG"}
        case "missing_one_sample":
            return {**sheet, "CMeEE-V2": sheet["CMeEE-V2"][:-1]}
        case "reordered_samples":
            return {**sheet, "CMeEE-V2": sheet["CMeEE-V2"][::-1]}
        case "no_sample_id_key":
            bad = {"answer": first["CMeEE-V2"]["answer"]}
            return {**sheet, "CMeEE-V2": [bad, *sheet["CMeEE-V2"][1:]]}
        case "none_answer_generation":
            bad = {**first["MedDG"], "answer": None}
            return {**sheet, "MedDG": [bad, *sheet["MedDG"][1:]]}
        case "string_answer_in_list_task":
            bad = {**first["CMeEE-V2"], "answer": "无"}
            return {**sheet, "CMeEE-V2": [bad, *sheet["CMeEE-V2"][1:]]}
        case "sample_not_a_dict":
            return {**sheet, "CMeEE-V2": ["无", *sheet["CMeEE-V2"][1:]]}
        case "extra_task_key":
            return {**sheet, "Text2DT": [{"sample_id": "1", "answer": []}]}
        case "empty_report_dict":
            bad = {**first["IMCS-V2-MRG"], "answer": {}}
            return {**sheet, "IMCS-V2-MRG": [bad, *sheet["IMCS-V2-MRG"][1:]]}
    raise AssertionError(fault)


FAULTS = sorted(read_json(HERE / "synthetic" / "submission_faults.json"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("folder", [f for f in SETS if f.is_dir()], ids=str)
def test_a_faulty_submission_gets_the_official_verdict(folder, fault, tmp_path):
    official = read_json(folder / "submission_faults.json")[fault]
    gold = folder / "gold_structured.json"
    predictions = tmp_path / "predictions.json"
    write_lines(predictions, [faulty(read_json(gold), fault)])
    card = score_files(gold, predictions)
    assert card.success == official["success"]
    if official["success"]:
        assert card.scores == pytest.approx(official["score_map"], abs=CLOSE, rel=0)
    else:
        assert card.verdict == official["error_report"]
        assert card.scores == {"score": 0.0}
        assert all(f.side == "predictions" and f.task and f.problem for f in card.faults)


@pytest.mark.parametrize("folder", [HERE, pytest.param(SHARED, marks=absent)], ids=str)
def test_rouge_and_its_tokens_are_the_official_ones(folder):
    for case in read_json(folder / "rouge_micro_cases.json"):
        prediction, reference = case["prediction"], case["reference"]
        assert tokenize(prediction) == case["prediction_tokens"]
        assert tokenize(reference) == case["reference_tokens"]
        ours, official = rouge(prediction, reference), case["rouge"]
        assert ours.rouge1 == pytest.approx(official["rouge-1"]["f"], abs=CLOSE)
        assert ours.rouge2 == pytest.approx(official["rouge-2"]["f"], abs=CLOSE)
        assert ours.rouge_l == pytest.approx(official["rouge-l"]["f"], abs=CLOSE)
        assert ours.rouge_l_precision == pytest.approx(official["rouge-l"]["p"], abs=CLOSE)
        assert ours.rouge_l_recall == pytest.approx(official["rouge-l"]["r"], abs=CLOSE)


def test_the_report_names_sixteen_scores_and_their_mean():
    official = read_json(HERE / "synthetic" / "variants" / "mixed_0" / "official_scores.json")
    assert [task.score_key for task in TASKS.values()] + ["score"] == list(official["score_map"])
