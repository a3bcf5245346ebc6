"""Experts split over the processes of tensor parallelism: who holds what, and the same sums."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from sibling_checkpoints import Draw, SlowBlock
from tiny_checkpoints import Recipe, SlowLinear, draw_experts
from torch import nn
from torch.nn.functional import silu

from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.vllm.sharded_experts import (
    Placed,
    Shard,
    SplitBlockExperts,
    SplitInputExperts,
    SplitOutputExperts,
    side_by_side,
)

WIDTH, INNER, TOKENS = 32, 48, 7
SIZES = (1, 2, 4)


def drawer(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator) * shape[-1] ** -0.5


def a_linear(inputs, outputs, seed=2):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=False).requires_grad_(False)


class Together:
    """Processes as threads: each waits for the others' parts of a sum."""

    def __init__(self, size):
        self.barrier, self.parts = threading.Barrier(size), [None] * size

    def reduce(self, rank):
        def reduce(part):
            self.parts[rank] = part
            self.barrier.wait()
            total = sum(self.parts)
            self.barrier.wait()
            return total

        return reduce

    def run(self, work):
        results = [None] * len(self.parts)

        def one(rank):
            results[rank] = work(rank)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(self.parts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return results


def slow(linear, experts, x):
    return SlowLinear(linear, experts, experts.scaling)(x)


@pytest.mark.parametrize("size", SIZES)
def test_gate_and_up_have_whole_a_and_a_part_of_b_and_give_their_part_of_the_output(size):
    draw, x = drawer(), torch.randn(TOKENS, WIDTH, generator=torch.manual_seed(0))
    experts = [draw_experts(draw, Recipe(), WIDTH, INNER) for _ in range(2)]
    bases = [a_linear(WIDTH, INNER, seed) for seed in (3, 4)]
    parts = []
    for rank in range(size):
        shard = Shard(rank, size)
        places = side_by_side([INNER // size] * 2, [rank] * 2)
        placed = [
            Placed(experts=one, rows=rows, columns=columns)
            for one, (rows, columns) in zip(experts, places, strict=True)
        ]
        module = SplitOutputExperts(placed, dtype=torch.float32)
        assert module.lora_a.shape == (2 * 4 * 4, WIDTH)
        assert module.mix.router.shape == (2 * 4, WIDTH)
        assert [b.shape for b in module.lora_b] == [(4 * 4, INNER // size)] * 2
        fused = torch.cat([base.weight[shard.of(INNER)] for base in bases])
        parts.append(module(x, x @ fused.T).chunk(2, -1))
    for layer in range(2):
        whole = torch.cat([part[layer] for part in parts], -1)
        torch.testing.assert_close(
            whole, slow(bases[layer], experts[layer], x), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("size", SIZES)
def test_down_has_a_part_of_a_and_whole_b_and_decides_over_the_whole_input(size):
    x = torch.randn(TOKENS, INNER, generator=torch.manual_seed(0))
    experts, base = draw_experts(drawer(), Recipe(), INNER, WIDTH), a_linear(INNER, WIDTH)
    together = Together(size)

    def work(rank):
        shard = Shard(rank, size)
        mine = shard.of(INNER)
        module = SplitInputExperts(experts, shard, together.reduce(rank), dtype=torch.float32)
        assert module.lora_a.shape == (4 * 4, INNER // size)
        assert module.mix.router.shape == (4, INNER // size)
        assert module.lora_b.shape == (4 * 4, WIDTH)
        return module(x[:, mine], x[:, mine] @ base.weight[:, mine].T)

    whole = sum(together.run(work))
    torch.testing.assert_close(whole, slow(base, experts, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "key_heads"), [(1, 2), (2, 2), (4, 2), (4, 1)])
def test_q_k_and_v_with_fewer_key_heads_than_processes_give_each_its_heads(size, key_heads):
    head, heads = 4, 8
    outputs = [heads * head, key_heads * head, key_heads * head]
    draw, x = drawer(), torch.randn(TOKENS, WIDTH, generator=torch.manual_seed(0))
    experts = [draw_experts(draw, Recipe(num_experts=3), WIDTH, out) for out in outputs]
    bases = [a_linear(WIDTH, out, seed) for seed, out in enumerate(outputs)]
    wanted = [slow(base, one, x) for base, one in zip(bases, experts, strict=True)]
    for rank in range(size):
        copies = max(1, size // key_heads)
        keys = max(1, key_heads // size) * head
        places = side_by_side([heads // size * head, keys, keys], [rank] + [rank // copies] * 2)
        placed = [
            Placed(experts=one, rows=rows, columns=columns)
            for one, (rows, columns) in zip(experts, places, strict=True)
        ]
        fused = torch.cat(
            [base.weight[rows] for base, (rows, _) in zip(bases, places, strict=True)]
        )
        found = SplitOutputExperts(placed, dtype=torch.float32)(x, x @ fused.T)
        due = torch.cat([w[:, rows] for w, (rows, _) in zip(wanted, places, strict=True)], -1)
        torch.testing.assert_close(found, due, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("names", [("gate_proj", "up_proj", "down_proj"), ("up_proj",)])
def test_mixloras_blocks_split_over_processes_are_the_whole_blocks(size, names):
    draw, x = Draw(), torch.randn(TOKENS, WIDTH, generator=torch.manual_seed(0))
    ffn = nn.Module()
    ffn.gate_proj, ffn.up_proj = a_linear(WIDTH, INNER, 1), a_linear(WIDTH, INNER, 2)
    ffn.down_proj = a_linear(INNER, WIDTH, 3)
    ffn.act_fn = silu
    router = draw(4, WIDTH) * 2
    shapes = {"gate_proj": (WIDTH, INNER), "up_proj": (WIDTH, INNER), "down_proj": (INNER, WIDTH)}
    pairs = {name: [draw.pair(*shapes[name]) for _ in range(4)] for name in names}
    experts = {
        name: LinearExperts(
            a=torch.stack([a for a, _ in mine]),
            b=torch.stack([b for _, b in mine]),
            router_weight=router,
            router_bias=None,
            top_k=2,
            scaling=2.0,
        )
        for name, mine in pairs.items()
    }
    total = 0
    for rank in range(size):
        shard = Shard(rank, size)
        mine = shard.of(INNER)
        module = SplitBlockExperts(experts, shard, dtype=torch.float32)
        gate, up = x @ ffn.gate_proj.weight[mine].T, x @ ffn.up_proj.weight[mine].T
        inner, added = module(x, gate, up, silu)
        part = inner @ ffn.down_proj.weight[:, mine].T
        total = total + (part if added is None else part + added)
    wanted = SlowBlock(ffn, router, pairs, 2, 2.0, silu)(x)
    torch.testing.assert_close(total, wanted, rtol=1e-5, atol=1e-5)


def test_an_axis_that_does_not_split_evenly_is_refused():
    with pytest.raises(ValueError, match="does not split"):
        Shard(0, 5).of(48)


def test_an_expert_that_overflows_where_it_is_not_chosen_changes_nothing():
    experts = draw_experts(drawer(), Recipe(top_k=1), WIDTH, INNER)
    x = torch.randn(TOKENS, WIDTH, generator=torch.manual_seed(0))
    logits = x @ experts.router_weight.T + experts.router_bias
    never = next(i for i in range(4) if not (logits.argmax(-1) == i).any())
    experts.a[never] = torch.inf
    placed = [Placed(experts=experts, rows=slice(None), columns=slice(0, INNER))]
    found = SplitOutputExperts(placed, dtype=torch.float32)(x, torch.zeros(TOKENS, INNER))
    assert found.isfinite().all()


def test_silenced_experts_leave_the_base_alone():
    experts = draw_experts(drawer(), Recipe(), WIDTH, INNER)
    placed = [Placed(experts=experts, rows=slice(None), columns=slice(0, INNER))]
    module = SplitOutputExperts(placed, dtype=torch.float32)
    x, output = torch.randn(TOKENS, WIDTH), torch.randn(TOKENS, INNER)
    module.mix.live.fill_(0)
    assert torch.equal(module(x, output.clone()), output)


def test_of_equal_logits_the_first_expert_is_taken():
    experts = draw_experts(drawer(), Recipe(top_k=1), WIDTH, INNER)
    experts.router_weight.zero_()
    experts.router_bias.zero_()
    placed = [Placed(experts=experts, rows=slice(None), columns=slice(0, INNER))]
    x = torch.randn(TOKENS, WIDTH, generator=torch.manual_seed(0))
    found = SplitOutputExperts(placed, dtype=torch.float32)(x, torch.zeros(TOKENS, INNER))
    torch.testing.assert_close(found, experts.scaling * (x @ experts.a[0].T @ experts.b[0].T))


GLOO = """
import sys, torch
from torch import distributed
sys.path.insert(0, "tests")
from test_vllm_sharding import INNER, WIDTH, TOKENS, a_linear, draw_experts, drawer, Recipe, slow
from mingmoe_eval.vllm.sharded_experts import Shard, SplitInputExperts
distributed.init_process_group("gloo")
def reduce(part):
    part = part.clone()
    distributed.all_reduce(part)
    return part
shard = Shard(distributed.get_rank(), distributed.get_world_size())
mine = shard.of(INNER)
x = torch.randn(TOKENS, INNER, generator=torch.manual_seed(0))
experts, base = draw_experts(drawer(), Recipe(), INNER, WIDTH), a_linear(INNER, WIDTH)
module = SplitInputExperts(experts, shard, reduce, dtype=torch.float32)
whole = reduce(module(x[:, mine], x[:, mine] @ base.weight[:, mine].T))
torch.testing.assert_close(whole, slow(base, experts, x), rtol=1e-5, atol=1e-5)
"""


def test_two_processes_over_gloo_give_what_one_gives(tmp_path):
    root = Path(__file__).parents[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(30000 + os.getpid() % 20000)}
    environment = {**os.environ, **place, "WORLD_SIZE": "2", "PYTHONPATH": str(root)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", GLOO],
            cwd=root,
            env={**environment, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
