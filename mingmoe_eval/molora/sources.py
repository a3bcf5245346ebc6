"""Where models come from and of what kind they are: directories here, and repositories on the hub.

The kind is told from JSON files and safetensors headers alone; no code of a checkpoint ever runs.
"""

import copy
import functools
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from mingmoe_eval.errors import CheckpointError, MingMoeError
from mingmoe_eval.hub import fetch
from mingmoe_eval.json_files import shown
from mingmoe_eval.molora.config import ADAPTER_CONFIG, MODEL_CONFIG, read_json
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.families import Family
from mingmoe_eval.molora.formats.siblings import family_of
from mingmoe_eval.molora.formats.tensor_files import (
    TensorFiles,
    indexed_names,
    preferred_file,
    weight_files,
)
from mingmoe_eval.molora.presence import (
    SMALL_FILES,
    is_directory,
    is_gguf,
    named_base,
    refuse_lost_path,
)

logger = logging.getLogger("mingmoe_eval.molora")

WEIGHT_FILES = ("*.json", "*.safetensors", "*.bin")
"""The weights of a full model with their index and config."""


_MEGATRON_STEP = "latest_checkpointed_iteration.txt"

# An empty pickle takes some hundred bytes: larger files are not opened to tell their kind.
_SMALL_FILE = 4096
# Ten times those of the deepest model that anyone has published.
_MOST_LAYERS = 2_000
_LONGEST_REASON = 600

Kind = str
"""`molora`, `molora-merged`, a sibling's family's name, `peft-lora`, `full`, `gguf`, or `hub`."""

Form = Family | Literal["peft-lora", "full", "gguf"]
"""The family of a mixture, or the kind of what is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A model that was found, with what its JSON files say.

    Attributes:
        source: as it was asked for.
        folder: its files; of a hub repository, the local copy.
        form: the family whose mixture it is, or else its kind.
        weights: directory or hub id of the full weights: its base's, or its own.
        adapter: what says how the adapter was made, empty where there is none.
        model: its own config.json, empty where the base's alone is asked.
        config: of the full model.
        skeleton: the full model without memory for its weights.
    """

    source: str
    folder: Path
    form: Form
    weights: str
    adapter: dict[str, Any]
    model: dict[str, Any]
    config: PretrainedConfig
    skeleton: PreTrainedModel

    @property
    def kind(self) -> Kind:
        """What it is, in a word."""
        return self.form if isinstance(self.form, str) else self.form.name


def find_model(source: str, base: str | Path | None) -> Place:
    """Finds a model directory or hub repository, tells its form, and reads its JSON files.

    Raises:
        CheckpointError: nothing there, no base, or in no form that we load.
    """
    folder, form = home_of(source)
    family = form if isinstance(form, Family) else None
    if family and family.in_model and not weight_files(folder):
        folder = fetch(source, WEIGHT_FILES)
    alone = form in ("full", "gguf") or (family is not None and family.in_model)
    own = source if family is None else str(folder)
    weights = own if alone else base_of(folder, base)
    model = read_json(folder / MODEL_CONFIG) if family and family.own_config else {}
    # A merged checkpoint keeps in config.json what an adapter has in a file of its own.
    adapter = model if alone else read_json(folder / ADAPTER_CONFIG)
    if is_directory(Path(weights)):
        _refuse_torn(Path(weights))
    # The checkpoint's own config decides, not the base's: a changed rope_theta was trained with.
    described = str(folder) if family and family.own_config else weights
    config = transformers_config(described)
    return Place(
        source=source,
        folder=folder,
        form=form,
        weights=weights,
        adapter=adapter,
        model=model,
        config=config,
        skeleton=skeleton_of(config, source if family and family.own_config else weights),
    )


def home_of(source: str) -> tuple[Path, Form]:
    """A model's files here, those of a hub repository fetched as far as they are small; its form.

    Raises:
        CheckpointError: nothing there, or in no form that we load.
    """
    folder, form = Path(source), _form_of(source)
    if form == "hub":
        folder = fetch(source, SMALL_FILES)
        form = _form_of(str(folder))
    assert form != "hub"  # what was fetched is a directory
    if form == "gguf":
        return folder.parent, form
    return folder, form


def sniff(path: str | Path) -> Kind:
    """The kind of a model directory; "hub" for a name that is not one.

    Raises:
        CheckpointError: a path that does not exist, or a directory in no form that we load.
    """
    form = _form_of(str(path))
    return form if isinstance(form, str) else form.name


def transformers_config(name: str | Path) -> PretrainedConfig:
    """The transformers config of a directory, GGUF file or hub id, without running code of any.

    Raises:
        CheckpointError: none there, or of an architecture that transformers does not know.
    """
    with blaming(f"the model config of {name} cannot be used"):
        if is_gguf(name):
            # Copied, as whoever loads a model writes into its config.
            return copy.deepcopy(_gguf_config(str(name), Path(name).stat().st_mtime_ns))
        said, _ = PretrainedConfig.get_config_dict(str(name))
        # Wherever such a number goes, a tensor cannot take it.
        if wide := list(_beyond_64_bits(said)):
            raise ValueError(f"{', '.join(wide)}: whole numbers of more than 64 bits")
        for part in (said, *(inner for inner in said.values() if isinstance(inner, dict))):
            layers = part.get("num_hidden_layers")
            # transformers lists the layers of a config: 2^31 of them take all the memory there is.
            if isinstance(layers, int | float) and layers > _MOST_LAYERS:
                raise ValueError(f"num_hidden_layers = {shown(layers)}, more than any model has")
            rope = part.get("rope_parameters")
            for theta in (part, rope if isinstance(rope, dict) else {}):
                # Python takes true for 1, and transformers asks no further.
                if isinstance(given := theta.get("rope_theta"), bool):
                    raise ValueError(f"rope_theta must be a number, not {shown(given)}")
        config = AutoConfig.from_pretrained(str(name), trust_remote_code=False)
        if config.is_encoder_decoder:
            raise ValueError("is_encoder_decoder: only causal language models are evaluated")
        # What a model hands out besides its logits, and how: nobody here wants another form.
        config.return_dict = True
        config.output_hidden_states = config.output_attentions = False
        return config


def _beyond_64_bits(value: Any, place: str = "") -> Iterator[str]:
    """Where in a JSON value such whole numbers stand."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _beyond_64_bits(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{place} = {shown(value)}"


@functools.lru_cache(maxsize=4)
def _gguf_config(file: str, changed: int) -> PretrainedConfig:
    """Read once: transformers reads the whole vocabulary for it, which takes seconds."""
    return AutoConfig.from_pretrained(**where(file), trust_remote_code=False)


def where(name: str | Path) -> dict[str, str]:
    """The arguments by which transformers' `from_pretrained` finds a model."""
    if is_gguf(name):
        path = Path(name)
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": str(name)}


def base_of(folder: Path, base: str | Path | None) -> str:
    """The base model's directory or hub id; warns where the adapter alone names one of the hub.

    Raises:
        CheckpointError: none is named, or it is a directory that is not there.
    """
    named = named_base(folder, base)
    if base is None and not Path(named).is_dir():
        logger.warning(
            "the base model is %r from the hub, which %s names; --base chooses another",
            named,
            folder / ADAPTER_CONFIG,
        )
    return named


def skeleton_of(config: PretrainedConfig, source: str) -> PreTrainedModel:
    """The model without memory for its weights: layers and shapes only.

    Raises:
        CheckpointError: the config contradicts itself.
    """
    with (
        blaming(f"the config of {source} describes no model that can be built"),
        torch.device("meta"),
    ):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _refuse_torn(folder: Path) -> None:
    """Refuses weights whose index names files that are not there, or that hold an adapter too."""
    if (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has an adapter among its weights ({ADAPTER_CONFIG}), which transformers "
            "would put on them unasked: give a base without, or move the adapter's files elsewhere"
        )
    weight_files(folder)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Within the block libraries read files from elsewhere: what they raise is those files' fault.

    A field of another type than a library expects ends in whatever it stumbles over, from a
    KeyError to classes of its own: no list of them was ever whole. What says that the machine or
    the installation lacks something stays as it is.

    Raises:
        CheckpointError: saying what, and the library's own words in a line.
    """
    try:
        yield
    except (MingMoeError, MemoryError, ModuleNotFoundError):
        raise
    except BaseException as error:
        name = type(error).__name__
        # torch's, of an accelerator
        if name == "OutOfMemoryError":
            raise
        # A library in Rust gives up with what is no Exception, lest anybody catch it.
        if not isinstance(error, Exception) and name != "PanicException":
            raise
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{what}: a file is no plain one of tensors and was not opened, since opening it "
                "could run code; save the model again as safetensors"
            ) from error
        words = " ".join(str(error).split())
        words = words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]} ..."
        # What an ImportError says is which library is to be installed, in a sentence.
        kind = "" if isinstance(error, OSError | ValueError | ImportError) else f"{name}: "
        raise CheckpointError(f"{what}: {kind}{words}") from error


def _form_of(name: str) -> Form | Literal["hub"]:
    folder = Path(name)
    if is_gguf(name) and folder.is_file():
        return "gguf"
    if not folder.is_dir():
        refuse_lost_path(name)
        return "hub"
    experts = preferred_file(folder, ming.EXPERTS_STEM)
    if experts and not _is_empty(experts):
        return ming.ADAPTER
    if (folder / ADAPTER_CONFIG).is_file():
        return _adapter_form(folder)
    if (folder / "molora.bin").is_file():
        raise CheckpointError(
            f"{folder} is an unfinished training state: its molora.bin holds no routers; use the "
            f"final checkpoint, which has {ming.EXPERTS_STEM}.bin"
        )
    if (folder / _MEGATRON_STEP).is_file() or list(folder.glob("*.distcp")):
        raise CheckpointError(
            f"{folder} is a distributed checkpoint of Megatron's training, which has no weights in "
            "transformers' form: convert it first. (A mixture of LoRAs that Relax trained lies in "
            "such a one alone; no form is known in which it could be taken out.)"
        )
    if not (folder / MODEL_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} holds no model: neither {ADAPTER_CONFIG} nor {MODEL_CONFIG} is there"
        )
    return ming.MERGED if _experts_among_weights(folder) else "full"


def _is_empty(experts: Path) -> bool:
    """Whether a file holds no tensor: MING's trainer writes one such beside a plain LoRA."""
    return experts.stat().st_size < _SMALL_FILE and not TensorFiles((experts,)).shapes


def _adapter_form(folder: Path) -> Family | Literal["peft-lora"]:
    if family := family_of(folder, read_json(folder / ADAPTER_CONFIG)):
        return family
    if _config_of(folder).get("num_experts_per_token") is not None:
        raise CheckpointError(
            f"{folder / MODEL_CONFIG} speaks of experts, but the file that holds them and their "
            f"routers, {ming.EXPERTS_STEM}.bin or .safetensors, is not there"
        )
    return "peft-lora"


def _experts_among_weights(folder: Path) -> bool:
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / name).is_file():
            return ming.has_experts(indexed_names(folder / name))
    if (folder / "model.safetensors").is_file():
        return ming.has_experts(TensorFiles(weight_files(folder)).shapes)
    # One pickle: it has no header, so the config has to tell.
    config = _config_of(folder)
    return "num_experts_per_token" in config and "expert_selection" in config


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_CONFIG
    return read_json(path) if path.is_file() else {}
