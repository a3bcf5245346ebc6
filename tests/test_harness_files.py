"""lm-eval's own output, read and written."""

import json
import math
import subprocess
import sys

import pytest
from doubles import ScriptedLM

from mingmoe_eval.cli import main
from mingmoe_eval.comparison import compare
from mingmoe_eval.errors import RunStoreError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.harness.reading import read_output, read_outputs
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run, save_run

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


@pytest.mark.parametrize(("said", "seed"), [(0, 0), (7, 7), (None, 1234)])
def test_the_seed_of_the_shots_is_the_one_that_was_used(tmp_path, said, seed):
    run = read_output(write_stock(tmp_path, PAIR, config={"fewshot_seed": said}))
    assert run.spec.seed == seed


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


STRICT = {"filter": "strict", "metrics": ["exact_match"]}
LENIENT = {"filter": "flexible", "metrics": ["exact_match"]}


def two_filters(folder, *, named, **changes):
    """Two docs under two filters: `strict` finds one right answer, `flexible` two."""
    rows = [
        (n, f, s)
        for f, scores in ((STRICT, (1.0, 0.0)), (LENIENT, (1.0, 1.0)))
        for n, s in enumerate(scores)
    ]
    lines = [
        logged(n, None, **f, exact_match=s, resps=[["x"]], filtered_resps=["x"]) for n, f, s in rows
    ]
    for line in lines:
        del line["acc"]
        if not named:
            del line["filter"], line["metrics"]
    numbers = {"exact_match,strict": 0.5, "exact_match,flexible": 1.0}
    counted = {"a": {"original": 2, "effective": 2}}
    return write_stock(folder, lines, results={"a": numbers}, **{"n-samples": counted}, **changes)


@pytest.mark.parametrize("named", [True, False], ids=["0.4.5 on", "up to 0.4.4"])
@pytest.mark.parametrize(
    ("filter_name", "value"), [(None, 0.5), ("strict", 0.5), ("flexible", 1.0)]
)
def test_the_filter_that_counts_can_be_chosen(tmp_path, named, filter_name, value):
    (one,) = read_outputs(two_filters(tmp_path, named=named), filter_name=filter_name)
    assert (one.run.results["a"].main.value, one.run.results["a"].main.n) == (value, 2)
    other = "strict" if filter_name == "flexible" else "flexible"
    assert len(one.left_out) == 1
    assert one.left_out[0].startswith(f"a: filter {other} (exact_match ")


def test_a_filter_that_there_is_not_is_answered_with_those_that_there_are(tmp_path):
    with pytest.raises(UsageError, match="'loose': a has strict, flexible"):
        read_outputs(two_filters(tmp_path, named=True), filter_name="loose")


def test_several_results_of_one_model_are_one_run_and_the_newest_of_a_task_counts(tmp_path):
    write_stock(tmp_path, PAIR)
    newer = {"results": {"b": {"acc,none": 0.5}}, "config": {"model": "hf", "limit": None}}
    (tmp_path / "results_2.json").write_text(json.dumps(newer))
    (tmp_path / "samples_b_2.jsonl").write_text("\n".join(map(json.dumps, PAIR)))
    again = {**newer, "results": {"a": {"acc,none": 1.0}}}
    (tmp_path / "results_3.json").write_text(json.dumps(again))
    line = json.dumps(logged(0, 1.0))
    (tmp_path / "samples_a_3.jsonl").write_text(line)
    (one,) = read_outputs(tmp_path)
    assert {name: result.main.value for name, result in one.run.results.items()} == {
        "a": 1.0,
        "b": 0.5,
    }
    assert one.left_out == ("a: results_1.json has it too, from before",)


def test_results_of_other_settings_are_left_out_with_a_word(tmp_path):
    write_stock(tmp_path, PAIR)
    newer = {"results": {"b": {"acc,none": 0.5}}, "config": {"model": "hf", "limit": 2}}
    (tmp_path / "results_2.json").write_text(json.dumps(newer))
    (tmp_path / "samples_b_2.jsonl").write_text("\n".join(map(json.dumps, PAIR)))
    (one,) = read_outputs(tmp_path)
    assert list(one.run.results) == ["b"]
    assert one.left_out == ("results_1.json: other limit than results_2.json; import it by itself",)


def test_each_model_folder_is_a_run_of_its_own(tmp_path, capsys):
    for name in ("org__one", "org__two"):
        (tmp_path / "out" / name).mkdir(parents=True)
        write_stock(tmp_path / "out" / name, PAIR)
    with pytest.raises(RunStoreError, match="several models: org__one, org__two"):
        read_output(tmp_path / "out")
    one = read_outputs(tmp_path / "out", model_folder="org__two")
    assert [imported.name for imported in one] == ["org__two"]
    with pytest.raises(UsageError, match="holds results in org__one, org__two"):
        read_outputs(tmp_path / "out", model_folder="three")
    assert main(["import", str(tmp_path / "out"), "--output", str(tmp_path / "r")]) == 0
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["org__one", "org__two"]
    capsys.readouterr()


def test_a_group_keeps_the_number_that_lm_eval_gave_it(tmp_path):
    results = {"g": {"acc,none": 0.75}, "a": {"acc,none": 0.5}}
    folder = write_stock(tmp_path, PAIR, results=results, group_subtasks={"g": ["a"]})
    run = read_output(folder)
    assert run.results["g"].members == ("a",)
    assert (run.results["g"].main.value, run.results["g"].main.n) == (0.75, 2)


def test_a_group_without_its_members_is_left_out_with_a_word(tmp_path):
    results = {"g": {"acc,none": 0.75}, "a": {"acc,none": 0.5}, "b": {"acc,none": 0.5}}
    folder = write_stock(tmp_path, PAIR, results=results, group_subtasks={"g": ["a", "b"]})
    (one,) = read_outputs(folder)
    assert list(one.run.results) == ["a"]
    assert one.left_out == (
        "b: no samples, so its numbers can only be cited; lm-eval: --log_samples",
        "g: a group of which some members are not here",
    )
    assert [(n.task, n.metric, n.value) for n in one.cited] == [("b", "acc", 0.5)]


def test_numbers_without_samples_can_be_cited_in_a_table(tmp_path, capsys):
    stock = {"results": {"cmexam": {"acc,none": 0.425}}, "n-shot": {"cmexam": 5}, "model_name": "m"}
    (tmp_path / "results_1.json").write_text(json.dumps(stock))
    arguments = ["import", str(tmp_path), "--output", str(tmp_path / "r"), "--name", "x"]
    assert main(arguments) == 0
    assert "cmexam: acc 42.50 %, without its docs" in capsys.readouterr().out
    cited = tmp_path / "r" / "x" / "cited.json"
    evaluate(
        RunSpec(model="scripted", tasks=("cmexam",), sample=True),
        open_model=lambda spec, folder, watch: ScriptedLM(reply=lambda prompt: "A"),
        folder=tmp_path / "own",
    )
    options = ["--published", str(cited), "--allow-marked", "--format", "markdown"]
    assert main(["table", str(tmp_path / "own"), *options]) == 0
    assert "42.5" in capsys.readouterr().out
    cited.write_text('{"source": 3}')
    assert main(["table", str(tmp_path / "own"), *options]) == 2
    assert "holds no numbers to cite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (17.5, "acc is 17.5, and can only be from 0 to 1"),
        (-0.1, "acc is -0.1, and can only be from 0 to 1"),
        (0.9, "acc is 0.9, and its 2 docs give 0.5"),
    ],
)
def test_a_number_that_cannot_be_or_that_its_docs_do_not_give_is_refused(tmp_path, number, message):
    folder = write_stock(tmp_path, PAIR, results={"a": {"acc,none": number}})
    with pytest.raises(RunStoreError, match=message):
        read_output(folder)


@pytest.mark.parametrize("doc_id", [False, True, -1, 1.0])
def test_a_position_is_a_whole_number(tmp_path, doc_id):
    with pytest.raises(RunStoreError, match="`doc_id` its position"):
        read_output(write_stock(tmp_path, [logged(doc_id, 1.0)]))


def test_the_layout_of_0_4_2_is_read(tmp_path):
    """One array a task, under the model's arguments; requests are plain lists."""
    results = {"results": {"a": {"acc,none": 0.5}}, "config": {"model_args": "pretrained=org/m"}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    lines = []
    for line in PAIR:
        old = {k: v for k, v in line.items() if k not in ("filter", "metrics")}
        lines.append({**old, "arguments": [["prompt", " a"]]})
    (tmp_path / "pretrained__org__m_a.jsonl").write_text(json.dumps(lines, indent=2))
    assert read_output(tmp_path).results["a"].main.value == 0.5


@pytest.mark.parametrize("task", ["usmle", "usmle_ll", "promptcblue_kuake_qic"])
def test_our_own_folder_for_lm_eval_comes_back_as_the_run_that_it_was(tmp_path, task):
    run = evaluate(
        RunSpec(model="scripted", tasks=(task,), sample=True, limit=5),
        open_model=lambda spec, folder, watch: ScriptedLM(reply=lambda prompt: "A"),
        folder=tmp_path / "r",
    )
    again = read_output(tmp_path / "r" / "lm_eval")
    assert again.marks == run.marks
    assert again.spec == run.spec
    assert again.results[task].metrics == run.results[task].metrics
    assert again.results[task].chance == run.results[task].chance
    assert [s.expected for s in again.samples[task]] == [s.expected for s in run.samples[task]]
    assert compare(run, again).tasks[task].identical


def test_a_number_of_which_lm_eval_keeps_no_count_a_doc_is_saved_and_read_again(tmp_path):
    lines = [
        logged(n, None, metrics=["word_perplexity"], word_perplexity=[-3.5, 4]) for n in (0, 1)
    ]
    for line in lines:
        del line["acc"]
    folder = write_stock(tmp_path, lines, results={"a": {"word_perplexity,none": 2.4}})
    run = read_output(folder)
    assert load_run(save_run(run, tmp_path / "saved")).results["a"].main.value == 2.4


def test_of_several_replies_that_lm_eval_scored_together_the_first_is_shown_and_that_is_said(
    tmp_path,
):
    lines = [logged(n, 1.0) for n in (0, 1)]
    for line in lines:
        line["resps"] = [["a", "b", "c"]]
    (one,) = read_outputs(write_stock(tmp_path, lines, results={"a": {"acc,none": 1.0}}))
    assert [s.response for s in one.run.samples["a"]] == ["a", "a"]
    assert [line for line in one.left_out if "replies 2 to 3" in line]
