"""The arithmetic of routed experts, against plain sums."""

import dataclasses
import math

import pytest
import torch
from accelerate import cpu_offload
from tiny_checkpoints import Recipe, SlowLinear, draw_experts
from torch import nn

from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts, attach_pair, routed_experts
from mingmoe_eval.molora.layers import (
    LowRankLinear,
    MoLoraFFN,
    MoLoraLinear,
    RoutedExperts,
)
from mingmoe_eval.molora.router import Router, choose_experts, choose_in_row

FP32 = ComputeDtypes(torch.float32, torch.float32)


class GatedFFN(nn.Module):
    """down(silu(gate(x)) * up(x)), of any kind of linear layer."""

    def __init__(self, linear=nn.Linear, width=16, inner=24):
        super().__init__()
        torch.manual_seed(0)
        self.gate_proj = linear(width, inner)
        self.up_proj = linear(width, inner)
        self.down_proj = linear(inner, width)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class ClampedFFN(GatedFFN):
    """The same layers in another formula."""

    def forward(self, x):
        return self.down_proj((self.act_fn(self.gate_proj(x)) * self.up_proj(x)).clamp(-0.1, 0.1))


class SealedLinear(nn.Module):
    """Stands for a quantised layer: it multiplies, and lets nobody see or change its weight."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self._linear = [nn.Linear(inputs, outputs).requires_grad_(False)]

    @property
    def weight(self):
        raise AssertionError("the weight of a quantised layer was touched")

    def forward(self, x):
        return self._linear[0](x)


class SealedSubclass(nn.Linear):
    """A quantised layer of the kind that is a subclass of Linear with packed bytes as weight."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)
        self.full = self.weight.detach()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs // 2).byte(), requires_grad=False)

    def forward(self, x):
        return x @ self.full.T


def draw(*shape):
    return torch.randn(*shape, generator=draw.generator) * shape[-1] ** -0.5


@pytest.fixture(autouse=True)
def _seed():
    draw.generator = torch.Generator().manual_seed(7)


def model_with(ffn):
    model = nn.Module()
    model.ffn = ffn
    return model


def records_for(ffn, recipe):
    linears = {name: getattr(ffn, name) for name in ("gate_proj", "up_proj", "down_proj")}
    return {
        name: draw_experts(draw, recipe, linear.in_features, linear.out_features)
        for name, linear in linears.items()
    }


def slow_ffn(ffn, records):
    """The block with every linear replaced by a token-by-token loop; keeps the block's forward."""
    slow = type(ffn).__new__(type(ffn))
    nn.Module.__init__(slow)
    slow.act_fn = ffn.act_fn
    for name, record in records.items():
        setattr(slow, name, SlowLinear(getattr(ffn, name), record, record.scaling))
    return slow


def attached(ffn, records, dtypes=FP32):
    model = model_with(ffn)
    attach_experts(model, "ffn", records, dtypes)
    return model.ffn.requires_grad_(False)


@pytest.mark.parametrize("tokens", [1, 2, 3, 17])
@pytest.mark.parametrize("grad", [True, False])
def test_all_ways_of_computing_agree_with_the_loop(tokens, grad):
    ffn = GatedFFN()
    records = records_for(ffn, Recipe(num_experts=5, top_k=3))
    slow, fast = slow_ffn(ffn, records), attached(ffn, records)
    x = torch.randn(1, tokens, 16)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(fast(x), slow(x), rtol=1e-5, atol=1e-5)
        assert isinstance(fast, MoLoraFFN)


@pytest.mark.parametrize("linear", [SealedLinear, SealedSubclass])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe(num_experts=1), Recipe(shared=1)], ids=str)
def test_a_quantised_layer_keeps_its_own_forward_and_its_weight_unseen(linear, recipe):
    ffn = GatedFFN(linear)
    records = records_for(ffn, recipe)
    slow, x = slow_ffn(ffn, records), torch.randn(2, 5, 16)
    expected = slow(x)
    model = model_with(ffn)
    assert attach_experts(model, "ffn", records, FP32) == []
    with torch.no_grad():
        torch.testing.assert_close(model.ffn(x), expected, rtol=1e-5, atol=1e-5)


def test_a_pair_beside_a_quantised_layer_equals_one_merged_into_its_weight():
    plain, sealed = nn.Linear(8, 6), SealedLinear(8, 6)
    sealed._linear[0] = nn.Linear(8, 6)
    sealed._linear[0].load_state_dict(plain.state_dict())
    models, pair = [model_with(plain), model_with(sealed)], (draw(2, 8), draw(6, 2))
    merged = [len(attach_pair(model, "ffn", pair, 3.0, torch.float32)) for model in models]
    assert merged == [1, 0]
    assert isinstance(models[1].ffn, LowRankLinear)
    x = torch.randn(4, 8)
    torch.testing.assert_close(models[0].ffn(x), models[1].ffn(x))


def test_a_block_with_another_formula_keeps_it():
    ffn = ClampedFFN()
    records = records_for(ffn, Recipe())
    slow, fast = slow_ffn(ffn, records), attached(ffn, records)
    assert isinstance(fast, ClampedFFN)
    assert isinstance(fast.gate_proj, MoLoraLinear)
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(fast(x), slow(x), rtol=1e-5, atol=1e-5)


def test_experts_on_some_layers_only_leave_the_others_alone():
    ffn = GatedFFN()
    records = {"up_proj": records_for(ffn, Recipe())["up_proj"]}
    fast = attached(ffn, records)
    assert isinstance(fast.gate_proj, nn.Linear)
    assert [module.paths for module in routed_experts(fast)] == [("ffn.up_proj",)]


def test_of_equal_logits_the_lowest_indices_are_chosen():
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    index, weights = choose_experts(logits, 2)
    assert index.tolist() == [[1, 2], [0, 1]]
    assert weights.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_weights_are_a_softmax_over_the_chosen_logits_however_large():
    index, weights = choose_experts(torch.tensor([[1000.0, 998.0, -1000.0]]), 2)
    assert index.tolist() == [[0, 1]]
    # 1 / (1 + e^-2) and e^-2 / (1 + e^-2)
    torch.testing.assert_close(weights, torch.tensor([[0.880797, 0.119203]]))


@pytest.mark.parametrize(
    "row",
    [
        [0.25, -1.5, 3.0, 2.75],
        [1.0, 3.0, 3.0, 3.0],  # Of equals the first.
        [0.0, 0.0, 0.0, 0.0],
        [1000.0, 998.0, -1000.0, -math.inf],
        [-math.inf, 2.0, -math.inf, -math.inf],  # Three masked, and two wanted.
        [math.inf, 1.0, 2.0, 0.0],
        [1.0, math.nan, 2.0, math.nan],
    ],
)
def test_a_row_of_numbers_is_chosen_from_as_a_tensor_is(row):
    index, weights = choose_experts(torch.tensor(row), 2)
    chosen = torch.tensor(choose_in_row(row, 2))
    assert chosen[:, 0].tolist() == index.tolist()
    torch.testing.assert_close(chosen[:, 1], weights, equal_nan=True)


def test_few_tokens_are_routed_and_observed_as_many_are():
    router = Router(
        ["a", "b"], [draw(4, 6), draw(4, 6)], [draw(4), None], top_k=2, dtype=FP32.router
    )
    seen = []
    router.observer = lambda *routing: seen.append(routing)
    x = draw(2, 6)
    with torch.no_grad():
        index, weights = router.route(x)
        choices = torch.tensor(router.route_few(x))
    assert torch.equal(choices[..., 0], index.float())
    torch.testing.assert_close(choices[..., 1], weights)
    for few, many in zip(seen[1][1:], seen[0][1:], strict=True):
        torch.testing.assert_close(few, many)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_expert_that_overflows_without_being_chosen_does_no_harm(dtype):
    experts = draw_experts(draw, Recipe(num_experts=3, top_k=1), 8, 6)
    huge = experts.a.clone()
    huge[2] = torch.finfo(dtype).max
    router = torch.zeros(3, 8)
    bias = torch.tensor([1.0, 0.0, 0.0])
    record = dataclasses.replace(experts, a=huge, router_weight=router, router_bias=bias)
    module = RoutedExperts(["x"], [record], dtype=dtype)
    with torch.no_grad():
        [output] = module(torch.full((5, 8), 4.0, dtype=dtype), [torch.zeros(5, 6, dtype=dtype)])
    assert torch.isfinite(output).all()


def test_a_router_that_is_not_finite_shows_in_the_output():
    experts = draw_experts(draw, Recipe(), 8, 6)
    spoilt = dataclasses.replace(experts, router_bias=torch.full((4,), float("nan")))
    module = RoutedExperts(["x"], [spoilt], dtype=torch.float32)
    for tokens in (1, 5):
        with torch.no_grad():
            [output] = module(torch.ones(tokens, 8), [torch.zeros(tokens, 6)])
        assert torch.isnan(output).all()


def test_routers_decide_in_fp32_below_a_half_precision_model():
    # The logits 1 and 1.001 are one number in bf16.
    router = torch.tensor([[1.0, 0.0], [1.001, 0.0]])
    record = dataclasses.replace(
        draw_experts(draw, Recipe(num_experts=2, top_k=1), 2, 3),
        router_weight=router,
        router_bias=torch.zeros(2),
    )
    seen = []
    for dtype in (torch.float32, torch.bfloat16):
        module = RoutedExperts(["x"], [record], dtype=torch.bfloat16, router_dtype=dtype)
        module.observer = lambda _, logits, index, weights: seen.append(index.flatten().tolist())
        module(torch.tensor([[1.0, 0.0]]).bfloat16(), [torch.zeros(1, 3).bfloat16()])
    assert seen == [[1], [0]]


def test_an_observer_sees_each_routing():
    ffn = GatedFFN()
    records = records_for(ffn, Recipe(num_experts=4, top_k=2))
    fast, seen = attached(ffn, records), []
    for module in routed_experts(fast):
        module.observer = lambda *routing: seen.append(routing)
    x = torch.randn(2, 3, 16)
    fast(x)
    (into, logits, index, weights), (back, *_) = seen
    assert into.paths == ("ffn.gate_proj", "ffn.up_proj")
    assert back.paths == ("ffn.down_proj",)
    up = records["up_proj"]
    torch.testing.assert_close(logits[:, 1], x.view(6, 16) @ up.router_weight.T + up.router_bias)
    assert index.shape == weights.shape == (6, 2, 2)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 2))


@pytest.mark.parametrize("tokens", [1, 6])
def test_a_router_bias_of_minus_infinity_takes_an_expert_out(tokens):
    experts = draw_experts(draw, Recipe(num_experts=3, top_k=2), 8, 6)
    keep = [0, 2]
    without = dataclasses.replace(
        experts,
        a=experts.a[keep],
        b=experts.b[keep],
        router_weight=experts.router_weight[keep],
        router_bias=experts.router_bias[keep],
    )
    masked = RoutedExperts(["x"], [experts], dtype=torch.float32)
    x, zero = torch.randn(tokens, 8), torch.zeros(tokens, 6)
    with torch.no_grad():
        masked.router_bias[:, 1] = -torch.inf
        [output] = masked(x, [zero.clone()])
        [expected] = RoutedExperts(["x"], [without], dtype=torch.float32)(x, [zero.clone()])
    torch.testing.assert_close(output, expected)


def test_gradients_equal_those_of_the_loop():
    ffn = GatedFFN().requires_grad_(False)
    records = records_for(ffn, Recipe(num_experts=4, top_k=2))
    model = model_with(ffn)
    slow = slow_ffn(ffn, records)
    attach_experts(model, "ffn", records, FP32)
    for record in records.values():
        for tensor in (record.a, record.b, record.router_weight, record.router_bias):
            tensor.requires_grad_()
    x, weights = torch.randn(1, 6, 16), torch.randn(1, 6, 16)
    (model.ffn(x) * weights).sum().backward()
    (slow(x) * weights).sum().backward()
    into, back = routed_experts(model)
    stacked = torch.cat([records[n].a.grad.flatten(0, 1) for n in ("gate_proj", "up_proj")])
    torch.testing.assert_close(into.lora_a.grad, stacked, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        back.lora_b[0].grad,
        records["down_proj"].b.grad.transpose(1, 2).flatten(0, 1),
        rtol=1e-4,
        atol=1e-5,
    )
    routers = torch.cat([records[n].router_weight.grad for n in ("gate_proj", "up_proj")])
    torch.testing.assert_close(into.router.grad, routers, rtol=1e-4, atol=1e-5)


def test_router_gradients_are_those_of_numerical_differences():
    record = draw_experts(draw, Recipe(num_experts=3, top_k=2, rank=2), 4, 3)
    module = RoutedExperts(["x"], [record], dtype=torch.float32).double()
    x = torch.randn(5, 4, dtype=torch.float64)

    def output(router, bias):
        return torch.func.functional_call(
            module, {"router": router, "router_bias": bias}, (x, [torch.zeros(5, 3).double()])
        )[0]

    router = module.router.detach().requires_grad_()
    bias = module.router_bias.detach().requires_grad_()
    assert torch.autograd.gradcheck(output, (router, bias))


def test_fp32_experts_train_beside_a_bf16_base_under_autocast():
    ffn = GatedFFN().bfloat16().requires_grad_(False)
    model = model_with(ffn)
    attach_experts(model, "ffn", records_for(ffn, Recipe()), FP32)
    with torch.autocast("cpu", torch.bfloat16):
        model.ffn(torch.randn(2, 3, 16).bfloat16()).float().sum().backward()
    assert all(module.lora_a.grad.dtype == torch.float32 for module in routed_experts(model))


def test_switched_off_the_experts_leave_the_base_as_it_was():
    ffn = GatedFFN()
    x = torch.randn(1, 4, 16)
    expected = ffn(x)
    fast = attached(ffn, records_for(ffn, Recipe()))
    for module in routed_experts(fast):
        module.enabled = False
    assert torch.equal(fast(x), expected)
    assert {name for name, _ in fast.named_parameters() if name.startswith("gate_proj")} == {
        "gate_proj.weight",
        "gate_proj.bias",
    }


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(num_experts=1)], ids=str)
def test_layers_whose_weights_are_offloaded_take_experts_without_being_merged(recipe):
    ffn = GatedFFN()
    records = records_for(ffn, recipe)
    x = torch.randn(1, 4, 16)
    expected = slow_ffn(ffn, records)(x)
    model = cpu_offload(model_with(ffn), execution_device=torch.device("cpu"))
    assert model.ffn.gate_proj.weight.device.type == "meta"
    assert attach_experts(model, "ffn", records, FP32) == []
    with torch.no_grad():
        torch.testing.assert_close(model.ffn(x), expected, rtol=1e-5, atol=1e-5)
