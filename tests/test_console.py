"""Tables at every width, and progress on and off a terminal: no number is ever shortened."""

import contextlib
import io
import os
import re
import time
from unittest.mock import patch

import pytest
from gate_runs import make_run, make_samples
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mingmoe_eval.cli.console import RULE, print_results, print_table
from mingmoe_eval.cli.progress import RunProgress, TrainingProgress, WorkProgress
from mingmoe_eval.records import Counts, MetricValue, TaskResult

SCORES = {"usmle": [1, 0, 1, 1], "pharmacist2023_pharmacy": [0, 0, 1]}
WIDTHS = (200, 120, 80, 60, 40)
GATE = (
    ("task", "verdict", "docs", "baseline", "difference (90 % interval)", "docs to settle"),
    [
        (
            "pharmacist2023_pharmacy",
            "❔ undecided",
            "10",
            "0.00",
            "-33.33 (-48.57 to +33.50)",
            "2740",
        ),
        RULE,
        ("中文任务", "✅ equivalent", "6691", "61.25", "+0.00 (-0.10 to +0.10)", ""),
    ],
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(width, *table, to=Terminal, **options):
    terminal = patch.dict(os.environ, {"COLUMNS": str(width), "TERM": "xterm"})
    with terminal, contextlib.redirect_stdout(to()) as out:
        print_table(*table, **options)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_cell_of_numbers_is_cut_or_folded_at_any_width(width):
    text = printed(width, "a gate", *GATE)
    assert "…" not in text
    for row in GATE[1]:
        for cell in row:
            assert cell in text
    assert max(map(cell_len, text.split("\n"))) <= width


def test_off_a_terminal_a_table_is_as_wide_as_it_is_and_plain(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = printed(40, "a gate", *GATE, to=io.StringIO)
    assert "\x1b" not in text
    assert "━" in text
    assert all(cell in line for cell in GATE[1][0] for line in text.split("\n") if "❔" in line)


def test_words_fold_before_a_table_gives_up_its_columns():
    table = ("t", ("task", "score", "remarks"), [("usmle", "61.3 [57.0, 65.4]", "invented sample")])
    text = printed(44, *table, words=("remarks",))
    assert "│ invented" in text
    assert "│ sample" in text
    assert "61.3 [57.0, 65.4]" in text
    assert printed(24, *table, words=("remarks",)) == (
        "t\nusmle\n  score:\n    61.3 [57.0, 65.4]\n  remarks:\n    invented sample\n"
    )


def test_columns_without_a_word_go_before_the_table_does():
    table = ("t", ("task", "score", "unanswered"), [("usmle", "61.3 [57.0, 65.4]", "")])
    assert "unanswered" in printed(45, *table)
    narrow = printed(32, *table)
    assert "unanswered" not in narrow
    assert "│ 61.3 [57.0, 65.4] │" in narrow


CELLS = st.text("0123456789.+-[]() 药a", min_size=1, max_size=30).map(lambda s: " ".join(s.split()))


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
    width=st.integers(20, 120),
)
def test_every_word_of_any_table_stands_whole_at_any_width(rows, width):
    text = printed(
        width, "title", ("a heading", "another heading", "words"), rows, words=("words",)
    )
    assert "…" not in text
    for word in (word for row in rows for cell in row for word in cell.split()):
        assert word in text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_results_of_a_run_hold_every_number_at_any_width(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    run = make_run("r", {name: make_samples(scores, name) for name, scores in SCORES.items()})
    with contextlib.redirect_stdout(Terminal()) as out:
        print_results(run)
    assert "…" not in out.getvalue()
    for result in run.results.values():
        assert f"{100 * result.main.value:.1f}" in out.getvalue()


@pytest.mark.parametrize(("mass", "said"), [(0.732, "73.2 %"), (1.9e-8, "1.9e-08")])
def test_ties_and_the_letters_mass_stand_beside_the_score(mass, said):
    metrics = {
        "score": MetricValue(value=0.5, n=4),
        "letter_mass": MetricValue(value=mass, n=4),
        "low_letter_mass": MetricValue(value=0.25, n=4),
    }
    result = TaskResult(
        task="usmle_ll", main_metric="score", metrics=metrics, counts=Counts(docs=4, tied=3)
    )
    run = make_run("r", {"usmle_ll": make_samples([1, 0, 1, 0])}, results={"usmle_ll": result})
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_results(run)
    assert f"3 ties; letter mass {said}, low in 25 %" in out.getvalue()


# --- progress -------------------------------------------------------------------------------------


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_line_tells_task_share_rate_and_time_left():
    clock = Clock()
    work = WorkProgress("loading the model", clock=clock)
    clock.seconds = 61
    assert work.line() == "loading the model: 1 min 1 s so far"
    work.begin("usmle", 400)
    work.reach(100, 400)  # these were in the store: they say nothing of the rate
    assert work.line() == "usmle: 100 of 400 (25 %), 0 s so far"
    clock.seconds += 10
    work.reach(120, 400)
    assert work.line() == "usmle: 120 of 400 (30 %), 2 a second, 2 min 20 s left"
    work.begin("mcmle", 8)
    assert work.line() == "mcmle: 0 of 8 (0 %), 0 s so far"


def test_hours_are_told_as_hours():
    clock = Clock()
    work = WorkProgress("usmle", clock=clock)
    work.reach(0, 10_000)
    clock.seconds = 100
    work.reach(100, 10_000)
    assert work.line().endswith("1 a second, 2 h 45 min left")


def test_off_a_terminal_a_plain_line_comes_again_and_again_also_while_nothing_is_done(
    capsys, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI services set it
    with WorkProgress("loading the model", interval=0.02) as work:
        time.sleep(0.2)
        work.note("[b]the adapter is live")
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == ""
    assert lines.pop() == "note: [b]the adapter is live"
    assert len(lines) >= 2
    assert set(lines) == {"loading the model: 0 s so far"}


def test_a_short_piece_of_work_says_nothing_off_a_terminal(capsys):
    with RunProgress() as watch:
        watch.task_started("usmle", 10)
        watch.requests_done(10, 10)
    assert capsys.readouterr() == ("", "")


def test_training_tells_its_losses_and_only_in_the_first_process(capsys, monkeypatch):
    with TrainingProgress() as watch:
        watch.step_done(1, 4, None)
        watch.step_done(2, 4, 1.25)
    assert capsys.readouterr().err == "step 2 of 4: loss 1.2500\n"
    monkeypatch.setenv("RANK", "1")
    with TrainingProgress() as watch:
        watch.step_done(2, 4, 1.25)
        watch.note("unheard")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_is_drawn_and_notes_stay_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(Terminal()) as err, WorkProgress("loading [x]") as work:
        work.begin("usmle", 4)
        work.reach(2, 4)
        work.note("a note")
    assert "2/4" in err.getvalue()
    assert "note: a note" in err.getvalue()
