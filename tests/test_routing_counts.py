"""Counts of routing as vectors and as JSON, and the figures of a run, by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from mingmoe_eval.molora.router import Router
from mingmoe_eval.routing.counts import RoutedLayer, RoutingCounts, layout_of
from mingmoe_eval.routing.log import RoutingLog
from mingmoe_eval.routing.record import RunRouting

MLP = "model.layers.{}.mlp.{}"
LAYERS = [
    RoutedLayer(MLP.format(layer, name), 4, 2)
    for layer in range(2)
    for name in ("gate_proj", "up_proj", "down_proj")
]
LAYOUT = layout_of(LAYERS)


def counts(choices, *, layout=LAYOUT):
    """Counts of prompt tokens whose every router made the same choices with even logits."""
    values = np.zeros((2, layout.size))
    at = 0
    for block in layout.blocks:
        for layer in block.layers:
            n = layer.experts
            pairs = list(itertools.combinations(range(n), 2))
            for chosen in choices:
                for expert in chosen:
                    values[0, at + expert] += 1
                    values[0, at + 2 * n + expert] += 1 / len(chosen)
                for pair in itertools.combinations(sorted(chosen), 2):
                    values[0, at + 3 * n + pairs.index(pair)] += 1
                values[0, at + n : at + 2 * n] += 1 / n
                values[0, at + layer.size - 1] += math.log(n)
            at += layer.size
        values[0, at : at + len(block.pairs)] = sum(map(len, choices))
        at += len(block.pairs)
    return RoutingCounts(values, np.array([len(choices), 0.0]))


def test_layers_of_one_parent_with_equal_numbers_form_a_block():
    mixed = [*LAYERS[:2], RoutedLayer(MLP.format(0, "down_proj"), 3, 2), *LAYERS[3:]]
    blocks = layout_of(mixed).blocks
    assert [len(block.layers) for block in blocks] == [2, 1, 3]
    assert [block.pairs for block in blocks] == [((0, 1),), (), ((0, 1), (0, 2), (1, 2))]


def test_a_layers_part_comes_back_out_of_the_vector():
    made = counts([(0, 1), (0, 1), (2, 0)])
    for layer, found in zip(LAYERS, LAYOUT.layer_counts(made.values[0]), strict=True):
        assert found.layer == layer
        assert found.chosen.tolist() == [3, 2, 1, 0]
        assert found.weight.tolist() == [1.5, 1, 0.5, 0]
        assert found.together.tolist() == [[3, 2, 1, 0], [2, 2, 0, 0], [1, 0, 1, 0], [0] * 4]
        assert found.entropy == pytest.approx(3 * math.log(4))
    assert {value for *_, value in LAYOUT.agreements(made.values[0])} == {6}


def test_packed_counts_come_back_and_those_of_another_model_do_not():
    made = counts([(0, 3), (1, 2)])
    back = RoutingCounts.from_bytes(made.to_bytes(), LAYOUT)
    np.testing.assert_allclose(back.values, made.values, rtol=1e-6)
    assert back.tokens.tolist() == [2, 0]
    assert RoutingCounts.from_bytes(made.to_bytes(), layout_of(LAYERS[:3])) is None


def test_a_runs_figures_by_hand():
    routing = RunRouting(LAYOUT)
    for doc in range(32):
        routing.add("left", doc, counts([(0, 1)] * 3))
        routing.add("right", doc, counts([(2, 3)] * 3))
    data = routing.to_json()
    prompt = data["metrics"]["prompt"]
    assert data["tasks"]["left"]["load"] == [[0.5, 0.5, 0, 0]] * 2
    assert data["tasks"]["left"]["prompt"]["tokens"] == 96
    left = prompt["tasks"]["left"]
    # Half of the experts have all the load: std / mean of (.5, .5, 0, 0), and 4 * .5 - 1.
    assert (left["variation"], left["largest_violation"], left["dead_experts"]) == (1, 1, 12)
    assert (left["token_entropy"], left["mean_entropy"], left["balance"]) == (1, 1, 1)
    # Which half was chosen tells the task: one bit.
    assert prompt["information"]["bits"] == 1
    assert prompt["information"]["shuffled_bits"] < 0.1
    assert prompt["distance"]["matrix"] == [[0, 1], [1, 0]]
    assert {one["share"] for one in prompt["agreement"]} == {1}
    layer = prompt["layers"][LAYERS[0].path]
    assert layer["load"] == [0.25] * 4
    # P(0, 1) = 1/2 against 1/2 * 1/2; chance is (1 * 4) / (2 * 3).
    assert layer["lift"][0] == [None, 2, 0, 0]
    assert layer["chance_lift"] == pytest.approx(2 / 3, abs=1e-4)
    assert "generated" not in data["metrics"]


def test_counts_that_are_not_finite_spoil_no_sum():
    routing = RunRouting(LAYOUT)
    spoilt = counts([(0, 1)])
    spoilt.values[0, 5] = np.nan
    for given in (counts([(0, 1)]), spoilt, None):
        routing.add("task", 0, given)
    facts = routing.to_json()["tasks"]["task"]
    assert (facts["answers"], facts["answers_without_counts"]) == (3, 2)
    assert facts["prompt"]["tokens"] == 1


def test_layers_with_fewer_experts_leave_room_in_the_rows_of_the_load():
    layout = layout_of(
        [RoutedLayer(MLP.format(0, "x"), 2, 1), RoutedLayer(MLP.format(1, "x"), 3, 1)]
    )
    routing = RunRouting(layout)
    routing.add("task", 0, counts([(1,)], layout=layout))
    assert routing.to_json()["tasks"]["task"]["load"] == [[0, 1, 0], [0, 1, 0]]


def small_router(path="model.layers.0.mlp.up_proj"):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator)
    return Router([path], [weight], [None], top_k=2, dtype=torch.float32)


def test_a_log_counts_what_is_claimed_of_each_pass_and_nothing_else():
    router = small_router()
    log = RoutingLog([router])
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    index, _ = router.route(x)
    log.begin_pass()
    router.route(x)
    log.claim("a", np.array([0, 2]))
    log.claim("b", np.array([2, 4]))
    log.begin_pass()
    router.route(x)  # Nobody's.
    log.begin_pass()
    router.route(x)
    log.claim("a", np.array([1]))
    assert log.pending_tokens == 10
    chosen = torch.zeros(5, 4).scatter(1, index[:, 0], 1.0).numpy()
    assert log.take("a")[:4].tolist() == chosen[[0, 2, 1]].sum(0).tolist()
    assert log.take("b")[:4].tolist() == chosen[[2, 4]].sum(0).tolist()
    assert not log.take("a").any()
    # A pass may still be claimed after it was summed.
    log.claim("c", np.array([3]))
    assert log.take("c")[:4].tolist() == chosen[3].tolist()


def test_many_tokens_are_summed_on_the_way():
    router = small_router()
    log = RoutingLog([router])
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(9):
        log.begin_pass()
        router.route(x)
        log.claim("all", np.arange(300))
        assert log.pending_tokens <= 1024 + 300
    assert log.take("all")[:4].sum() == 9 * 300 * 2


def test_a_pass_with_a_router_switched_off_is_not_counted():
    one, other = small_router(), small_router("model.layers.1.mlp.up_proj")
    log = RoutingLog([one, other])
    log.begin_pass()
    one.route(torch.ones(2, 6))
    log.claim("a", np.arange(2))
    assert not log.take("a").any()
