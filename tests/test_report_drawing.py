"""Pages where the library that draws fails: everything but the charts is there, and it is said."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import exam_run, exam_samples, guessing

from mingmoe_eval.cli import main
from mingmoe_eval.report import render_report
from mingmoe_eval.report.libraries import DrawingError, can_draw, draw
from mingmoe_eval.run_store import load_run, save_run

needs_charts = pytest.mark.skipif(not can_draw(), reason="the extra `report` is not installed")

ENDINGS = {
    "import os, signal; os.kill(os.getpid(), signal.SIGTRAP)": "was ended by SIGTRAP",
    "raise ValueError('oneshot canceled')": "ended with status 1 (ValueError: oneshot canceled)",
    "import sys; sys.exit(0)": "could not be run",
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A drawing library that begins with this line of Python."""

    def install(line):
        folder = tmp_path / "library"
        folder.mkdir(exist_ok=True)
        (folder / "vl_convert.py").write_text(line)
        monkeypatch.syspath_prepend(str(folder))

    return install


def saved_run(folder, name="a", **facts):
    run = exam_run(name, {"cmexam": exam_samples("cmexam", 20, guessing(1, 0.5))}, **facts)
    return save_run(run, folder)


@pytest.mark.parametrize(("line", "ending"), ENDINGS.items())
def test_a_page_says_that_it_is_without_its_charts_and_holds_all_else(
    tmp_path, broken, line, ending
):
    broken(line)
    told = []
    run = load_run(saved_run(tmp_path / "a"))
    page = render_report([run], tmp_path / "page.html", told=told.append).read_text("utf-8")
    assert 'class="value"' in page
    assert "<figure" not in page
    assert "The charts could not be drawn" in page
    assert len(told) == 1
    assert ending in told[0]


def test_the_verb_report_makes_the_page_and_figures_that_were_asked_for_are_an_error(
    tmp_path, broken, capsys
):
    folder = saved_run(tmp_path / "a")
    broken("raise ValueError('no')")
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").exists()
    assert "without its charts: the drawing library ended with status 1" in capsys.readouterr().err
    assert main(["report", str(folder), "--figures", str(tmp_path / "figures")]) == 2
    assert not (tmp_path / "figures").exists()


@needs_charts
def test_charts_with_half_a_character_are_drawn(tmp_path):
    told = []
    run = exam_run("a\udc80", {"t\ud800": exam_samples("t", 5, guessing(1, 0.5))})
    page = render_report([run], tmp_path / "page.html", told=told.append).read_text("utf-8")
    assert told == []
    assert "<figure" in page


@needs_charts
@pytest.mark.parametrize(
    "bad_day",
    [
        lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14)),
        lambda: [__import__("os").close(descriptor) for descriptor in (0, 1, 2)],
    ],
    ids=["little address space", "few descriptors", "closed streams"],
)
def test_what_limits_the_machine_fails_no_page(tmp_path, bad_day):
    folder = saved_run(tmp_path / "a")
    done = subprocess.run(
        [sys.executable, "-m", "mingmoe_eval", "report", str(folder)],
        cwd=Path(__file__).parents[1],
        preexec_fn=bad_day,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'class="value"' in (folder / "report.html").read_text("utf-8")


@needs_charts
def test_a_chart_that_is_none_is_an_error_and_not_an_empty_picture():
    with pytest.raises(DrawingError, match="ended with status 1"):
        draw({"a": {"mark": "no such mark"}})
    assert draw({}) == {}
