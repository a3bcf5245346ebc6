import math

import pytest

from mingmoe_eval.metrics.significance import LEGEND, significance_marks


@pytest.mark.parametrize(
    ("p_value", "marks"),
    [(1.0, ""), (0.05, ""), (0.049, "*"), (0.009, "**"), (0.0009, "***"), (math.nan, "")],
)
def test_one_star_for_each_bound_below(p_value, marks):
    assert significance_marks(p_value) == marks


def test_the_legend_says_what_the_marks_mean():
    assert LEGEND == "* p < 0.05, ** p < 0.01, *** p < 0.001"
