"""lm-eval's own output, read and written."""

import json
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
