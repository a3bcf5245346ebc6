"""Loads a model directory or hub id as the causal language model that it claims to be."""

import copy
import logging
import re
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mingmoe_eval.errors import CheckpointError, UsageError, offence_list
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.attaching import (
    ComputeDtypes,
    MergedPair,
    attach_block_experts,
    attach_experts,
    attach_pair,
)
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.description import CheckpointDescription, describe
from mingmoe_eval.molora.formats import ming, sniff
from mingmoe_eval.molora.formats.keys import read_pair
from mingmoe_eval.molora.opening import OpenCheckpoint, open_checkpoint
from mingmoe_eval.molora.probing import Loaded, largest_difference, probe_logits
from mingmoe_eval.molora.sources import SMALL_FILES, base_of, fetch, transformers_config
from mingmoe_eval.molora.tokenizer_parts import TOKENIZER_FILE, keep_to_file

logger = logging.getLogger("mingmoe_eval.molora")

TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer.model", "vocab.json", "vocab.txt")


@quiet_libraries()
def load_model(
    adapter: str | Path,
    base: str | Path | None = None,
    *,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    reference_compat: bool = False,
) -> PreTrainedModel:
    """A causal language model in eval mode, with everything that its checkpoint trained live.

    Args:
        adapter: a directory or hub id: a MING-MOE adapter, one merged into a full model, a PEFT
            LoRA adapter, or a full model.
        base: the base model of an adapter; default what its adapter_config.json names, a relative
            path being meant from there. The adapter's config.json wins over the base's own.
        dtype: of weights and experts. "auto" is what the base's config says, except that fp16
            becomes fp32 on a CPU. Routers decide in fp32 whatever it is.
        device: "auto" spreads the model over the GPUs there are, else takes the CPU.
        reference_compat: what the reference's loader computes, where that differs from what was
            trained: rank stabilisation of experts is read from config.json alone, and routers
            decide in the model's dtype.

    Raises:
        CheckpointError: the checkpoint is not whole or does not fit its base; lists every offence.
        UsageError: a dtype that does not exist, or a device that is not here.
    """
    opened = open_checkpoint(adapter, base, reference_compat=reference_compat)
    for note in opened.notes:
        logger.warning("%s: %s", opened.source, note)
    model = load_weights(opened, dtype, device)
    return apply_adapter(model, opened, reference_compat=reference_compat)


@quiet_libraries()
def apply_adapter(
    model: PreTrainedModel, opened: OpenCheckpoint, *, reference_compat: bool = False
) -> PreTrainedModel:
    """The model with what was opened live on it, in eval mode; changes the model.

    Raises:
        CheckpointError: tensors that are not finite, or an adapter that PEFT refuses.
    """
    merged: list[MergedPair] = []
    effect = None
    if opened.molora is not None:
        router = model.dtype if reference_compat else torch.float32
        merged = _attach(model, opened, opened.molora, ComputeDtypes(model.dtype, router))
    elif opened.kind == "peft-lora":
        model, effect = _apply_peft(model, opened)
    description = describe(opened, reference_compat=reference_compat)
    model.loaded = Loaded(description, tuple(merged), effect)
    model.requires_grad_(False)
    return cast(PreTrainedModel, model.eval())


@quiet_libraries()
def load_tokenizer(adapter: str | Path, base: str | Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint: its own if it has one, else its base's.

    It splits text as its tokenizer.json says, whatever class transformers takes for it.

    Raises:
        CheckpointError: neither has one that loads without running its code.
    """
    home = Path(adapter) if sniff(adapter) != "hub" else fetch(str(adapter), SMALL_FILES)
    if not _has_tokenizer(home) and sniff(home) not in ("molora-merged", "full"):
        base = base_of(home, base)
        home = Path(base) if Path(base).is_dir() else fetch(base, SMALL_FILES)
    # Asked for itself: transformers makes an empty tokenizer where there is none.
    if not _has_tokenizer(home):
        raise CheckpointError(f"{home} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(home), trust_remote_code=False)
        keep_to_file(tokenizer, home)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(f"the tokenizer of {home} cannot be loaded: {error}") from error
    return tokenizer


def describe_checkpoint(
    adapter: str | Path, base: str | Path | None = None, *, reference_compat: bool = False
) -> CheckpointDescription:
    """What a checkpoint is, checked as `load_model` checks it, without loading its base's weights.

    Raises:
        CheckpointError: listing every offence.
    """
    opened = open_checkpoint(adapter, base, reference_compat=reference_compat)
    return describe(opened, reference_compat=reference_compat)


@quiet_libraries()
def load_weights(opened: OpenCheckpoint, dtype: str | torch.dtype, device: str) -> PreTrainedModel:
    """The full weights that a checkpoint builds on, without its adapter.

    Raises:
        CheckpointError: weights that are missing, or have no place in the model.
        UsageError: a dtype that does not exist, or a device that is not here.
    """
    own = transformers_config(opened.weights)
    config = copy.deepcopy(opened.model_config)
    config.dtype = own.dtype
    if getattr(own, "quantization_config", None) is not None:
        config.quantization_config = own.quantization_config
    places = _device_map(device)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            opened.weights,
            config=config,
            dtype=_dtype(dtype, own, on_cpu=places is None),
            device_map=places,
            trust_remote_code=False,
            output_loading_info=True,
            # transformers would stop without saying which; `_refuse_holes` lists them.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"the weights of {opened.weights} do not load as {type(opened.skeleton).__name__}: "
            f"{error}"
        ) from error
    _refuse_holes(opened, report)
    return model.eval()


def _refuse_holes(opened: OpenCheckpoint, report: dict[str, Any]) -> None:
    experts = set(opened.expert_files.shapes) if opened.kind == "molora-merged" else set()
    strays = sorted(set(report["unexpected_keys"]) - experts)
    offences = [f"no weights for {name}" for name in sorted(report["missing_keys"])]
    offences += [
        f"{name} is of shape {list(found)}, where the config makes it {list(due)}"
        for name, found, due in sorted(report["mismatched_keys"])
    ]
    if opened.molora is not None or ming.has_experts(strays):
        offences += [f"weights without a place: {name}" for name in strays]
    elif strays:
        logger.warning("%s holds weights without a place: %s", opened.weights, strays)
    if offences:
        headline = f"the weights of {opened.weights} do not fit the config of {opened.source}:"
        raise CheckpointError(offence_list(headline, offences))


def _attach(
    model: nn.Module, opened: OpenCheckpoint, molora: MoLoraConfig, dtypes: ComputeDtypes
) -> list[MergedPair]:
    offences: list[str] = []
    merged = []
    for path, slots in opened.pairs.items():
        pair = read_pair(slots, opened.pair_files)
        offences += _non_finite(path, *pair)
        merged += attach_pair(model, path, pair, molora.attention_scaling, dtypes.experts)
    for block in opened.expert_blocks:
        experts = opened.read_block(block)
        for name, one in experts.items():
            router = [t for t in (one.router_weight, one.router_bias) if t is not None]
            offences += _non_finite(f"{block}.{name}", one.a, one.b, *router, *(one.shared or ()))
        if opened.family is not None and opened.family.block_router:
            merged += attach_block_experts(model, block, experts, dtypes, act_fn=molora.act_fn)
        else:
            merged += attach_experts(model, block, experts, dtypes)
    if offences:
        raise CheckpointError(offence_list(f"{opened.source} is damaged:", offences))
    return merged


def _apply_peft(model: PreTrainedModel, opened: OpenCheckpoint) -> tuple[PreTrainedModel, float]:
    """The model with a PEFT adapter merged, or live beside a quantised base; and its effect."""
    from peft import PeftModel, get_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            tuned = PeftModel.from_pretrained(model, str(opened.folder)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UserWarning) as error:
        raise CheckpointError(f"{opened.source} does not fit its base: {error}") from error
    live = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    strays = [name for name in opened.pair_files.shapes if "lora_" in name and name not in live]
    if strays:
        headline = f"{opened.source} holds tensors for layers that its base does not have:"
        raise CheckpointError(offence_list(headline, strays))
    with_adapter = probe_logits(tuned)
    with tuned.disable_adapter():
        effect = largest_difference(with_adapter, probe_logits(tuned))
    if getattr(model, "is_quantized", False):
        return tuned.get_base_model(), effect
    return tuned.merge_and_unload(), effect


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _non_finite(path: str, *tensors: Tensor) -> list[str]:
    whole = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    return [] if whole else [f"{path} holds values that are not finite"]


def _dtype(asked: str | torch.dtype, own: PretrainedConfig, *, on_cpu: bool) -> str | torch.dtype:
    if asked == "auto":
        # A CPU multiplies fp16 slowly, and fp16 overflows where the weights' own fp32 does not.
        return torch.float32 if on_cpu and own.dtype == torch.float16 else own.dtype or "auto"
    found = asked if isinstance(asked, torch.dtype) else getattr(torch, asked, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"no dtype {asked!r}: use auto, float32, bfloat16 or float16")
    return found


def _device_map(device: str) -> str | dict[str, str] | None:
    """What transformers is told about placement; None leaves the model on the CPU."""
    if device == "auto":
        return "auto" if torch.cuda.is_available() else None
    if device == "cpu":
        return None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as each backend has it
        reason = re.split(r"[.\n]\s", str(error), maxsplit=1)[0]
        raise UsageError(f"the device {device!r} cannot be used here: {reason}") from error
    return {"": device}
