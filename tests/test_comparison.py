import dataclasses
import math
import random
import re
import time

import numpy as np
import pytest
from gate_runs import flipped, make_result, make_run, make_samples

from mingmoe_eval.comparison import KINDS, compare, kinds_named
from mingmoe_eval.comparison.comparability import pair_samples
from mingmoe_eval.comparison.output import comparison_json, comparison_markdown
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.metrics.paired import bonett_price, mcnemar_exact
from mingmoe_eval.promptcblue import scoring as promptcblue
from mingmoe_eval.records import MetricValue, Response, Sample, TaskSettings

RIGHT = [1.0] * 60 + [0.0] * 40


def two_runs(before=RIGHT, after=None, **changes):
    after = flipped(before, lost=9, gained=4) if after is None else after
    baseline = make_run("main", {"usmle": make_samples(before)})
    return baseline, make_run("new", {"usmle": make_samples(after, **changes)})


def with_result(run, **changes):
    result = dataclasses.replace(run.results["usmle"], **changes)
    return dataclasses.replace(run, results={"usmle": result})


# Pairing


def test_docs_are_paired_by_content_not_by_position():
    baseline, candidate = two_runs()
    shuffled = list(candidate.samples["usmle"])
    random.Random(0).shuffle(shuffled)
    shuffled = [dataclasses.replace(s, position=i) for i, s in enumerate(shuffled)]
    moved = dataclasses.replace(candidate, samples={"usmle": shuffled})
    ours, theirs = compare(baseline, candidate), compare(baseline, moved)
    assert ours.tasks["usmle"].paired == theirs.tasks["usmle"].paired


def test_the_same_doc_twice_is_paired_first_with_first():
    before = [dataclasses.replace(s, doc_id="same") for s in make_samples([1.0, 0.0])]
    after = [dataclasses.replace(s, doc_id="same") for s in make_samples([0.0, 1.0])]
    pairs = pair_samples(before, after)
    assert [(p.baseline.score, p.candidate.score) for p in pairs] == [(1, 0), (0, 1)]


def test_failed_docs_are_left_out_and_counted():
    after = [None, *RIGHT[1:]]
    task = compare(*two_runs(after=after)).tasks["usmle"]
    assert (task.docs, task.failed) == (99, 1)
    assert task.paired.difference == 0


def test_nothing_but_failed_docs_cannot_be_compared():
    with pytest.raises(IncomparableRunsError, match="usmle: main and new have no scored doc"):
        compare(*two_runs(after=[None] * 100))


# Numbers


def test_right_and_wrong_scores():
    task = compare(*two_runs()).tasks["usmle"]
    assert (task.paired.baseline, task.paired.candidate) == (0.60, 0.55)
    assert task.paired.interval == bonett_price(9, 4, 100, level=0.95)
    assert task.p_value == mcnemar_exact(9, 4).two_sided
    assert task.p_adjusted == pytest.approx(task.p_value)
    assert task.alpha_left == 0.05
    assert [flip.doc_id for flip in task.lost] == [f"doc{i}" for i in range(9)]
    assert [flip.doc_id for flip in task.gained] == [f"doc{i}" for i in range(60, 64)]
    assert {flip.change for flip in task.gained} == {1.0}
    error = np.std([-1] * 9 + [1] * 4 + [0] * 87, ddof=1) / 10
    # z at 1 - 0.025 and at 0.8
    assert task.minimum_detectable == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)


def test_graded_scores_list_the_largest_changes_first():
    before = [0.5] * 30
    after = [0.5] * 10 + [0.4] * 10 + [0.9] + [0.6] * 9
    task = compare(*two_runs(before, after)).tasks["usmle"]
    assert task.paired.test == "sign flip"
    assert [flip.change for flip in task.gained][:2] == pytest.approx([0.4, 0.1])
    assert len(task.lost) == 10


def test_docs_that_share_a_stem_are_clusters():
    def clustered(run):
        samples = [
            dataclasses.replace(s, cluster=f"stem{s.position // 5}" if s.position < 50 else None)
            for s in run.samples["usmle"]
        ]
        return dataclasses.replace(run, samples={"usmle": samples})

    baseline, candidate = two_runs()
    task = compare(clustered(baseline), clustered(candidate)).tasks["usmle"]
    assert task.clusters == 10 + 50
    assert task.paired.test == "cluster sign flip"


def test_a_cluster_of_one_is_no_cluster():
    baseline, candidate = two_runs()
    samples = [dataclasses.replace(s, cluster=s.doc_id) for s in baseline.samples["usmle"]]
    task = compare(dataclasses.replace(baseline, samples={"usmle": samples}), candidate)
    assert task.tasks["usmle"].clusters is None


def test_holm_spans_the_leaf_tasks_and_groups_are_not_tested():
    tasks = ("usmle", "mcmle", "cmexam")
    after = {"usmle": flipped(RIGHT, lost=12, gained=1), "mcmle": RIGHT, "cmexam": RIGHT}
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in tasks})
    candidate = make_run("new", {t: make_samples(after[t], t) for t in tasks})
    means = [np.mean(RIGHT), np.mean([np.mean(after[t]) for t in tasks])]
    baseline, candidate = (
        dataclasses.replace(
            run,
            results={
                **run.results,
                "exams": make_result(
                    make_samples(RIGHT, "exams"),
                    metrics={"score": MetricValue(value=float(mean), n=300)},
                    members=tasks,
                ),
            },
        )
        for run, mean in zip((baseline, candidate), means, strict=True)
    )
    comparison = compare(baseline, candidate)
    assert list(comparison.tasks) == list(tasks)
    one = comparison.tasks["usmle"]
    assert one.p_adjusted == pytest.approx(3 * one.p_value)
    assert one.alpha_left == pytest.approx(0.05 / 3)
    assert comparison.tasks["mcmle"].alpha_left == pytest.approx(0.05 / 2)
    group = comparison.groups["exams"]
    errors = [task.paired.standard_error for task in comparison.tasks.values()]
    reach = 1.959964 * math.sqrt(sum(error**2 for error in errors)) / 3
    change = -0.11 / 3
    assert group.interval == pytest.approx((change - reach, change + reach), abs=1e-6)


def test_a_group_that_is_no_mean_of_its_members_has_no_interval():
    def grouped(run, value):
        group = make_result(
            make_samples(RIGHT, "exams"),
            metrics={"score": MetricValue(value=value, n=100)},
            members=("usmle",),
        )
        return dataclasses.replace(run, results={**run.results, "exams": group})

    baseline, candidate = two_runs()
    runs = grouped(baseline, 0.9), grouped(candidate, 0.85)
    comparison = compare(*runs)
    assert comparison.groups["exams"].interval is None
    assert comparison_json(comparison)["groups"]["exams"]["interval"] is None
    assert "| exams (group) |  | 90.00 | 85.00 | -5.00 |" in comparison_markdown(comparison)
    cut = dataclasses.replace(runs[0].results["exams"], members=("usmle", "gone"))
    results = {"usmle": baseline.results["usmle"], "exams": cut}
    other = [dataclasses.replace(run, results={**run.results, **results}) for run in runs]
    assert compare(*other).groups["exams"].interval is None


def test_the_same_runs_give_the_same_numbers():
    before, after = np.random.default_rng(1).random((2, 80))
    runs = two_runs(list(before), list(after))
    assert comparison_json(compare(*runs)) == comparison_json(compare(*runs))


def test_swapping_the_runs_mirrors_the_numbers():
    baseline, candidate = two_runs()
    there, back = compare(baseline, candidate), compare(candidate, baseline)
    forward, backward = there.tasks["usmle"].paired, back.tasks["usmle"].paired
    assert forward.difference == -backward.difference
    assert forward.interval == pytest.approx([-end for end in reversed(backward.interval)])
    assert forward.tails.lower == backward.tails.higher


def test_a_metric_that_samples_cannot_rebuild_is_named():
    baseline, candidate = two_runs()
    other = {"score": MetricValue(value=0.9, n=100)}
    task = compare(with_result(baseline, metrics=other), candidate).tasks["usmle"]
    assert task.paired.baseline == 0.60
    assert task.notes == (
        "main reports 0.9000; what is compared here is the mean of its samples' scores, 0.6000",
    )


# Corpus metrics of PromptCBLUE


def cblue_run(name, dataset, targets, replies, choices=None):
    """A run over one PromptCBLUE task, scored and folded by the suite itself."""
    task = "promptcblue_" + dataset.lower().replace("-", "_")
    samples = []
    for number, (target, reply) in enumerate(zip(targets, replies, strict=True)):
        doc = {
            "input": f"问题{number}",
            "target": target,
            "answer_choices": choices,
            "task_type": "",
            "task_dataset": dataset,
            "sample_id": f"test-{number}",
        }
        score = promptcblue.score_doc(doc, Response(text=reply), TaskSettings())
        samples.append(
            Sample(
                task=task,
                doc_id=f"doc{number}",
                position=number,
                doc=doc,
                prompt=doc["input"],
                expected=promptcblue.expected(doc),
                answered=score.answered,
                reading=score.reading,
                score=score.value,
                status="unanswered" if score.answered is None else "scored",
                counts=score.counts,
            )
        )
    metrics = promptcblue.fold(samples, TaskSettings())
    run = make_run(name, {task: samples})
    result = make_result(samples, metrics=metrics, suite="promptcblue")
    return dataclasses.replace(run, results={task: result})


HEADER = "上述句子中的实体包含：\n"
ENTITIES = [HEADER + f"疾病实体：病{i}，病{i + 1}\n药物实体：药{i}" for i in range(40)]
CORPUS = {
    "CMeEE-V2": (
        ENTITIES,
        [HEADER + f"疾病实体：病{i}" if i % 2 else t for i, t in enumerate(ENTITIES)],
        [HEADER + f"疾病实体：病{i}，错" if i % 3 else t for i, t in enumerate(ENTITIES)],
        ["疾病", "药物"],
    ),
    "KUAKE-QIC": (
        ["病情诊断", "病因分析", "治疗方案", "治疗方案"] * 10,
        ["病情诊断", "病因分析", "治疗方案", "胡说"] * 10,
        ["病情诊断", "", "治疗方案", "治疗方案"] * 10,
        ["病情诊断", "病因分析", "治疗方案"],
    ),
    "CHIP-STS": (
        ["是的", "是的", "不是"] * 14,
        ["是的", "不是", "不是"] * 14,
        ["是的", "", "是的"] * 14,
        ["是的", "不是"],
    ),
    "MedDG": (
        ["你好，发烧多久了？"] * 40,
        ["发烧几天了？"] * 40,
        [f"你好，咳嗽{'多久' if i % 2 else ''}了吗？" for i in range(40)],
        None,
    ),
    "IMCS-V2-MRG": (
        ["报告如下：\n主诉：发热三天\n诊断：上呼吸道感染"] * 40,
        ["报告如下：\n主诉：发热\n诊断：感冒"] * 40,
        [f"报告如下：\n主诉：发热{'三天' if i % 2 else ''}" for i in range(40)],
        None,
    ),
}


@pytest.mark.parametrize("dataset", CORPUS)
def test_corpus_metrics_are_what_the_suite_folds(dataset):
    targets, before, after, choices = CORPUS[dataset]
    baseline = cblue_run("main", dataset, targets, before, choices)
    candidate = cblue_run("new", dataset, targets, after, choices)
    (task,) = compare(baseline, candidate).tasks.values()
    (ours,), (theirs,) = baseline.results.values(), candidate.results.values()
    assert task.notes == ()
    assert task.paired.baseline == pytest.approx(ours.main.value, abs=1e-12)
    assert task.paired.candidate == pytest.approx(theirs.main.value, abs=1e-12)
    assert task.paired.test == "swap permutation"
    assert task.paired.interval[0] <= task.paired.difference <= task.paired.interval[1]


# What must be equal


def differing(kind):
    """Two runs that differ in this one thing."""
    baseline, candidate = two_runs()
    provenance = {"tasks": {"usmle": {"data_fingerprint": "d", "form": "direct"}}}
    said = provenance["tasks"]["usmle"]
    match kind:
        case "tasks":
            extra = {"usmle": make_samples(RIGHT), "mcmle": make_samples(RIGHT, "mcmle")}
            return baseline, make_run("new", extra)
        case "docs":
            return baseline, make_run("new", {"usmle": make_samples(RIGHT[:-1])})
        case "prompt":
            return two_runs(prompt="<|im_start|>user")
        case "fewshot":
            return baseline, with_result(candidate, num_fewshot=5)
        case "version":
            return baseline, with_result(candidate, version="1.1")
        case "metric":
            return baseline, with_result(candidate, main_metric="acc")
        case "data":
            said["data_fingerprint"] = "e"
        case "batch":
            halves = [{"dtype": "float16", "batch_size": size} for size in (1, 8)]
            return tuple(ran(run, **half) for run, half in zip(two_runs(), halves, strict=True))
        case "engine" | "dtype" | "attention" | "device":
            return ran(baseline), ran(candidate, **{kind: "another"})
        case "budget" | "sampling":
            plain = {"max_new_tokens": 32, "greedy": True}
            other = {**plain, "think": 512} if kind == "budget" else {**plain, "top_k": 2}
            return asking(baseline, plain), asking(candidate, other)
        case "thinking" | "template" | "system":
            told = {
                "thinking": ({"thinking": "on"}, {"thinking": "off"}),
                "template": ({}, {"template": {"tone": "dry"}}),
                "system": ({}, {"system_instruction": "Be brief."}),
            }[kind]
            return asking(baseline, told=told[0]), asking(candidate, told=told[1])
        case _:
            said[kind] = "another"
    return baseline, dataclasses.replace(candidate, provenance=provenance)


def asking(run, generation=None, told=None):
    """The run as one that records how it asked."""
    task = {
        **run.provenance["tasks"]["usmle"],
        **({"generation": generation} if generation else {}),
    }
    said = {**run.provenance, "protocol": told or {}, "tasks": {"usmle": task}}
    return dataclasses.replace(run, provenance=said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_difference_is_refused_by_name_and_can_be_overridden(kind):
    baseline, candidate = differing(kind)
    with pytest.raises(IncomparableRunsError, match=rf"\[{kind}\](.|\n)*--allow {kind}"):
        compare(baseline, candidate)
    comparison = compare(baseline, candidate, allow=frozenset({kind}))
    assert {difference.kind for difference in comparison.allowed} == {kind}
    assert f"[{kind}]" in comparison_json(comparison)["allowed"][0]["difference"] or (
        comparison_json(comparison)["allowed"][0]["kind"] == kind
    )
    assert "overridden" in comparison_markdown(comparison)


def test_every_difference_is_named_at_once():
    baseline, candidate = two_runs(prompt="other")
    candidate = with_result(candidate, num_fewshot=5, version="2.0")
    with pytest.raises(IncomparableRunsError) as refusal:
        compare(baseline, candidate)
    for kind in ("prompt", "fewshot", "version"):
        assert f"[{kind}]" in str(refusal.value)
    assert "another prompt for 100 of 100 docs" in str(refusal.value)


def test_another_expected_answer_is_another_doc():
    with pytest.raises(IncomparableRunsError, match="another expected answer for 100 of 100"):
        compare(*two_runs(expected="B"))


def test_what_neither_run_knows_is_equal():
    baseline, candidate = two_runs()
    silent = [dataclasses.replace(run, provenance={}) for run in (baseline, candidate)]
    assert compare(*silent).allowed == ()
    with pytest.raises(IncomparableRunsError, match="'direct' against unknown"):
        compare(baseline, silent[1])


def test_runs_without_a_common_task_cannot_be_compared():
    baseline, _ = two_runs()
    candidate = make_run("new", {"mcmle": make_samples(RIGHT, "mcmle")})
    with pytest.raises(IncomparableRunsError, match="share no task"):
        compare(baseline, candidate, allow=frozenset({"tasks"}))


def test_an_unknown_kind_is_a_users_mistake():
    with pytest.raises(UsageError, match=r"'promt'; it takes tasks, docs, prompt"):
        compare(*two_runs(), allow=frozenset({"promt"}))
    assert kinds_named(["prompt, docs", "data"]) == {"prompt", "docs", "data"}


@pytest.mark.parametrize("alpha", [0, 1, -0.1])
def test_alpha_must_be_an_error_rate(alpha):
    with pytest.raises(UsageError, match="no error rate"):
        compare(*two_runs(), alpha=alpha)


# Output and speed


def test_markdown_keeps_hostile_names_in_their_cells():
    baseline, candidate = two_runs()
    hostile = dataclasses.replace(candidate, name="a|b\n<script>`x`")
    page = comparison_markdown(compare(baseline, hostile))
    assert page.startswith("## a\\|b &lt;script&gt;\\`x\\` against main\n")


@pytest.mark.parametrize(
    "text",
    ["@everyone", "see #123", "owner/name#7", "!12", "GH-3", "https://a.example/b", "www.a.example",
     "a@b.example", "~label", "$4", "mailto:x"],
)  # fmt: skip
def test_markdown_wakes_nobody(text):
    baseline, candidate = two_runs()
    page = comparison_markdown(compare(baseline, dataclasses.replace(candidate, name=text)))
    assert text not in page
    shown = page.replace("\u200b", "").replace("\\", "")
    assert shown.startswith(f"## {text} against main\n")
    # What makes them live is not followed by what they would name.
    assert not re.search(r"(?i)[@#!$~]\w|://|www\.|GH-\d|mailto:", page)


def test_marked_runs_say_so():
    baseline, candidate = two_runs()
    marked = dataclasses.replace(candidate, spec=dataclasses.replace(candidate.spec, limit=100))
    comparison = compare(baseline, marked)
    assert comparison.marks == ("first 100 docs",)
    assert "NOT the benchmark: first 100 docs" in comparison_markdown(comparison)


@pytest.mark.parametrize("graded", [False, True])
def test_20_000_samples_compare_in_under_five_seconds(graded):
    before, after = np.random.default_rng(1).random((2, 20_000))
    if not graded:
        before, after = (before < 0.6).astype(float), (after < 0.6).astype(float)
    runs = two_runs(before.tolist(), after.tolist())
    started = time.process_time()
    compare(*runs)
    assert time.process_time() - started < 5


# What ran the model


def ran(run, **model):
    known = {"class": "Qwen2ForCausalLM", "dtype": "float32", "attention": "sdpa", "device": "cpu"}
    return dataclasses.replace(run, provenance={**run.provenance, "model": {**known, **model}})


@pytest.mark.parametrize(
    ("kind", "model", "text"),
    [
        ("dtype", {"dtype": "bfloat16"}, "'float32' against 'bfloat16'"),
        ("attention", {"attention": "eager"}, "'sdpa' against 'eager'"),
        ("device", {"device": "cuda:1"}, "'cpu' against 'cuda'"),
        ("engine", {"class": None, "served_by": "http://h/v1"}, "'transformers' against 'served'"),
        ("engine", {"engine": "vllm"}, "'transformers' against 'vllm'"),
    ],
)
def test_the_same_weights_on_another_engine_are_named_and_refused(kind, model, text):
    baseline, candidate = two_runs()
    baseline, candidate = ran(baseline), ran(candidate, **model)
    with pytest.raises(IncomparableRunsError) as refused:
        compare(baseline, candidate)
    assert f"every task: {text} [{kind}]" in str(refused.value)
    assert f"--allow {kind}" in str(refused.value)
    allowed = compare(baseline, candidate, allow=frozenset([kind])).allowed
    assert [difference.kind for difference in allowed] == [kind]


def test_the_batch_size_differs_where_it_moves_numbers():
    def kinds(before, after):
        baseline, candidate = two_runs()
        try:
            compare(ran(baseline, **before), ran(candidate, **after))
        except IncomparableRunsError as refused:
            return str(refused).count("[batch]")
        return 0

    assert kinds({"batch_size": 1}, {"batch_size": 8}) == 0  # float32
    half = {"dtype": "bfloat16"}
    assert kinds({**half, "batch_size": 1}, {**half, "batch_size": 8}) == 1
    invariant = {**half, "batch_invariant": True}
    assert kinds({**invariant, "batch_size": 1}, {**invariant, "batch_size": 8}) == 0
    assert kinds({**half, "device": "cuda:0"}, {**half, "device": "cuda:1"}) == 0


def test_what_one_run_does_not_say_of_its_engine_is_no_difference():
    baseline, candidate = two_runs()
    assert compare(ran(baseline), candidate).allowed == ()
    served = {"engine": "served", "dtype": None, "attention": None, "device": None}
    allowed = compare(ran(baseline), ran(candidate, **served), allow=frozenset(["engine"])).allowed
    assert [difference.kind for difference in allowed] == ["engine"]
