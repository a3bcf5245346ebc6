"""The gate's error rates and power: the simulation of `benchmarks/regression_gate.py`, in small."""

import numpy as np
import pytest

from benchmarks import regression_gate as simulation

TRIALS = 300
CHANCE = 0.05 + 3 * (0.05 * 0.95 / TRIALS) ** 0.5  # three standard errors above alpha


def share(rule, draw):
    rng = np.random.default_rng(1)
    return float(np.mean([rule(draw(rng)) for _ in range(TRIALS)]))


def sixteen(drop):
    def draw(rng):
        return simulation.comparison(simulation.draw_tasks(rng, [480] * 16, [drop] * 16, 0.20))

    return draw


def test_no_difference_fails_no_more_often_than_alpha():
    assert share(simulation.fails, sixteen(0.0)) <= CHANCE


def test_two_points_lost_in_each_of_sixteen_tasks_are_found():
    found = share(simulation.fails, sixteen(0.02))
    assert found >= 0.85  # 0.9 and more in the benchmark, with an error of 0.02 here
    assert found >= share(simulation.apart, sixteen(0.02))
    assert share(simulation.holm_alone, sixteen(0.02)) < 0.5


@pytest.mark.parametrize(("tasks", "forms"), [(2, 2), (16, 4), (16, 16)])
def test_questions_that_several_tasks_share_raise_no_alarm(tasks, forms):
    def draw(rng):
        return simulation.shared_questions(rng, tasks, forms, 0.9)

    assert share(simulation.fails, draw) <= CHANCE
