"""Logs of inspect_ai, EvalScope and OpenCompass, laid out as those programs lay them out.

The fields and their nesting are those of real logs, made with inspect_ai 0.3.285 (mock model), with
EvalScope 1.14.1 (mock model) and after the writers of OpenCompass 0.5.4.
"""

import json
import random
import struct
import zipfile

import pyarrow
import pytest

from mingmoe_eval.cli import main
from mingmoe_eval.comparison import compare
from mingmoe_eval.errors import MingMoeError, RunStoreError, UsageError
from mingmoe_eval.foreign_logs import read_logs
from mingmoe_eval.run_store import load_run, save_run

LETTERS = "ABCD"


def inspect_sample(number, said, *, epoch=1, **changes):
    target = LETTERS[number % 4]
    right = said == target
    return {
        "id": f"q{number}",
        "epoch": epoch,
        "input": f"Which is {number}?",
        "choices": ["zero", "one", "two", "three"],
        "target": target,
        "messages": [
            {"role": "user", "content": "attachment://long"},
            {"role": "assistant", "content": f"ANSWER: {said}"},
        ],
        "attachments": {"long": f"Answer with a letter. Which is {number}?"},
        "output": {
            "model": "mockllm/model",
            "completion": f"ANSWER: {said}",
            "choices": [{"message": {"content": f"ANSWER: {said}"}, "stop_reason": "stop"}],
            "usage": {"input_tokens": 42, "output_tokens": 9},
        },
        "scores": {"choice": {"value": "C" if right else "I", "answer": said, "history": []}},
        "metadata": {},
        **changes,
    }


def inspect_log(samples, *, accuracy, model="mockllm/model", task="exam", **changes):
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "task": task,
            "task_version": 0,
            "created": "2026-01-01T00:00:00+00:00",
            "model": model,
            "dataset": {"name": "exam", "sample_ids": ["q0", "q1", "q2", "q10"]},
            "config": {"epochs": 1, "limit": None},
            "packages": {"inspect_ai": "0.3.285"},
        },
        "results": {
            "total_samples": len(samples),
            "scores": [
                {"name": "choice", "metrics": {"accuracy": {"name": "accuracy", "value": accuracy}}}
            ],
        },
        "samples": samples,
        **changes,
    }


def write_zstd_zip(path, members):
    """A zip whose members are compressed by method 93, which zipfile cannot write."""
    packed = {name: pyarrow.compress(text, codec="zstd").to_pybytes() for name, text in members}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in packed.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
        at = archive.start_dir
    for offset, (_, text) in zip(offsets, members, strict=True):
        struct.pack_into("<H", data, offset + 8, 93)
        struct.pack_into("<I", data, offset + 22, len(text))
        struct.pack_into("<H", data, at + 10, 93)
        struct.pack_into("<I", data, at + 24, len(text))
        at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))
    path.write_bytes(bytes(data))


def write_eval(path, log, *, zstd=True):
    header = {key: value for key, value in log.items() if key != "samples"}
    members = [("header.json", json.dumps(header).encode())]
    members += [
        (f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s).encode())
        for s in sorted(log["samples"], key=lambda s: s["id"])
    ]
    if zstd:
        write_zstd_zip(path, members)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)


FOUR = [inspect_sample(n, said) for n, said in ((0, "A"), (1, "B"), (2, "X"), (10, "C"))]


@pytest.mark.parametrize("form", ["json", "eval", "eval with zstd"])
def test_a_log_of_inspect_ai_is_a_run_whatever_its_form(tmp_path, form):
    log = inspect_log(FOUR, accuracy=0.75)
    path = tmp_path / f"log.{form.split()[0]}"
    if form == "json":
        path.write_text(json.dumps(log))
    else:
        write_eval(path, log, zstd="zstd" in form)
    (one,) = read_logs(path)
    run = one.run
    assert run.spec.model == "mockllm/model"
    assert (run.results["exam"].main.value, run.results["exam"].main.n) == (0.75, 4)
    samples = run.samples["exam"]
    assert [s.doc["id"] for s in samples] == ["q0", "q1", "q2", "q10"]
    assert [s.score for s in samples] == [1.0, 1.0, 0.0, 1.0]
    assert [s.answered for s in samples] == ["A", "B", "X", "C"]
    assert samples[0].prompt == "Answer with a letter. Which is 0?"
    assert (samples[0].prompt_tokens, samples[0].generated_tokens) == (42, 9)
    assert load_run(save_run(run, tmp_path / "saved")).results == run.results


def test_an_eval_file_of_which_bytes_are_wrong_is_read_or_refused(tmp_path):
    dice, path = random.Random(3), tmp_path / "log.eval"
    write_eval(path, inspect_log(FOUR, accuracy=0.75))
    whole = path.read_bytes()
    refused = 0
    for _ in range(60):
        wrong = bytearray(whole)
        for _ in range(dice.choice((1, 3, 20))):
            wrong[dice.randrange(len(wrong))] = dice.randrange(256)
        path.write_bytes(wrong[: dice.choice((len(wrong), dice.randrange(len(wrong))))])
        try:
            read_logs(path)
        except MingMoeError:
            refused += 1
    assert refused > 30


def test_epochs_are_repeats_of_one_doc(tmp_path):
    said = {0: "ABA", 1: "BBB"}
    samples = [
        inspect_sample(n, letter, epoch=epoch)
        for n, letters in said.items()
        for epoch, letter in enumerate(letters, start=1)
    ]
    log = inspect_log(samples, accuracy=5 / 6)
    (tmp_path / "log.json").write_text(json.dumps(log))
    (one,) = read_logs(tmp_path)
    read = one.run.samples["exam"]
    assert [(s.position, s.repeat, s.answered, s.score) for s in read] == [
        *((0, 0, "A", 1.0), (0, 1, "B", 0.0), (0, 2, "A", 1.0)),
        *((1, 0, "B", 1.0), (1, 1, "B", 1.0), (1, 2, "B", 1.0)),
    ]
    assert len({s.doc_id for s in read}) == 2
    result = one.run.results["exam"]
    assert (result.repeats, result.main.n, one.run.spec.repeats) == (3, 2, 3)
    assert result.main.value == pytest.approx(5 / 6)
    assert result.metrics["pass@2"].value == 1.0  # of three draws for the first, two are right
    assert result.metrics["majority@3"].value == 1.0
    assert result.metrics["agreement"].value == pytest.approx((1 / 3 + 1) / 2)
    by_repeat = {n: v.value for n, v in result.breakdowns["repeat"].items()}
    assert by_repeat == {"1": 1.0, "2": 0.5, "3": 1.0}
    assert one.left_out == ()
    assert load_run(save_run(one.run, tmp_path / "saved")).results == one.run.results


def test_a_question_of_which_an_epoch_is_missing_weighs_as_any_other(tmp_path):
    """inspect_ai takes the mean of each sample over its epochs, then that of the samples."""
    samples = [inspect_sample(0, s, epoch=n) for n, s in ((1, "B"), (2, "B"))]
    samples.append(inspect_sample(1, "B"))
    (tmp_path / "log.json").write_text(json.dumps(inspect_log(samples, accuracy=0.5)))
    (one,) = read_logs(tmp_path)
    assert [(s.position, s.repeat) for s in one.run.samples["exam"]] == [(0, 0), (0, 1), (1, 0)]
    result = one.run.results["exam"]
    assert (result.main.value, result.main.n) == (0.5, 2)
    assert result.metrics["pass@2"].n == 1


def test_a_sample_without_a_score_fails_and_counts(tmp_path):
    broken = inspect_sample(1, "B", scores={}, error={"message": "time-out"})
    log = inspect_log([FOUR[0], broken], accuracy=1.0)
    (tmp_path / "log.json").write_text(json.dumps(log))
    (one,) = read_logs(tmp_path)
    assert one.run.results["exam"].counts.failed == 1
    assert one.run.samples["exam"][1].failure == "time-out"
    assert one.run.incomplete == ("exam",)


def test_each_model_of_a_folder_has_its_run_and_one_can_be_chosen(tmp_path):
    for model in ("a/one", "b/two"):
        log = inspect_log(FOUR, accuracy=0.75, model=model)
        (tmp_path / f"{model[-3:]}.json").write_text(json.dumps(log))
    assert [one.name for one in read_logs(tmp_path)] == ["a-one", "b-two"]
    assert [one.name for one in read_logs(tmp_path, model_folder="b/two")] == ["b-two"]
    with pytest.raises(UsageError, match="holds results of a-one, b-two"):
        read_logs(tmp_path, model_folder="c")
    one, two = (imported.run for imported in read_logs(tmp_path))
    assert compare(one, two).tasks["exam"].identical


def test_a_log_that_its_samples_contradict_is_refused(tmp_path):
    (tmp_path / "log.json").write_text(json.dumps(inspect_log(FOUR, accuracy=0.9)))
    with pytest.raises(RunStoreError, match=r"choice is stated as 0\.9, and its 4 docs give 0\.75"):
        read_logs(tmp_path)


def evalscope_folder(place, *, score=0.5, model="mock"):
    lines, predictions = [], []
    for index, (target, said) in enumerate((("A", "A"), ("B", "D"))):
        messages = [{"role": "user", "content": f"Which is {index}?\nA) zero\nB) one"}]
        inner = {
            "value": {"accuracy": float(target == said)},
            "status": "success",
            "extracted_prediction": said,
            "prediction": f"ANSWER: {said}",
            "main_score_name": "accuracy",
        }
        lines.append(
            {
                "index": index,
                "target": [target],
                "messages": messages,
                "sample_score": {
                    "score": inner,
                    "sample_id": index,
                    "sample_metadata": {"id": "1"},
                },
            }
        )
        output = {"choices": [{"stop_reason": "max_tokens"}], "usage": None, "error": None}
        predictions.append({"index": index, "model": model, "model_output": output})
    for part, rows in (("reviews", lines), ("predictions", predictions)):
        (place / part / model).mkdir(parents=True)
        text = "\n".join(map(json.dumps, rows))
        (place / part / model / "general_mcq_default.jsonl").write_text(text)
    subset = {"name": "default", "score": score, "num": 2}
    metric = {
        "identity": {"name": "accuracy", "aggregation": "mean"},
        "categories": [{"subsets": [subset]}],
    }
    (place / "reports" / model).mkdir(parents=True)
    report = {"dataset_name": "general_mcq", "metrics": [metric]}
    (place / "reports" / model / "general_mcq.json").write_text(json.dumps(report))
    return place


def test_a_work_directory_of_evalscope_is_a_run(tmp_path):
    (one,) = read_logs(evalscope_folder(tmp_path))
    result = one.run.results["general_mcq"]
    assert (result.main.value, result.main.n, result.counts.truncated) == (0.5, 2, 2)
    first, second = one.run.samples["general_mcq"]
    assert (first.expected, first.answered, first.response) == ("A", "A", "ANSWER: A")
    assert (second.score, second.prompt) == (0.0, "Which is 1?\nA) zero\nB) one")


def test_samples_of_one_group_of_evalscope_are_repeats_of_one_doc(tmp_path):
    folder = evalscope_folder(tmp_path)
    for part in ("reviews", "predictions"):
        file = folder / part / "mock" / "general_mcq_default.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        twice = [dict(line) for line in lines for _ in range(2)]
        for index, line in enumerate(twice):
            line["index"] = index
            if part == "reviews":
                facts = {"sample_id": index, "group_id": index // 2}
                line["sample_score"] = {**line["sample_score"], **facts}
        twice[3:] = [] if part == "predictions" else twice[3:]
        file.write_text("\n".join(map(json.dumps, twice)))
    (one,) = read_logs(folder)
    read = one.run.samples["general_mcq"]
    assert [(s.position, s.repeat, s.score) for s in read] == [
        *((0, 0, 1.0), (0, 1, 1.0), (1, 0, 0.0), (1, 1, 0.0)),
    ]
    assert len({s.doc_id for s in read}) == 2
    assert (one.run.results["general_mcq"].main.n, one.run.spec.repeats) == (2, 2)


def test_a_report_of_evalscope_that_its_reviews_contradict_is_refused(tmp_path):
    with pytest.raises(RunStoreError, match="accuracy is stated as 1"):
        read_logs(evalscope_folder(tmp_path, score=1.0))


def opencompass_folder(place, *, accuracy=50.0, details=True):
    home = place / "20260101_000000"
    for part in ("predictions", "results"):
        (home / part / "internlm").mkdir(parents=True)
    golds, said = "AB", "AC"
    rows = [
        {
            "origin_prompt": [{"role": "HUMAN", "prompt": f"Which is {n}?"}],
            "prediction": f"It is {s}",
            "gold": g,
        }
        for n, (g, s) in enumerate(zip(golds, said, strict=True))
    ]
    for part, row in enumerate(rows):  # of two workers
        file = home / "predictions" / "internlm" / f"ward_exam_{part}.json"
        file.write_text(json.dumps({"0": row}))
    results = {"accuracy": accuracy}
    if details:
        results["details"] = {"type": "GEN"} | {
            str(n): {
                "prompt": row["origin_prompt"],
                "origin_prediction": row["prediction"],
                "predictions": said[n],
                "references": golds[n],
                "correct": golds[n] == said[n],
            }
            for n, row in enumerate(rows)
        }
    (home / "results" / "internlm" / "ward_exam.json").write_text(json.dumps(results))
    return place


def test_a_work_directory_of_opencompass_is_a_run(tmp_path):
    (one,) = read_logs(opencompass_folder(tmp_path))
    assert (one.run.results["ward_exam"].main.value, one.left_out) == (0.5, ())
    first, second = one.run.samples["ward_exam"]
    assert (first.prompt, first.response, first.answered) == ("Which is 0?", "It is A", "A")
    assert (second.expected, second.score) == ("B", 0.0)


def test_several_verdicts_of_opencompass_are_repeats_of_one_doc(tmp_path):
    folder = opencompass_folder(tmp_path)
    results = next(folder.glob("*/results/internlm/ward_exam.json"))
    data = json.loads(results.read_text())
    data["details"]["1"] |= {"correct": [True, False, False, True], "predictions": list("BCCB")}
    data["details"]["0"] |= {"correct": [True] * 4, "predictions": list("AAAA")}
    results.write_text(json.dumps(data | {"accuracy": 75.0}))
    (one,) = read_logs(folder)
    second = [s for s in one.run.samples["ward_exam"] if s.position == 1]
    assert [(s.repeat, s.answered, s.score) for s in second] == [
        *((0, "B", 1.0), (1, "C", 0.0), (2, "C", 0.0), (3, "B", 1.0)),
    ]
    metrics = one.run.results["ward_exam"].metrics
    assert (metrics["score"].value, metrics["score"].n) == (0.75, 2)
    assert metrics["pass@2"].value == pytest.approx((1 + 5 / 6) / 2)
    assert metrics["tied_votes"].value == 0.5


def test_opencompass_numbers_without_details_are_cited_beside_runs(tmp_path, capsys):
    folder = opencompass_folder(tmp_path / "work", details=False)
    assert main(["import", str(folder), "--output", str(tmp_path), "--name", "oc"]) == 0
    out, err = capsys.readouterr()
    assert "ward_exam: accuracy 50.00 %, without its docs" in out
    assert "can only be cited" in err
    cited = json.loads((tmp_path / "oc" / "cited.json").read_text())
    assert cited["tables"][0]["rows"] == [
        {"model": "internlm", "n_shot": None, "values": {"ward_exam": 50.0}}
    ]


@pytest.mark.parametrize("accuracy", [1750.0, -1.0, 90.0])
def test_numbers_of_opencompass_that_cannot_be_are_refused(tmp_path, accuracy):
    with pytest.raises(RunStoreError, match=r"accuracy|correct"):
        read_logs(opencompass_folder(tmp_path, accuracy=accuracy))


def test_what_is_no_log_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(RunStoreError, match="holds no results"):
        read_logs(tmp_path)
    with pytest.raises(RunStoreError, match="no such file"):
        read_logs(tmp_path / "nowhere")
    (tmp_path / "x.eval").write_bytes(b"PK")
    with pytest.raises(RunStoreError, match=r"x\.eval is no log of inspect_ai"):
        read_logs(tmp_path / "x.eval")


def test_filters_are_lm_evals_alone(tmp_path):
    with pytest.raises(UsageError, match="is a log of EvalScope"):
        read_logs(evalscope_folder(tmp_path), filter_name="strict")


VALUES = [None, True, -1, 3.5, 1e308, float("nan"), "", "x", [], [[]], {}, {"value": 1}, 10**40]


def places(value, path=()):
    """Every place in a parsed JSON value."""
    yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in inner:
        yield from places(part, (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = changed(copied[path[0]], path[1:], new)
    return copied


def files_of(kind, folder):
    if kind == "inspect":
        (folder / "log.json").write_text(json.dumps(inspect_log(FOUR[:2], accuracy=1.0)))
    else:
        {"evalscope": evalscope_folder, "opencompass": opencompass_folder}[kind](folder)
    return sorted(path for path in folder.rglob("*.json*"))


@pytest.mark.parametrize("kind", ["inspect", "evalscope", "opencompass"])
def test_any_value_at_any_place_is_read_or_refused_with_one_message(tmp_path, kind):
    dice = random.Random(7)
    (tmp_path / kind).mkdir()
    for file in files_of(kind, tmp_path / kind):
        text = file.read_text()
        value = (
            [json.loads(line) for line in text.splitlines()]
            if file.suffix == ".jsonl"
            else json.loads(text)
        )
        for path in places(value):
            if file.suffix == ".jsonl" and not path:
                continue
            wrong = changed(value, path, dice.choice(VALUES))
            lines = wrong if file.suffix == ".jsonl" else [wrong]
            file.write_text("\n".join(map(json.dumps, lines)))
            try:
                for number, one in enumerate(read_logs(tmp_path / kind)):
                    if one.run is not None:
                        saved = tmp_path / "saved" / f"{kind}-{number}-{dice.random()}"
                        load_run(save_run(one.run, saved))
            except MingMoeError as error:
                assert str(error)  # noqa: PT017  any number of them may come
        file.write_text(text)


@pytest.mark.parametrize(
    ("value", "score"),
    [
        *(("C", 1.0), ("P", 0.5), ("I", 0.0), ("N", 0.0), ("yes", 1.0), ("No", 0.0)),
        *(("TRUE", 1.0), ("false", 0.0), ("0.25", 0.25), (True, 1.0), (3, 3.0)),
        *(("nan", None), ("c", None), ("great", None), ({"a": 1}, None), ([1], None)),
    ],
)
def test_a_score_of_inspect_ai_is_what_its_value_to_float_makes_of_it(tmp_path, value, score):
    """inspect_ai, scorer/_metric.py; what that makes 0 with a warning has no score here."""
    one = inspect_sample(0, "A", scores={"choice": {"value": value, "answer": "A"}})
    log = inspect_log([one], accuracy=score if score is not None else 0.0)
    (tmp_path / "log.json").write_text(json.dumps(log))
    (read,) = read_logs(tmp_path)
    assert read.run.samples["exam"][0].score == score


def test_a_run_of_inspect_ai_that_was_not_finished_or_took_some_samples_is_marked(tmp_path):
    whole = inspect_log(FOUR, accuracy=0.75)
    (tmp_path / "log.json").write_text(json.dumps({**whole, "status": "cancelled"}))
    assert read_logs(tmp_path)[0].run.marks == ()
    short = inspect_log(FOUR[:2], accuracy=1.0, status="cancelled")
    (tmp_path / "log.json").write_text(json.dumps(short))
    (one,) = read_logs(tmp_path)
    assert one.run.marks == ("exam: 2 of 4 samples, for the run was not finished",)
    short["eval"]["dataset"] = {"name": "exam", "samples": 100}
    (tmp_path / "log.json").write_text(json.dumps(short))
    assert read_logs(tmp_path)[0].run.marks == (
        "exam: 2 of 100 samples, for the run was not finished",
    )
    short["eval"]["config"]["sample_id"] = ["q0", "q1"]
    (tmp_path / "log.json").write_text(json.dumps(short))
    assert read_logs(tmp_path)[0].run.marks == ("exam: samples chosen by their ids",)


def test_a_limit_of_one_log_of_inspect_ai_is_a_mark_of_its_task_alone(tmp_path):
    for number, (task, limit) in enumerate((("exam", None), ("other", 4))):
        log = inspect_log(FOUR, accuracy=0.75, task=task)
        log["eval"]["config"]["limit"] = limit
        log["eval"]["created"] = f"2026-01-0{2 - number}"
        (tmp_path / f"{task}.json").write_text(json.dumps(log))
    (one,) = read_logs(tmp_path)
    assert (one.run.spec.limit, one.run.marks) == (None, ("other: first 4 docs",))
    assert one.run.marks_of("exam") == ()


def test_a_log_that_makes_no_run_that_could_be_read_again_leaves_nothing(tmp_path, capsys):
    sample = inspect_sample(0, "A")
    sample["output"]["usage"]["output_tokens"] = 2**64
    (tmp_path / "log.json").write_text(json.dumps(inspect_log([sample], accuracy=1.0)))
    assert main(["import", str(tmp_path / "log.json"), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "what was logged makes no run" in said
    assert "Sample.generated_tokens" in said
    assert not (tmp_path / "out").exists()
