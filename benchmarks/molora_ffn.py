"""How long a feed-forward block with routed experts takes, beside the same block without.

Three blocks over the same frozen weights, at d = 1024, ff = 2816 with 8 experts of rank 16, two a
token: the plain block; ours; and the loop over experts that the MING-MOE reference runs in eval
mode (the same operations, written anew: github.com/MediaBrain-SJTU/MING, ming/model/utils.py). Each
round times all blocks once in a random order, and what is reported is the median over rounds of the
ratio within a round, so that another job on the machine disturbs both sides of a ratio alike.

    python benchmarks/molora_ffn.py [--quick] [--threads 2] [--rounds 41] [--json FILE]
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts
from mingmoe_eval.molora.layers import LinearExperts

WIDTH, INNER, EXPERTS, TOP_K, RANK, ALPHA = 1024, 2816, 8, 2, 16, 32.0
LAYERS_WHEN_SHORT = 8
"""Distinct blocks visited in turn for few tokens, so that weights come from memory, not cache."""


class PlainFFN(nn.Module):
    """The block of Qwen2 and Llama: down(silu(gate(x)) * up(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.up_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, WIDTH, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class LoopOverExperts(nn.Module):
    """One linear layer with the work that the reference does for it in eval mode, step by step.

    The whole layer is in the model's dtype; the experts' part is gathered in a tensor of its own;
    a load-balancing number that inference never reads is computed along the way; one token takes a
    path of its own.
    """

    def __init__(self, base: nn.Linear, experts: LinearExperts, dtype: torch.dtype) -> None:
        super().__init__()
        self.base, self.scaling, self.top_k = base, experts.scaling, experts.top_k
        self.a, self.b = experts.a.to(dtype), experts.b.to(dtype)
        self.router = experts.router_weight.to(dtype)
        self.bias = experts.router_bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        tokens = x.view(-1, x.shape[-1])
        top, index = torch.topk(nn.functional.linear(tokens, self.router, self.bias), self.top_k)
        weights = torch.softmax(top, dim=-1)
        part = torch.zeros(len(tokens), self.b.shape[1], dtype=x.dtype)
        if len(tokens) == 1:
            for weight, expert in zip(weights[0], index[0], strict=True):
                part += weight * self._expert(int(expert), tokens)
        else:
            self._add_each(tokens, index, weights, part)
        return self.base(x) + part.view(*x.shape[:-1], -1)

    def _add_each(self, tokens: Tensor, index: Tensor, weights: Tensor, part: Tensor) -> None:
        balance: Tensor | float = 0.0
        for expert in range(EXPERTS):
            rows, places = torch.where(index == expert)
            weight = weights[rows, places, None]
            part[rows] += weight * self._expert(expert, tokens[rows])
            balance += len(rows) / len(tokens) * weight.mean()

    def _expert(self, index: int, tokens: Tensor) -> Tensor:
        inner = nn.functional.linear(tokens, self.a[index])
        return nn.functional.linear(inner, self.b[index]) * self.scaling


def draw_experts(generator: torch.Generator, size: tuple[int, int]) -> LinearExperts:
    def draw(*shape: int, spread: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * spread

    inputs, outputs = size
    return LinearExperts(
        a=draw(EXPERTS, RANK, inputs, spread=inputs**-0.5),
        b=draw(EXPERTS, outputs, RANK, spread=0.02),
        router_weight=draw(EXPERTS, inputs, spread=inputs**-0.5),
        router_bias=draw(EXPERTS, spread=0.1),
        top_k=TOP_K,
        scaling=ALPHA / RANK,
    )


def build_blocks(dtype: torch.dtype, seed: int) -> dict[str, nn.Module]:
    """The three blocks over one set of weights."""
    generator = torch.Generator().manual_seed(seed)
    plain = PlainFFN().to(dtype).requires_grad_(False)
    linears = {"gate_proj": plain.gate_proj, "up_proj": plain.up_proj, "down_proj": plain.down_proj}
    experts = {
        name: draw_experts(generator, (linear.in_features, linear.out_features))
        for name, linear in linears.items()
    }
    ours, loop = nn.Module(), PlainFFN()
    ours.ffn = plain
    attach_experts(ours, "ffn", experts, ComputeDtypes(dtype, torch.float32))
    for name, linear in linears.items():
        setattr(loop, name, LoopOverExperts(linear, experts[name], dtype))
    built = {"plain": plain, "ours": ours.ffn, "loop": loop}
    if dtype == torch.float32:
        x = torch.randn(1, 4, WIDTH, generator=generator)
        torch.testing.assert_close(ours.ffn(x), loop(x), rtol=1e-4, atol=1e-4)
    return built


def timed(blocks: list[nn.Module], x: Tensor) -> float:
    start = time.perf_counter()
    for block in blocks:
        block(x)
    return (time.perf_counter() - start) / len(blocks)


def paired_rounds(
    layers: dict[str, list[nn.Module]], make_x: Callable[[], Tensor], rounds: int
) -> list[dict[str, float]]:
    """Seconds a block took, for each round and kind; the order within a round is drawn."""
    order = random.Random(0)
    x = make_x()
    for blocks in layers.values():
        timed(blocks, x)
    results = []
    for _ in range(rounds):
        names = order.sample(sorted(layers), len(layers))
        results.append({name: timed(layers[name], x) for name in names})
    return results


def measure(dtype: torch.dtype, tokens: int, rounds: int) -> dict[str, float | str | int]:
    depth = LAYERS_WHEN_SHORT if tokens <= 16 else 1
    stacks = [build_blocks(dtype, seed) for seed in range(depth)]
    layers = {name: [stack[name] for stack in stacks] for name in stacks[0]}
    generator = torch.Generator().manual_seed(99)
    # The model's way of calling: batch, position, feature.
    results = paired_rounds(
        layers, lambda: torch.randn(1, tokens, WIDTH, generator=generator).to(dtype), rounds
    )

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return round(statistics.median(map(of, results)), 4)

    def fastest(name: str) -> float:
        return min(result[name] for result in results)

    return {
        "dtype": str(dtype).removeprefix("torch."),
        "tokens": tokens,
        "rounds": rounds,
        "plain_ms": median(lambda r: r["plain"] * 1e3),
        "ours_to_plain": median(lambda r: r["ours"] / r["plain"]),
        "loop_to_plain": median(lambda r: r["loop"] / r["plain"]),
        "loop_to_ours": median(lambda r: r["loop"] / r["ours"]),
        # Of the fastest rounds, not paired: what is left when the machine is never idle.
        "best_ratio": round(fastest("ours") / fastest("plain"), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 256, 2048])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="five rounds, at most 256 tokens")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.tokens = 5, [t for t in arguments.tokens if t <= 256]
    torch.set_num_threads(arguments.threads)
    rows = []
    columns = ("tokens", "plain_ms", "ours_to_plain", "loop_to_plain", "loop_to_ours", "best_ratio")
    print(f"{'dtype':10}" + "".join(f"{name:>15}" for name in columns))
    with torch.inference_mode():
        for dtype in arguments.dtype:
            for tokens in arguments.tokens:
                # Long inputs are steadier and slower: a quarter of the rounds will do.
                rounds = arguments.rounds if tokens < 1024 else max(5, arguments.rounds // 4)
                rows.append(measure(getattr(torch, dtype), tokens, rounds))
                print(f"{dtype:10}" + "".join(f"{rows[-1][name]:>15}" for name in columns))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
