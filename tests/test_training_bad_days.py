"""What goes wrong around a training: one message each, exit 2 by the command, and nothing lost."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from test_hostile_fuzz import any_input, at_once, damage
from tiny_checkpoints import edit_json
from tiny_language_models import make_tokenizer
from tiny_training import (
    TEMPLATE,
    Notebook,
    log_lines,
    make_spec,
    rows,
    save_chat_base,
    save_rows,
)

from mingmoe_eval.cli import main
from mingmoe_eval.errors import CheckpointError, DataError, MingMoeError, UsageError
from mingmoe_eval.molora import describe_checkpoint, load_model, probe
from mingmoe_eval.training import train_adapter
from mingmoe_eval.training.conversations import read_conversations
from mingmoe_eval.training.examples import NOT_LEARNED, encode_stream
from mingmoe_eval.training.output_folder import LOCK, STAGING, training_states
from mingmoe_eval.training.spec import HeldOut

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_chat_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def data(tmp_path):
    return save_rows(tmp_path / "data.jsonl", rows(10))


def refused(capsys, *words):
    """What the command says on its way out with status 2; nothing else is said but lines."""
    status = main(["train", *map(str, words)])
    told = capsys.readouterr()
    assert status == 2, told.err
    assert told.out == ""
    assert "Traceback" not in told.err
    return told.err


def test_a_second_training_in_a_folder_is_refused_and_the_first_is_left_alone(
    tmp_path, base, data, capsys
):
    output = tmp_path / "ckpt"
    output.mkdir()
    lock = FileLock(output / LOCK)
    with lock:
        told = refused(capsys, "--base", base, "--data", data, "--output", output)
        assert "another training is writing" in told
    # A lock that a kill left behind holds nothing.
    (output / LOCK).touch()
    train_adapter(make_spec(base, data, steps=2), output)
    with FileLock(output / LOCK), pytest.raises(UsageError, match="another training is writing"):
        train_adapter(make_spec(base, data, steps=2), output, resume="last")
    assert probe(load_model(output)) > 0


def test_a_quantised_base_is_refused_by_name(tmp_path, data, capsys):
    base = save_chat_base(tmp_path / "packed")
    settings = {"quant_method": "gptq", "bits": 4}
    edit_json(base / "config.json", quantization_config=settings)
    told = refused(capsys, "--base", base, "--data", data, "--output", tmp_path / "ckpt")
    assert f"{base} is quantised" in told
    assert not list((tmp_path / "ckpt").glob("*"))


def test_an_output_that_exists_is_refused_and_untouched(tmp_path, base, data, capsys):
    output = tmp_path / "ckpt"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    told = refused(capsys, "--base", base, "--data", data, "--output", output)
    assert "is there already and nothing is overwritten" in told
    assert [path.name for path in output.iterdir()] == ["mine.txt"]


def test_a_share_that_holds_out_nothing_is_refused(tmp_path, base, data, capsys):
    told = refused(
        capsys, "--base", base, "--data", data, "--output", tmp_path / "ckpt",
        "--eval-split", 0.01,
    )  # fmt: skip
    assert "holds out 0: give another --eval-split, or --eval-data" in told


def test_a_conversation_beyond_the_limit_is_named(tmp_path, base, capsys):
    records = [*rows(3), {"prompt": "x " * 200, "completion": "y"}]
    data = save_rows(tmp_path / "long.jsonl", records)
    words = ("--base", base, "--data", data, "--output", tmp_path / "ckpt", "--max-tokens", 100)
    assert "record 4: no response within 100 tokens" in refused(capsys, *words)


def test_tensorboard_that_is_not_there_is_said_before_anything(tmp_path, base, data, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorboard" else find(name, *a),
    )
    with pytest.raises(UsageError, match="pip install tensorboard"):
        train_adapter(make_spec(base, data), tmp_path / "ckpt", tensorboard=True)
    assert not (tmp_path / "ckpt").exists()


def test_tensorboard_gets_what_the_log_has(tmp_path, base, data):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec = dataclasses.replace(make_spec(base, data), held_out=HeldOut(split=0.3))
    folder = train_adapter(spec, tmp_path / "ckpt", tensorboard=True)
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    lines = log_lines(folder)
    for name in ("loss", "eval_loss"):
        told = [(e.step, e.value) for e in board.Scalars(f"train/{name}")]
        logged = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in told] == [step for step, _ in logged]
        assert [v for _, v in told] == pytest.approx([v for _, v in logged], rel=1e-6)


def test_a_loss_that_is_no_number_ends_in_one_message_and_keeps_the_states_before(
    tmp_path, base, data, capsys
):
    output = tmp_path / "ckpt"
    words = ("--base", base, "--data", data, "--output", output, "--steps", 6, "--batch-size", 2)
    told = refused(capsys, *words, "--learning-rate", 1e30, "--log-every", 1, "--save-every", 1)
    assert "training came apart: at step" in told
    assert "lower --learning-rate" in told
    # Whole, though the step that followed led nowhere.
    for state in training_states(output).values():
        assert describe_checkpoint(state).kind == "molora"
    assert not (output / "adapter_config.json").exists()


def test_the_epoch_counts_passes_over_the_conversations_that_are_learned(tmp_path, base, data):
    spec = make_spec(base, data, steps=8, batch_size=2)
    epochs = [line["epoch"] for line in log_lines(train_adapter(spec, tmp_path / "a"))]
    assert epochs == pytest.approx([0.2 * step for step in range(1, 9)])
    spec = dataclasses.replace(spec, held_out=HeldOut(split=0.2, every=4))
    lines = log_lines(train_adapter(spec, tmp_path / "b"))
    assert [line["epoch"] for line in lines if "loss" in line][-1] == pytest.approx(2.0)
    assert [line["epoch"] for line in lines if "eval_loss" in line] == pytest.approx([0, 1, 2])


def test_the_last_step_is_logged_whether_or_not_a_line_is_due(tmp_path, base, data):
    spec = make_spec(base, data, steps=5, log_every=2, save_every=2)
    assert [line["step"] for line in log_lines(train_adapter(spec, tmp_path / "a"))] == [2, 4, 5]


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    # Two steps of warm-up to 1e-2, and eight more: a line tells the rate of the step to come.
    [
        ("constant", [5e-3] + [1e-2] * 9),
        ("linear", [5e-3, *(1e-2 * (8 - i) / 8 for i in range(9))]),
        ("cosine", [5e-3, *(5e-3 * (1 + math.cos(math.pi * i / 8)) for i in range(9))]),
    ],
)
def test_the_learning_rate_follows_its_schedule(tmp_path, base, data, scheduler, expected):
    spec = make_spec(base, data, steps=10, lr_scheduler=scheduler, warmup=0.2)
    rates = [line["learning_rate"] for line in log_lines(train_adapter(spec, tmp_path / "ckpt"))]
    assert rates[0] == pytest.approx(0.0) or rates[0] == pytest.approx(expected[0])
    logged = rates if rates[0] else rates[1:]
    assert logged == pytest.approx(expected[: len(logged)], abs=1e-12)


FILL = """
import sys, os, signal, resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))
from mingmoe_eval.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("most", [120, 3_000, 8_000, 20_000, 40_000, 60_000])
def test_a_disk_that_fills_up_ends_in_one_message_and_leaves_what_was_whole(
    tmp_path, base, data, most
):
    """Files may not grow beyond `most` bytes, which meets another file each time."""
    output = tmp_path / "ckpt"
    words = ("--base", base, "--data", data, "--output", output, "--steps", 4, "--batch-size", 2)
    small = ("--rank", 4, "--log-every", 1, "--save-every", 2, "--eval-split", 0.2)
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", FILL.format(most=most), "train", *map(str, (*words, *small))],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "adapter_config.json").exists()
    for state in training_states(output).values():
        assert probe(load_model(state)) >= 0
    assert STAGING not in {path.name for path in output.iterdir()} or not training_states(output)


# --- any records ---------------------------------------------------------------------------------

SEEDS = [
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
                  {"role": "assistant", "content": "答"}], "id": 3},
    {"conversations": [{"from": "human", "value": "发热？"}, {"from": "gpt", "value": "就医"}]},
    {"instruction": "i", "input": "x", "output": "o", "history": [["a", "b"]], "system": "s"},
    {"input": "找", "target": "没有", "answer_choices": ["a"]},
    {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
     "completion": [{"role": "assistant", "content": "a"}]},
]  # fmt: skip
TOKENIZER = make_tokenizer(template=TEMPLATE)


@pytest.mark.fuzz
@any_input
@given(
    records=st.lists(
        st.sampled_from(SEEDS).flatmap(lambda seed: damage(seed) | st.just(seed)),
        min_size=1,
        max_size=3,
    ),
    whole=st.booleans(),
)
def test_damaged_records_are_refused_or_teach_only_what_the_assistant_says(records, whole):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("data.json" if whole else "data.jsonl")
        lines = [json.dumps(record) for record in records]
        path.write_text(f"[{','.join(lines)}]" if whole else "\n".join(lines), "utf-8")
        try:
            talks = at_once(lambda: read_conversations(path))
            stream = at_once(lambda: encode_stream("s", talks, TOKENIZER, 4096))
        except MingMoeError:
            return
    assert len(talks) == len(records)
    said = {m.content for talk in talks for m in talk.messages if m.role == "assistant"}
    for example in stream.examples:
        learned = [label for label in example.labels if label != NOT_LEARNED]
        text = TOKENIZER.decode(learned)
        assert learned
        assert all(part in said or not part for part in text.split("</s>")) or "�" in text


def test_notes_go_to_the_watch_and_not_to_the_output(tmp_path, base, data, capsys):
    notebook = Notebook()
    train_adapter(make_spec(base, data, steps=2), tmp_path / "ckpt", watch=notebook)
    assert notebook.notes == [f"{data}: 10 examples"]
    assert capsys.readouterr().out == ""


def test_a_best_state_that_is_gone_or_damaged_is_said(tmp_path, base, data):
    spec = make_spec(base, data, steps=40, learning_rate=5e-2, save_every=4, keep=None)
    spec = dataclasses.replace(spec, held_out=HeldOut(split=0.3, every=4, patience=1))
    folder = train_adapter(spec, tmp_path / "ckpt")
    looks = {e["step"]: e["eval_loss"] for e in log_lines(folder) if "eval_loss" in e}
    best = min((step for step in looks if step), key=lambda step: looks[step])
    states = training_states(folder)
    assert max(states) == best + 4 < 40
    shutil.rmtree(states[best])
    with pytest.raises(CheckpointError, match=f"has lost checkpoint-{best}"):
        train_adapter(spec, folder, resume="last")
    (states[max(states)] / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no log_history"):
        train_adapter(spec, folder, resume="last")


def test_a_file_without_a_conversation_is_refused_for_evaluation_too(tmp_path, base, data):
    (tmp_path / "empty.jsonl").write_text("")
    spec = dataclasses.replace(
        make_spec(base, data), held_out=HeldOut(files=(tmp_path / "empty.jsonl",))
    )
    with pytest.raises(DataError, match="holds no conversation"):
        train_adapter(spec, tmp_path / "ckpt")
