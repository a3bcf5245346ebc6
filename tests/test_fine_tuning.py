"""Training as a whole: what it writes, that it resumes bit for bit, and what it refuses."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import edit_json, logits, token_ids
from tiny_training import (
    Notebook,
    log_lines,
    make_spec,
    rows,
    save_chat_base,
    save_rows,
    with_objective,
)
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import CheckpointError, DataError, UsageError
from mingmoe_eval.molora import load_model, load_tokenizer, probe
from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.training import train_adapter
from mingmoe_eval.training.adapters import fresh_molora
from mingmoe_eval.training.batches import pad_batch
from mingmoe_eval.training.fine_tuning import attach_fresh, load_base
from mingmoe_eval.training.material import prepare
from mingmoe_eval.training.output_folder import STAGING, refuse_small_disk
from mingmoe_eval.training.router_supervision import balance_loss, summarise
from mingmoe_eval.training.spec import Silence

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

METHODS = ("molora", "molora-balanced", "molora-contrastive", "lora")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_chat_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def data(tmp_path):
    return save_rows(tmp_path / "data.jsonl", rows(10))


def tensors(folder):
    return {
        f"{path.name}/{name}": tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same_tensors(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_trained_loads_with_the_same_logits(tmp_path, base, data, method):
    """The other side is the adapter as it was trained: unmerged, under PEFT."""
    spec = make_spec(base, data, method=method)
    folder = train_adapter(spec, tmp_path / "ckpt")
    model, ids = load_model(folder), token_ids(2, 9)
    assert probe(model) > 0.05
    trained = attach_fresh(load_base(str(base), spec.schedule), spec)
    assert (logits(model, ids) - logits(trained.model.eval(), ids)).abs().max() > 0.05
    trained.restore(folder / "checkpoint-6")
    assert torch.allclose(logits(model, ids), logits(trained.model, ids), atol=2e-5)


def test_the_checkpoint_is_mings_format_with_both_jsons_complete(tmp_path, base, data):
    spec = make_spec(base, data)
    spec = dataclasses.replace(spec, shape=dataclasses.replace(spec.shape, rslora=True))
    folder = train_adapter(spec, tmp_path / "ckpt")
    adapter = json.loads((folder / "adapter_config.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    expected = {"peft_type": "LORA", "r": 4, "lora_alpha": 8.0, "bias": "none", "use_rslora": True}
    assert adapter | expected == adapter
    assert adapter["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert adapter["base_model_name_or_path"] == str(base)
    mixture = {"num_experts": 4, "num_experts_per_token": 2, "expert_selection": "top_k"}
    assert config | mixture | {"use_rslora": True, "share_expert": False} == config
    own = json.loads((base / "config.json").read_text())
    assert {key: config[key] for key in own} == own
    pickled = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    assert_same_tensors(pickled, load_file(folder / "non_lora_trainables.safetensors"))
    one = "base_model.model.model.layers.1.mlp.down_proj."
    shapes = {name.removeprefix(one): list(t.shape) for name, t in pickled.items() if one in name}
    assert shapes == {
        "switch.weight": [4, 48],
        "switch.bias": [4],
        **{f"experts.{i}.lora_A_{i}.weight": [4, 48] for i in range(4)},
        **{f"experts.{i}.lora_B_{i}.weight": [32, 4] for i in range(4)},
    }
    assert all(tensor.dtype == torch.float32 for tensor in pickled.values())


def test_a_fresh_adapter_changes_nothing_and_its_parts_are_drawn_as_promised(base):
    spec = make_spec(base)
    model = load_base(str(base), spec.schedule)
    before = logits(model, token_ids(2, 9))
    tuned = fresh_molora(model, spec.shape, seed=0)
    assert torch.equal(logits(tuned, token_ids(2, 9)), before)
    for module in routed_experts(model):
        bound = module.in_features**-0.5
        assert all(not b.any() for b in module.lora_b)
        assert 0.9 * bound < module.lora_a.abs().max() <= bound
        assert 0.05 * bound < module.router.std() < 0.15 * bound
        assert not module.router_bias.any()
    trained = {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "_experts." in name for name in trained)
    assert len(trained) == 2 * (4 * 2 + 2 * 3 + 3)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_first_loss_is_the_mean_over_learned_tokens_plus_the_weighted_router_losses(
    tmp_path, base, data, accumulation
):
    spec = make_spec(base, data, steps=1, accumulation=accumulation, save_every=1)
    spec = dataclasses.replace(spec, method="molora-balanced")
    spec = with_objective(spec, balance=0.5, z=0.25)
    [line] = log_lines(train_adapter(spec, tmp_path / "ckpt"))
    expected_tokens, balances, zs = first_step_by_hand(base, spec)
    assert line["balance"] == pytest.approx(sum(balances) / len(balances), rel=1e-5)
    assert line["z"] == pytest.approx(sum(zs) / len(zs), rel=1e-5)
    expected = expected_tokens + 0.5 * line["balance"] + 0.25 * line["z"]
    assert line["loss"] == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def first_step_by_hand(base, spec):
    """The token loss of the whole step, and each batch's balance and z, outside the Trainer."""
    material = prepare(spec, Silence())
    plain = AutoModelForCausalLM.from_pretrained(base)
    model = load_base(str(base), spec.schedule)
    fresh_molora(model, spec.shape, seed=0)
    picked = [example for row in material.examples for example in row]
    total, tokens = 0.0, 0
    for example in picked:
        scores = plain(torch.tensor([example.ids])).logits[0]
        for place, label in enumerate(example.labels):
            if label != -100:
                total -= torch.log_softmax(scores[place - 1], -1)[label].item()
                tokens += 1
    balances, zs = [], []
    size = spec.schedule.batch_size
    for start in range(0, len(picked), size):
        batch = pad_batch([[example] for example in picked[start : start + size]])
        seen = []
        for module in routed_experts(model):
            module.observer = lambda _, g, index, __: seen.append((g, index))  # noqa: B023
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        mask = batch["attention_mask"].flatten()
        sums = [summarise(g, index, mask) for g, index in seen]
        balances.append(torch.cat([balance_loss(one) for one in sums]).mean().item())
        zs.append(torch.cat([one.z for one in sums]).mean().item())
    return total / tokens, balances, zs


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_resumes_with_a_bit_identical_curve_and_outcome(
    tmp_path, base, data, method
):
    spec = make_spec(base, data, method=method, accumulation=2)
    whole = train_adapter(spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_adapter(spec, tmp_path / "cut", watch=Notebook(stop_at=4))
    assert not (tmp_path / "cut" / "adapter_config.json").exists()
    # As a kill leaves it that comes while a state is being written.
    (tmp_path / "cut" / STAGING / "checkpoint-6").mkdir(parents=True)
    resumed = train_adapter(spec, tmp_path / "cut", resume="last")
    logs = [(folder / "training_log.jsonl").read_bytes() for folder in (resumed, whole)]
    assert logs[0] == logs[1]
    assert_same_tensors(tensors(resumed), tensors(whole))


def test_an_earlier_training_state_resumes_too_even_after_the_end(tmp_path, base, data):
    spec = make_spec(base, data, method="molora-contrastive")
    folder = train_adapter(spec, tmp_path / "ckpt")
    before, lines = tensors(folder), log_lines(folder)
    notes = [folder / "unfinished" / "notes.md", folder / "checkpoint-4" / "notes.md"]
    for note in notes:
        note.parent.mkdir(exist_ok=True)
        note.write_text("mine", "utf-8")
    train_adapter(spec, folder, resume="2")
    assert_same_tensors(tensors(folder), before)
    assert log_lines(folder) == lines
    assert [note.read_text("utf-8") for note in notes] == ["mine", "mine"]


def test_a_training_state_is_a_checkpoint_of_its_own(tmp_path, base, data):
    folder = train_adapter(make_spec(base, data), tmp_path / "ckpt")
    assert probe(load_model(folder / "checkpoint-2")) > 0


def test_only_the_newest_training_states_are_kept(tmp_path, base, data):
    folder = train_adapter(make_spec(base, data, keep=2), tmp_path / "ckpt")
    assert sorted(p.name for p in folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]


def test_gradient_checkpointing_changes_memory_and_not_the_outcome(tmp_path, base, data):
    for method in ("molora-balanced", "molora-contrastive"):
        curves = [
            [
                line["loss"]
                for line in log_lines(
                    train_adapter(
                        make_spec(base, data, method=method, gradient_checkpointing=saving),
                        tmp_path / f"{method}{saving}",
                    )
                )
            ]
            for saving in (False, True)
        ]
        assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_bf16_trains_fp32_adapters_close_to_fp32s_curve(tmp_path, base, data):
    exact = train_adapter(make_spec(base, data, save_every=6), tmp_path / "fp32")
    rough = train_adapter(make_spec(base, data, save_every=6, bf16=True), tmp_path / "bf16")
    losses = [[line["loss"] for line in log_lines(folder)] for folder in (exact, rough)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]
    assert all(tensor.dtype == torch.float32 for tensor in tensors(rough).values())


def test_routers_decide_in_fp32_under_autocast(base):
    spec = make_spec(base, bf16=True)
    model = load_base(str(base), spec.schedule)
    fresh_molora(model, spec.shape, seed=0)
    module = routed_experts(model)[0]
    x = torch.randn(5, module.in_features)
    seen = []
    module.observer = lambda _, g, __, ___: seen.append(g)
    with torch.autocast("cpu", torch.bfloat16):
        module.route(x)
    exact = x @ module.router.T + module.router_bias.flatten()
    assert torch.allclose(seen[0].flatten(1), exact, atol=1e-6)


def test_training_learns_its_examples(tmp_path, base):
    data = save_rows(tmp_path / "data.jsonl", rows(3))
    spec = make_spec(base, data, steps=40, save_every=40, learning_rate=2e-2)
    folder = train_adapter(spec, tmp_path / "ckpt")
    losses = [line["loss"] for line in log_lines(folder)]
    assert losses[-1] < 0.4 * losses[0]


def test_balance_loss_evens_the_load_out(tmp_path, base, data):
    even, free = (
        train_adapter(
            with_objective(
                make_spec(base, data, method="molora-balanced", steps=30, save_every=30),
                balance=coefficient,
            ),
            tmp_path / str(coefficient),
        )
        for coefficient in (10.0, 0.0)
    )
    worst = [log_lines(folder)[-1]["routing"]["max_violation"] for folder in (even, free)]
    assert worst[0] < 0.7 * worst[1]


def test_contrast_falls_when_it_is_all_that_counts(tmp_path, base, data):
    spec = make_spec(base, data, method="molora-contrastive", steps=30, save_every=30)
    for anchors in ("router", "output"):
        folder = train_adapter(
            with_objective(spec, contrast=20.0, anchors=anchors), tmp_path / anchors
        )
        values = [line["contrast"] for line in log_lines(folder)]
        assert sum(values[-5:]) < 0.95 * sum(values[5:10]), anchors


def test_the_log_holds_loads_that_sum_to_one(tmp_path, base, data):
    [*_, last] = log_lines(train_adapter(make_spec(base, data), tmp_path / "ckpt"))
    loads = last["routing"]["load"]
    assert len(loads) == 6
    assert all(sum(load) == pytest.approx(1, abs=1e-3) for load in loads.values())
    assert last["step"] == 6


def test_streams_are_mixed_by_weight(tmp_path, base, data):
    other = save_rows(tmp_path / "other.jsonl", rows(2, first=50))
    spec = make_spec(base, data, other, steps=8)
    streams = tuple(
        dataclasses.replace(s, weight=w) for s, w in zip(spec.data, (1.0, 3.0), strict=True)
    )
    mixed = prepare(dataclasses.replace(spec, data=streams), Silence()).examples
    assert [stream for [(stream, _)] in mixed.rows].count(1) == 12
    by_size = prepare(make_spec(base, data, other, steps=None, epochs=1), Silence())
    assert sorted(pick for [pick] in by_size.examples.rows) == [(0, i) for i in range(10)] + [
        (1, 0),
        (1, 1),
    ]


def test_a_template_given_by_file_travels_with_the_checkpoint(tmp_path, data):
    from tiny_training import TEMPLATE

    bare = save_chat_base(tmp_path / "bare", template=None)
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    spec = dataclasses.replace(make_spec(bare, data), chat_template=tmp_path / "t.jinja")
    folder = train_adapter(spec, tmp_path / "ckpt")
    assert load_tokenizer(folder).chat_template == TEMPLATE


def test_nothing_is_overwritten_and_nothing_is_left_by_a_refusal(tmp_path, base, data):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already and nothing is overwritten"):
        train_adapter(make_spec(base, data), tmp_path / "full")
    bad = save_rows(tmp_path / "bad.jsonl", [*rows(2), {"text": "x"}])
    with pytest.raises(DataError, match="record 3"):
        train_adapter(make_spec(base, bad), tmp_path / "new")
    bare = save_chat_base(tmp_path / "bare", template=None)
    with pytest.raises(CheckpointError, match="no chat template"):
        train_adapter(make_spec(bare, data), tmp_path / "new")
    with pytest.raises(CheckpointError, match="there is no model directory"):
        train_adapter(make_spec(tmp_path / "nowhere", data), tmp_path / "new")
    assert not list((tmp_path / "new").glob("*"))


def test_an_adapter_is_no_base(tmp_path, base, data):
    folder = train_adapter(make_spec(base, data), tmp_path / "ckpt")
    with pytest.raises(CheckpointError, match="is an adapter: the base must be a full model"):
        train_adapter(make_spec(folder, data), tmp_path / "again")


def test_resuming_refuses_other_settings_other_data_and_absent_states(tmp_path, base, data):
    spec = make_spec(base, data)
    folder = train_adapter(spec, tmp_path / "ckpt")
    with pytest.raises(UsageError, match=r"step '3'; there are 2, 4, 6"):
        train_adapter(spec, folder, resume="3")
    with pytest.raises(UsageError, match="has no training state"):
        train_adapter(spec, tmp_path / "empty", resume="last")
    other = dataclasses.replace(spec, schedule=dataclasses.replace(spec.schedule, seed=9))
    with pytest.raises(UsageError, match=r"spec\.schedule\.seed: 0 became 9"):
        train_adapter(other, folder, resume="last")
    edit_json(folder / "training.json", processes=2)
    with pytest.raises(UsageError, match="processes: 2 became 1"):
        train_adapter(spec, folder, resume="last")
    save_rows(data, rows(9))
    with pytest.raises(UsageError, match="data_sha256"):
        train_adapter(spec, folder, resume="last")


def test_too_small_a_disk_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(CheckpointError, match=r"GB left, and this needs about 1000000\.00 GB"):
        refuse_small_disk(tmp_path, 10**15)


def test_a_loss_that_is_no_number_stops_training(tmp_path, base, data):
    spec = make_spec(base, data, learning_rate=1e30)
    with pytest.raises(UsageError, match="training came apart: at step"):
        train_adapter(spec, tmp_path / "ckpt")
    assert not (tmp_path / "ckpt" / "adapter_config.json").exists()


RUN = """
import sys, resource, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny_training import make_spec
from mingmoe_eval.training import train_adapter
{before}
spec = make_spec(Path({base!r}), Path({data!r}), method={method!r}, batch_size={batch_size})
train_adapter(spec, Path({output!r}))
"""


def script(tmp_path, base, data, output, *, method="molora", batch_size=2, before=""):
    path = tmp_path / "run.py"
    path.write_text(
        RUN.format(
            tests=str(Path(__file__).parent),
            base=str(base),
            data=str(data),
            output=str(output),
            method=method,
            batch_size=batch_size,
            before=before,
        )
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "fails_at"), [(60_000, "optimizer.pt"), (20_000, "experts"), (300, "training.json")]
)
def test_a_disk_that_fills_up_leaves_no_half_written_checkpoint(
    tmp_path, base, data, most, fails_at
):
    limit = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"
    output = tmp_path / "ckpt"
    path = script(tmp_path, base, data, output, before=limit)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "cannot be written" in done.stderr, done.stderr[-2000:]
    left = {path.name for path in output.iterdir()}
    assert left <= {"training.json", "training_log.jsonl", STAGING}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["molora-contrastive", "lora"])
def test_two_processes_train_what_one_does_with_twice_the_batch(tmp_path, base, data, method):
    if method == "lora":
        spec = make_spec(base, data, method=method)
        alone = [line["loss"] for line in log_lines(train_adapter(spec, tmp_path / "one"))]
    path = script(tmp_path, base, data, tmp_path / "two", method=method, batch_size=1)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
            *("--num_processes", "2", "--main_process_port", "0", str(path)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together = [line["loss"] for line in log_lines(tmp_path / "two")]
    assert len(together) == 6
    assert probe(load_model(tmp_path / "two")) > 0
    if method == "lora":
        assert together == pytest.approx(alone, rel=1e-4)
    else:
        memories = sorted(p.name for p in (tmp_path / "two").glob("checkpoint-2/expert_memory*"))
        assert memories == ["expert_memory_0.safetensors", "expert_memory_1.safetensors"]
