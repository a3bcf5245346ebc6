"""`mingmoe-eval score promptcblue`: its output, its exit status, and what it says of faults."""

import json
import subprocess
import sys

import pytest
from promptcblue_data import HERE, read_json, read_lines, write_lines

from mingmoe_eval.cli import main

FOLDER = HERE / "synthetic"
GOLD = FOLDER / "records.jsonl"
VARIANT = FOLDER / "variants" / "mixed_0"
PREDICTIONS = VARIANT / "predictions.jsonl"


def score(gold, predictions, *more):
    return main(
        ["score", "promptcblue", "--gold", str(gold), "--predictions", str(predictions), *more]
    )


def score_json(gold, predictions, tmp_path, *more):
    status = score(gold, predictions, "--json", str(tmp_path / "out.json"), *more)
    return status, read_json(tmp_path / "out.json")


def test_the_json_has_the_documented_layout(tmp_path):
    status, out = score_json(GOLD, PREDICTIONS, tmp_path)
    assert status == 0
    assert (out["success"], out["profile"], out["errors"]) == (True, "official", [])
    official = read_json(VARIANT / "official_scores.json")
    assert out["scores"] == pytest.approx(official["score_map"], abs=1e-9)
    detail = out["detail"]["CMeEE-V2"]
    assert detail["n"] == 10
    low, high = detail["interval"]
    assert low <= out["scores"]["CMeEE-V2-Micro-F1"] <= high
    # Recall is 25/35: so many tuples does gold have.
    assert sum(row["support"] for row in detail["by_label"].values()) == 35
    assert set(detail["malformed"]) == {"share", "kinds"}


def test_json_to_stdout_is_nothing_but_json(capsys):
    assert score(GOLD, PREDICTIONS, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["success"]


def test_the_table_names_every_task_and_the_mean(capsys):
    assert score(GOLD, PREDICTIONS) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split()[0] for line in lines[1:-2]] == list(
        read_json(FOLDER / "gold_structured.json")
    )
    assert lines[-2].split() == ["mean", "of", "16", "63.59"]


def test_another_profile_says_that_it_does_not_compare(capsys):
    assert score(GOLD, PREDICTIONS, "--profile", "lenient") == 0
    assert "profile lenient: not comparable" in capsys.readouterr().out


def test_an_unknown_profile_is_a_mistake_of_the_user(capsys):
    assert score(GOLD, PREDICTIONS, "--profile", "strict") == 2
    assert "no profile named 'strict'" in capsys.readouterr().err


def test_every_fault_is_told_with_its_place_and_the_whole_is_refused(tmp_path, capsys):
    rows = read_lines(PREDICTIONS)
    dropped = rows.pop(0)
    rows[3]["prediction"] = None
    rows[5]["task_dataset"] = "CMeEE"
    del rows[7]["sample_id"]
    path = write_lines(tmp_path / "bad.jsonl", rows)
    with path.open("a") as file:
        file.write('{"sample_id": \n')
    status, out = score_json(GOLD, path, tmp_path)
    assert status == 2
    assert (out["success"], out["scores"], out["detail"]) == (False, {"score": 0.0}, {})
    told = {(error["line"], error["problem"].split(":")[0]) for error in out["errors"]}
    assert {
        (len(rows) + 1, "not JSON"),
        (4, "the text is not a string but NoneType"),
        (6, "no task named 'CMeEE'"),
        (8, "no field 'sample_id'"),
    } <= told
    unanswered = {"side": "predictions", "problem": "no prediction", "line": None}
    unanswered |= {"task": dropped["task_dataset"], "sample_id": dropped["sample_id"]}
    assert unanswered in out["errors"]
    assert f"{dropped['task_dataset']}, sample {dropped['sample_id']}" in capsys.readouterr().err


def test_samples_out_of_order_are_told_by_line(tmp_path):
    rows = read_lines(PREDICTIONS)
    first, second = [i for i, row in enumerate(rows) if row["task_dataset"] == "MedDG"][:2]
    rows[first], rows[second] = rows[second], rows[first]
    status, out = score_json(GOLD, write_lines(tmp_path / "bad.jsonl", rows), tmp_path)
    assert status == 2
    assert [error["line"] for error in out["errors"]] == [first + 1, second + 1]
    assert out["verdict"]["errorMsg"] == "sample ordering is wrong!"


def test_too_many_predictions_are_told_apart(tmp_path):
    rows = read_lines(PREDICTIONS)
    rows += [rows[0], {**rows[0], "sample_id": "unheard-of"}]
    status, out = score_json(GOLD, write_lines(tmp_path / "bad.jsonl", rows), tmp_path)
    assert status == 2
    assert [(error["line"], error["problem"]) for error in out["errors"]] == [
        (None, "12 predictions for 10 samples"),
        (1, "predicted more than once"),
        (len(rows) - 1, "predicted more than once"),
        (len(rows), "gold has no such sample"),
    ]


@pytest.mark.parametrize(
    ("name", "answer", "problem", "official"),
    [
        ("CMeEE-V2", [1], "the answer has to be a list of objects", ""),
        (
            "IMCS-V2-MRG",
            {"主诉": 1},
            "the answer has to be an object of texts, one a section",
            "'int' object has no attribute 'strip'",
        ),
        ("MedDG", [], "the answer has to be text", "sample format is wrong!"),
    ],
)
def test_a_structured_file_with_an_answer_of_another_shape_is_refused(
    name, answer, problem, official, tmp_path
):
    # The official words are those of the evaluator's assertions and of Python's own errors.
    sheet = read_json(FOLDER / "gold_structured.json")
    sheet[name][0]["answer"] = answer
    path = write_lines(tmp_path / "bad.json", [sheet])
    for profile in ("official", "lenient"):
        status, out = score_json(path, PREDICTIONS, tmp_path, "--profile", profile)
        assert (status, problem) in [(2, error["problem"]) for error in out["errors"]]
    status, out = score_json(FOLDER / "gold_structured.json", path, tmp_path)
    assert (status, [error["problem"] for error in out["errors"]]) == (2, [problem])
    assert out["verdict"]["errorMsg"] == official


def test_a_report_section_that_gold_lacks_is_not_looked_at(tmp_path):
    sheet = read_json(FOLDER / "gold_structured.json")
    sheet["IMCS-V2-MRG"][0]["answer"] |= {"其他": 1}
    path = write_lines(tmp_path / "more.json", [sheet])
    status, out = score_json(FOLDER / "gold_structured.json", path, tmp_path)
    assert (status, out["scores"]["IMCS-V2-MRG-RougeL"]) == (0, pytest.approx(1, abs=1e-8))


def test_place_and_shape_of_one_sample_are_both_told_and_the_place_officially(tmp_path):
    sheet = read_json(FOLDER / "gold_structured.json")
    sheet["MedDG"][0] = {"sample_id": "unheard-of", "answer": None}
    path = write_lines(tmp_path / "bad.json", [sheet])
    status, out = score_json(FOLDER / "gold_structured.json", path, tmp_path)
    assert (status, len(out["errors"])) == (2, 2)
    assert out["verdict"]["errorMsg"] == "sample ordering is wrong!"


def test_a_structured_file_whose_task_is_no_list_is_refused(tmp_path):
    sheet = {**read_json(FOLDER / "gold_structured.json"), "MedDG": {}, "Text2DT": []}
    status, out = score_json(GOLD, write_lines(tmp_path / "bad.json", [sheet]), tmp_path)
    assert status == 2
    assert out["errors"][0]["problem"] == "not a list of samples"
    assert out["notes"] == ["predictions: 'Text2DT' is none of the 16 tasks and is left out"]


def test_options_that_are_no_list_are_refused(tmp_path):
    rows = read_lines(GOLD)
    rows[0]["answer_choices"] = "疾病，药物"
    path = write_lines(tmp_path / "bad.jsonl", rows)
    assert score_json(path, PREDICTIONS, tmp_path)[1]["errors"][0]["line"] == 1


def test_a_result_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path, capsys):
    (tmp_path / "no").write_text("a file, where a folder would have to be", "utf-8")
    assert score(GOLD, PREDICTIONS, "--json", str(tmp_path / "no" / "folder.json")) == 2
    assert "cannot write" in capsys.readouterr().err


def test_ids_are_unique_within_a_task_only(tmp_path):
    gold, said = read_lines(GOLD), read_lines(PREDICTIONS)
    for rows in (gold, said):
        for row in rows:
            row["sample_id"] = row["sample_id"].rsplit("-", 1)[-1]
    assert len({row["sample_id"] for row in gold}) == 10
    paths = write_lines(tmp_path / "gold.jsonl", gold), write_lines(tmp_path / "said.jsonl", said)
    status, out = score_json(*paths, tmp_path)
    official = read_json(VARIANT / "official_scores.json")["score_map"]
    assert (status, out["scores"]) == (0, pytest.approx(official, abs=1e-9))


def echo_of_records_with_one_id(tmp_path):
    """Two records of one id that offer different options, and the same again as predictions."""
    record = next(row for row in read_lines(GOLD) if row["task_dataset"] == "CHIP-CDN")
    records = [
        {**record, "target": term, "answer_choices": [term, f"非{term}"]} for term in ("甲", "乙")
    ]
    said = [
        {**{key: r[key] for key in ("sample_id", "task_dataset")}, "prediction": r["target"]}
        for r in records
    ]
    gold = write_lines(tmp_path / "gold.jsonl", records)
    return gold, write_lines(tmp_path / "said.jsonl", said)


def test_of_samples_with_one_id_each_is_read_with_its_own_options(tmp_path):
    status, out = score_json(*echo_of_records_with_one_id(tmp_path), tmp_path, "--partial")
    assert (status, out["scores"]) == (0, {"CHIP-CDN-Micro-F1": 1})


def test_samples_with_one_id_cannot_be_joined_by_it(tmp_path):
    more = ("--partial", "--profile", "lenient")
    status, out = score_json(*echo_of_records_with_one_id(tmp_path), tmp_path, *more)
    assert (status, {error["problem"] for error in out["errors"]}) == (
        2,
        {"this id comes more than once"},
    )


def test_one_prediction_too_many_of_an_id_is_refused_for_that(tmp_path):
    gold, said = echo_of_records_with_one_id(tmp_path)
    rows = read_lines(said)
    status, out = score_json(gold, write_lines(said, [*rows, rows[0]]), tmp_path, "--partial")
    assert status == 2
    assert {error["problem"] for error in out["errors"]} == {
        "3 predictions for 2 samples",
        "predicted more than once",
    }


def test_scores_over_converted_records_are_marked(tmp_path, capsys):
    rows = read_lines(GOLD)
    rows[-1]["converted_from"] = "CBLUE"
    path = write_lines(tmp_path / "gold.jsonl", rows)
    status, out = score_json(path, PREDICTIONS, tmp_path)
    mark = "records converted from CBLUE"
    assert (status, out["marks"]) == (0, [mark])
    assert f"NOT COMPARABLE: {mark}" in capsys.readouterr().out
    assert score_json(path, PREDICTIONS, tmp_path, "--profile", "lenient")[1]["marks"] == [mark]
    assert score_json(GOLD, PREDICTIONS, tmp_path)[1]["marks"] == []


@pytest.mark.parametrize("name", ["CMeEE-V2", "CHIP-CDEE", "CMeIE", "IMCS-V2-MRG", "MedDG"])
def test_gold_that_is_empty_throughout_a_task_is_no_gold(name, tmp_path):
    gold = [{**r, "target": ""} for r in read_lines(GOLD) if r["task_dataset"] == name]
    status, out = score_json(
        write_lines(tmp_path / "test.jsonl", gold), PREDICTIONS, tmp_path, "--partial"
    )
    assert (status, out["errors"][0]["task"]) == (2, name)
    assert "unlabelled" in out["errors"][0]["problem"]


def test_a_record_without_an_id_is_called_xxxx_on_both_sides(tmp_path):
    rows = read_lines(GOLD)
    for row in rows:
        del row["sample_id"]
    path = write_lines(tmp_path / "nameless.jsonl", rows)
    assert score_json(path, path, tmp_path)[0] == 0


def test_gold_without_labels_is_refused(tmp_path):
    rows = [{**row, "target": ""} for row in read_lines(GOLD)]
    status, out = score_json(write_lines(tmp_path / "test.jsonl", rows), PREDICTIONS, tmp_path)
    assert status == 2
    assert {error["side"] for error in out["errors"]} == {"gold"}
    assert "unlabelled" in out["errors"][0]["problem"]


def test_gold_of_some_tasks_is_scored_only_when_asked_and_has_no_mean(tmp_path):
    some = ("MedDG", "CHIP-STS")
    gold = [row for row in read_lines(GOLD) if row["task_dataset"] in some]
    path = write_lines(tmp_path / "some.jsonl", gold)
    status, out = score_json(path, PREDICTIONS, tmp_path)
    assert (status, len(out["errors"])) == (2, 14)
    status, out = score_json(path, PREDICTIONS, tmp_path, "--partial")
    assert (status, list(out["scores"])) == (0, ["CHIP-STS-Micro-F1", "MedDG-RougeL"])


def test_records_of_the_later_edition_are_left_out_with_a_note(tmp_path):
    rows = read_lines(GOLD)
    rows += [{**rows[0], "task_dataset": "Text2DT"}, {**rows[0], "task_dataset": "CMedCausal"}]
    path = write_lines(tmp_path / "gold.jsonl", rows)
    status, out = score_json(path, PREDICTIONS, tmp_path)
    assert (status, len(out["notes"])) == (0, 2)


def test_thin_predictions_need_the_options_of_gold_records(tmp_path):
    status, out = score_json(FOLDER / "gold_structured.json", PREDICTIONS, tmp_path)
    assert status == 2
    assert out["errors"][0]["problem"] == "no field 'answer_choices'"


@pytest.mark.parametrize("content", [None, "", "\x00\x01", "[1, 2]", '{"a": [1]}', "3"])
def test_a_file_of_no_known_shape_is_refused_without_a_traceback(content, tmp_path, capsys):
    path = tmp_path / "odd.jsonl"
    if content is not None:
        path.write_text(content, "utf-8")
    assert score(GOLD, path) == 2
    assert score(path, PREDICTIONS) == 2
    assert "error: " in capsys.readouterr().err


def test_lone_surrogates_and_bidi_marks_pass_through(tmp_path):
    rows = read_lines(PREDICTIONS)
    for row in rows:
        row["prediction"] = "头\n\ud800：\u202e疾病\x00"
    status, out = score_json(GOLD, write_lines(tmp_path / "odd.jsonl", rows), tmp_path)
    assert status == 0
    assert out["scores"]["CMeIE-Micro-F1"] == 0


def test_it_starts_without_torch_and_transformers():
    code = (
        "import sys; from mingmoe_eval.cli import main;"
        f"status = main(['score', 'promptcblue', '--gold', {str(GOLD)!r}, '--predictions', "
        f"{str(PREDICTIONS)!r}]);"
        "assert not {'torch', 'transformers', 'sklearn', 'pandas'} & set(sys.modules);"
        "raise SystemExit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
