"""Tiny models with random weights, adapters on them, and a slow, obvious way to compute both."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.ming import expert_tensors, save_ming_v1
from mingmoe_eval.molora.layers import LinearExperts

torch.set_num_threads(1)

VOCABULARY, WIDTH, INNER, LAYERS = 96, 32, 48, 2
FAMILIES = ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3_text")


def config_of(family: str, **changes: Any) -> Any:
    kind = transformers.AutoConfig.for_model
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return kind(family, **{**sizes, **changes})


def save_base(folder: Path, family: str = "qwen2", *, seed: int = 0, **changes: Any) -> Path:
    """A base model whose logits are of the order of one, so that tolerances mean something."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(family, **changes))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 if "embed" in name else parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    return folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What kind of adapter to draw at random."""

    num_experts: int = 4
    top_k: int = 2
    rank: int = 4
    alpha: float = 8.0
    rslora: bool = False
    shared: int = 0
    dtype: torch.dtype = torch.float32
    spread: float = 0.5

    @property
    def settings(self) -> MoLoraConfig:
        return MoLoraConfig(
            num_experts=self.num_experts,
            experts_per_token=self.top_k,
            rank=self.rank,
            alpha=self.alpha,
            expert_rslora=self.rslora,
            attention_rslora=self.rslora,
            base="../base",
        )

    @property
    def scaling(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """The tensors of an adapter, by path of the linear layer."""

    recipe: Recipe
    experts: dict[str, LinearExperts]
    attention: dict[str, tuple[Tensor, Tensor]]


def draw_adapter(model: nn.Module, recipe: Recipe, *, seed: int = 1) -> Adapter:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator) * shape[-1] ** -0.5
        return drawn.to(recipe.dtype)

    experts, attention = {}, {}
    for path, linear in model.named_modules():
        if not isinstance(linear, nn.Linear) or path == "lm_head":
            continue
        inputs, outputs = linear.in_features, linear.out_features
        if ".mlp." in path:
            experts[path] = draw_experts(draw, recipe, inputs, outputs)
        else:
            attention[path] = draw(recipe.rank, inputs), draw(outputs, recipe.rank) * recipe.spread
    return Adapter(recipe, experts, attention)


def draw_experts(draw: Any, recipe: Recipe, inputs: int, outputs: int) -> LinearExperts:
    count, rank, wide = recipe.num_experts, recipe.rank, recipe.rank * recipe.shared
    routed = count > 1
    return LinearExperts(
        a=draw(count, rank, inputs),
        b=draw(count, outputs, rank) * recipe.spread,
        router_weight=draw(count, inputs) * 2 if routed else None,
        router_bias=draw(count) if routed else None,
        top_k=recipe.top_k,
        scaling=recipe.scaling,
        shared=(draw(wide, inputs), draw(outputs, wide) * recipe.spread) if wide else None,
    )


def save_adapter(
    folder: Path, base: Path, recipe: Recipe = Recipe(), *, model_config: Mapping | None = None
) -> Adapter:
    """A MING adapter for the base model in a directory beside it."""
    adapter = draw_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)
    save_ming_v1(
        folder,
        settings=recipe.settings,
        model_config=model_config or json.loads((base / "config.json").read_text()),
        experts=adapter.experts,
        attention=adapter.attention,
    )
    return adapter


def save_merged(folder: Path, base: Path, recipe: Recipe) -> Adapter:
    """A full model that keeps its experts, as MING's merging script leaves it; no attention."""
    adapter = draw_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)
    folder.mkdir()
    tensors = load_file(base / "model.safetensors")
    for path, experts in adapter.experts.items():
        tensors |= {f"{path}.{name}": t.clone() for name, t in expert_tensors(experts).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fields = {
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": 0.05,
        "bias": "none",
        "use_rslora": recipe.rslora,
        "num_experts": recipe.num_experts,
        "num_experts_per_token": recipe.top_k,
        "expert_selection": "top_k",
        "share_expert": False,
    }
    config = json.loads((base / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return Adapter(recipe, adapter.experts, {})


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; None takes a field out."""
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


class SlowLinear(nn.Module):
    """One linear layer with experts, token by token, expert by expert, in plain sums."""

    def __init__(self, base: nn.Linear, experts: LinearExperts, scaling: float) -> None:
        super().__init__()
        self.base, self.experts, self.scaling = base, experts, scaling

    def forward(self, x: Tensor) -> Tensor:
        tokens = [self.one_token(token) for token in x.reshape(-1, x.shape[-1])]
        return torch.stack(tokens).view(*x.shape[:-1], -1)

    def one_token(self, x: Tensor) -> Tensor:
        one = self.experts
        y = self.base(x)
        if one.router_weight is None:
            mixture = {0: 1.0}
        else:
            g = one.router_weight.float() @ x + one.router_bias.float()
            chosen = sorted(range(len(g)), key=lambda i: (-g[i].item(), i))[: one.top_k]
            mixture = {i: g[i].exp() / sum(g[j].exp() for j in chosen) for i in chosen}
        for i, weight in mixture.items():
            y = y + weight * self.scaling * (one.b[i].float() @ (one.a[i].float() @ x))
        if one.shared is not None:
            a, b = one.shared
            y = y + self.scaling * (b.float() @ (a.float() @ x))
        return y


@torch.no_grad()
def slow_model(base: Path, adapter: Adapter, *, scaling: float | None = None) -> PreTrainedModel:
    """The base with an adapter, computed the slow way."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for path, (a, b) in adapter.attention.items():
        model.get_submodule(path).weight += adapter.recipe.scaling * (b.float() @ a.float())
    for path, experts in adapter.experts.items():
        linear = model.get_submodule(path)
        model.set_submodule(path, SlowLinear(linear, experts, scaling or adapter.recipe.scaling))
    return model.eval()


def token_ids(rows: int, length: int, *, seed: int = 5) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.manual_seed(seed))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Tensor:
    return model(input_ids=ids, **inputs).logits
