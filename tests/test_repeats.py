"""Runs that ask each question several times: equal to single runs, resumed, compared, read back."""

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles import ScriptedLM
from openai_server import serving, text
from tiny_language_models import make_model, make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.comparison import compare
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.harness.reading import read_output
from mingmoe_eval.harness.results import foreign_result_of_repeats, foreign_samples
from mingmoe_eval.model_opening import Watch
from mingmoe_eval.paper_table import TableSpec, make_table
from mingmoe_eval.records import RunSpec
from mingmoe_eval.regression_gate import judge
from mingmoe_eval.repeats import clustered, question_means, questions
from mingmoe_eval.report import render_report
from mingmoe_eval.rescoring import rescore
from mingmoe_eval.run_store import load_run, save_run
from mingmoe_eval.scoring import fold_task, mean_of_scores
from mingmoe_eval.task_catalog import load_catalog

SAMPLED = {"temperature": 0.8}


class DrawingLM(ScriptedLM):
    """Answers with a letter that depends on the prompt, the seed and nothing else."""

    def __init__(self, skill=0.6, **options):
        super().__init__(**options)
        self.skill = skill
        self.seeds = []

    def generate_until(self, requests):
        replies = []
        for request in requests:
            seed = request.args[1].get("seed", 1234)
            self.seeds.append(seed)
            key = f"{seed}/{request.args[0]}".encode()
            draw = random.Random(hashlib.sha256(key).digest())
            right = str(request.doc["answer"])
            letter = right if draw.random() < self.skill else draw.choice("ABCD")
            reply = f"Answer: {letter}" if draw.random() < 0.9 else "who knows"
            self._note(request, len(reply), "stop", self.failure(request.args[0]))
            replies.append(reply)
        return replies


def spec_of(*tasks, **facts):
    facts = {"gen_kwargs": SAMPLED, "sample": True, **facts}
    return RunSpec(model="scripted", tasks=tasks or ("usmle",), **facts)


def run_of(spec, lm=None, **options):
    return evaluate(spec, open_model=lambda *_: lm or DrawingLM(), **options)


def without_repeat(samples):
    return [dataclasses.replace(sample, repeat=0) for sample in samples]


def tiny(wanted):
    return CheckpointLM.from_loaded(make_model(), make_tokenizer(), seed=wanted.seed)


def test_repeats_equal_single_runs_with_their_seeds():
    spec = spec_of("usmle", "cmexam", repeats=3)
    both = run_of(spec)
    for repeat in range(3):
        one = run_of(spec_of("usmle", "cmexam", gen_kwargs={**SAMPLED, "seed": 1234 + repeat}))
        for task in ("usmle", "cmexam"):
            mine = [s for s in both.samples[task] if s.repeat == repeat]
            assert without_repeat(mine) == one.samples[task]
            told = both.results[task].breakdowns["repeat"][str(repeat + 1)]
            assert told == one.results[task].main
    singles = [run_of(spec_of(gen_kwargs={**SAMPLED, "seed": 1234 + r})) for r in range(3)]
    for name, value in singles[0].results["usmle"].metrics.items():
        values = [one.results["usmle"].metrics[name].value for one in singles]
        assert both.results["usmle"].metrics[name].value == pytest.approx(
            sum(values) / 3, abs=1e-15
        )
        assert both.results["usmle"].metrics[name].n == value.n


def test_repeats_of_a_real_model_equal_single_runs_with_their_seeds_to_the_last_token():
    spec = dataclasses.replace(spec_of("usmle", "usmle_ll", repeats=2, limit=3), max_new_tokens=12)
    both = evaluate(spec, open_model=lambda *_: tiny(spec))
    for repeat in range(2):
        alone = dataclasses.replace(spec, repeats=1, seed=1234 + repeat)
        one = evaluate(alone, open_model=lambda *_, wanted=alone: tiny(wanted))
        mine = [s for s in both.samples["usmle"] if s.repeat == repeat]
        assert without_repeat(mine) == one.samples["usmle"]
        assert both.samples["usmle_ll"] == one.samples["usmle_ll"]
    texts = {
        repeat: [s.response for s in both.samples["usmle"] if s.repeat == repeat]
        for repeat in (0, 1)
    }
    assert texts[0] != texts[1]
    assert (both.results["usmle"].repeats, both.results["usmle_ll"].repeats) == (2, 1)


def test_the_worked_examples_of_a_question_are_the_same_in_every_repeat():
    run = run_of(spec_of("cmmlu_med_anatomy", repeats=3, num_fewshot=2))
    for answers in questions(run.samples["cmmlu_med_anatomy"]):
        assert len({sample.prompt for sample in answers}) == 1
        assert len(answers) == 3


def test_a_question_weighs_as_one_doc_whatever_the_number_of_repeats():
    run = run_of(spec_of(repeats=4))
    result = run.results["usmle"]
    docs = len(run.samples["usmle"]) // 4
    assert (result.counts.docs, result.repeats, result.main.n) == (4 * docs, 4, docs)
    assert "clusters" in result.main.interval_method


def test_repeats_that_are_all_the_same_make_nobody_surer():
    class Stubborn(DrawingLM):
        def generate_until(self, requests):
            for request in requests:
                request.args[1]["seed"] = 1
            return super().generate_until(requests)

    single, four = (run_of(spec_of(repeats=n), Stubborn()).results["usmle"].main for n in (1, 4))
    assert four.value == pytest.approx(single.value)
    assert four.interval == pytest.approx(single.interval)
    metrics = run_of(spec_of(repeats=4), Stubborn()).results["usmle"].metrics
    assert (metrics["sampling_share"].value, metrics["variance_sampling"].value) == (0.0, 0.0)


def test_a_failed_repeat_leaves_its_question_out_of_what_repeats_tell():
    first = run_of(spec_of()).samples["usmle"][0].prompt
    calls = []

    def failure(prompt):
        calls.append(prompt)
        return "server down" if prompt == first and calls.count(first) == 2 else ""

    run = run_of(spec_of(repeats=3), DrawingLM(failure=failure))
    docs = len(run.samples["usmle"]) // 3
    assert run.results["usmle"].counts.failed == 1
    assert run.results["usmle"].metrics["agreement"].n == docs - 1
    assert run.results["usmle"].main.n == docs
    assert run.incomplete == ("usmle",)


@pytest.mark.parametrize(("down", "left"), [({0}, 2), ({1}, 2), ({0, 1}, 1), ({1, 2}, 1)])
def test_a_repeat_that_fails_altogether_is_none(down, left):
    run = run_of(spec_of(repeats=3))
    whole = run.samples["usmle"]
    broken = [
        dataclasses.replace(s, status="failed", failure="server down", score=None)
        if s.repeat in down
        else s
        for s in whole
    ]
    settings = load_catalog().definitions["usmle"].settings
    result = fold_task("usmle", broken, settings)
    alive = [[s.score for s in whole if s.repeat == n] for n in range(3) if n not in down]
    assert result.main.value == pytest.approx(sum(map(sum, alive)) / sum(map(len, alive)))
    assert result.main.n == len(alive[0])
    told = {name for name in result.metrics if name.startswith(("pass@", "agreement"))}
    assert told == ({"pass@2", "agreement"} if left == 2 else set())
    if left == 2:
        pairs = list(zip(*alive, strict=True))
        assert result.metrics["pass@2"].value == pytest.approx(sum(map(max, pairs)) / len(pairs))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"gen_kwargs": {}}, "nothing is drawn here.*usmle"),
        ({"gen_kwargs": {"temperature": 0.0}}, "nothing is drawn here"),
        ({"permute_options": "cyclic"}, "leave one out"),
        ({"tasks": ("usmle_ll",)}, "the same every time"),
    ],
)
def test_repeats_of_the_same_are_refused(facts, reason):
    facts = {"tasks": ("usmle",), **facts}
    spec = spec_of(*facts.pop("tasks"), repeats=2, **facts)
    with pytest.raises(UsageError, match=f"(?s){reason}"):
        run_of(spec)


def test_repeats_of_what_the_model_recommends_are_refused_where_that_is_greedy():
    spec = spec_of(repeats=2, gen_kwargs={"model": True})
    with pytest.raises(UsageError, match="nothing is drawn here"):
        evaluate(spec, open_model=lambda *_: tiny(spec))


def test_log_likelihoods_are_asked_once_and_that_is_said_once():
    class Told(Watch):
        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)

    watch = Told()
    run = run_of(spec_of("usmle", "usmle_ll", "mcmle_ll", repeats=2), watch=watch)
    told = [note for note in watch.notes if "asked once" in note]
    assert len(told) == 1
    assert "usmle_ll, mcmle_ll" in told[0] or "mcmle_ll, usmle_ll" in told[0]
    assert {run.results[t].repeats for t in ("usmle_ll", "mcmle_ll")} == {1}


def test_a_run_with_repeats_survives_the_disk_and_scores_again_as_it_was(tmp_path):
    run = run_of(spec_of("usmle", repeats=3), folder=tmp_path / "r")
    read = load_run(tmp_path / "r")
    assert read.samples == run.samples
    assert read.results == run.results
    again = rescore(read)
    assert again.samples == run.samples
    assert again.results["usmle"].metrics == run.results["usmle"].metrics
    assert again.results["usmle"].breakdowns == run.results["usmle"].breakdowns
    save_run(again, tmp_path / "again")


def test_repeats_come_back_from_lm_evals_layout_with_those_that_failed(tmp_path):
    first = run_of(spec_of()).samples["usmle"][0].prompt
    calls = []

    def failure(prompt):
        calls.append(prompt)
        return "server down" if prompt == first and calls.count(first) == 2 else ""

    run = run_of(spec_of(repeats=3), DrawingLM(failure=failure), folder=tmp_path / "r")
    again = read_output(tmp_path / "r" / "lm_eval")
    assert (again.spec.repeats, again.results["usmle"].repeats) == (3, 3)
    mine, theirs = ({(s.doc_id, s.repeat): s for s in r.samples["usmle"]} for r in (run, again))
    assert theirs.keys() == mine.keys()
    for key, sample in mine.items():
        same = ("response", "answered", "score", "status", "failure", "position")
        assert [getattr(theirs[key], n) for n in same] == [getattr(sample, n) for n in same]
    assert again.results["usmle"].metrics == run.results["usmle"].metrics
    assert again.results["usmle"].breakdowns == run.results["usmle"].breakdowns


def test_every_verb_reads_a_run_with_repeats(tmp_path, capsys):
    run_of(spec_of("usmle", "cmexam", repeats=3), folder=tmp_path / "r")
    run_of(spec_of("usmle", "cmexam", repeats=3, seed=7), DrawingLM(0.2), folder=tmp_path / "s")
    one, two = load_run(tmp_path / "r"), load_run(tmp_path / "s")
    render_report([one, two], tmp_path / "page.html")
    assert make_table([one, two], TableSpec(allow_marked=True)).rows
    assert main(["rescore", str(tmp_path / "r"), "--name", "again"]) == 0
    printed = capsys.readouterr().out
    assert "pass@3" in printed
    assert "majority@3" in printed
    assert " x 3" in printed
    logged = list((tmp_path / "r" / "lm_eval").glob("samples_usmle_*.jsonl"))
    rows = [json.loads(line) for line in logged[0].read_text().splitlines()]
    assert len(rows) == one.results["usmle"].main.n
    assert all(len(row["resps"][0]) == 3 for row in rows)
    assert main(["import", str(tmp_path / "r" / "lm_eval"), "--output", str(tmp_path / "i")]) == 0


def test_comparisons_pair_the_means_of_questions():
    three, one = run_of(spec_of(repeats=3)), run_of(spec_of(seed=99), DrawingLM(0.3))
    for baseline, candidate in ((three, one), (one, three), (three, three)):
        compared = compare(baseline, candidate).tasks["usmle"]
        assert compared.docs == one.results["usmle"].main.n
        for run, side in (
            (baseline, compared.paired.baseline),
            (candidate, compared.paired.candidate),
        ):
            assert side == pytest.approx(run.results["usmle"].main.value)
        assert compared.notes == ()
    means = [sample.score for sample in question_means(three.samples["usmle"])]
    theirs = [sample.score for sample in one.samples["usmle"]]
    expected = sum(b - a for a, b in zip(means, theirs, strict=True)) / len(means)
    assert compare(three, one).tasks["usmle"].paired.difference == pytest.approx(expected)


def test_the_gate_takes_repeats_against_a_single_run_and_owes_no_pass_at_k():
    three, one = run_of(spec_of(repeats=3)), run_of(spec_of())
    verdict = judge(three, one, allow_marked=True)
    assert [finding for finding in verdict.failures if finding.kind == "missing"] == []
    assert verdict.tasks[0].comparison.docs == one.results["usmle"].main.n


def test_clusters_hold_the_repeats_of_a_question_together():
    run = run_of(spec_of(repeats=2))
    for answers in questions(clustered(run.samples["usmle"])):
        assert len({sample.cluster for sample in answers}) == 1
        assert answers[0].cluster is not None


def test_official_scores_of_repeats_are_the_means_of_theirs():
    class Replies(ScriptedLM):
        def generate_until(self, requests):
            replies = []
            for request in requests:
                draw = random.Random(f"{request.args[1]['seed']}{request.args[0]}")
                gold = str(request.doc["target"])
                replies.append(gold if draw.random() < 0.5 else gold[: len(gold) // 2])
                self._note(request, 1, "stop", "")
            return replies

    def promptcblue(**facts):
        return run_of(spec_of("promptcblue_cmeee_v2", **facts), Replies())

    task = "promptcblue_cmeee_v2"
    both = promptcblue(repeats=2).results[task]
    singles = [promptcblue(gen_kwargs={**SAMPLED, "seed": 1234 + r}).results[task] for r in (0, 1)]
    values = [one.main.value for one in singles]
    assert values[0] != values[1]
    assert both.main.value == (values[0] + values[1]) / 2
    assert both.main.interval[0] <= both.main.value <= both.main.interval[1]
    assert "clusters" in both.main.interval_method


def test_a_run_that_is_killed_amid_its_repeats_goes_on_where_it_stopped(tmp_path):
    """A real process and SIGKILL, in the second of three repeats; nothing is asked twice."""
    asked = []

    def answer(path, payload):
        content = json.dumps(payload.get("messages") or payload["prompt"])
        if payload.get("seed") is not None:
            asked.append((payload["seed"], content))
            time.sleep(0.02)
        draw = random.Random(f"{payload.get('seed')}{content}")
        return text(f"Answer: {draw.choice('ABCD')}", chat=path.startswith("/chat"))

    with serving(answer) as (model, _):
        command = [
            *(sys.executable, "-m", "mingmoe_eval", "--model", model, "--tasks", "usmle"),
            *("--sample", "--gen-kwargs", "temperature=0.8", "--repeats", "3"),
            *("--batch-size", "1", "--output", str(tmp_path)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
        subprocess.run([*command, "--name", "whole"], **quiet, check=True)
        docs = len(asked) // 3
        asked.clear()
        process = subprocess.Popen([*command, "--name", "killed"], **quiet)
        while len(asked) < docs + docs // 2:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(asked)
        assert docs < before < 3 * docs
        resume = [sys.executable, "-m", "mingmoe_eval", "run", "--resume", str(tmp_path / "killed")]
        subprocess.run(resume, **quiet, check=True)
    whole, resumed = load_run(tmp_path / "whole"), load_run(tmp_path / "killed")
    assert resumed.samples == whole.samples
    assert resumed.results["usmle"].metrics == whole.results["usmle"].metrics
    # The one that was under way when the process died is asked again.
    assert 3 * docs <= len(asked) <= 3 * docs + 1
    assert {seed for seed, _ in asked} == {1234, 1235, 1236}


def test_aggregates_of_lm_evals_own_tasks_are_the_means_of_their_repeats():
    def round_of(rights, repeat):
        logged = [
            {
                "doc_id": n,
                "doc": {"q": n},
                "target": "A",
                "filter": "none",
                "arguments": [("Q", {})],
                "resps": [["A"]],
                "filtered_resps": ["A"],
                "metrics": ["exact_match"],
                "exact_match": float(right),
            }
            for n, right in enumerate(rights)
        ]
        results = {
            "results": {"t": {"exact_match,none": sum(rights) / len(rights)}},
            "samples": {"t": logged},
            "higher_is_better": {"t": {"exact_match": True}},
        }
        return foreign_samples("t", results, {}, repeat=repeat), results

    rounds = [round_of([1, 1, 0, 1], 0), round_of([1, 0, 0, 0], 1)]
    result = foreign_result_of_repeats("t", rounds, seconds=2.0)
    assert (result.main.value, result.main.n, result.repeats) == (0.5, 4, 2)
    assert result.counts.docs == 8
    assert [one.value for one in result.breakdowns["repeat"].values()] == [0.75, 0.25]
    # Question means 1, 1/2, 0, 1/2, and not eight docs.
    means = mean_of_scores(result.main).of([{"": (v, 1.0)} for v in (1.0, 0.5, 0.0, 0.5)])
    assert result.main.interval == pytest.approx(means.interval)
    alone = foreign_result_of_repeats("t", rounds[:1], seconds=2.0)
    assert (alone.main.value, alone.repeats) == (0.75, 1)
