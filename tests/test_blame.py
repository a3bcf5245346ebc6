"""Damage planted in one expert or one attention: blame finds it, or says that it cannot."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_run_command import checkpoint, own_cache, run_named  # noqa: F401 (fixtures)
from tiny_checkpoints import logits, save_base, token_ids

from mingmoe_eval.blame import Part, blame, put_back
from mingmoe_eval.cli import main
from mingmoe_eval.errors import UsageError
from mingmoe_eval.molora import load_model
from mingmoe_eval.run_store import load_run

TASKS = "usmle_ll,mcmle_ll,medmcqa_val_ll"


def damaged(checkpoint, folder, stem, *words, by=-40.0):  # noqa: F811
    """The checkpoint with every B whose name holds the words multiplied."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = str(checkpoint.parent / "base")
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    file = folder / f"{stem}.safetensors"
    tensors = load_file(file)
    hit = [name for name in tensors if "lora_B" in name and all(word in name for word in words)]
    assert hit
    save_file({n: t * by if n in hit else t for n, t in tensors.items()}, file)
    (folder / f"{stem}.bin").unlink(missing_ok=True)
    return folder


def two_runs(tmp_path, good, bad):
    for name, model in (("good", good), ("bad", bad)):
        assert run_named(tmp_path, name, model, "--limit", "12", tasks=TASKS) == 0
    return load_run(tmp_path / "good"), load_run(tmp_path / "bad")


@pytest.mark.parametrize(
    ("stem", "words", "found"),
    [
        ("non_lora_trainables", ("layers.1.", "experts.2."), "expert 2 of layer 1"),
        ("non_lora_trainables", ("layers.0.", "experts.0."), "expert 0 of layer 0"),
        ("adapter_model", ("layers.1.",), "attention of layer 1"),
    ],
)
def test_planted_damage_is_found(tmp_path, checkpoint, stem, words, found):  # noqa: F811
    bad = damaged(checkpoint, tmp_path / "damaged", stem, *words)
    good_run, bad_run = two_runs(tmp_path, checkpoint, bad)
    outcome = blame(good_run, bad_run)
    assert outcome.flips > 0
    told = {trial.part: trial for trial in outcome.trials}
    # The part itself undoes all of it, bit for bit; others are not even tried, being equal.
    assert (told[found].restored, told[found].moved) == (outcome.flips, 0)
    whole = {name: task.paired.difference for name, task in outcome.whole.tasks.items()}
    back = {name: t.paired.difference for name, t in told[found].comparison.tasks.items()}
    assert back == pytest.approx(whole)
    parts = [part for part in told if part not in (found, f"layer {words[0][-2]}")]
    assert not parts


def test_the_command_says_where_the_search_led(tmp_path, checkpoint, capsys):  # noqa: F811
    words = ("layers.1.", "experts.2.")
    bad = damaged(checkpoint, tmp_path / "damaged", "non_lora_trainables", *words)
    two_runs(tmp_path, checkpoint, bad)
    capsys.readouterr()
    arguments = ["blame", str(tmp_path / "good"), str(tmp_path / "bad"), "--json"]
    assert main([*arguments, str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "expert 2 of layer 1" in out
    assert "Parts work together" in out
    data = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert {trial["part"] for trial in data["trials"]} == {"layer 1", "expert 2 of layer 1"}
    assert data["docs_that_differ"] > 0


def test_what_is_put_back_is_taken_out_again_bit_for_bit(tmp_path, checkpoint):  # noqa: F811
    bad = damaged(checkpoint, tmp_path / "damaged", "non_lora_trainables", "layers.1.")
    model, source, ids = load_model(bad), load_model(checkpoint), token_ids(2, 6)
    before = logits(model, ids)
    everything = Part("all", lambda one: list(one.parameters()))
    with put_back(everything, model, source):
        assert torch.equal(logits(model, ids), logits(source, ids))
    assert torch.equal(logits(model, ids), before)
    with pytest.raises(RuntimeError), put_back(everything, model, source):
        raise RuntimeError
    assert torch.equal(logits(model, ids), before)


def test_equal_checkpoints_and_other_shapes_are_refused(tmp_path, checkpoint):  # noqa: F811
    good, same = two_runs(tmp_path, checkpoint, checkpoint)
    with pytest.raises(UsageError, match="equal in every weight"):
        blame(good, same)
    other = save_base(tmp_path / "base", vocab_size=384, max_position_embeddings=512)
    for file in (checkpoint.parent / "base").glob("tokenizer*"):
        shutil.copy(file, other)
    assert run_named(tmp_path, "other", other, "--limit", "12", tasks=TASKS) == 0
    with pytest.raises(UsageError, match="not of one shape"):
        blame(load_run(tmp_path / "other"), good)
