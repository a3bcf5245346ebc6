"""lm-eval's own output, read and written."""

import json
import math
import subprocess
import sys

import pytest

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.harness.files import read_output

ROWS = [
    {"question": "1+1?", "choices": ["1", "2"], "answer": 1},
    {"question": "2+2?", "choices": ["4", "2"], "answer": 0},
    {"question": "2+2?", "choices": ["4", "2"], "answer": 0},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
{more}
metadata: {{version: 1.0}}
"""
CHOICE = """doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"""
GENERATE = """doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["x"]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]"""


@pytest.fixture(scope="module")
def stock_output(tmp_path_factory):
    """What `lm_eval run --model dummy --log_samples` leaves on disk."""
    folder = tmp_path_factory.mktemp("stock")
    data = folder / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in ROWS))
    for name, kind, more in (
        ("toy_mc", "multiple_choice", CHOICE),
        ("toy_gen", "generate_until", GENERATE),
    ):
        text = TASK.format(name=name, data=data, kind=kind, more=more)
        (folder / f"{name}.yaml").write_text(text)
    command = [sys.executable, "-m", "lm_eval", "run", "--include_path", str(folder)]
    command += ["--model", "dummy", "--tasks", "toy_mc,toy_gen", "--log_samples"]
    command += ["--output_path", str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder / "out"


@pytest.mark.slow
def test_a_stock_run_is_imported_with_its_numbers_and_samples(stock_output):
    run = read_output(stock_output)
    assert set(run.results) == {"toy_mc", "toy_gen"}
    (results,) = stock_output.rglob("results_*.json")
    official = json.loads(results.read_text())["results"]["toy_mc"]["acc,none"]
    assert run.results["toy_mc"].main.value == official
    assert run.results["toy_mc"].main.n == 3
    assert [len(sample.log_likelihoods) for sample in run.samples["toy_mc"]] == [2, 2, 2]
    assert {sample.response for sample in run.samples["toy_gen"]} == {"lol"}


@pytest.mark.slow
def test_a_doc_that_occurs_twice_gets_two_ids(stock_output):
    ids = [sample.doc_id for sample in read_output(stock_output).samples["toy_mc"]]
    assert len(set(ids)) == 3
    assert ids[2] == ids[1] + "#2"


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(RunStoreError, match="no results"):
        read_output(tmp_path)


def test_results_without_samples_are_refused_with_the_option_to_use(tmp_path):
    (tmp_path / "results_1.json").write_text('{"results": {"a": {"acc,none": 1.0}}}')
    with pytest.raises(RunStoreError, match="--log_samples"):
        read_output(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": 3}'])
def test_a_file_that_is_no_results_file_is_named(tmp_path, text):
    (tmp_path / "results_1.json").write_text(text)
    with pytest.raises(RunStoreError, match="results_1"):
        read_output(tmp_path)


def logged(doc_id, acc, **changes):
    """One line of a samples file as lm-eval 0.4.13 writes it."""
    doc = {"q": f"question {doc_id}"}
    request = {"gen_args_0": {"arg_0": "prompt", "arg_1": " a"}}
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": "0",
        "arguments": request,
        "resps": [[["-1.5", "False"]]],
        "filtered_resps": [["-1.5", "False"]],
        "filter": "none",
        "metrics": ["acc"],
        "acc": acc,
        **changes,
    }


def write_stock(folder, lines, **changes):
    """An output directory of one task, `a`; `changes` are fields of its results file."""
    results = {
        "results": {"a": {"alias": "a", "acc,none": 0.5}},
        "n-samples": {"a": {"original": len(lines), "effective": len(lines)}},
        "config": {"model": "hf", "limit": None},
        "versions": {"a": 1.0},
        "n-shot": {"a": 0},
        **changes,
    }
    (folder / "results_1.json").write_text(json.dumps(results), "utf-8")
    (folder / "samples_a_1.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return folder


PAIR = (logged(0, 1.0), logged(1, 0.0))


def test_a_plain_task_that_is_listed_as_a_group_without_members_is_a_task(tmp_path):
    run = read_output(write_stock(tmp_path, PAIR, group_subtasks={"a": []}))
    assert run.results["a"].main.value == 0.5


def test_samples_of_older_releases_name_neither_filter_nor_metrics(tmp_path):
    lines = [{k: v for k, v in x.items() if k not in ("filter", "metrics")} for x in PAIR]
    assert [s.score for s in read_output(write_stock(tmp_path, lines)).samples["a"]] == [1.0, 0.0]


@pytest.mark.parametrize("lines", [PAIR[:1], [], [*PAIR, logged(2, 1.0)]])
def test_samples_that_are_not_as_many_as_were_run_are_refused(tmp_path, lines):
    counted = {"a": {"original": 2, "effective": 2}}
    folder = write_stock(tmp_path, lines, **{"n-samples": counted})
    with pytest.raises(RunStoreError, match=rf"has {len(lines)} docs, of 2 that were run"):
        read_output(folder)


def test_a_limit_that_is_a_share_marks_the_run_with_what_it_left(tmp_path):
    run = read_output(write_stock(tmp_path, PAIR, config={"limit": 0.25}))
    assert run.spec.marks == ("first 2 docs",)


@pytest.mark.parametrize("value", [math.nan, "n/a", None])
def test_a_doc_without_a_finite_metric_fails_instead_of_taking_another_metric(tmp_path, value):
    both = ["acc", "acc_norm"]
    lines = [
        logged(0, 1.0, metrics=both, acc_norm=1.0),
        logged(1, value, metrics=both, acc_norm=1.0),
    ]
    run = read_output(write_stock(tmp_path, lines))
    assert [(s.score, s.status) for s in run.samples["a"]] == [(1.0, "scored"), (None, "failed")]
    assert run.incomplete == ("a",)


def test_a_metric_of_which_less_is_better_is_never_the_score(tmp_path):
    lines = [logged(n, 1.0 - n, metrics=["wer", "acc"], wer=0.25) for n in range(2)]
    results = {"a": {"wer,none": 0.25, "acc,none": 0.5}}
    up = {"a": {"wer": False, "acc": True}}
    run = read_output(write_stock(tmp_path, lines, results=results, higher_is_better=up))
    assert [sample.score for sample in run.samples["a"]] == [1.0, 0.0]
    assert run.results["a"].main.value == 0.5


@pytest.mark.parametrize(
    "line",
    [
        3,
        {},
        logged(0, 1.0, doc="text"),
        logged("first", 1.0),
        logged(0, 1.0, resps=[[]]),
        logged(0, 1.0, resps=[[["many words", "False"]]]),
        logged(0, 1.0, arguments={}),
        logged(0, 1.0, filtered_resps=[]),
        logged(0, 1.0, metrics=None),
    ],
)
def test_a_damaged_sample_is_refused_with_its_file(tmp_path, line):
    with pytest.raises(RunStoreError, match=r"samples_a_1\.jsonl"):
        read_output(write_stock(tmp_path, [line]))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": None},
        {"results": {"a": "text"}},
        {"results": {"../../a": {"acc,none": 1.0}}},
        {"n-shot": {"a": "many"}},
        {"n-samples": {"a": 2}},
        {"total_evaluation_time_seconds": "long"},
    ],
)
def test_damaged_results_are_refused_with_their_file(tmp_path, changes):
    with pytest.raises(RunStoreError, match=r"results_1\.json"):
        read_output(write_stock(tmp_path, PAIR, **changes))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    folder = write_stock(tmp_path, PAIR)
    (folder / "samples_a_1.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(RunStoreError, match="not UTF-8"):
        read_output(folder)
