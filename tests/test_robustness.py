"""Questions under several orders of their options: the orders, the metrics, whole runs."""

import dataclasses
import itertools
import math
import random

import pytest
from doubles import ScriptedLM

from mingmoe_eval.comparison import compare
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.exams.option_orders import (
    OptionOrders,
    can_be_reordered,
    chosen_options,
    with_orders,
)
from mingmoe_eval.exams.robustness import ROBUST_ACCURACY, breakdowns, metrics
from mingmoe_eval.exams.scoring import fold
from mingmoe_eval.metrics.uncertainty import clustered_share, wilson_interval
from mingmoe_eval.records import Response, RunSpec, TaskSettings
from mingmoe_eval.rescoring import rescore
from mingmoe_eval.scoring import fold_group, fold_task, make_sample

SETTINGS = TaskSettings(suite="choice", form="direct", permute_options="cyclic")
SPEC = RunSpec(model="scripted", tasks=("usmle",), sample=True, permute_options="cyclic")


def doc(name="q", options="青霉素 多巴胺 肾上腺素 阿托品", answer="B", **fields):
    texts = options.split()
    return {
        "id": name,
        "question": "?",
        "options": dict(zip("ABCDEFGH", texts, strict=False)),
        "answer": answer,
        "single": len(answer) == 1,
        "question_type": "",
        "tags": {},
        "cluster": None,
        **fields,
    }


def answered(docs, reply):
    """Samples of a model that replies `reply(doc)`; None is a request that failed."""
    samples = []
    for position, one in enumerate(docs):
        text = reply(one)
        sample = make_sample("t", position, one, "?", Response(text=text or ""), SETTINGS)
        if text is None:
            sample = dataclasses.replace(sample, status="failed", score=None, failure="cut")
        samples.append(sample)
    return samples


def run_with(lm, spec=SPEC, **options):
    return evaluate(spec, open_model=lambda spec, folder, watch: lm, **options)


# --- the orders ----------------------------------------------------------------------------------


def test_cyclic_shows_every_option_in_every_place_once():
    orders = OptionOrders.named("cyclic").of("ABCD")
    assert ["".join(order) for order in orders] == ["ABCD", "BCDA", "CDAB", "DABC"]


def test_all_is_every_permutation_and_refused_where_that_is_too_many():
    assert OptionOrders.named("all").of("ABC") == list(itertools.permutations("ABC"))
    with pytest.raises(UsageError, match="720 orders; use cyclic"):
        OptionOrders.named("all").of("ABCDEF")


def test_a_number_draws_so_many_distinct_orders_its_own_first_the_same_each_time():
    drawn = OptionOrders.named("7").of("ABCD")
    assert drawn[0] == tuple("ABCD")
    assert len(set(drawn)) == 7
    assert drawn == OptionOrders.named("7").of("ABCD")
    assert len(OptionOrders.named("7").of("ABC")) == 6  # there are no more


@pytest.mark.parametrize("text", ["", "1", "0", "-2", "random", "2.5", "121", "٣"])
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match="permute-options"):
        OptionOrders.named(text)


def test_texts_move_letters_stay_and_the_key_follows_its_text():
    own, *others = with_orders([doc(answer="AC", options="a b c d")], OptionOrders.named("cyclic"))
    assert own == doc(answer="AC", options="a b c d")
    assert [one["variant"] for one in others] == ["BCDA", "CDAB", "DABC"]
    for one in others:
        assert list(one["options"]) == list("ABCD")
        assert sorted(one["options"][letter] for letter in one["answer"]) == ["a", "c"]
        assert chosen_options(one, one["answer"]) == frozenset("AC")
    assert others[0]["options"] == {"A": "b", "B": "c", "C": "d", "D": "a"}
    assert others[0]["answer"] == "BD"
    assert len({one["id"] for one in (own, *others)}) == 4


def test_letters_that_were_left_out_stay_out():
    gap = doc(answer="D") | {"options": {"A": "x", "B": "y", "D": "z"}}
    shown = with_orders([gap], OptionOrders.named("cyclic"))
    assert [one["answer"] for one in shown] == ["D", "B", "A"]


@pytest.mark.parametrize(
    ("text", "movable"),
    [
        ("All of the above", False),
        ("以上都是", False),
        ("上述三项均正确", False),
        ("A and B", False),
        ("Both A and C", False),
        ("A+B", False),
        ("选项A和选项C", False),
        ("None of these", True),
        ("Vitamin A", True),
        ("维生素B12", True),
        ("Hepatitis B virus", True),
    ],
)
def test_a_question_whose_options_speak_of_each_other_keeps_its_order(text, movable):
    asked = doc()
    asked["options"]["D"] = text
    assert can_be_reordered(asked) is movable
    assert len(with_orders([asked], OptionOrders.named("cyclic"))) == (4 if movable else 1)


def test_a_single_option_has_one_order():
    assert len(with_orders([doc(options="x", answer="A")], OptionOrders.named("cyclic"))) == 1


# --- the metrics ---------------------------------------------------------------------------------


def by_text(text):
    return lambda one: next(c for c, shown in one["options"].items() if shown == text)


def cyclic(*docs):
    return with_orders(docs, OptionOrders.named("cyclic"))


def test_a_model_that_knows_is_right_in_every_order_and_has_no_bias():
    found = metrics(answered(cyclic(doc("1"), doc("2", answer="D")), lambda d: d["answer"]))
    assert {name: metric.value for name, metric in found.items()} == {
        "robust_accuracy": 1.0,
        "consistency": 1.0,
        "same_answer": 1.0,
        "position_bias": 0.0,
    }
    assert [found[name].n for name in found] == [8, 2, 2, 2]


def test_a_model_that_always_says_a_is_biased_as_far_as_can_be():
    found = metrics(answered(cyclic(doc("1"), doc("2", answer="D")), lambda d: "A"))
    # All answers on A, the key a quarter on each letter: 3/4 of the answers would have to move.
    assert found["position_bias"].value == pytest.approx(0.75)
    assert found["robust_accuracy"].value == 0.25
    assert found["consistency"].value == 0.0
    assert found["same_answer"].value == 0.0


def test_the_interval_of_the_bias_holds_the_true_one_and_nothing_where_there_is_none():
    rng = random.Random(5)
    docs = cyclic(*(doc(str(number)) for number in range(40)))
    for weights, true_bias in (([1, 1, 1, 1], 0.0), ([7, 1, 1, 1], 0.45)):
        held = 0
        for _ in range(20):
            found = metrics(answered(docs, lambda d, w=weights: rng.choices("ABCD", w)[0]))
            low, high = found["position_bias"].interval
            held += low <= true_bias <= high
        assert held >= 18, true_bias  # 95 % of 20 is 19


def test_a_model_that_always_takes_the_same_wrong_text_is_consistent_in_its_answer_only():
    found = metrics(answered(cyclic(doc()), by_text("阿托品")))
    assert found["same_answer"].value == 1.0
    assert found["consistency"].value == found["robust_accuracy"].value == 0.0
    assert found["position_bias"].value == 0.0


def test_robust_accuracy_takes_a_question_for_one_cluster_and_consistency_is_wilson():
    docs = cyclic(doc("1"), doc("2"), doc("3"))
    samples = answered(docs, lambda d: "A" if d["id"].startswith("3") else d["answer"])
    rights = [s.score == 1.0 for s in samples]
    found = metrics(samples)
    expected = clustered_share(rights, [s.doc["id"][0] for s in samples])
    assert found["robust_accuracy"] == ROBUST_ACCURACY.stamped(expected)
    assert found["robust_accuracy"].value == pytest.approx(9 / 12)
    assert found["consistency"].value == pytest.approx(2 / 3)
    assert found["consistency"].interval == wilson_interval(2, 3)


def test_no_answer_at_all_is_no_agreement():
    found = metrics(answered(cyclic(doc()), lambda d: "我不知道"))
    assert found["same_answer"].value == 0.0
    assert found["position_bias"].value == 0.0


def test_a_question_of_which_one_order_failed_is_left_out_as_a_whole():
    docs = cyclic(doc("1"), doc("2"))
    samples = answered(docs, lambda d: None if d["id"] == "1~BCDA" else d["answer"])
    assert metrics(samples)["consistency"].n == 1
    assert fold_task("t", samples, SETTINGS).metrics["consistency"].n == 1
    assert fold_task("t", samples, SETTINGS).counts.failed == 1


def test_accuracy_is_told_by_order_and_by_the_place_of_the_key():
    tables = breakdowns(answered(cyclic(doc("1"), doc("2", answer="C")), lambda d: "A"))
    orders = {order: value.value for order, value in tables["option_order"].items()}
    assert orders == {"own": 0.0, "BCDA": 0.5, "CDAB": 0.5, "DABC": 0.0}
    places = {letter: value.value for letter, value in tables["key_position"].items()}
    assert places == {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}


def test_a_group_has_them_over_all_questions_of_its_members():
    mine = answered(cyclic(doc("1"), doc("2")), lambda d: d["answer"])
    theirs = [
        dataclasses.replace(sample, task="u")
        for sample in answered(cyclic(doc("1")), lambda d: "A")
    ]
    samples = {"t": mine, "u": theirs}
    members = {task: fold_task(task, listed, SETTINGS) for task, listed in samples.items()}
    found = fold_group("g", "choice", members, samples).metrics
    assert found["consistency"].value == pytest.approx(2 / 3)
    assert found["robust_accuracy"].value == pytest.approx((8 + 1) / 12)
    assert found["micro"].n == 3


def test_without_several_orders_there_are_no_such_metrics():
    samples = answered([doc("1"), doc("2")], lambda d: "A")
    assert metrics(samples) == breakdowns(samples) == {}
    assert "consistency" not in fold(samples, SETTINGS)


# --- whole runs ----------------------------------------------------------------------------------


def last_option(prompt):
    """Answers by place: the last option that is shown."""
    return [line[0] for line in prompt.splitlines() if line[1:3] == ". "][-1]


def test_the_headline_is_the_own_orders_and_equals_that_of_a_plain_run():
    plain = run_with(ScriptedLM(reply=last_option), dataclasses.replace(SPEC, permute_options=None))
    run = run_with(ScriptedLM(reply=last_option))
    assert run.results["usmle"].main == plain.results["usmle"].main
    assert run.spec.marks == plain.spec.marks
    own = [sample for sample in run.samples["usmle"] if not sample.variant]
    assert [s.doc_id for s in own] == [s.doc_id for s in plain.samples["usmle"]]
    assert {"robust_accuracy", "consistency", "position_bias"} <= run.results[
        "usmle"
    ].metrics.keys()
    assert run.results["usmle"].metrics["position_bias"].value > 0.5


def test_the_docs_of_one_question_share_a_cluster_also_after_a_rescore():
    run = run_with(ScriptedLM(reply=last_option))
    for samples in (run.samples["usmle"], rescore(run).samples["usmle"]):
        clusters = {}
        for sample in samples:
            clusters.setdefault(sample.cluster, []).append(sample)
        assert None not in clusters
        assert max(map(len, clusters.values())) == 4
    assert rescore(run).results["usmle"].metrics == run.results["usmle"].metrics


def test_letter_log_likelihoods_are_permuted_too():
    spec = dataclasses.replace(SPEC, tasks=("usmle_ll",))
    lm = ScriptedLM(likelihood=lambda prompt, continuation: -float(ord(continuation[-1])))
    found = run_with(lm, spec).results["usmle_ll"].metrics
    assert found["robust_accuracy"].value == pytest.approx(0.25)  # always A
    assert found["consistency"].value == 0.0


def test_a_limit_counts_questions_not_orders():
    run = run_with(ScriptedLM(reply=last_option), dataclasses.replace(SPEC, limit=2))
    assert run.results["usmle"].main.n == 2
    assert len({sample.cluster for sample in run.samples["usmle"]}) == 2
    assert "first 2 docs" in run.spec.marks


def test_runs_with_and_without_orders_are_compared_over_the_own_order():
    plain = run_with(ScriptedLM(reply=last_option), dataclasses.replace(SPEC, permute_options=None))
    run = run_with(ScriptedLM(reply=lambda prompt: "A"))
    task = compare(plain, run).tasks["usmle"]
    assert task.docs == plain.results["usmle"].main.n
    assert math.isclose(task.paired.candidate, run.results["usmle"].main.value)


def test_tasks_without_options_are_refused_by_name():
    with pytest.raises(UsageError, match="promptcblue_kuake_qqr"):
        run_with(ScriptedLM(), dataclasses.replace(SPEC, tasks=("usmle", "promptcblue_kuake_qqr")))
