"""Disks, clocks and files that misbehave, docs of any size, texts meant to do harm."""

import csv
import gc
import io
import json
import multiprocessing
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from doubles import ScriptedLM
from openai_server import serving, text

from mingmoe_eval import run_store
from mingmoe_eval.cli import main
from mingmoe_eval.errors import CheckpointError, DataError, MingMoeError, RunStoreError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.model_opening import Watch
from mingmoe_eval.records import RunSpec
from mingmoe_eval.report import render_report

USMLE = "medqa_usmle_4opt/test.jsonl"


def question(stem="Which one?", options=("yes", "no", "maybe", "never"), answer="A"):
    letters = {chr(ord("A") + n): text for n, text in enumerate(options)}
    return {"question": stem, "options": letters, "answer_idx": answer, "answer": letters[answer]}


def data_of(folder, *questions, name=USMLE):
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(q, ensure_ascii=False) + "\n" for q in questions)
    path.write_text(text, "utf-8", errors="surrogatepass")
    return folder / "data"


def run(data, tasks="usmle", reply="A", **options):
    spec = RunSpec(model="m", tasks=(tasks,), data_dir=str(data))
    lm = ScriptedLM(reply=lambda prompt: reply)
    return evaluate(spec, open_model=lambda *_: lm, **options)


# --- disks ---------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield folder
    gc.collect()  # a store that an error left open keeps the disk busy
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_advice_and_space_lets_it_go_on(tmp_path, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(150_000))
    data = data_of(tmp_path, *(question(f"{n} {'long ' * 40}?") for n in range(80)))
    folder = small_disk / "r"
    with pytest.raises(RunStoreError, match=r"cannot write .*free some space"):
        run(data, folder=folder)
    with pytest.raises(RunStoreError, match=r"not a run folder|unfinished run"):
        run_store.load_run(folder)
    filler.unlink()
    whole = run(data, folder=folder, resume=(folder / "run.unfinished.json").exists())
    assert run_store.load_run(folder).results == whole.results


def test_after_a_full_disk_a_served_run_asks_only_what_is_not_answered(
    tmp_path, small_disk, capsys
):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    docs = 40
    data = data_of(tmp_path, *(question(f"{n} {'long ' * 40}?") for n in range(docs)))

    def answer(path, payload):
        return text("A" * 500, chat=path.startswith("/chat"))

    with serving(answer) as (model, seen):
        words = ["run", "--model", model, "--tasks", "usmle", "--data-dir", str(data)]
        words += ["--output", str(small_disk), "--name", "r", "--batch-size", "2"]
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "free some space" in said
        before = len(seen.payloads)
        assert before < docs
        filler.unlink()
        larger = ["mount", "-o", "remount,size=16m", str(small_disk)]
        subprocess.run(larger, check=True)
        (command,) = re.findall(r"^  mingmoe-eval (.*)$", said, re.MULTILINE)
        assert main(shlex.split(command)) == 0
    asked = Counter(json.dumps(one) for one in seen.payloads if "long" in json.dumps(one))
    assert len(asked) == docs
    # What was under way when the disk was full could not be kept.
    assert sum(asked.values()) - docs <= 2
    assert run_store.load_run(small_disk / "r").results["usmle"].main.n == docs


def test_a_file_that_cannot_grow_ends_the_run_with_one_message(tmp_path):
    pytest.importorskip("torch")
    import hostile_runs

    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["hostile_runs"])
    arguments = (tmp_path / "r", 2_000, tmp_path / "said")
    process = processes.Process(target=hostile_runs.run_with_small_files, args=arguments)
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert "free some space" in (tmp_path / "said").read_text("utf-8")
    assert not (tmp_path / "r" / "run.json").exists()


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_model_is_opened(tmp_path):
    def never(*_):
        raise AssertionError("opened")

    # /proc takes no folders from anyone, root included.
    place = Path("/proc/runs") if Path("/proc/self").exists() else tmp_path / "file" / "runs"
    (tmp_path / "file").write_text("")
    spec = RunSpec(model="m", tasks=("usmle",), sample=True)
    with pytest.raises(RunStoreError, match="cannot write"):
        evaluate(spec, folder=place / "r", open_model=never)


# --- files that change, clocks that go back ------------------------------------------------------


def test_a_data_file_that_changes_during_the_run_changes_nothing(tmp_path):
    data = data_of(tmp_path, *(question(f"Question {n}?") for n in range(4)))
    undisturbed = run(data)

    class Meddler(Watch):
        def task_started(self, task, docs):
            data_of(tmp_path, question("Another question?", answer="B"))

    disturbed = run(data, watch=Meddler())
    assert disturbed.samples == undisturbed.samples
    one, other = (r.provenance["tasks"]["usmle"] for r in (undisturbed, disturbed))
    assert one["data_fingerprint"] == other["data_fingerprint"]
    assert run(data).provenance["tasks"]["usmle"]["data_fingerprint"] != one["data_fingerprint"]


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static long back;
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec -= (back += 60);
  return status;
}
"""

RUN_TWICE = """
import sys, time
from doubles import ScriptedLM
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec
assert time.time() > time.time() + 30, "the clock does not go back"
for name in "ab":
    spec = RunSpec(model="m", tasks=("usmle",), sample=True)
    lm = ScriptedLM(reply=lambda prompt: "A")
    run = evaluate(spec, folder=f"{sys.argv[1]}/{name}", open_model=lambda *_: lm)
    assert 0 <= run.timing["seconds"] < 600, run.timing
    assert 0 <= run.results["usmle"].seconds < 600
"""


def test_a_clock_that_goes_back_a_minute_at_each_look_changes_no_result(tmp_path):
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("a false clock takes Linux and gcc")
    library = tmp_path / "clock.so"
    (tmp_path / "clock.c").write_text(CLOCK)
    command = ["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": tests}
    done = subprocess.run(
        [sys.executable, "-c", RUN_TWICE, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = (run_store.load_run(tmp_path / name) for name in "ab")
    assert first.samples == second.samples
    assert first.provenance["created"] > second.provenance["created"]


# --- docs of any size ----------------------------------------------------------------------------


def test_a_doc_of_a_million_characters_goes_from_file_to_page(tmp_path):
    stem = "患者，男，" + "长" * 1_000_000 + "？"
    data = data_of(tmp_path, question(stem), question())
    started = time.thread_time()
    whole = run(data, folder=tmp_path / "r")
    assert whole.samples["usmle"][0].doc["question"] == stem
    loaded = run_store.load_run(tmp_path / "r")
    assert loaded.results == whole.results
    render_report([loaded], tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert time.thread_time() - started < 30


def test_a_reply_of_a_million_characters_is_read_and_kept(tmp_path):
    reply = "思考" * 500_000 + "\n答案：B"
    samples = run(data_of(tmp_path, question(answer="B")), reply=reply).samples["usmle"]
    assert [(s.answered, s.score, s.response == reply) for s in samples] == [("B", 1.0, True)]


@pytest.mark.parametrize("count", [2, 4, 5, 26])
def test_questions_with_up_to_26_options_are_asked_and_read(tmp_path, count):
    options = [f"choice {n}" for n in range(count)]
    last = chr(ord("A") + count - 1)
    row = {
        "question": "Which?",
        "options": dict(zip(map(chr, range(65, 91)), options, strict=False)),
    }
    data = data_of(tmp_path, {**row, "answer": last}, name="cmexam/test.jsonl")
    (sample,) = run(data, tasks="cmexam", reply=last).samples["cmexam"]
    assert f"{last}. choice {count - 1}" in sample.prompt
    assert (sample.answered, sample.score) == (last, 1.0)


def test_a_question_with_one_option_is_left_out_counted_and_named(tmp_path):
    rows = [question(options=("only",)), question()]
    result = run(data_of(tmp_path, *rows))
    assert len(result.samples["usmle"]) == 1
    assert result.results["usmle"].counts.unusable == 1
    assert "line 1" in str(result.provenance["tasks"]["usmle"]["unusable"])


# --- names and links -----------------------------------------------------------------------------


def test_links_to_data_are_followed_and_loops_are_no_hang(tmp_path):
    data = data_of(tmp_path, question())
    linked = tmp_path / "linked"
    (linked / "medqa_usmle_4opt").mkdir(parents=True)
    (linked / USMLE).symlink_to(data / USMLE)
    (linked / "loop").symlink_to(linked)
    assert run(linked).samples == run(data).samples
    (linked / USMLE).unlink()
    (linked / USMLE).symlink_to(linked / USMLE)
    with pytest.raises(DataError):
        run(linked)


@pytest.mark.parametrize("split", ["../../etc/passwd", "/etc/passwd", "..", "a/../../b"])
def test_a_split_cannot_lead_out_of_the_data_folder(tmp_path, split):
    data_of(tmp_path, question())
    spec = RunSpec(model="m", tasks=("usmle",), data_dir=str(tmp_path / "data"), split=split)
    with pytest.raises((DataError, UsageError)):
        evaluate(spec, open_model=lambda *_: ScriptedLM())


@pytest.mark.parametrize("name", ["../../usmle", "/etc/passwd", "usmle\x00", "..", "\x1b[2J"])
def test_a_task_name_that_is_a_path_is_no_task(name):
    spec = RunSpec(model="m", tasks=(name,), sample=True)
    with pytest.raises(MingMoeError):
        evaluate(spec, open_model=lambda *_: ScriptedLM())


# --- model output that is meant to do harm -------------------------------------------------------

HARM = '\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\\input{/etc/passwd}=HYPERLINK("http://x")\u202e'


def test_harmful_output_is_kept_word_for_word_and_obeyed_nowhere(tmp_path, capsys):
    data = data_of(tmp_path, question(HARM, options=(HARM, "no")), question())
    folder = tmp_path / "r"
    whole = run(data, reply=HARM + "A", folder=folder)
    assert whole.samples["usmle"][0].response == HARM + "A"
    render_report([whole], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script>alert(1)" not in page
    assert main(["rescore", str(folder), "--name", "again"]) == 0
    for form in ("markdown", "latex", "csv"):
        assert main(["table", str(folder), "--allow-marked", "--format", form]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


def test_no_cell_of_a_table_begins_a_formula(tmp_path, capsys):
    whole = run(data_of(tmp_path, question()), folder=tmp_path / "=cmd|' ' !A1")
    assert whole.name.startswith("=")
    main(["table", str(tmp_path / whole.name), "--allow-marked", "--format", "csv"])
    cells = [cell for row in csv.reader(io.StringIO(capsys.readouterr().out)) for cell in row]
    assert f"'{whole.name}" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t"))]


# --- weights that lie ----------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [5 * 2**30, 2**63, 2**64 - 1, 0, 7])
def test_a_header_that_claims_gigabytes_is_refused_without_asking_for_them(tmp_path, claimed):
    pytest.importorskip("torch")
    from mingmoe_eval.molora import load_model

    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    lie = struct.pack("<Q", claimed) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "model.safetensors").write_bytes(lie)
    before = peak_memory()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(tmp_path)
    assert peak_memory() - before < 500_000


@pytest.mark.parametrize("shape", ["[1073741824,5]", "[-1]", "[18446744073709551615]"])
def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path, shape):
    pytest.importorskip("torch")
    from mingmoe_eval.molora import load_model

    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    header = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,5368709120]}}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(tmp_path)


def peak_memory():
    """Kilobytes that this process ever held at once."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
