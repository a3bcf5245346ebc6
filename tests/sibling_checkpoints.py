"""Tiny random adapters in the layouts of MING's siblings, and each layout's own slow arithmetic.

The slow models read the tensors by the names that the layout gives them, token by token.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_checkpoints import INNER, LAYERS, WIDTH
from torch import Tensor, nn
from torch.nn.functional import gelu, silu
from transformers import AutoModelForCausalLM, PreTrainedModel

FFN = {"gate_proj": (WIDTH, INNER), "up_proj": (WIDTH, INNER), "down_proj": (INNER, WIDTH)}
ATTENTION = {"q_proj": (WIDTH, 32), "v_proj": (WIDTH, 16)}
RANK, ALPHA = 4, 8

Tensors = dict[str, Tensor]


class Draw:
    """Random matrices from one seed."""

    def __init__(self, seed: int = 3) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator) * shape[-1] ** -0.5

    def pair(self, inputs: int, outputs: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
        return self(rank, inputs), self(outputs, rank) * 0.5


def save(
    folder: Path, config: Mapping[str, Any], tensors: Tensors, *, pickled: bool = True
) -> Path:
    folder.mkdir()
    fields = {"base_model_name_or_path": "../base", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    fields |= {"lora_dropout": 0.05, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps({**fields, **config}))
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def mixlora_tensors(draw: Draw, experts: int = 4, rank: int = RANK) -> Tensors:
    tensors = {}
    for layer in range(LAYERS):
        block = f"mixlora.layers.{layer}.mlp"
        tensors[f"{block}.moe_gate.weight"] = draw(experts, WIDTH) * 2
        for name, size in FFN.items():
            for index in range(experts):
                a, b = draw.pair(*size, rank)
                tensors[f"{block}.{name}.experts.{index}.lora_A.weight"] = a
                tensors[f"{block}.{name}.experts.{index}.lora_B.weight"] = b
    return tensors | plain_pairs("mixlora", draw)


def plain_pairs(prefix: str, draw: Draw) -> Tensors:
    tensors = {}
    for layer in range(LAYERS):
        for name, size in ATTENTION.items():
            path = f"{prefix}.layers.{layer}.self_attn.{name}"
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = draw.pair(*size)
    return tensors


def moe_peft_tensors(
    prefix: str, draw: Draw, counts: tuple[int, ...], *, attention: bool
) -> Tensors:
    tensors = {}
    for layer, experts in enumerate(counts):
        parts = {"mlp": FFN, "self_attn": ATTENTION} if attention else {"mlp": FFN}
        for part, sizes in parts.items():
            for name, size in sizes.items():
                path = f"{prefix}.layers.{layer}.{part}.{name}"
                tensors[f"{path}.moe_gate.weight"] = draw(experts, size[0]) * 2
                for index in range(experts):
                    a, b = draw.pair(*size)
                    tensors[f"{path}.experts.{index}.lora_A.weight"] = a
                    tensors[f"{path}.experts.{index}.lora_B.weight"] = b
    return tensors


def vendored_tensors(draw: Draw, experts: int, *, shared_a: bool) -> Tensors:
    tensors = {}
    for layer in range(LAYERS):
        for name, size in FFN.items():
            path = f"base_model.model.model.layers.{layer}.mlp.{name}"
            tensors[f"{path}.lora_route.weight"] = draw(experts, size[0]) * 2
            for index in range(experts):
                a, b = draw.pair(*size)
                tensors[f"{path}.lora_A{index}.weight"] = a
                tensors[f"{path}.lora_B{index}.weight"] = b
            if shared_a:
                for index in range(experts):
                    del tensors[f"{path}.lora_A{index}.weight"]
                tensors[f"{path}.lora_A.weight"] = draw(RANK, size[0])
    return tensors


def weights_of(g: Tensor, top_k: int) -> dict[int, Tensor]:
    """Softmax over all, the K largest kept and renormalised: as the siblings' papers write it."""
    p = torch.softmax(g, -1)
    chosen = sorted(range(len(g)), key=lambda i: -p[i].item())[:top_k]
    return {i: p[i] / sum(p[j] for j in chosen) for i in chosen}


class SlowSum(nn.Module):
    """y = W x + sum of w_i s B_i A_i x of one layer with a router of its own."""

    def __init__(self, base: nn.Linear, router: Tensor, pairs: list, top_k: int) -> None:
        super().__init__()
        self.base, self.router, self.pairs, self.top_k = base, router, pairs, top_k

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(token) for token in x.flatten(0, -2)]).view(*x.shape[:-1], -1)

    def one(self, x: Tensor) -> Tensor:
        y = self.base(x)
        for i, weight in weights_of(self.router @ x, self.top_k).items():
            a, b = self.pairs[i]
            y = y + weight * (ALPHA / RANK) * (b @ (a @ x))
        return y


class SlowBlock(nn.Module):
    """MixLoRA as its package computes it: each expert a whole block, with a D of its own."""

    def __init__(
        self, ffn: nn.Module, router: Tensor, pairs: dict, top_k: int, scaling: float, act
    ):
        super().__init__()
        self.ffn, self.router, self.pairs = ffn, router, pairs
        self.top_k, self.scaling, self.act = top_k, scaling, act

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(token) for token in x.flatten(0, -2)]).view(x.shape)

    def one(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for i, weight in weights_of(self.router @ x, self.top_k).items():
            inner = self.act(self.layer("gate_proj", i, x)) * self.layer("up_proj", i, x)
            y = y + weight * self.layer("down_proj", i, inner)
        return y

    def layer(self, name: str, expert: int, x: Tensor) -> Tensor:
        y = getattr(self.ffn, name)(x)
        if name not in self.pairs:
            return y
        a, b = self.pairs[name][expert]
        return y + self.scaling * (b @ (a @ x))


@torch.no_grad()
def slow_pairs(model: PreTrainedModel, prefix: str, tensors: Tensors) -> None:
    """W + s B A for the plain pairs of the attention."""
    for layer in range(LAYERS):
        for name in ATTENTION:
            path = f"layers.{layer}.self_attn.{name}"
            a, b = (tensors[f"{prefix}.{path}.lora_{letter}.weight"] for letter in "AB")
            model.get_submodule(f"model.{path}").weight += (ALPHA / RANK) * (b @ a)


def slow_mixlora(
    base: Path,
    tensors: Tensors,
    *,
    top_k: int = 2,
    rank: int = RANK,
    alpha: int = ALPHA,
    names: tuple[str, ...] = tuple(FFN),
    act: str = "silu",
    rslora: bool = False,
) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(base)
    slow_pairs(model, "mixlora", tensors)
    scaling = alpha / (math.sqrt(rank) if rslora else rank)
    for layer in range(LAYERS):
        block = f"mixlora.layers.{layer}.mlp"
        router = tensors[f"{block}.moe_gate.weight"]
        pairs = {
            name: [
                [tensors[f"{block}.{name}.experts.{i}.lora_{x}.weight"] for x in "AB"]
                for i in range(len(router))
            ]
            for name in names
        }
        path = f"model.layers.{layer}.mlp"
        ffn = model.get_submodule(path)
        activation = {"silu": silu, "gelu": gelu}[act]
        model.set_submodule(path, SlowBlock(ffn, router, pairs, top_k, scaling, activation))
    return model.eval()


def slow_linears(base: Path, layers: Mapping[str, tuple[Tensor, list, int]]) -> PreTrainedModel:
    """The base with (router, pairs, K) at each path."""
    model = AutoModelForCausalLM.from_pretrained(base)
    for path, (router, pairs, top_k) in layers.items():
        model.set_submodule(path, SlowSum(model.get_submodule(path), router, pairs, top_k))
    return model.eval()


def moe_peft_layers(prefix: str, tensors: Tensors, top_k: int | None) -> dict[str, tuple]:
    """(router, pairs, K) by path; no K: all experts."""
    found = {}
    for name, router in tensors.items():
        if not name.endswith(".moe_gate.weight"):
            continue
        path = name.removesuffix(".moe_gate.weight")
        pairs = [
            [tensors[f"{path}.experts.{i}.lora_{x}.weight"] for x in "AB"]
            for i in range(len(router))
        ]
        found["model" + path.removeprefix(prefix)] = (router, pairs, top_k or len(router))
    return found


def vendored_layers(tensors: Tensors) -> dict[str, tuple]:
    found = {}
    for name, router in tensors.items():
        if not name.endswith(".lora_route.weight"):
            continue
        path = name.removesuffix(".lora_route.weight")
        shared = tensors.get(f"{path}.lora_A.weight")
        pairs = [
            [
                tensors[f"{path}.lora_A{i}.weight"] if shared is None else shared,
                tensors[f"{path}.lora_B{i}.weight"],
            ]
            for i in range(len(router))
        ]
        found[path.removeprefix("base_model.model.")] = (router, pairs, len(router))
    return found
