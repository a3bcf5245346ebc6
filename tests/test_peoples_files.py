"""A run folder is its user's: `--resume` removes what we wrote, by its exact name, and no more."""

import json
import os

import pytest
from doubles import ScriptedLM

from mingmoe_eval import run_store
from mingmoe_eval.cli import main
from mingmoe_eval.errors import CheckpointError, RunStoreError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec

SPEC = RunSpec(model="scripted", tasks=("usmle",), sample=True, limit=4)

FILES = (
    ".usmle.jsonl.swp",  # vim's
    ".run.json.swp",
    ".run.json.un~",
    ".run.json.4711",
    ".#run.json",  # emacs'
    "run.json~",
    ".DS_Store",
    "._run.json",  # macOS' on other disks
    ".nfs000000000012.0001",
    "notes.md",
    "responses.sqlite.bak",
    "responses.sqlite-old",
    "report.html.mine",
    ".lock",
    "samples/notes on usmle.txt",
    "samples/.usmle.jsonl.swp",
    "samples/.usmle.jsonl.1",
    "samples/usmle.jsonl.bak",
    "lm_eval/notes.md",
    "lm_eval/results_by_hand.json",
    "lm_eval/.results.json.swp",
    ".git.bak/HEAD",
    ".git/objects/.x.y",
    "figures.v1/.draft.1/plot.svg",
    "samples/.usmle.jsonl.4711.mingmoe-eval/inside",  # a folder named as our unfinished files
)


def plant(folder):
    """Files of all sorts below a folder, and what each holds."""
    planted = {}
    for number, name in enumerate(FILES):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"mine {number} \n".encode() + bytes([number, 255]))
        planted[file] = file.read_bytes()
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_bytes(b"\\end")
    links = {
        folder / ".thesis.4711.mingmoe-eval": elsewhere / "thesis.tex",
        folder / "samples" / ".all.1": elsewhere,
        folder / ".gone.1": elsewhere / "gone",
    }
    for link, target in links.items():
        link.symlink_to(target)
    return planted | {elsewhere / "thesis.tex": b"\\end"}, links


def assert_all_there(planted, links):
    assert {file: file.read_bytes() for file in planted} == planted
    assert {link: link.readlink() for link in links} == links


def run(folder, *, failing=False, resume=False):
    lm = ScriptedLM(reply=lambda prompt: "A", failure=lambda prompt: "off" if failing else "")
    return evaluate(SPEC, folder=folder, resume=resume, open_model=lambda *_: lm)


def test_a_resume_of_an_incomplete_run_leaves_every_file_of_the_users(tmp_path):
    folder = tmp_path / "r"
    assert run(folder, failing=True).incomplete == ("usmle",)
    ours = list((folder / "lm_eval").iterdir())
    (folder / "responses.sqlite").write_bytes(b"")
    (folder / "responses.sqlite-wal").write_bytes(b"")
    planted, links = plant(folder)
    earlier = json.loads((folder / "run.json").read_text("utf-8"))
    earlier["provenance"]["created"] = "2026-01-01T00:00:00+00:00"
    (folder / "run.json").write_text(json.dumps(earlier), "utf-8")
    for file in ours:
        kind = file.name.partition("_20")[0]
        file.rename(file.with_name(f"{kind}_2026-01-01T00-00-00+00-00{file.suffix}"))
    assert not run(folder, resume=True).incomplete
    assert_all_there(planted, links)
    assert run_store.load_run(folder).results["usmle"].counts.failed == 0
    # Of the incomplete run nothing stays, and of the stored answers neither.
    assert not list((folder / "lm_eval").glob("*2026-01-01*"))
    assert not (folder / "responses.sqlite").exists()
    assert not (folder / "responses.sqlite-wal").exists()


def test_a_resume_of_an_unfinished_run_leaves_every_file_of_the_users(tmp_path):
    folder = tmp_path / "r"
    path = run_store.open_folder(folder)
    run_store.save_unfinished(path, SPEC)
    planted, links = plant(folder)
    (folder / f".run.json.{os.getpid()}.mingmoe-eval").write_text("{")  # a killed process'
    run(folder, resume=True)
    assert_all_there(planted, links)
    assert not (folder / f".run.json.{os.getpid()}.mingmoe-eval").exists()
    assert not (folder / "run.unfinished.json").exists()


def test_a_run_that_could_not_begin_leaves_what_was_put_beside_it(tmp_path):
    folder = tmp_path / "r"

    def broken(spec, path, watch):
        (path / "notes.md").write_text("mine", "utf-8")
        raise CheckpointError("no such checkpoint")

    with pytest.raises(CheckpointError):
        evaluate(SPEC, folder=folder, open_model=broken)
    assert [path.name for path in folder.iterdir()] == ["notes.md"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"spec": []}',
        '{"spec": {"model": 1, "tasks": []}}',
        '{"spec": {"x": 1}}',
    ],
)
def test_a_damaged_word_of_what_to_resume_is_one_message(tmp_path, text, capsys):
    path = run_store.open_folder(tmp_path / "r")
    (path / "run.unfinished.json").write_text(text, "utf-8")
    with pytest.raises(RunStoreError, match=r"run.unfinished.json is damaged .*another --name"):
        run_store.spec_to_resume(path)
    assert main(["run", "--resume", str(path)]) == 2
    said = capsys.readouterr().err
    assert "run.unfinished.json is damaged or hand-edited" in said
    assert "Traceback" not in said
