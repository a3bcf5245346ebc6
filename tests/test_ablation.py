"""Masking experts, and what a run's scores lose by it, on a tiny checkpoint from end to end."""

import json
import re

import pytest
import torch
from test_run_command import checkpoint, own_cache, run_named  # noqa: F401 (fixtures)
from tiny_checkpoints import Recipe, logits, save_adapter, save_base, token_ids

from mingmoe_eval.cli import main
from mingmoe_eval.errors import UsageError
from mingmoe_eval.molora import load_model
from mingmoe_eval.molora.router import ExpertMask, masked, read_masks, routers
from mingmoe_eval.run_store import load_run

IDS = token_ids(2, 6)


@pytest.fixture
def model(tmp_path):
    save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"), Recipe(num_experts=3))
    return load_model(tmp_path / "adapter")


def test_trials_are_read_as_they_are_written():
    one, of_layer = ExpertMask(3), ExpertMask(0, 5)
    assert read_masks("3, 5:0+3") == [(one,), (of_layer, one)]
    assert [str(mask) for mask in (one, of_layer)] == ["3", "5:0"]


@pytest.mark.parametrize("text", ["", "a", "1,", "1+", "5:", "-1"])
def test_what_names_no_expert_is_refused(text):
    with pytest.raises(UsageError, match="names no expert"):
        read_masks(text)


def test_a_masked_model_leaves_the_experts_out_and_comes_back_bit_for_bit(model):
    before = logits(model, IDS)
    with masked(model, [ExpertMask(0), ExpertMask(2, 1)]):
        assert not torch.allclose(logits(model, IDS), before)
        biases = [torch.isinf(router.router_bias).any(0).tolist() for router in routers(model)]
    assert biases == [[True, False, False]] * 2 + [[True, False, True]] * 2
    assert torch.equal(logits(model, IDS), before)


def test_a_mask_leaves_the_model_as_it_was_also_after_an_error(model):
    before = logits(model, IDS)
    with pytest.raises(RuntimeError), masked(model, [ExpertMask(1)]):
        raise RuntimeError
    assert torch.equal(logits(model, IDS), before)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([ExpertMask(3)], "3: no layer has such an expert; layers are 0 to 1, experts 0 to 2"),
        ([ExpertMask(0, 2)], "2:0: no layer has such an expert"),
        ([ExpertMask(0), ExpertMask(1), ExpertMask(2, 1)], "layers.1.mlp.gate_proj: every expert"),
    ],
)
def test_masks_that_do_not_fit_are_refused(model, masks, said):
    with pytest.raises(UsageError) as caught, masked(model, masks):
        pass
    assert said in str(caught.value)


def test_a_model_without_routers_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no routers"), masked(torch.nn.Linear(2, 2), []):
        pass


def test_ablate_compares_a_run_with_itself_without_each_expert(tmp_path, checkpoint, capsys):  # noqa: F811
    assert run_named(tmp_path, "r", checkpoint) == 0
    capsys.readouterr()
    arguments = ["ablate", str(tmp_path / "r"), "--experts", "0,1:2+1:3", "--json"]
    assert main([*arguments, str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "1:2+1:3" in out
    assert "Not the benchmark: invented sample, first 4 docs." in out
    trials = json.loads((tmp_path / "out.json").read_text())["trials"]
    assert [(one["experts"], one["task"]) for one in trials] == [
        (experts, task) for experts in ("0", "1:2+1:3") for task in ("usmle", "usmle_ll")
    ]
    run = load_run(tmp_path / "r")
    rows = [re.split(r" *│ *", line)[1:-1] for line in out.splitlines() if line.startswith("│")]
    heads = re.split(r" *┃ *", next(line for line in out.splitlines() if line.startswith("┃")))
    assert heads[4:6] == ["all experts %", "without %"]
    for row, one in zip(rows, trials, strict=True):
        assert row[3:5] == [f"{100 * one['baseline']:.2f}", f"{100 * one['without']:.2f}"]
    assert any(row[3] != row[4] for row in rows)
    for one in trials:
        assert one["baseline"] == run.results[one["task"]].main.value
        low, high = one["interval"]
        assert low <= one["difference"] <= high
    loads = [facts["load"] for facts in run.routing["tasks"].values()]
    assert trials[0]["usage"] == pytest.approx(
        sum(row[0] for load in loads for row in load) / (2 * len(loads))
    )


def test_ablate_refuses_a_run_without_routers_and_experts_that_are_not_there(
    tmp_path, checkpoint, capsys  # noqa: F811
):  # fmt: skip
    assert run_named(tmp_path, "base", checkpoint.parent / "base") == 0
    assert main(["ablate", str(tmp_path / "base"), "--experts", "0"]) == 2
    assert "no routers" in capsys.readouterr().err
    assert run_named(tmp_path, "r", checkpoint) == 0
    assert main(["ablate", str(tmp_path / "r"), "--experts", "9"]) == 2
    assert "9: no layer has such an expert" in capsys.readouterr().err


def test_several_adapters_on_one_base_are_runs_of_their_own(tmp_path, checkpoint, capsys):  # noqa: F811
    base = checkpoint.parent / "base"
    save_adapter(tmp_path / "other", base, Recipe(num_experts=6, top_k=3))
    both = f"{checkpoint},{tmp_path / 'other'}"
    arguments = ["--tasks", "usmle_ll", "--model", str(base), "--adapters", both, "--sample"]
    arguments += ["--limit", "4", "--output", str(tmp_path), "--name", "two"]
    assert main(arguments) == 0
    assert run_named(tmp_path, "alone", checkpoint, "--no-cache", tasks="usmle_ll") == 0
    alone, shared = load_run(tmp_path / "alone"), load_run(tmp_path / "two-adapter")
    assert shared.samples == alone.samples
    fingerprints = [run.provenance["model"]["weights_fingerprint"] for run in (shared, alone)]
    assert fingerprints[0] == fingerprints[1]
    assert shared.spec.base == str(base)
    other = load_run(tmp_path / "two-other")
    assert other.routing["layers"][0]["experts"] == 6
    assert main([*arguments, "--base", str(base)]) == 2
    assert "leave --base out" in capsys.readouterr().err
