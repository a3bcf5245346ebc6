import math
from dataclasses import replace

import pytest

from mingmoe_eval import scoring
from mingmoe_eval.exams.scoring import (
    breakdowns,
    expected,
    fold,
    fold_group,
    score_doc,
)
from mingmoe_eval.metrics.choice_accuracy import ACCURACY, ANSWERED, ANY_OVERLAP
from mingmoe_eval.metrics.metric import Metric
from mingmoe_eval.metrics.uncertainty import share as plain_share
from mingmoe_eval.records import Response, Sample, TaskSettings
from mingmoe_eval.scoring import fold_task, make_sample

OPTIONS = {"A": "青霉素", "B": "多巴胺", "C": "肾上腺素", "D": "阿托品"}


def doc(key="B", options=OPTIONS, **fields):
    return {
        "id": "1",
        "question": "?",
        "options": options,
        "answer": key,
        "single": len(key) == 1,
    } | (fields)


def sample(key, reply, settings=None, *, status=None, tags=None, cluster=None, options=OPTIONS):
    asked = doc(key, options)
    score = score_doc(asked, Response(text=reply), settings or TaskSettings())
    if status is None:
        status = "unanswered" if score.answered is None else "scored"
    return Sample(
        task="t",
        doc_id=reply,
        position=0,
        doc=asked,
        prompt="?",
        expected=expected(asked),
        response=reply,
        answered=score.answered,
        reading=score.reading,
        score=None if status == "failed" else score.value,
        status=status,
        counts=score.counts,
        tags=tags or {},
        cluster=cluster,
    )


def share(successes: int, n: int, metric: Metric = ACCURACY):
    return metric.stamped(plain_share(successes, n))


@pytest.mark.parametrize(
    ("key", "reply", "value", "answered", "overlap"),
    [
        ("B", "答案是B。", 1.0, "B", 1.0),
        ("B", "答案是C。", 0.0, "C", 0.0),
        ("AC", "答案是CA。", 1.0, "AC", 1.0),
        ("AC", "答案是A。", 0.0, "A", 1.0),  # part of the set earns nothing
        ("AC", "答案是ABC。", 0.0, "ABC", 1.0),
        ("B", "抱歉，我无法回答。", 0.0, None, 0.0),
        ("B", "", 0.0, None, 0.0),
    ],
)
def test_only_the_whole_right_set_scores(key, reply, value, answered, overlap):
    score = score_doc(doc(key), Response(text=reply), TaskSettings(suite="choice", form="direct"))
    assert (score.value, score.answered, score.counts["overlap"]) == (value, answered, overlap)


def test_the_score_says_how_the_reply_was_read():
    assert score_doc(doc(), Response(text="故选B"), TaskSettings()).reading == "an answer cue"
    assert score_doc(doc(), Response(text="对不起"), TaskSettings()).reading == "a refusal"


def test_yes_no_and_maybe_are_read_by_their_text():
    labels = {"A": "yes", "B": "no", "C": "maybe"}
    replies = ["yes", "No, it did not.", "The answer is maybe."]
    scores = [
        score_doc(doc("A", labels), Response(text=reply), TaskSettings()) for reply in replies
    ]
    assert [score.answered for score in scores] == ["A", "B", "C"]


def test_log_likelihoods_choose_a_letter_in_option_order():
    options = {"A": "头痛", "B": "发热", "D": "咳嗽"}
    score = score_doc(
        doc("D", options), Response(log_likelihoods=(-3.0, -2.0, -1.0)), TaskSettings()
    )
    assert (score.value, score.answered, score.reading) == (1.0, "D", "highest log-likelihood")
    assert score.counts["letter_mass"] == pytest.approx(
        math.exp(-3) + math.exp(-2) + math.exp(-1), abs=1e-12
    )


@pytest.mark.parametrize(
    ("values", "key", "credit", "answered"),
    [
        ((-3.0, -1.0, -1.0), "D", 1 / 2, "B"),
        ((-3.0, -1.0, -1.0), "B", 1 / 2, "B"),
        ((-3.0, -1.0, -1.0), "A", 0.0, "B"),
        ((-1.0, -1.0, -1.0), "D", 1 / 3, "A"),
    ],
)
def test_letters_that_tie_share_the_credit_whichever_stands_first(values, key, credit, answered):
    options = {"A": "头痛", "B": "发热", "D": "咳嗽"}
    score = score_doc(doc(key, options), Response(log_likelihoods=values), TaskSettings())
    assert (score.value, score.answered) == (credit, answered)
    assert score.reading.startswith("tie of ")
    assert score.counts["tied"] == round(values.count(max(values)))


def letters_task(likelihoods, notes=("a note",)):
    """A task of as many docs whose key is B, with these log-likelihoods of A and B."""
    settings = TaskSettings(suite="choice", form="letters")
    samples = [
        make_sample(
            "t_ll",
            position,
            {**doc("B", {"A": "x", "B": "y"}), "question": str(position)},
            "Q",
            Response(log_likelihoods=values),
            settings,
        )
        for position, values in enumerate(likelihoods)
    ]
    return fold_task("t_ll", samples, settings, notes=notes)


def test_a_model_that_ties_everywhere_scores_chance_and_the_ties_are_counted():
    result = letters_task([(-1.0, -1.0)] * 3 + [(-2.0, -1.0)])
    assert result.main.value == (3 / 2 + 1) / 4
    assert result.counts.tied == 3
    assert result.notes == ("a note",)
    low, high = result.main.interval
    assert 0.0 <= low < result.main.value < high <= 1.0


def test_letters_that_the_model_would_never_write_are_warned_of():
    result = letters_task([(-20.0, -19.0)] * 3 + [(-0.5, -2.0)])
    sums = [math.exp(-20) + math.exp(-19)] * 3 + [math.exp(-0.5) + math.exp(-2)]
    assert result.metrics["letter_mass"].value == pytest.approx(sum(sums) / 4)
    assert result.metrics["low_letter_mass"].value == 3 / 4
    assert result.notes == ("a note",)
    warned = letters_task([(-20.0, -19.0)] * 4)
    assert "the letters compared have 7.7e-09 of the probability" in warned.notes[1]
    assert "--no-chat-template" in warned.notes[1]
    # As a rescored run, whose notes come from the run before.
    assert letters_task([(-20.0, -19.0)] * 4, warned.notes).notes == warned.notes


@pytest.mark.parametrize(
    "response",
    [
        Response(log_likelihoods=(math.nan, -1.0, -2.0, -3.0)),
        Response(log_likelihoods=(-1.0, -math.inf, -2.0, -3.0)),
        Response(log_likelihoods=(-1.0, -2.0)),
        Response(text="B"),
    ],
)
def test_log_likelihoods_that_are_not_all_there_give_no_letter(response):
    score = score_doc(doc("A"), response, TaskSettings(form="letters"))
    assert (score.value, score.answered) == (0.0, None)


@pytest.mark.parametrize(
    ("mode", "key", "reply", "value", "answered"),
    [
        ("huatuo2", "B", "不知道", 1.0, "B"),  # a guess that happens to be right
        ("cmb", "AB", "答案是BA。", 0.0, "BA"),  # raw strings
        ("cmexam", "AB", "B和A", 1.0, "AB"),
        ("ming", "B", "B. 多巴胺", 1.0, "B"),
    ],
)
def test_a_compatibility_mode_reads_and_compares_as_its_script(mode, key, reply, value, answered):
    score = score_doc(doc(key), Response(text=reply), TaskSettings(reading=mode))
    assert (score.value, score.answered, score.reading) == (value, answered, f"as {mode} reads it")


def test_unanswered_docs_are_wrong_and_failed_ones_are_left_out():
    samples = [
        sample("B", "B"),
        sample("B", "C"),
        sample("B", "不清楚"),
        sample("B", "B", status="failed"),
    ]
    metrics = fold(samples, TaskSettings())
    assert metrics["acc"] == metrics["score"] == share(1, 3)
    assert metrics["answered"] == share(2, 3, ANSWERED)
    assert set(metrics) == {"acc", "score", "answered"}


def test_single_and_multiple_answers_are_told_apart_where_there_are_both():
    samples = [
        sample("B", "B"),
        sample("C", "B"),
        sample("AC", "A、C"),
        sample("AC", "A"),
        sample("AD", "A"),
    ]
    metrics = fold(samples, TaskSettings())
    assert metrics["acc"] == share(2, 5)
    assert metrics["acc_single"] == share(1, 2)
    assert metrics["acc_multiple"] == share(1, 3)
    assert metrics["any_overlap"] == share(4, 5, ANY_OVERLAP)
    assert metrics["any_overlap"].better == "neither"  # to tick every option overlaps always
    assert "acc_multiple" not in fold(samples[2:], TaskSettings())


def test_docs_that_share_a_case_widen_the_interval():
    alone = [sample("B", reply) for reply in "BBBCCC"]
    together = [sample("B", reply, cluster=reply) for reply in "BBBCCC"]
    assert fold(alone, TaskSettings())["acc"].interval == share(3, 6).interval
    assert fold(together, TaskSettings())["acc"].interval == pytest.approx(share(1, 2).interval)


def test_a_macro_accuracy_is_folded_over_the_tag_that_the_task_names():
    samples = [
        *(sample("B", "B", tags={"exam_class": "nursing"}) for _ in range(3)),
        sample("B", "C", tags={"exam_class": "pharmacy"}),
    ]
    assert fold(samples, TaskSettings(macro_over="exam_class"))["macro_exam_class"].value == 0.5


def test_labels_get_a_macro_f1():
    labels = {"A": "yes", "B": "no", "C": "maybe"}
    samples = [
        sample(key, reply, options=labels)
        for key, reply in [("A", "yes"), ("A", "no"), ("B", "no"), ("C", "?")]
    ]
    # yes: 2*1/(1+2); no: 2*1/(2+1); maybe: 0
    assert fold(samples, TaskSettings(labels=True))["macro_f1"].value == pytest.approx(
        (2 / 3 + 2 / 3) / 3
    )


def test_the_better_of_head_and_tail_is_taken_over_the_whole_task():
    settings = TaskSettings(reading="o1-best-of-head-tail")
    samples = [sample("A", reply, settings) for reply in ["A，然后 B", "A，然后 C", "B，然后 A"]]
    assert fold(samples, settings)["acc"] == share(2, 3)


def test_a_task_without_usable_samples_has_no_number():
    metrics = fold([sample("B", "B", status="failed")], TaskSettings(labels=True, macro_over="x"))
    assert all(math.isnan(metric.value) and metric.n == 0 for metric in metrics.values())


def test_a_group_is_averaged_over_its_members_or_pooled_over_their_questions():
    samples = {"one": [sample("B", "B")] * 3, "two": [sample("B", "C")]}
    members = {
        name: fold_task(name, listed, TaskSettings(suite="choice"))
        for name, listed in samples.items()
    }
    macro = fold_group(members, samples)
    assert macro["score"] == macro["macro"]
    assert macro["macro"].value == 0.5
    assert fold_group(members, samples, weight_by_size=True)["score"] == share(3, 4)


def test_a_group_s_chance_weighs_its_members_as_its_score_does():
    """Two questions of four options, asked three times each, and two of two options, one failed."""

    def asked(letters, place, repeat=0, status=None):
        return replace(
            sample("A", "A", status=status),
            doc={"options": dict.fromkeys(letters, "x"), "single": True},
            doc_id=str(place),
            position=place,
            repeat=repeat,
        )

    samples = {
        "four": [asked("ABCD", place, repeat) for place in (0, 1) for repeat in (0, 1, 2)],
        "two": [asked("AB", 0), asked("AB", 1, status="failed")],
    }
    settings = TaskSettings(suite="choice")
    members = {name: fold_task(name, listed, settings) for name, listed in samples.items()}
    assert [member.chance for member in members.values()] == [0.25, 0.5]
    pooled = scoring.fold_group("all", "choice", members, samples, weight_by_size=True)
    assert pooled.main.n == 3
    assert pooled.chance == pytest.approx((2 * 0.25 + 0.5) / 3)
    assert scoring.fold_group("all", "choice", members, samples).chance == 0.375


def test_breakdowns_show_tags_that_differ():
    samples = [
        sample("B", "B", tags={"track": "western", "year": "2023"}),
        sample("B", "C", tags={"track": "western", "year": "2023"}),
        sample("B", "B", tags={"track": "traditional", "year": "2023"}),
        sample("B", "C", tags={"track": "traditional", "year": "2023"}, status="failed"),
    ]
    tables = breakdowns(samples, TaskSettings())
    assert tables == {"track": {"western": share(1, 2), "traditional": share(1, 1)}}


def test_chance_is_that_of_a_uniform_guess_over_the_possible_answers():
    assert ACCURACY.chance([doc("B"), doc("AC")]) == pytest.approx((1 / 4 + 1 / 15) / 2)
    assert ACCURACY.chance([]) is None


NUMBER = {"id": "9", "question": "?", "options": {}, "answer": "0.40", "single": True, "tags": {}}


@pytest.mark.parametrize(
    ("reply", "value", "answered", "rule"),
    [
        ("【回答】0.40", 1.0, "0.40", "the number at the end"),
        ("【回答】0.4 g/gCr", 1.0, "0.4", "the number at the end"),
        ("<think>0.40かもしれない。</think>【回答】0.50", 0.0, "0.50", "the number at the end"),
        ("<think>【回答】0.40", 0.0, None, "no number"),
        ("分かりません。", 0.0, None, "no number"),
    ],
)
def test_a_question_without_options_is_answered_by_its_number(reply, value, answered, rule):
    score = score_doc(NUMBER, Response(text=reply), TaskSettings(suite="choice", form="cot"))
    assert (score.value, score.answered, score.reading) == (value, answered, rule)


def test_further_metrics_that_a_task_names_stand_beside_its_score():
    settings = TaskSettings(suite="choice", form="direct", also=("hamming",))
    samples = [sample("AC", "答案是AB。"), sample("AB", "答案是AB。"), sample("AB", "对不起")]
    metrics = fold(samples, settings)
    assert metrics["acc"].value == pytest.approx(1 / 3)
    assert metrics["hamming"].value == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert metrics["score"] == metrics["acc"]
    assert "hamming" not in fold(samples, TaskSettings(suite="choice", form="direct"))
