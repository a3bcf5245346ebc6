"""A fresh adapter beside a frozen base: it changes nothing yet, and is ready to be trained."""

import math

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts, routed_experts
from mingmoe_eval.molora.config import lora_scaling
from mingmoe_eval.molora.formats.families import ffn_blocks, linear_sizes
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts
from mingmoe_eval.training.spec import AdapterShape

ATTENTION_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")

TRAINED_DTYPES = ComputeDtypes(experts=torch.float32, router=torch.float32)
"""Adapters are trained in fp32 whatever the base's dtype: bfloat16 would swallow small updates."""


def fresh_lora(base: PreTrainedModel, shape: AdapterShape, *, seed: int) -> PeftModel:
    """The base with a plain LoRA on attention and feed-forward layers.

    Raises:
        CheckpointError: the base has none of these layers.
    """
    return _with_lora(base, shape, (*ATTENTION_LINEARS, *FFN_LINEARS), seed)


def fresh_molora(base: PreTrainedModel, shape: AdapterShape, *, seed: int) -> PeftModel:
    """The base with a LoRA on its attention and routed experts on its feed-forward layers.

    A is drawn as PEFT draws it, B is zero, and routers are drawn so small that all experts are
    near equal.

    Raises:
        CheckpointError: the base has no such layers.
    """
    model = _with_lora(base, shape, ATTENTION_LINEARS, seed)
    sizes, blocks = linear_sizes(base), ffn_blocks(base)
    if not blocks:
        raise CheckpointError(
            f"{type(base).__name__} has no block with {', '.join(FFN_LINEARS)}: experts have no "
            "place in it"
        )
    generator = torch.Generator().manual_seed(seed)
    for block in blocks:
        fresh = {
            name: _fresh_experts(shape, *sizes[f"{block}.{name}"], generator)
            for name in FFN_LINEARS
        }
        attach_experts(base, block, fresh, TRAINED_DTYPES)
    return model


def freeze_all_but_routers(model: nn.Module) -> None:
    """Leaves only routers to be trained."""
    model.requires_grad_(False)
    for module in routed_experts(model):
        module.router.requires_grad_(True)
        module.router_bias.requires_grad_(True)


def draw_router(num_experts: int, inputs: int, generator: torch.Generator) -> Tensor:
    """A router [N, in] whose logits have a spread of 0.1 for inputs whose entries are about 1."""
    return torch.randn(num_experts, inputs, generator=generator) * (0.1 / math.sqrt(inputs))


def _with_lora(
    base: PreTrainedModel, shape: AdapterShape, wanted: tuple[str, ...], seed: int
) -> PeftModel:
    present = {path.rpartition(".")[2] for path in linear_sizes(base)}
    targets = [name for name in wanted if name in present]
    if not targets:
        raise CheckpointError(
            f"{type(base).__name__} has none of the layers {', '.join(wanted)}; it has "
            f"{', '.join(sorted(present))}"
        )
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        use_rslora=shape.rslora,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(base, config)


def _fresh_experts(
    shape: AdapterShape, inputs: int, outputs: int, generator: torch.Generator
) -> LinearExperts:
    count, rank = shape.num_experts, shape.rank
    # Kaiming's uniform with a = sqrt(5), as PEFT draws A: bounds of 1/sqrt(in).
    a = (torch.rand(count, rank, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
    return LinearExperts(
        a=a,
        b=torch.zeros(count, outputs, rank),
        router_weight=draw_router(count, inputs, generator),
        router_bias=torch.zeros(count),
        top_k=shape.experts_per_token,
        scaling=lora_scaling(shape.alpha, rank, rslora=shape.rslora),
    )
