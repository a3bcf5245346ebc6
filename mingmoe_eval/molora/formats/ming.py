"""MING-MOE's own layout, read and written, after its trainer (branches ming-moe, share_orth).

An adapter keeps experts and routers in `non_lora_trainables`, whatever that name says, and the
attention's LoRA in `adapter_model`. P stands for gate_proj, up_proj or down_proj:

    base_model.model.model.layers.L.mlp.P.switch.{weight,bias}
    base_model.model.model.layers.L.mlp.P.experts.I.lora_{A,B}_I.weight
    base_model.model.model.layers.L.mlp.P.share_experts.lora_{A,B}.weight     second generation
    base_model.model.model.layers.L.self_attn.q_proj.lora_{A,B}.weight

A merged checkpoint keeps the same names without the prefix among the weights of a full model.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mingmoe_eval.molora.config import ADAPTER_CONFIG, MODEL_CONFIG, MoLoraConfig, read_config
from mingmoe_eval.molora.formats.families import Family
from mingmoe_eval.molora.layers import LinearExperts

EXPERTS_STEM = "non_lora_trainables"
ATTENTION_STEM = "adapter_model"
PREFIX = "base_model.model."

# The expert's index stands in its name twice.
_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.lora_([AB])_\2\.weight")
_SHARED = re.compile(r"(.+)\.share_experts\.lora_([AB])\.weight")
# Each linear layer has its own router, whatever `mlp.switch` in the trainer's own filters says.
_ROUTER = re.compile(r"(.+_proj)\.switch\.(weight|bias)")
_PAIR = re.compile(r"(.+)\.lora_([AB])\.weight")


def strip_prefix(name: str) -> str:
    """The path inside the base model, of a name with PEFT's prefix, half of it, or none."""
    if name.startswith(PREFIX):
        return name.removeprefix(PREFIX)
    return name.removeprefix("model.") if name.startswith("model.model.") else name


def expert_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of an expert's or a router's tensor."""
    name = strip_prefix(name)
    if match := _EXPERT.fullmatch(name):
        return match[1], f"{match[3]} {int(match[2])}"
    if match := _SHARED.fullmatch(name):
        return match[1], f"shared {match[2]}"
    if match := _ROUTER.fullmatch(name):
        return match[1], f"router {match[2]}"
    return None


def pair_slot(name: str) -> tuple[str, str] | None:
    """The layer and the slot of a tensor of a plain low-rank pair."""
    match = _PAIR.fullmatch(strip_prefix(name))
    return (match[1], match[2]) if match else None


def has_experts(names: Iterable[str]) -> bool:
    """Whether any of the names is that of an expert or a router."""
    return any(expert_slot(name) for name in names)


ADAPTER = Family(
    name="molora",
    read_settings=read_config,
    expert_slot=expert_slot,
    pair_slot=pair_slot,
    file_stems=(EXPERTS_STEM, ATTENTION_STEM),
    own_config=True,
    every_ffn=True,
    router_bias=True,
)

MERGED = Family(
    name="molora-merged",
    read_settings=read_config,
    expert_slot=expert_slot,
    # What is no expert's tensor belongs to the full model, its attention's LoRA merged.
    pair_slot=lambda name: None,
    own_config=True,
    in_model=True,
    every_ffn=True,
    router_bias=True,
)


def save_ming_v1(
    folder: str | Path,
    *,
    settings: MoLoraConfig,
    model_config: Mapping[str, Any],
    experts: Mapping[str, LinearExperts],
    attention: Mapping[str, tuple[Tensor, Tensor]],
) -> None:
    """Writes an adapter that the reference's loader and ours both read.

    The experts go into non_lora_trainables.bin and a safetensors twin. N, K and use_rslora are
    always written, the last into both JSON files: the reference reads it from config.json alone.

    Args:
        folder: created if absent.
        settings: with `base`, the base model's hub id or path, relative to the folder.
        model_config: the base's config as a dict.
        experts: by path of the linear layer in the base; a record's shared pair is written in the
            second generation's way.
        attention: (A, B) by path.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / ADAPTER_CONFIG, _adapter_json(settings, attention))
    _write_json(folder / MODEL_CONFIG, {**model_config, **_mixture_json(settings, experts)})
    trained = {
        f"{PREFIX}{path}.{name}": tensor.detach().cpu().contiguous()
        for path, one in experts.items()
        for name, tensor in expert_tensors(one).items()
    }
    # The reference's loader knows the pickle alone; whoever opens no pickles takes the twin.
    torch.save(trained, folder / f"{EXPERTS_STEM}.bin")
    save_file(trained, folder / f"{EXPERTS_STEM}.safetensors", metadata={"format": "pt"})
    pairs = {
        f"{PREFIX}{path}.lora_{letter}.weight": tensor.detach().cpu().contiguous()
        for path, pair in attention.items()
        for letter, tensor in zip("AB", pair, strict=True)
    }
    save_file(pairs, folder / f"{ATTENTION_STEM}.safetensors", metadata={"format": "pt"})


def expert_tensors(experts: LinearExperts) -> dict[str, Tensor]:
    """The tensors of one layer by their names below the layer's path."""
    named = {}
    for index, (a, b) in enumerate(zip(experts.a, experts.b, strict=True)):
        named[f"experts.{index}.lora_A_{index}.weight"] = a
        named[f"experts.{index}.lora_B_{index}.weight"] = b
    if experts.router_weight is not None and experts.router_bias is not None:
        named["switch.weight"], named["switch.bias"] = experts.router_weight, experts.router_bias
    if experts.shared is not None:
        named["share_experts.lora_A.weight"], named["share_experts.lora_B.weight"] = experts.shared
    return named


def _adapter_json(
    settings: MoLoraConfig, attention: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({path.rpartition(".")[2] for path in attention}),
        "use_rslora": settings.attention_rslora,
    }


def _mixture_json(settings: MoLoraConfig, experts: Mapping[str, LinearExperts]) -> dict[str, Any]:
    # Shared experts lie stacked in one pair, r rows each.
    shared = max((len(one.shared[0]) for one in experts.values() if one.shared), default=0)
    return {
        "num_experts": settings.num_experts,
        "num_experts_per_token": settings.experts_per_token,
        "expert_selection": "top_k",
        "share_expert": shared > 0,
        **({"num_share_experts": shared // settings.rank} if shared else {}),
        "use_rslora": settings.expert_rslora,
        # What the reference writes too, at the values that change nothing.
        "output_logit_bias": False,
        "router_loss_coeff": 0.0,
        "router_loss_mode": "softmax",
    }


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
