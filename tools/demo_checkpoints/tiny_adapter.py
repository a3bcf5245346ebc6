"""A fresh MoLoRA adapter beside a frozen base model: ready to be trained, then written."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts, routed_experts
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.formats.families import ffn_blocks, linear_sizes
from mingmoe_eval.molora.formats.ming import save_ming_v1
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts, LowRankLinear


def attach_fresh_adapter(model: PreTrainedModel, settings: MoLoraConfig) -> list[nn.Parameter]:
    """Gives a model experts on every feed-forward layer and a low-rank pair on its attention.

    The model computes what it did before, since every B is zero. Returns what is to be trained;
    everything else is frozen.
    """
    model.requires_grad_(False)
    sizes = linear_sizes(model)
    for path, (inputs, outputs) in sizes.items():
        if path.rpartition(".")[2] in settings.target_modules:
            a, b = _fresh_pair(settings.rank, inputs, outputs)
            layer = model.get_submodule(path)
            model.set_submodule(path, LowRankLinear(layer, a, b, settings.attention_scaling))
    for block in ffn_blocks(model):
        experts = {
            name: _fresh_experts(settings, *sizes[f"{block}.{name}"]) for name in FFN_LINEARS
        }
        attach_experts(model, block, experts, ComputeDtypes(torch.float32, torch.float32))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def write_adapter(model: PreTrainedModel, settings: MoLoraConfig, folder: Path) -> None:
    """Writes what was trained in MING-MOE's own layout, in half precision."""
    experts = {
        path: _halved(one)
        for routed in routed_experts(model)
        for path, one in zip(routed.paths, routed.unstack(), strict=True)
    }
    attention = {
        path: (module.lora_a.detach().half(), module.lora_b.detach().half())
        for path, module in model.named_modules()
        if isinstance(module, LowRankLinear)
    }
    save_ming_v1(
        folder,
        settings=settings,
        # Not the folder of the machine that made it.
        model_config={**model.config.to_dict(), "_name_or_path": settings.base},
        experts=experts,
        attention=attention,
    )


def _fresh_pair(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    a = torch.empty(rank, inputs)
    nn.init.kaiming_uniform_(a, a=5**0.5)
    return a, torch.zeros(outputs, rank)


def _fresh_experts(settings: MoLoraConfig, inputs: int, outputs: int) -> LinearExperts:
    pairs = [_fresh_pair(settings.rank, inputs, outputs) for _ in range(settings.num_experts)]
    return LinearExperts(
        a=torch.stack([a for a, _ in pairs]),
        b=torch.stack([b for _, b in pairs]),
        router_weight=torch.randn(settings.num_experts, inputs) * 0.1,
        router_bias=torch.zeros(settings.num_experts),
        top_k=settings.experts_per_token,
        scaling=settings.expert_scaling,
    )


def _halved(experts: LinearExperts) -> LinearExperts:
    assert experts.router_weight is not None
    assert experts.router_bias is not None
    return dataclasses.replace(
        experts,
        a=experts.a.half(),
        b=experts.b.half(),
        router_weight=experts.router_weight.half(),
        router_bias=experts.router_bias.half(),
    )
