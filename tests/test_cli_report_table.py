"""The verbs `report` and `table`, from run folders on disk to files and exit statuses."""

import pytest
from report_runs import exam_run, exam_samples, guessing

from mingmoe_eval.cli import main
from mingmoe_eval.run_store import save_run


@pytest.fixture
def folders(tmp_path):
    """Two runs of `cmexam` and a marked one."""

    def saved(name, share, **facts):
        run = exam_run(name, {"cmexam": exam_samples("cmexam", 40, guessing(1, share))}, **facts)
        return str(save_run(run, tmp_path / name))

    return [saved("a", 0.5), saved("b", 0.9), saved("sample", 0.9, spec={"sample": True})]


def test_a_run_gets_its_page_into_its_folder(folders, capsys):
    assert main(["report", folders[0]]) == 0
    assert capsys.readouterr().out.strip() == f"{folders[0]}/report.html"


def test_several_runs_share_a_page(folders, tmp_path):
    page = tmp_path / "page.html"
    arguments = ["report", *folders[:2], "-o", str(page), "--baseline", "2", "--language", "zh"]
    assert main(arguments) == 0
    assert "<title>a · b</title>" in page.read_text("utf-8")


def test_a_report_without_docs_holds_no_response(folders, tmp_path):
    page = tmp_path / "page.html"
    assert main(["report", folders[0], "-o", str(page), "--without-docs"]) == 0
    assert 'id="chunk-0"' not in page.read_text("utf-8")


def test_a_table_goes_to_stdout_or_into_a_file(folders, tmp_path, capsys):
    assert main(["table", *folders[:2], "--doubt", "interval"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[2] == "| Model | CMExam |"
    assert main(["table", *folders[:2], "--format", "latex", "-o", str(tmp_path / "t.tex")]) == 0
    assert r"\toprule" in (tmp_path / "t.tex").read_text("utf-8")


def test_published_rows_are_named_by_comma(folders, capsys):
    arguments = ["table", folders[0], "--layout", "ming-exams", "--published", "apollo,cmexam"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Apollo-7B" in printed
    assert "Human volunteers" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--published", "nobody"], "no published results under 'nobody'"),
        (["--allow", "everything"], "'everything'"),
        (["--baseline", "3"], "run number 3 cannot be the baseline: there are 2 runs"),
    ],
)
def test_mistakes_end_with_status_2(folders, capsys, arguments, message):
    assert main(["table", *folders[:2], *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_marked_run_is_refused_unless_allowed(folders, capsys):
    assert main(["table", folders[2]]) == 2
    assert "--allow-marked" in capsys.readouterr().err
    assert main(["table", folders[2], "--allow-marked"]) == 0
    assert "not the benchmark: invented sample" in capsys.readouterr().out


def test_a_folder_that_is_no_run_ends_with_status_2(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
