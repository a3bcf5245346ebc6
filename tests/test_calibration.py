"""Calibration from letters' log-likelihoods: against scikit-learn, lm-eval and hand calculation."""

import dataclasses
import math

import numpy as np
import pytest
from doubles import ScriptedLM
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.exams.abstention import abstaining_letter, breakdowns, metrics
from mingmoe_eval.metrics.calibration import (
    BRIER,
    ECE,
    accuracy_at,
    bin_of,
    can_be_calibrated,
    confidence,
    coverage_said,
    error_by_chance,
    probabilities,
    reliability,
)
from mingmoe_eval.metrics.calibration import metrics as errors_of
from mingmoe_eval.records import RunSpec, Sample
from mingmoe_eval.rescoring import rescore


def asked(shares, key="A", score=None, **facts):
    """A question whose options have these probabilities."""
    letters = "ABCDE"[: len(shares)]
    best = letters[int(np.argmax(shares))]
    return Sample(
        task="t",
        doc_id=str(shares),
        position=0,
        doc={"options": dict(zip(letters, letters, strict=True)), "single": True},
        prompt="",
        expected=key,
        log_likelihoods=tuple(math.log(share) - 2.5 for share in shares),
        answered=best,
        score=float(best == key) if score is None else score,
        **facts,
    )


def many(count, *, skill=1.0, seed=0):
    """Questions of four options whose key is drawn from the stated probabilities, made sharper."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        true = rng.dirichlet((0.7, 0.7, 0.7, 0.7)) * 0.96 + 0.01
        said = true**skill / (true**skill).sum()
        made.append(asked(said.tolist(), key="ABCD"[rng.choice(4, p=true / true.sum())]))
    return made


def test_probabilities_are_the_softmax_of_the_letters_alone():
    assert probabilities([-1000.0, -1000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])
    assert confidence(asked((0.2, 0.7, 0.1))) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("certainty", "place"), [(0.05, 0), (0.1, 0), (0.1000001, 1), (0.95, 9), (1.0, 9), (0.0, 0)]
)
def test_a_bound_belongs_to_the_bin_below_it(certainty, place):
    assert bin_of(certainty) == place


def test_both_errors_by_hand():
    """Confidences 0.58 (wrong), 0.68 (right), 0.65 (right), 0.88 (right), in three bins."""
    four = [
        asked((0.58, 0.42), key="B"),
        asked((0.68, 0.32)),
        asked((0.65, 0.35)),
        asked((0.88, 0.12)),
    ]
    found = errors_of(four)
    # (0.5, 0.6]: |0 - 0.58|; (0.6, 0.7]: |1 - 0.665| twice; (0.8, 0.9]: |1 - 0.88|
    assert found["ece"].value == pytest.approx((0.58 + 2 * 0.335 + 0.12) / 4)
    brier = (2 * 0.58**2 + 2 * 0.32**2 + 2 * 0.35**2 + 2 * 0.12**2) / 4
    assert found["brier"].value == pytest.approx(brier)
    assert (found["ece"].better, found["brier"].better, found["ece"].n) == ("lower", "lower", 4)


def test_the_calibration_error_equals_that_of_scikit_learns_bins():
    questions = many(3_000, skill=2.0)
    certain = np.array([confidence(one) for one in questions])
    right = np.array([one.score for one in questions])
    accuracy, mean = calibration_curve(right, certain, n_bins=10, strategy="uniform")
    inner = np.linspace(0, 1, 11)[1:-1]
    sizes = np.bincount(np.searchsorted(inner, certain), minlength=10)
    expected = np.abs(accuracy - mean) @ sizes[sizes > 0] / len(questions)
    assert ECE.of([ECE.count(one) for one in questions]).value == pytest.approx(expected, rel=1e-12)
    bins = reliability(questions)
    assert [one.accuracy.value for one in bins] == pytest.approx(accuracy.tolist())
    assert [one.confidence for one in bins] == pytest.approx(mean.tolist())
    assert [one.accuracy.n for one in bins] == sizes[sizes > 0].tolist()


def test_the_brier_score_equals_scikit_learns_and_lm_evals():
    questions = many(400)
    shares = np.array([probabilities(one.log_likelihoods) for one in questions])
    keys = np.array(["ABCD".index(one.expected) for one in questions])
    found = errors_of(questions)["brier"].value
    theirs = sum(
        brier_score_loss((keys == letter).astype(int), shares[:, letter]) for letter in range(4)
    )
    assert found == pytest.approx(theirs)
    from lm_eval.api.metrics import brier_score

    assert found == pytest.approx(brier_score(list(zip(keys, shares, strict=True))))


def test_a_calibrated_model_is_no_further_off_than_chance_and_a_cocksure_one_is():
    calibrated, cocksure = many(2_000), many(2_000, skill=4.0)
    error, by_chance = errors_of(calibrated)["ece"], error_by_chance(calibrated)
    assert error.value < 2 * by_chance
    assert error.interval[0] == 0.0
    assert errors_of(cocksure)["ece"].interval[0] > error_by_chance(cocksure)


def test_intervals_of_both_errors_hold_the_truth_in_simulation():
    """The truth from very many questions of the same kind."""
    truth = errors_of(many(60_000, skill=2.0, seed=99))
    held = {"ece": 0, "brier": 0}
    for seed in range(60):
        for name, value in errors_of(many(300, skill=2.0, seed=seed)).items():
            low, high = value.interval
            held[name] += low <= truth[name].value <= high
    assert all(count >= 54 for count in held.values()), held


def test_what_cannot_be_weighed_is_left_out():
    whole = asked((0.6, 0.4))
    assert can_be_calibrated(whole)
    for changed in (
        {"log_likelihoods": None},
        {"log_likelihoods": (-1.0,)},
        {"log_likelihoods": (-1.0, -math.inf)},
        {"expected": "AB"},
        {"score": None},
    ):
        assert not can_be_calibrated(dataclasses.replace(whole, **changed))
    assert errors_of([]) == {}


def test_the_accuracy_of_the_confident_part_by_hand():
    ranked = [asked((0.9, 0.1)), asked((0.8, 0.2)), asked((0.7, 0.3), key="B"), asked((0.6, 0.4))]
    assert [accuracy_at(part, ranked).value for part in (0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [1, 1, 2 / 3, 3 / 4]
    )
    half = accuracy_at(0.5, ranked)
    assert (half.n, half.metric) == (2, "acc_at_50")
    assert half.interval[0] < 0.4


def test_questions_that_tie_at_the_edge_count_in_part():
    tied = [asked((0.9, 0.1)), asked((0.6, 0.4)), asked((0.6, 0.4), key="B")]
    assert accuracy_at(2 / 3, tied).value == pytest.approx((1 + 0.5) / 2)
    assert accuracy_at(1.0, tied).value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("words", "parts"), [("0.5", (0.5,)), ("50%, 0.8,0.5", (0.5, 0.8)), ("1", (1.0,)), (None, ())]
)
def test_coverages_as_they_are_said(words, parts):
    assert coverage_said(words) == parts


@pytest.mark.parametrize("words", ["0", "1.1", "half", "120%", "nan", "-0.5"])
def test_what_is_no_coverage_is_refused(words):
    with pytest.raises(UsageError, match="no part of the questions"):
        coverage_said(words)


def scripted(*_):
    return ScriptedLM(
        lambda prompt: "A",
        lambda prompt, letter: (
            -1.0 - ("BADC".index(letter.strip()) if letter.strip() in "ABCD" else 4)
        ),
    )


def test_the_confident_part_stands_beside_the_headline_only_where_it_was_asked_for():
    spec = RunSpec(model="m", tasks="usmle_ll", sample=True)
    plain = evaluate(spec, open_model=scripted)
    metrics_of = plain.results["usmle_ll"].metrics
    assert {"ece", "brier"} <= set(metrics_of)
    assert not [name for name in metrics_of if name.startswith("acc_at")]
    wanted = dataclasses.replace(spec, coverage=(0.5,))
    told = evaluate(wanted, open_model=scripted).results["usmle_ll"].metrics
    assert told["acc_at_50"].n == math.ceil(told["acc"].n / 2)
    assert rescore(plain, coverage=(0.5,)).results["usmle_ll"].metrics == told
    assert rescore(plain).results["usmle_ll"].metrics == metrics_of
    assert rescore(plain, coverage=(0.5,)).spec.coverage == (0.5,)


def test_a_coverage_of_written_answers_is_refused():
    spec = RunSpec(model="m", tasks="usmle", sample=True, coverage=(0.5,))
    with pytest.raises(UsageError, match="_ll"):
        evaluate(spec, open_model=scripted)


@pytest.mark.parametrize(
    ("text", "abstains"),
    [
        ("I don't know or cannot answer", True),
        ("I don\u2019t know", True),
        ("我不知道", True),
        ("不知道。", True),
        ("不确定", True),
        ("わからない", True),
        ("It cannot be determined", False),
        ("无法确定", False),
        ("不知道疼痛的病人", False),
        ("The patient said: he does not know", False),
        ("maybe", False),
    ],
)
def test_which_option_says_not_to_know(text, abstains):
    assert abstaining_letter({"A": "aspirin", "E": text}) == ("E" if abstains else None)


def test_the_abstention_table_by_hand():
    options = {"A": "aspirin", "B": "heparin", "E": "I don't know"}

    def one(answered, key="A"):
        base = asked((0.6, 0.3, 0.1))
        return dataclasses.replace(
            base,
            doc={"options": options, "single": True},
            expected=key,
            answered=answered,
            score=float(answered == key),
            status="unanswered" if answered is None else "scored",
        )

    samples = [one("A"), one("B"), one("E"), one("E", key="E"), one(None), one("A")]
    without = dataclasses.replace(one("B"), doc={"options": {"A": "x", "B": "y"}, "single": True})
    table = breakdowns([*samples, without])["abstention"]
    assert {kind: round(6 * value.value) for kind, value in table.items()} == {
        "right": 2,
        "wrong": 1,
        "does not know": 1,
        "does not know, which is the key": 1,
        "could not be read": 1,
    }
    found = metrics([*samples, without])
    assert found["abstained"].value == pytest.approx(2 / 6)
    assert (found["acc_when_answered"].value, found["acc_when_answered"].n) == (
        pytest.approx(2 / 3),
        3,
    )
    assert (metrics([without]), breakdowns([without])) == ({}, {})


def test_the_resampled_metrics_are_records_of_their_own():
    assert (ECE.unit, BRIER.unit, BRIER.range) == ("share", "number", (0.0, 2.0))
