import math

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from hypothesis import given
from hypothesis import strategies as st
from tiny_language_models import make_model

from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.prefix_scoring import log_probabilities


def sliced(logits, columns):
    parts = logits.clone().split(columns, dim=1)
    return [(index * columns, part) for index, part in enumerate(parts)]


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_log_probabilities_by_hand(columns):
    # Row 0: e^0, e^0, e^ln2 of 4; row 1: two equal tops, of which the first is the greedy one.
    logits = torch.tensor([[0.0, 0.0, math.log(2.0)], [1.0, 1.0, -math.inf]])
    rows, targets = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([2, 0, 0, 1, 2])
    values, greedy = log_probabilities(sliced(logits, columns), rows, targets)
    expected = [math.log(0.5), math.log(0.25), math.log(0.5), math.log(0.5), -math.inf]
    assert values.tolist() == pytest.approx(expected, abs=1e-7)
    assert greedy.tolist() == [True, False, True, False, False]


@given(
    # Few distinct values, so that tops are often equal.
    logits=st.lists(st.sampled_from([-math.inf, -2.0, 0.0, 0.5, 30.0]), min_size=12, max_size=12),
    columns=st.integers(1, 6),
)
def test_slices_change_nothing(logits, columns):
    table = torch.tensor(logits).reshape(2, 6)
    rows, targets = torch.arange(2).repeat_interleave(6), torch.arange(6).repeat(2)
    values, greedy = log_probabilities(sliced(table, columns), rows, targets)
    for row in range(2):
        if table[row].isneginf().all():
            continue
        expected = table[row].double().log_softmax(-1)
        mine = values[rows == row]
        assert torch.allclose(mine, expected, rtol=1e-6, atol=1e-6)
        assert greedy[rows == row].nonzero().flatten().tolist() == [int(table[row].argmax())]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 3])
def test_a_logit_that_is_no_number_spoils_its_row_alone(bad, place):
    table = torch.zeros(2, 4)
    table[1, place] = bad
    rows, targets = torch.tensor([0, 1]), torch.tensor([2, 2])
    values, greedy = log_probabilities(sliced(table, 2), rows, targets)
    assert values[0] == pytest.approx(math.log(0.25))
    assert not values[1].isfinite()
    assert not greedy[1]


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
@pytest.mark.parametrize("columns", [1, 100, 384, 1000])
def test_a_head_s_slices_are_its_logits(family, columns):
    model = CausalModel(make_model(family))
    hidden = torch.randn(3, model.config.hidden_size)
    parts = list(model.logit_slices(hidden, columns))
    assert [first for first, _ in parts] == list(range(0, model.config.vocab_size, columns))
    whole = torch.cat([logits for _, logits in parts], dim=1)
    assert torch.allclose(whole, model.logits(hidden), atol=1e-5)


@pytest.mark.parametrize("offload", [False, True])
def test_a_head_whose_inputs_are_brought_to_it_has_slices_and_a_fetched_one_has_none(offload):
    language_model = make_model()
    head = language_model.lm_head
    kept = {"weight": head.weight.detach().clone()}
    model = CausalModel(language_model)
    add_hook_to_module(head, AlignDevicesHook("cpu", offload=offload, weights_map=kept))
    assert model.head_can_be_sliced is not offload
    hidden = torch.randn(3, model.config.hidden_size)
    parts = [logits for _, logits in model.logit_slices(hidden, 100)]
    assert len(parts) == (1 if offload else 4)
    assert torch.allclose(torch.cat(parts, 1), hidden @ kept["weight"].T, atol=1e-5)


def test_a_head_that_does_more_than_multiply_is_called_whole():
    language_model = make_model()
    language_model.lm_head.register_forward_hook(lambda head, inputs, logits: logits + 1)
    model = CausalModel(language_model)
    hidden = torch.randn(3, model.config.hidden_size)
    ((first, logits),) = model.logit_slices(hidden, 10)
    assert first == 0
    assert torch.allclose(logits, model.logits(hidden))
    assert torch.allclose(logits, hidden @ language_model.lm_head.weight.T + 1, atol=1e-5)
