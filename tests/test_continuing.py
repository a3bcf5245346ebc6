"""Finished adapters that go on with new data."""

import dataclasses

import pytest
import torch
from tiny_checkpoints import edit_json, logits, token_ids
from tiny_training import TEMPLATE, log_lines, make_spec, rows, save_chat_base, save_rows

from mingmoe_eval.cli.train import train
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora import load_model, load_tokenizer
from mingmoe_eval.training import train_adapter
from mingmoe_eval.training.continuing import take_over
from mingmoe_eval.training.fine_tuning import attach_fresh, load_base
from mingmoe_eval.training.spec import AdapterShape

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_chat_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module", params=["molora-balanced", "lora"])
def finished(request, base, tmp_path_factory):
    """A finished adapter, and the spec that made it."""
    folder = tmp_path_factory.mktemp("finished")
    data = save_rows(folder / "data.jsonl", rows(10))
    spec = make_spec(base, data, method=request.param)
    shape = dataclasses.replace(spec.shape, rslora=True, targets=("k_proj", "q_proj"))
    spec = dataclasses.replace(spec, shape=shape)
    return train_adapter(spec, folder / "ckpt"), spec


def test_its_settings_are_taken_over(finished, base):
    folder, spec = finished
    found = take_over(str(folder), None, {"method": spec.method})
    assert (found.base, found.method) == (str(base), spec.method)
    sizes = ("num_experts", "experts_per_token") if spec.method != "lora" else ()
    for name in (*sizes, "rank", "alpha", "rslora", "targets"):
        assert getattr(found.shape, name) == getattr(spec.shape, name), name


def test_what_contradicts_it_is_refused_all_at_once(finished):
    folder, spec = finished
    other = "lora" if spec.method != "lora" else "molora"
    with pytest.raises(UsageError) as caught:
        take_over(str(folder), None, {"rank": 8, "alpha": 8.0, "rslora": False, "method": other})
    told = str(caught.value)
    assert "rank 8: the adapter's is 4" in told
    assert "rslora False: the adapter's is True" in told
    assert f"method {other}: the adapter is of method" in told
    assert "alpha" not in told


def test_it_goes_on_from_its_own_function(finished, base, tmp_path):
    """After a step so small that nothing changes; then it learns the new data."""
    folder, spec = finished
    data = save_rows(tmp_path / "new.jsonl", rows(6, first=50))
    goes_on = take_over(str(folder), None, {"method": spec.method})
    begun = make_spec(base, data, method=spec.method, steps=1, learning_rate=1e-12, save_every=1)
    begun = dataclasses.replace(begun, shape=goes_on.shape, start=str(folder))
    again = train_adapter(begun, tmp_path / "again")
    ids = token_ids(2, 9)
    before = logits(load_model(folder), ids)
    assert torch.allclose(logits(load_model(again), ids), before, atol=1e-5)
    fresh = attach_fresh(load_base(str(base), spec.schedule), spec)
    assert (logits(fresh.model.eval(), ids) - before).abs().max() > 0.01
    schedule = dataclasses.replace(begun.schedule, steps=60, learning_rate=1e-2, save_every=60)
    learned = train_adapter(dataclasses.replace(begun, schedule=schedule), tmp_path / "learned")
    losses = [line["loss"] for line in log_lines(learned)]
    assert losses[-1] < 0.85 * losses[0]


def test_a_killed_continuation_resumes_from_its_own_state(finished, base, tmp_path):
    folder, spec = finished
    data = save_rows(tmp_path / "new.jsonl", rows(6, first=50))
    shape = take_over(str(folder), None, {}).shape
    begun = make_spec(base, data, method=spec.method)
    begun = dataclasses.replace(begun, shape=shape, start=str(folder))
    whole = train_adapter(begun, tmp_path / "whole")
    before = (whole / "training_log.jsonl").read_bytes()
    train_adapter(begun, whole, resume="2")
    assert (whole / "training_log.jsonl").read_bytes() == before


def test_a_template_of_its_own_goes_on_with_it(tmp_path):
    bare = save_chat_base(tmp_path / "bare", template=None)
    data = save_rows(tmp_path / "data.jsonl", rows(4))
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    spec = dataclasses.replace(make_spec(bare, data, steps=2), chat_template=tmp_path / "t.jinja")
    first = train_adapter(spec, tmp_path / "first")
    spec = dataclasses.replace(spec, chat_template=None, start=str(first))
    second = train_adapter(spec, tmp_path / "second")
    assert load_tokenizer(second).chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "changes the base's weights"),
    ],
)
def test_a_lora_that_is_more_than_one_is_refused(base, tmp_path, changes, told):
    data = save_rows(tmp_path / "data.jsonl", rows(4))
    folder = train_adapter(make_spec(base, data, method="lora", steps=2), tmp_path / "ckpt")
    edit_json(folder / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match=told):
        take_over(str(folder), None, {})


def test_a_full_model_and_a_mixture_of_another_family_do_not_go_on(base, tmp_path):
    with pytest.raises(CheckpointError, match="cannot go on: only PEFT's LoRAs and mixtures"):
        take_over(str(base), None, {})


def test_targets_choose_where_the_lora_is(base):
    spec = make_spec(base, method="lora")

    def touched(method, *targets):
        shape = dataclasses.replace(spec.shape, targets=targets)
        one = dataclasses.replace(spec, method=method, shape=shape)
        model = attach_fresh(load_base(str(base), spec.schedule), one).model
        names = {n.partition(".lora_")[0].rpartition(".")[2] for n, _ in model.named_parameters()
                 if ".lora_A" in n}  # fmt: skip
        return sorted(names)

    assert touched("lora", "q_proj", "up_proj") == ["q_proj", "up_proj"]
    assert touched("molora", "v_proj") == ["v_proj"]
    every = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert touched("lora", "all") == every
    with pytest.raises(CheckpointError, match="has none of the layers qq_proj"):
        touched("lora", "q_proj", "qq_proj")
    for name in ("up_proj", "all"):
        with pytest.raises(UsageError, match="on feed-forward layers stand the experts"):
            touched("molora", name)


def test_a_shape_that_nobody_asked_for_is_the_adapters(base):
    assert AdapterShape().targets is None
    with pytest.raises(UsageError, match="say which model is to be trained"):
        train(data=["x"], output=base / "new")
