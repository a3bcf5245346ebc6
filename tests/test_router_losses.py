"""Balance and z loss against sums by hand and against transformers' Mixtral."""

import math

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from mingmoe_eval.molora.router import choose_experts
from mingmoe_eval.training.router_supervision import balance_loss, summarise


def routing(logits, counted=None, top_k=2):
    index, _ = choose_experts(logits, top_k)
    return summarise(logits, index, torch.ones(len(logits)) if counted is None else counted)


def test_balance_by_hand():
    # Two tokens, three experts, two chosen. Softmax of logs of shares is the shares.
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3]])
    seen = routing(shares.log()[:, None])
    # Chosen: experts 0 and 1, then 0 and 2: f = 2/4, 1/4, 1/4; P = .55, .2, .25.
    assert seen.chosen.tolist() == [[2, 1, 1]]
    expected = 3 * (0.5 * 0.55 + 0.25 * 0.2 + 0.25 * 0.25)
    assert balance_loss(seen).item() == pytest.approx(expected, rel=1e-6)
    # The shares of each row sum to 1, so that logsumexp of their logs is 0.
    assert seen.z.item() == pytest.approx(0, abs=1e-12)


def test_z_by_hand():
    seen = routing(torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]]))
    expected = (math.log(2) ** 2 + (1 + math.log(2)) ** 2) / 2
    assert seen.z.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_balance_is_mixtrals_divided_by_k_and_padding_does_not_count(top_k):
    logits = torch.randn(12, 1, 5, generator=torch.manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]])
    reference = load_balancing_loss_func((logits[:, 0],), 5, top_k, mask)
    ours = balance_loss(routing(logits, mask.flatten(), top_k))
    assert ours.item() == pytest.approx(reference.item() / top_k, rel=1e-5)


def test_uncounted_tokens_change_nothing():
    logits = torch.randn(6, 2, 4, generator=torch.manual_seed(1))
    counted = torch.tensor([1, 1, 0, 1, 0, 0]).bool()
    padded, alone = routing(logits, counted), routing(logits[counted])
    assert torch.equal(padded.chosen, alone.chosen)
    assert torch.allclose(balance_loss(padded), balance_loss(alone))
    assert torch.allclose(padded.z, alone.z)


def test_routers_are_judged_apart():
    logits = torch.randn(6, 2, 4, generator=torch.manual_seed(2))
    both = balance_loss(routing(logits))
    assert torch.allclose(both[:1], balance_loss(routing(logits[:, :1])))
    assert torch.allclose(both[1:], balance_loss(routing(logits[:, 1:])))


def test_a_uniform_router_has_balance_1_and_a_collapsed_one_almost_n_over_k():
    even = torch.eye(4).repeat(3, 1)[:, None] * 20
    assert balance_loss(routing(even, top_k=1)).item() == pytest.approx(1, rel=1e-6)
    collapsed = torch.zeros(12, 1, 4)
    collapsed[..., 0] = 20
    assert balance_loss(routing(collapsed, top_k=1)).item() == pytest.approx(4, rel=1e-6)


def test_nothing_counted_gives_zeros_and_not_nan():
    seen = routing(torch.randn(3, 1, 4, generator=torch.manual_seed(3)), torch.zeros(3))
    assert balance_loss(seen).item() == 0
    assert seen.z.item() == 0
