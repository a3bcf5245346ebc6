"""Several adapters, one after the other, on a base model that is loaded once."""

import contextlib
import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.attaching import plain_parts
from mingmoe_eval.molora.checkpoint import apply_adapter, load_weights
from mingmoe_eval.molora.config import ADAPTER_CONFIG, read_json
from mingmoe_eval.molora.formats.ming import strip_prefix
from mingmoe_eval.molora.opening import OpenCheckpoint, open_checkpoint

_NO_FUNCTION = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
"""What a config says of how a model is kept, and not of what it computes."""

_PARTS = ("_modules", "_parameters", "_buffers")
"""Where torch keeps what a module holds."""

_LOW_RANK = re.compile(r"(.+?)\.lora_\w+(\..+)?")
_BLOCK = re.compile(r".+?\.\d+\.")


def load_adapters(
    base: str | Path,
    adapters: Sequence[str | Path],
    *,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    reference_compat: bool = False,
) -> Iterator[PreTrainedModel]:
    """The base with each adapter in turn, bit for bit as `load_model` gives it.

    It is one model all the time: an adapter is live until the next is asked for. What is merged
    into a weight leaves by way of a copy of the weight, since (W + D) - D is not W.

    Raises:
        CheckpointError: before any weight is loaded, listing every offence of every adapter.
    """
    opened = [
        open_checkpoint(adapter, base, reference_compat=reference_compat) for adapter in adapters
    ]
    whole = open_checkpoint(base)
    if offences := [f"{one.source} {why}" for one in opened for why in _obstacles(one, whole)]:
        raise CheckpointError(offence_list(f"these cannot share {base}:", offences))
    model = load_weights(whole, dtype, device)
    for one in opened:
        with _restored(model, one):
            yield apply_adapter(model, one, reference_compat=reference_compat)


def _obstacles(opened: OpenCheckpoint, base: OpenCheckpoint) -> Iterator[str]:
    if base.kind != "full":
        yield f"needs a plain base, and {base.source} is of the kind {base.kind}"
    if getattr(base.model_config, "quantization_config", None) is not None:
        # bitsandbytes packs anew at the first pass, and PEFT's layers on that are off by far.
        yield f"needs a base that is not packed, as {base.source} is: evaluate it by itself"
    if opened.kind in ("full", "molora-merged"):
        yield "is a full model: evaluate it by itself"
        return
    differing = sorted(_differing(opened.model_config, base.model_config))
    if differing:
        fields = ", ".join(differing)
        yield f"has a config.json that differs from the base's in {fields}: evaluate it by itself"
    if opened.kind == "peft-lora":
        config = read_json(opened.folder / ADAPTER_CONFIG)
        for field, plain in (("bias", "none"), ("trainable_token_indices", None)):
            if config.get(field, plain) != plain:
                yield f"trains {field}, which cannot be taken off again: evaluate it by itself"
        rows = set(opened.vocabulary_rows.values()) - {None}
        if rows - {len(opened.skeleton.get_input_embeddings().weight)}:
            yield "has another vocabulary than the base: evaluate it by itself"


def _differing(one: PretrainedConfig, base: PretrainedConfig) -> set[str]:
    """The base's fields whose values in the other config make it another function."""
    ours, theirs = one.to_dict(), base.to_dict()
    return {name for name in theirs if name not in _NO_FUNCTION and ours.get(name) != theirs[name]}


@contextlib.contextmanager
def _restored(model: PreTrainedModel, opened: OpenCheckpoint) -> Iterator[None]:
    """Leaves the model's modules, weights and config as they were.

    Raises:
        CheckpointError: a weight is another one afterwards, although nothing names it.
    """
    before, config = _bits(model), copy.deepcopy(model.config)
    parts = [(m, {name: dict(getattr(m, name)) for name in _PARTS}) for m in model.modules()]
    copies = _copies(model, opened)
    try:
        yield
    finally:
        # Whole dicts of parts: an adapter may wrap a layer, add a bias, or repeat layers.
        for module, named in parts:
            for name, held in named.items():
                own = getattr(module, name)
                own.clear()
                own.update(held)
        model.config.__dict__.update(config.__dict__)
        with torch.no_grad():
            for parameter, value in copies:
                parameter.copy_(value)
    if _bits(model) != before:
        raise CheckpointError(
            f"{opened.source} changed weights of the shared base that cannot be taken back: "
            "evaluate it, and what follows it, by itself"
        )


def _copies(model: nn.Module, opened: OpenCheckpoint) -> list[tuple[Tensor, Tensor]]:
    """The tensors that the adapter may change, with a copy of each on the CPU."""
    modules = dict(model.named_modules())
    held = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    names = {strip_prefix(name).replace(".base_layer.", ".") for name in opened.files.shapes}
    # A low-rank pair goes into its layer's weight, and a pair's bias into that layer's.
    paths = {match[1] for match in map(_LOW_RANK.fullmatch, names) if match}
    if opened.mixture is not None:
        paths |= {*opened.mixture.experts, *opened.mixture.pairs}
    for path in paths & modules.keys():
        names |= {f"{path}.{part}" for part in modules[path]._parameters}
    # What transformers calls otherwise today, or joins with others: an expert of a sparse base.
    moved = {block[0] for block in map(_BLOCK.match, paths - modules.keys()) if block}
    names |= {name for name in held if name.startswith(tuple(moved))}
    return [
        (held[name], held[name].detach().cpu().clone())
        for name in sorted(names & held.keys())
        if not held[name].is_meta
    ]


def _bits(model: nn.Module) -> dict[str, int]:
    """A sum over each tensor's bits, where it is: no two states of a weight are likely to agree."""
    held = itertools.chain(model.named_parameters(), model.named_buffers())
    return {
        name: sum(
            int(_as_integers(part).sum(dtype=torch.int64))
            for part in plain_parts(tensor.detach())
            if not part.is_meta
        )
        for name, tensor in held
    }


def _as_integers(tensor: Tensor) -> Tensor:
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds.get(tensor.dtype.itemsize, torch.uint8))
