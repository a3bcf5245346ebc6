"""Loads a model directory or hub id as the causal language model that it claims to be."""

import copy
import logging
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from mingmoe_eval.errors import CheckpointError, UsageError, offence_list
from mingmoe_eval.json_files import shown
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora import peft_door
from mingmoe_eval.molora.attaching import ComputeDtypes, attach_mixture
from mingmoe_eval.molora.description import CheckpointDescription, describe
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, is_safetensors, weight_files
from mingmoe_eval.molora.opening import OpenCheckpoint, open_checkpoint
from mingmoe_eval.molora.probing import Loaded, probe, probe_logits
from mingmoe_eval.molora.sources import blaming, transformers_config, where

_ADAPTED = "_hf_peft_config_loaded"
"""What transformers notes on a model when it finds an adapter beside its weights."""

_LAYER = re.compile(r"\.layers\.(\d+)\.")

logger = logging.getLogger("mingmoe_eval.molora")


@quiet_libraries()
def load_model(
    adapter: str | Path,
    base: str | Path | None = None,
    *,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    reference_compat: bool = False,
    check: bool = True,
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
        check: whether to show, by two passes over eight tokens, that the adapter is live. Who
            calls `probe` on the model anyway leaves it out.

    Raises:
        CheckpointError: the checkpoint is not whole or does not fit its base, listing every
            offence; or its adapter changes nothing, or gives logits that are no numbers.
        UsageError: a dtype that does not exist, or a device that is not here.
    """
    opened = open_checkpoint(adapter, base, reference_compat=reference_compat)
    for note in opened.notes:
        logger.warning("%s: %s", opened.source, note)
    model = load_weights(opened, dtype, device)
    model = apply_adapter(model, opened, reference_compat=reference_compat)
    if check and opened.kind not in ("full", "gguf"):
        probe(model)
    return model


@quiet_libraries()
def apply_adapter(
    model: PreTrainedModel, opened: OpenCheckpoint, *, reference_compat: bool = False
) -> PreTrainedModel:
    """The model with what was opened live on it, in eval mode; changes the model.

    Raises:
        CheckpointError: tensors that are not finite, or an adapter that PEFT refuses.
    """
    merged, effect = [], None
    if opened.mixture is not None:
        router = model.dtype if reference_compat else torch.float32
        dtypes = ComputeDtypes(model.dtype, router)
        merged = attach_mixture(model, opened.mixture, dtypes, source=opened.source)
    elif opened.kind == "peft-lora":
        model, effect = peft_door.apply_adapter(model, opened)
    description = describe(opened, reference_compat=reference_compat)
    model.loaded = Loaded(description, tuple(merged), effect)
    model.requires_grad_(False)
    return cast(PreTrainedModel, model.eval())


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
    else:
        _refuse_integers(opened)
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    # Older releases of transformers give Gemma 2 torch's kernel, which caps nothing, in silence.
    kernel = {"attn_implementation": "eager"} if capped else {}
    places = _device_map(device)
    architecture = type(opened.skeleton).__name__
    with blaming(f"the weights of {opened.weights} do not load as {architecture}"):
        model, report = AutoModelForCausalLM.from_pretrained(
            **where(opened.weights),
            config=config,
            dtype=dtype_of(dtype, own, on_cpu=places is None),
            device_map=places,
            trust_remote_code=False,
            output_loading_info=True,
            # transformers would stop without saying which; `_refuse_holes` lists them.
            ignore_mismatched_sizes=True,
            **kernel,
        )
        if getattr(model, _ADAPTED, False):
            raise ValueError("an adapter is among them, which transformers put on them unasked")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = getattr(model.generation_config, name)
            for one in ids if isinstance(ids, list) else [ids]:
                if one is not None and (type(one) is not int or abs(one) >= 2**63):
                    raise ValueError(f"{name} must be ids of tokens, not {shown(ids)}")
    _refuse_holes(opened, report)
    _refuse_non_finite(model, opened)
    model.eval()
    if dtype == "auto" and own.dtype is None and places is None and model.dtype == torch.float16:
        model.float()  # as `dtype_of` has it; only the weights themselves say what they are
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    if any("weight" not in layer._parameters for layer in layers):
        # compressed-tensors unpacks at the first pass, and until then nothing can be put on its
        # layers. No pass for others: bitsandbytes then packs anew for the CPU, and PEFT's layers
        # on what it packed are another function.
        with blaming(f"the packed weights of {opened.weights} cannot be computed"):
            probe_logits(model)
    return model


def _refuse_integers(opened: OpenCheckpoint) -> None:
    """Refuses weights that are whole numbers, which no quantization_config says how to unpack."""
    folder = Path(opened.weights)
    if opened.kind == "gguf" or not folder.is_dir():
        return
    # Headers alone: a pickle would be read twice.
    files = TensorFiles([path for path in weight_files(folder) if is_safetensors(path)])
    due = {name for name, _ in opened.skeleton.named_parameters()}
    if packed := sorted(due & set(files.integers)):
        headline = f"the weights of {opened.weights} are whole numbers that no config explains:"
        raise CheckpointError(offence_list(headline, packed))


def _refuse_non_finite(model: PreTrainedModel, opened: OpenCheckpoint) -> None:
    """Refuses weights that are no numbers: one such may never show in a probe of a few tokens."""
    damaged = []
    for name, parameter in model.named_parameters():
        weight = parameter.data
        # Packed weights are of other classes, or of too few bits for the kernel; meta's are away.
        plain = type(weight) is torch.Tensor and weight.dtype.itemsize > 1 and not weight.is_meta
        # The least and the largest take a fortieth of the time of asking each.
        if plain and weight.is_floating_point() and weight.numel():
            least, largest = torch.aminmax(weight)
            if not (least.isfinite() and largest.isfinite()):
                damaged.append(name)
    if damaged:
        headline = f"the weights of {opened.weights} hold values that are not finite in"
        raise CheckpointError(offence_list(f"{headline} {model.dtype}:", damaged))


def _refuse_holes(opened: OpenCheckpoint, report: dict[str, Any]) -> None:
    # Of a merged checkpoint the experts are attached from their own tensors.
    experts = set(opened.files.shapes) if opened.kind == ming.MERGED.name else set()
    strays = sorted(set(report["unexpected_keys"]) - experts)
    offences = [f"no weights for {name}" for name in sorted(report["missing_keys"])]
    offences += [
        f"{name} is of shape {list(found)}, where the config makes it {list(due)}"
        for name, found, due in sorted(report["mismatched_keys"])
    ]
    layers = opened.model_config.get_text_config().num_hidden_layers
    beyond = [name for name in strays if (of := _LAYER.search(name)) and int(of[1]) >= layers]
    if beyond:  # a model without its last layers is another model, and gives no sign of it
        offences.append(f"the config has {layers} layers, the file has more, such as {beyond[0]}")
    # Somebody's adapter among the weights: without it the plain base would be served for it.
    adapted = ming.has_experts(strays) or any("lora_" in name for name in strays)
    if opened.mixture is not None or adapted:
        offences += [f"weights without a place: {name}" for name in strays]
    elif strays and not beyond:
        logger.warning("%s holds weights without a place: %s", opened.weights, strays)
    if offences:
        headline = f"the weights of {opened.weights} do not fit the config of {opened.source}:"
        raise CheckpointError(offence_list(headline, offences))


def dtype_of(asked: str | torch.dtype, own: PretrainedConfig, *, on_cpu: bool) -> str | torch.dtype:
    """The dtype that weights get; "auto" only where their config names none.

    Raises:
        UsageError: there is no such dtype.
    """
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
