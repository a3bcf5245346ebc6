"""The one door to PEFT: a LoRA of its own format loaded, merged, or made for training.

Nothing else in the package imports peft. `RELIES_ON` and `OF_A_LAYER` name what is used of it that
its documentation does not promise; a test resolves each, so that a release that takes one away is
found by its name.
"""

import contextlib
import copy
import importlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft import (
    PeftModel as PeftModel,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.config import ADAPTER_CONFIG, read_json
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM
from mingmoe_eval.molora.formats.tensor_files import TensorFiles
from mingmoe_eval.molora.opening import OpenCheckpoint
from mingmoe_eval.molora.probing import largest_difference, probe_logits

RELIES_ON = (
    "PeftModel.disable_adapter",
    "PeftModel.get_base_model",
    "PeftModel.save_pretrained",
    "tuners.lora.LoraLayer",
    "tuners.lora.LoraLayer.get_base_layer",
    "tuners.lora.LoraModel.merge_and_unload",
    "utils.save_and_load.get_peft_model_state_dict",
    "utils.save_and_load.set_peft_model_state_dict",
)
"""Below `peft`."""

OF_A_LAYER = ("lora_A", "lora_B")
"""Of a `LoraLayer`, as `lora_bias`: by the adapter's name; the modules in these have a `weight`."""

ADAPTER = "default"
"""The name under which PEFT puts a model's only adapter."""

_NOT_MATCHED = r"The following \w+ keys did not match"

MISSING_KEYS = "Found missing adapter keys"
"""How PEFT's warning begins when an adapter's file lacks tensors; it is taken for an error."""


CONVERTING = (
    "peft.utils.transformers_weight_conversion",
    "convert_peft_adapter_state_dict_for_transformers",
)
"""Where PEFT renames and joins an adapter's tensors for a base whose experts transformers 5 joins.

Releases without it load no such adapter, so that nothing is to be renamed.
"""

_WRAPPERS = (".modules_to_save.", ".token_adapter.")

RANDOM_START = "pissa_niter_"
"""How init_lora_weights begins where PEFT takes a randomised decomposition off the base."""

MERGED_AS_LIVE = 1e-3
"""The most that merging may move a logit, as a part of the largest; rounding stays far below."""


def apply_adapter(model: PreTrainedModel, opened: OpenCheckpoint) -> tuple[PreTrainedModel, float]:
    """The model with an adapter merged, or live beside a quantised base.

    Also gives the most that the adapter moves a logit of the probe.

    Raises:
        CheckpointError: PEFT refuses it, its file holds tensors that nobody reads, or the merged
            model is another than the one with the adapter live.
    """
    packed = getattr(model, "is_quantized", False)
    method = f", whose weights are packed ({_packing(model)})" if packed else ""
    with _refused_as(f"{opened.source} does not fit its base{method}"):
        _give_rows(model, opened)
        tuned = PeftModel.from_pretrained(model, str(opened.folder)).eval()
        unread = _unread(tuned, opened.files)
    if str(tuned.peft_config[ADAPTER].init_lora_weights).startswith(RANDOM_START):
        raise CheckpointError(
            f"{opened.source} was begun from random parts of its base's weights, which PEFT draws "
            "anew at every load, so that no two loads agree: save it again with "
            "path_initial_model_for_weight_conversion, which makes it a plain LoRA"
        )
    # Asked of the tensors: attention may swallow what is no number in a probe of eight tokens.
    if damaged := [n for n in opened.files.shapes if not _finite(opened.files.read(n))]:
        said = [f"{name} holds values that are not finite" for name in damaged]
        raise CheckpointError(offence_list(f"{opened.source} is damaged:", said))
    if unread:
        headline = f"{opened.source} holds tensors for layers that its base does not have:"
        raise CheckpointError(offence_list(headline, unread))
    with _refused_as(f"{opened.source} cannot be computed"):
        live = probe_logits(tuned)
        with tuned.disable_adapter():
            effect = largest_difference(live, probe_logits(tuned))
    if packed:
        return tuned.get_base_model(), effect
    with _refused_as(f"{opened.source} cannot be merged into its base"):
        _make_room(tuned)
        merged = tuned.merge_and_unload()
    # Whatever PEFT merges otherwise than it computes shows here, known kinds and others. Half
    # precision rounds the two so differently that nothing could be told from a logit.
    if model.dtype.itemsize >= torch.float32.itemsize and bool(live.isfinite().all()):
        moved, largest = largest_difference(live, probe_logits(merged)), float(live.abs().max())
        if not moved <= MERGED_AS_LIVE * largest:
            raise CheckpointError(
                f"{opened.source} merged into its base is another model than with the adapter "
                f"beside it: a logit of the probe moves by {moved:.3g}"
            )
    return merged, effect


@contextlib.contextmanager
def _refused_as(what: str) -> Iterator[None]:
    """Turns what PEFT and transformers raise of an adapter into one message."""
    try:
        with warnings.catch_warnings():
            # Of tied weights and biases it warns too: those are given room, and merging is checked.
            warnings.simplefilter("ignore", UserWarning)
            # Of patterns that it makes itself, before it looks for the parameters of that name.
            warnings.filterwarnings("ignore", _NOT_MATCHED, RuntimeWarning)
            warnings.filterwarnings("error", message=MISSING_KEYS)
            yield
    except (
        OSError,
        ValueError,
        RuntimeError,  # and NotImplementedError
        LookupError,
        TypeError,
        AttributeError,
        UserWarning,
        ImportError,
    ) as error:
        raise CheckpointError(f"{what}: {error}") from error


def _give_rows(model: PreTrainedModel, opened: OpenCheckpoint) -> None:
    """Gives the model as many rows of embedding and head as the adapter's file holds of them.

    Whoever adds tokens resizes the model before a LoRA is put on it; PEFT then stores both matrices
    whole beside the pairs.

    Raises:
        CheckpointError: new rows of embedding or head are needed, and are not in the file.
    """
    own, rows = len(model.get_input_embeddings().weight), opened.vocabulary_rows
    config = read_json(opened.folder / ADAPTER_CONFIG)
    wanted = {count for count in rows.values() if count not in (None, own)}
    if not wanted:
        _refuse_more_tokens(opened, own)
        return
    # A whole copy of a tied embedding is the embedding's alone: PEFT leaves the head as it was.
    apart = "embed_tokens" in (config.get("modules_to_save") or ()) and not config.get(
        "ensure_weight_tying"
    )
    tied = model.config.get_text_config().tie_word_embeddings and not apart
    if len(wanted) > 1 or not (tied or set(rows.values()) == wanted):
        told = ", ".join(f"{count or own} of the {end}" for end, count in rows.items())
        raise CheckpointError(
            f"{opened.source} was trained with a vocabulary of {max(wanted)} tokens on a base of "
            f"{own}, and does not hold all their rows ({told}): save it again with "
            "save_embedding_layers=True"
        )
    # Every row is in the file, so that what the new ones begin as does not matter.
    model.resize_token_embeddings(wanted.pop(), mean_resizing=False)


def _refuse_more_tokens(opened: OpenCheckpoint, rows: int) -> None:
    """Refuses a tokenizer beside the adapter that has more tokens than model and base know of."""
    ours, theirs = (_most_tokens(Path(f)) for f in (opened.folder, opened.weights))
    if ours > max(rows, theirs):
        raise CheckpointError(
            f"the tokenizer beside {opened.source} has {ours} tokens, the model {rows} rows for "
            "them, and the adapter's file holds none: save it again with "
            "save_embedding_layers=True, or take the tokenizer away if it was not trained with it"
        )


def _most_tokens(folder: Path) -> int:
    """One more than the greatest id of a token that was added to a folder's tokenizer."""
    file = folder / "tokenizer.json"
    added = read_json(file).get("added_tokens") if file.is_file() else None
    ids = [one.get("id") for one in added or () if isinstance(one, dict)]
    return max((one + 1 for one in ids if isinstance(one, int)), default=0)


def _packing(model: PreTrainedModel) -> str:
    """By what method a quantised model's weights are packed, as its config calls it."""
    method = model.config.quantization_config.quant_method
    return str(getattr(method, "value", method))


def _unread(tuned: PeftModel, files: TensorFiles) -> list[str]:
    """The file's tensors that are nowhere in the model; a name alone shows no reading.

    Full tensors beside the low-rank pairs go into the base, if it has them under that name.
    """
    live = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    state = {**tuned.state_dict(), **live}
    stored = _as_loaded(tuned, {name: files.read(name) for name in files.shapes})
    # Beside a changed vocabulary PEFT stores a layer that was trained whole also as its wrapper
    # has it, under its adapter's name.
    state |= {
        name.replace(f".{ADAPTER}", ""): tensor
        for name, tensor in state.items()
        if any(wrapper in name for wrapper in _WRAPPERS)
    }
    return [
        name
        for name, tensor in stored.items()
        if name not in state or not _equal(state[name], tensor)
    ]


def _as_loaded(tuned: PeftModel, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors under the names and in the shapes that PEFT gives them for this base.

    Until transformers 5 each expert of a sparse base was three layers, each with a pair of its own;
    since then the experts of a block are two parameters.
    """
    home, name = CONVERTING
    try:
        convert = getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError):
        return stored
    converted: dict[str, Tensor] = convert(tuned, tuned.peft_config[ADAPTER], stored)
    return converted


def _finite(stored: Tensor) -> bool:
    return bool(stored.float().isfinite().all())


def _equal(live: Tensor, stored: Tensor) -> bool:
    if live.is_meta:
        return True  # offloaded: its value is not here to be asked
    cast = stored.to(live.device, live.dtype)
    # Values that are no numbers are not for this check to find.
    return live.shape == cast.shape and torch.equal(live.nan_to_num(), cast.nan_to_num())


def _make_room(tuned: PeftModel) -> None:
    """Gives each adapted layer weights of its own, and a bias where the adapter has one.

    PEFT adds the product to the layer's weight. Tied embeddings and replicated layers share theirs
    with layers that the adapter leaves alone, which would change with it; a product's bias needs
    one to be added to.
    """
    base = tuned.get_base_model()
    holders = Counter(id(p) for m in base.modules() for p in m._parameters.values())
    for layer in [module for module in base.modules() if isinstance(module, LoraLayer)]:
        inner = layer.get_base_layer()
        for name, parameter in list(inner._parameters.items()):
            if parameter is not None and holders[id(parameter)] > 1 and not parameter.is_meta:
                own = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                setattr(inner, name, own)
                base.config.tie_word_embeddings = False
        if layer.lora_bias.get(ADAPTER) and getattr(inner, "bias", None) is None:
            outputs, weight = inner.out_features, inner.weight
            inner.bias = nn.Parameter(weight.new_zeros(outputs), requires_grad=False)


def layers_due(opened: OpenCheckpoint) -> set[str]:
    """The layers that PEFT puts a low-rank pair on, by an adapter's config; loads no weight.

    Raises:
        CheckpointError: it finds none of them in the base.
    """
    with _refused_as(f"{opened.source} does not fit its base"):
        config = PeftConfig.from_pretrained(str(opened.folder))
        tuned = get_peft_model(copy.deepcopy(opened.skeleton), config, low_cpu_mem_usage=True)
    return {path for path, _, _ in live_pairs(tuned.get_base_model())}


def add_lora(
    base: PreTrainedModel, *, rank: int, alpha: float, rslora: bool = False, targets: Sequence[str]
) -> PeftModel:
    """The base with a LoRA on layers of these names or paths: A drawn by PEFT, B zero."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        target_modules=list(targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def live_pairs(model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(Path, A, B) of every layer with a LoRA, the parameters themselves."""
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            halves: Any = (getattr(layer, name)[ADAPTER].weight for name in OF_A_LAYER)
            yield path, *halves


def save_adapter(model: PeftModel, folder: Path, *, base: str) -> None:
    """Writes PEFT's own format, with the base's name."""
    model.peft_config[ADAPTER].base_model_name_or_path = base
    # "auto" would ask the hub whether the vocabulary was changed.
    model.save_pretrained(str(folder), save_embedding_layers=False)


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Takes back what `save_adapter` wrote.

    Raises:
        CheckpointError: the file is not there, or its tensors are others.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(folder / f"{ATTENTION_STEM}.safetensors")
        outcome = set_peft_model_state_dict(model, tensors)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be resumed from: {error}") from error
    absent = [key for key in outcome.missing_keys if "lora_" in key]
    if absent or outcome.unexpected_keys:
        raise CheckpointError(f"{folder} holds another adapter than the one in training")
