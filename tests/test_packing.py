"""Several conversations in one row: none sees another, and nothing else changes."""

import dataclasses

import pytest
import torch
from tiny_checkpoints import save_base
from tiny_training import log_lines, make_spec, rows, save_chat_base, save_rows, with_objective
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.training import train_adapter
from mingmoe_eval.training.batches import keep_apart, pack, pad_batch, plan_rows
from mingmoe_eval.training.examples import EncodedStream, Example
from mingmoe_eval.training.fine_tuning import attach_fresh, load_base, refuse_leaks
from mingmoe_eval.training.router_supervision import RouterSupervision, RoutingWatch

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

EXAMPLES = [
    Example((7, 8, 9, 10), (-100, -100, 9, 10)),
    Example((11, 12, 13), (-100, 12, 13)),
    Example((14, 15, 16, 17, 18), (-100, -100, -100, 17, 18)),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_chat_base(tmp_path_factory.mktemp("bases") / "base")


def test_rows_are_filled_in_order():
    assert pack([4, 3, 5, 2, 9, 1], 9) == [[0, 1], [2, 3], [4], [5]]
    assert pack([9, 9], 9) == [[0], [1]]


def test_a_row_by_hand():
    batch = pad_batch([EXAMPLES[:2], EXAMPLES[2:]])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0]]
    # The first token of the second conversation is not predicted from the first one's end.
    assert batch["labels"][0].tolist() == [-100, -100, 9, 10, -100, 12, 13]
    apart = keep_apart(batch["attention_mask"], torch.float32)
    assert apart["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1]]
    seen = apart["attention_mask"][0, 0] == 0
    assert seen[5].tolist() == [False, False, False, False, True, True, False]
    assert seen[2].tolist() == [True, True, True, False, False, False, False]


def gradients(base, method, rows):
    """Loss, and gradients of all that is trained, of one batch with what the routers add."""
    spec = with_objective(make_spec(base, method=method), balance=0.5 * (method != "lora"))
    model = attach_fresh(load_base(str(base), spec.schedule), spec).model
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    batch = pad_batch(rows)
    segments = batch["attention_mask"]
    inputs = batch | (keep_apart(segments, torch.float32) if len(rows) == 1 else {})
    if method == "lora":
        loss = model(**inputs, use_cache=False, num_items_in_batch=6).loss
    else:
        watch = RoutingWatch(model, spec.objective)
        with watch.forward(segments) as seen:
            loss = model(**inputs, use_cache=False, num_items_in_batch=6).loss
        loss = loss + RouterSupervision(spec.objective).loss(seen)
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["lora", "molora-balanced"])
def test_loss_and_gradients_are_those_of_unpacked_conversations(base, method):
    alone = gradients(base, method, [[example] for example in EXAMPLES])
    packed = gradients(base, method, [EXAMPLES])
    assert packed[0] == pytest.approx(alone[0], rel=1e-6)
    assert packed[1].keys() == alone[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in alone[1].values())
    for name, gradient in alone[1].items():
        assert torch.allclose(packed[1][name], gradient, rtol=1e-4, atol=1e-6 * largest), name


def test_a_training_packed_learns_what_one_of_padded_batches_does(tmp_path, base):
    """Ten conversations fill one row, or one batch of ten: each step is the same step."""
    data = save_rows(tmp_path / "data.jsonl", rows(10))
    # Without routers, whose choice of the K-th expert may hang on rounding.
    padded, packed = (make_spec(base, data, method="lora", batch_size=b, steps=4) for b in (10, 1))
    whole = sum(len(e.ids) for [e] in first_rows(padded))
    packed = dataclasses.replace(packed, packing=True, max_tokens=whole)
    curves = [
        [line["loss"] for line in log_lines(train_adapter(spec, tmp_path / name))]
        for name, spec in (("padded", padded), ("packed", packed))
    ]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[0][-1] < curves[0][0]


def first_rows(spec):
    from mingmoe_eval.training.material import prepare
    from mingmoe_eval.training.spec import Silence

    examples = prepare(spec, Silence()).examples
    return [examples[i] for i in range(10)]


def test_every_example_comes_once_a_pass_and_all_steps_are_filled():
    lengths = [3, 9, 4, 4, 7, 2, 5]
    stream = EncodedStream("s", tuple(Example((1,) * n, (1,) * n) for n in lengths))
    once = plan_rows([stream], [1.0], epochs=1, steps=None, a_step=1, room=9, seed=0)
    assert sorted(pick for row in once for pick in row) == [(0, i) for i in range(7)]
    assert all(sum(lengths[i] for _, i in row) <= 9 for row in once)
    many = plan_rows([stream], [1.0], epochs=1, steps=5, a_step=3, room=9, seed=0)
    assert len(many) == 15


def test_a_base_in_which_conversations_would_see_each_other_is_refused(base, tmp_path):
    model = load_base(str(base), make_spec(base).schedule)
    refuse_leaks(model, 2048)
    forward = model.forward
    # As a base that takes no notice of the mask and the positions that it is given.
    model.forward = lambda input_ids, **_: forward(input_ids=input_ids)
    with pytest.raises(CheckpointError, match="would see each other"):
        refuse_leaks(model, 2048)


def test_a_window_of_attention_bounds_a_row(tmp_path):
    save_base(
        tmp_path, vocab_size=384, use_sliding_window=True, sliding_window=64, max_window_layers=0
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    refuse_leaks(model, 64)
    with pytest.raises(CheckpointError, match="pack with --max-tokens 64"):
        refuse_leaks(model, 65)


def test_the_contrastive_loss_is_not_for_packed_rows(base, tmp_path):
    spec = dataclasses.replace(make_spec(base, tmp_path, method="molora-contrastive"), packing=True)
    with pytest.raises(UsageError, match="not with packing"):
        spec.check()
