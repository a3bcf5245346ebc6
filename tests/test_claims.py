"""The trial of claims in `benchmarks/claims`: its items, its equal terms, its tables."""

import itertools
import random
from collections import Counter

import pytest
import torch

from benchmarks.claims import tables
from benchmarks.claims.clinic_tasks import ILLNESSES, make_clinic_tasks
from benchmarks.claims.methods import CONTENDERS
from benchmarks.claims.reading import passages
from benchmarks.claims.real_base import Effort as RealEffort
from benchmarks.claims.real_base import Trial as RealTrial
from benchmarks.claims.real_base import loss, refuse_unequal, right
from benchmarks.claims.tasks import HELD_OUT, TRAINED, Sizes, make_tasks
from benchmarks.claims.trial import Effort, run_trial
from benchmarks.claims.world import draw_world

torch.set_num_threads(1)

FACTS = ("drug_class", "treatment", "triage")
MINIATURE = Effort(base_steps=1, adapter_steps=6, few_shot_steps=1, sizes=Sizes(28, 14))


@pytest.fixture(scope="module")
def tasks():
    return make_tasks(draw_world(3), 3, Sizes())


def test_there_are_six_tasks_to_train_on_and_two_held_out(tasks):
    assert tuple(tasks) == (*TRAINED, *HELD_OUT)
    assert len(TRAINED) == 6


def test_no_question_is_asked_twice_in_training_and_test_together(tasks):
    for name, data in tasks.items():
        questions = [item.question for item in (*data.train, *data.test)]
        assert len(set(questions)) == len(questions), name


def test_the_answer_is_one_of_distinct_choices(tasks):
    for data in tasks.values():
        for item in (*data.train, *data.test):
            assert item.answer in item.choices
            assert len(set(item.choices)) == len(item.choices)


def test_every_fact_that_is_asked_was_learned_in_other_words(tasks):
    sizes = {name: (len(tasks[name].train), len(tasks[name].test)) for name in FACTS}
    # 48 drugs and 36 illnesses, each fact in four wordings of which one is kept for the test.
    assert sizes == {"drug_class": (144, 48), "treatment": (108, 36), "triage": (108, 36)}


@pytest.mark.parametrize(
    "name", ["drug_class", "triage", "intent", "status", "status_mixed", "desk"]
)
def test_labels_are_equally_frequent_give_or_take_one(tasks, name):
    for part in (tasks[name].train, tasks[name].test):
        counts = Counter(item.answer for item in part)
        assert counts.keys() == set(part[0].choices)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_another_seed_is_another_world_and_the_same_seed_the_same(tasks):
    assert make_tasks(draw_world(3), 3, Sizes()) == tasks
    assert draw_world(4).drugs != draw_world(3).drugs


def test_the_base_reads_no_label_of_a_fact_or_of_a_text():
    read = " ".join(itertools.islice(passages(draw_world(3), random.Random(0)), 2000))
    labels = ("alpha", "beta", "gamma", "delta", "内科", "外科", "皮科", "阳性", "阴性", "不明")
    assert not [label for label in labels if label in read]


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    return run_trial(3, MINIATURE, tmp_path_factory.mktemp("trial"))


@pytest.mark.slow
def test_all_methods_train_as_many_numbers_but_for_frozen_routers(trial):
    numbers = {name: one["trained"] for name, one in trial["methods"].items()}
    frozen = numbers.pop("MoLoRA, routers frozen")
    assert max(numbers.values()) / min(numbers.values()) <= 1.01
    # 2 layers x 8 experts x (64 + 64 + 192 inputs + 3 biases)
    assert numbers["MoLoRA"] - frozen == 5168


@pytest.mark.slow
def test_a_trial_gives_every_figure_that_the_tables_show(trial):
    text = tables.render([trial, trial])
    for name in (*TRAINED, *HELD_OUT, *(one.name for one in CONTENDERS)):
        assert f"{name} |" in text
    assert "nan" not in text


def test_an_interval_is_students_over_seeds():
    # mean 2, s = 1, n = 3, t(2, 0.975) = 4.302653: half width 4.302653 / sqrt 3
    found = tables.estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(2.484138)
    assert tables.estimate([0.5]).half_width is None


def test_differences_are_paired_by_seed():
    # LoRA 50 and 70 per cent, MoLoRA 10 more each time: no spread in the difference.
    def trial(share):
        accuracy = {name: dict.fromkeys(TRAINED, share) for name in tables.NAMES}
        accuracy["MoLoRA"] = dict.fromkeys(TRAINED, share + 0.1)
        methods = {name: {"accuracy": one} for name, one in accuracy.items()}
        return {"base": dict.fromkeys(TRAINED, 0.25), "methods": methods}

    rows = tables.accuracy_table([trial(0.5), trial(0.7)]).splitlines()
    assert rows[2].endswith("| 25.0 |  |  |")
    assert rows[3].endswith("| 60.0 |  | -10.0 ± 0.0 |")
    assert rows[4].endswith("| 70.0 | +10.0 ± 0.0 |  |")


def test_no_illness_of_a_real_bases_test_is_in_its_training():
    for seed in range(3):
        for name, data in make_clinic_tasks(seed, Sizes(60, 24)).items():
            learned, asked = (
                {illness for illness in ILLNESSES for item in part if illness in item.question}
                for part in (data.train, data.test)
            )
            assert not learned & asked, name
            questions = [item.question for item in (*data.train, *data.test)]
            assert len(set(questions)) == len(questions), name


def test_labels_of_a_real_bases_tasks_are_equally_frequent_give_or_take_one():
    for data in make_clinic_tasks(0, Sizes(60, 24)).values():
        for part in (data.train, data.test):
            counts = Counter(item.answer for item in part)
            assert counts.keys() == set(part[0].choices)
            assert max(counts.values()) - min(counts.values()) <= 1


def test_answers_and_losses_of_a_real_base_by_hand(tmp_path):
    trial = RealTrial(0, "base", RealEffort(train=4, test=2), tmp_path / "seed-0")
    first, second = trial.items("CHIP-STS")
    assert (first.answer, second.answer) == ("是的", "不是")
    # exp(-1) against exp(-1): even; exp(-4) against exp(-1): wrong for the first choice, loss of
    # the second log(1 + exp(-3)) = 0.0485874
    outcome = {"lora": {"scores": {"CHIP-STS": [[-1.0, -1.0], [-4.0, -1.0]]}}}
    assert right(trial, outcome, "lora", "CHIP-STS") == [1.0, 1.0]
    losses = loss(trial, outcome, "lora", "CHIP-STS")
    assert losses == pytest.approx([0.6931472, 0.0485874])


def test_adapters_of_unequal_size_are_not_compared():
    refuse_unequal({"lora": {"trained": 100}, "molora": {"trained": 101}})
    with pytest.raises(SystemExit, match="choose CONTENDERS' ranks"):
        refuse_unequal({"lora": {"trained": 100}, "molora": {"trained": 103}})
