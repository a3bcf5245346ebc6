"""The contrastive loss against the formula in its module's docstring, written out in loops."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from mingmoe_eval.molora.layers import LinearExperts, RoutedExperts
from mingmoe_eval.training.contrast import (
    AnchorBatch,
    ExpertMemory,
    contrastive_loss,
    make_anchors,
)

COUNT, TOP_K, RANK, INPUTS, OUTPUTS = 3, 2, 2, 5, 4


def make_module(groups=2, *, zero_b=False):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    experts = [
        LinearExperts(
            a=draw(COUNT, RANK, INPUTS),
            b=draw(COUNT, OUTPUTS, RANK) * (not zero_b),
            router_weight=draw(COUNT, INPUTS),
            router_bias=draw(COUNT),
            top_k=TOP_K,
            scaling=2.0,
        )
        for _ in range(groups)
    ]
    return RoutedExperts([f"layer{g}" for g in range(groups)], experts, dtype=torch.float32)


def inputs(rows=2, length=4, seed=1):
    x = torch.randn(rows, length, INPUTS, generator=torch.manual_seed(seed))
    counted = torch.ones(rows, length)
    counted[0, -1] = 0
    return x, counted


def anchors_of(module, x, counted, kind):
    routing = module.route(x.reshape(-1, INPUTS))
    return make_anchors(module, x, routing, counted, kind)


def slow_mean(module, x, counted, row, group, expert):
    """sum_t w x / sum_t w over counted tokens, token by token; None without any."""
    index, weights = module.route(x[row])
    total, mass = torch.zeros(INPUTS), 0.0
    for token in range(len(x[row])):
        for place in range(TOP_K):
            if counted[row, token] and index[token, group, place] == expert:
                weight = weights[token, group, place]
                total, mass = total + weight * x[row, token], mass + weight
    return total / mass if mass else None


@torch.no_grad()
@pytest.mark.parametrize("kind", ["router", "output"])
def test_anchors_are_the_formulas(kind):
    module, (x, counted) = make_module(), inputs()
    anchors = anchors_of(module, x, counted, kind)
    checked = 0
    for row in range(2):
        mean = x[row][counted[row].bool()].mean(0)
        for group, layer in enumerate(module.unstack()):
            for expert in range(COUNT):
                sent = slow_mean(module, x, counted, row, group, expert)
                assert anchors.valid[row, group, expert] == (sent is not None)
                if sent is None:
                    continue
                raw = sent - mean if kind == "router" else layer.b[expert] @ layer.a[expert] @ sent
                found = anchors.vectors[row, group, expert]
                assert torch.allclose(found, raw / raw.norm(), atol=1e-5)
                checked += 1
    assert checked >= 10


@torch.no_grad()
def test_the_loss_is_the_formula():
    module = make_module()
    anchors = anchors_of(module, *inputs(), "router")
    keys = anchors_of(module, *inputs(rows=3, seed=2), "router")
    losses = []
    for row in range(2):
        for group in range(2):
            for expert in range(COUNT):
                if not anchors.valid[row, group, expert]:
                    continue
                query = anchors.vectors[row, group, expert]
                powers = {
                    (past, other): math.exp(
                        cosine_similarity(query, keys.vectors[past, group, other], dim=0) / 0.1
                    )
                    for past in range(3)
                    for other in range(COUNT)
                    if keys.valid[past, group, other]
                }
                own = sum(power for (_, other), power in powers.items() if other == expert)
                if 0 < own < sum(powers.values()):
                    losses.append(math.log(sum(powers.values())) - math.log(own))
    expected = sum(losses) / len(losses)
    assert contrastive_loss(anchors, keys, 0.1).item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_reaches_routers_alone_or_routers_and_experts_and_never_the_input():
    for kind, experts_too in (("router", False), ("output", True)):
        module, (x, counted) = make_module(), inputs()
        x.requires_grad_()
        keys = anchors_of(module, *inputs(seed=3), kind)
        keys = AnchorBatch(keys.vectors.detach(), keys.valid)
        # Away from the router's own path to x, which is no part of the loss.
        routing = module.route(x.detach().reshape(-1, INPUTS))
        contrastive_loss(make_anchors(module, x, routing, counted, kind), keys, 0.1).backward()
        assert module.router.grad.abs().max() > 0
        assert (module.lora_a.grad is not None) == experts_too
        assert x.grad is None


def test_output_anchors_of_a_fresh_adapter_mean_nothing_and_give_no_nan():
    module, (x, counted) = make_module(zero_b=True), inputs()
    anchors = anchors_of(module, x, counted, "output")
    assert not anchors.valid.any()
    loss = contrastive_loss(anchors, anchors, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(module.router.grad).all()


def test_the_memory_is_first_in_first_out_and_survives_being_stored():
    memory = ExpertMemory(length=3, temperature=0.1)

    def batch(*values):
        vectors = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
        return AnchorBatch(vectors, torch.ones(len(values), 1, 1, dtype=torch.bool))

    assert memory.loss("layer", batch(1)).item() == 0
    for values in ((1, 2), (3,), (4,)):
        memory.remember("layer", batch(*values))
    kept = memory.state()["layer.vectors"].flatten()
    assert kept.tolist() == [4, 3, 1]
    twin = ExpertMemory(length=3, temperature=0.1)
    twin.restore(memory.state(), torch.device("cpu"))
    assert torch.equal(twin.state()["layer.vectors"], memory.state()["layer.vectors"])
    assert torch.equal(twin.state()["layer.valid"], memory.state()["layer.valid"])
