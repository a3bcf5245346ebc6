"""Several adapters, one after the other, on a base model that is loaded once."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.checkpoint import apply_adapter, load_weights
from mingmoe_eval.molora.config import ADAPTER_CONFIG, read_json
from mingmoe_eval.molora.formats.ming import strip_prefix
from mingmoe_eval.molora.opening import OpenCheckpoint, open_checkpoint

_NO_FUNCTION = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")
"""What a config says of how a model is kept, and not of what it computes."""

_LOW_RANK = re.compile(r"(.+?)\.lora_\w+?(\.weight)?")


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


def _differing(one: PretrainedConfig, base: PretrainedConfig) -> set[str]:
    """The base's fields whose values in the other config make it another function."""
    ours, theirs = one.to_dict(), base.to_dict()
    return {name for name in theirs if name not in _NO_FUNCTION and ours.get(name) != theirs[name]}


@contextlib.contextmanager
def _restored(model: nn.Module, opened: OpenCheckpoint) -> Iterator[None]:
    """Leaves the model's modules and weights as they were."""
    modules = dict(model.named_modules())
    copies = _copies(modules, opened)
    try:
        yield
    finally:
        # Parents come before their children: what is put back is then looked into.
        for path, module in modules.items():
            if path and model.get_submodule(path) is not module:
                model.set_submodule(path, module)
        with torch.no_grad():
            for parameter, value in copies:
                parameter.copy_(value)


def _copies(
    modules: dict[str, nn.Module], opened: OpenCheckpoint
) -> list[tuple[nn.Parameter, Tensor]]:
    """The weights that the adapter may be merged into, with a copy of each on the CPU."""
    named = (_LOW_RANK.fullmatch(strip_prefix(name)) for name in opened.files.shapes)
    paths = {match[1] for match in named if match}
    if opened.mixture is not None:
        paths |= {*opened.mixture.experts, *opened.mixture.pairs}
    weights = [getattr(modules[path], "weight", None) for path in sorted(paths & modules.keys())]
    return [
        (weight, weight.detach().cpu().clone())
        for weight in weights
        if isinstance(weight, nn.Parameter) and weight.device.type != "meta"
    ]
