"""A small folder that vLLM takes for a model: a config, links to weights, a tokenizer.

vLLM reads one directory. An adapter names its base elsewhere and its own config.json describes the
base, so the folder says both: the config has our class for its architecture and holds the places of
adapter and base, from which `models` reads them. Weights are linked, never copied; only an adapter
that PEFT alone can compute is merged into a full copy.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from transformers import AutoTokenizer

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.hub import fetch
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.locations import cache_dir
from mingmoe_eval.molora import load_model, load_tokenizer, probe
from mingmoe_eval.molora.checkpoint import dtype_of
from mingmoe_eval.molora.config import ADAPTER_FIELDS
from mingmoe_eval.molora.description import CheckpointDescription, describe
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, weight_files
from mingmoe_eval.molora.opening import OpenCheckpoint, open_checkpoint
from mingmoe_eval.molora.presence import is_gguf
from mingmoe_eval.molora.sources import WEIGHT_FILES, transformers_config
from mingmoe_eval.molora.tokenizer import keep_to_file
from mingmoe_eval.vllm import ARCHITECTURES, CONFIG_KEY
from mingmoe_eval.vllm.fitness import (
    adapter_offences,
    beyond_vllm,
    pair_offences,
    weight_offences,
)
from mingmoe_eval.vllm.merging import plain_pairs
from mingmoe_eval.whole_files import whole_folder, write_whole

_BESIDE = (
    "generation_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""What is linked beside weights, where it is there."""

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A folder for vLLM, and what is in it.

    `tokenizer`: where that is, the folder itself or one below it; `opened`: the checkpoint, or the
    full model that it was merged into; `description`: of what was asked for; `effect`: what the
    probe of a merged copy gave; `notes`: what the user should know.
    """

    folder: Path
    tokenizer: Path
    opened: OpenCheckpoint
    description: CheckpointDescription
    dtype: torch.dtype
    effect: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def routes(self) -> bool:
        """Whether there are routers."""
        mixture = self.opened.mixture
        return mixture is not None and (
            mixture.config.num_experts > 1 or mixture.family.block_router
        )

    def weights_fingerprint(self) -> str:
        """A hash of all that is in the files of weights; vLLM packs them, so not of its memory."""
        digest = xxhash.xxh3_128()
        for path in dict.fromkeys((*weight_files(self.folder), *self.opened.files.paths)):
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        return digest.hexdigest()


@quiet_libraries()
def prepare(
    model: str | Path,
    base: str | Path | None = None,
    *,
    dtype: str = "auto",
    on_cpu: bool = False,
    folder: Path | None = None,
) -> Prepared:
    """Checks a checkpoint, the names and shapes of all its weights too, and makes its folder.

    Args:
        model: as `load_model` takes it.
        base: likewise.
        dtype: likewise; vLLM's own "auto" would make half precision of fp32.
        on_cpu: whether vLLM computes on a CPU.
        folder: where; default: this checkpoint's place in the cache.

    Raises:
        CheckpointError: the checkpoint is not whole, does not fit its base, or has experts on a
            base that vLLM has no class of ours for; lists every offence.
    """
    if is_gguf(model):
        raise CheckpointError(f"{model}: GGUF files are for the local backend")
    opened = open_checkpoint(model, base)
    description, notes = describe(opened), list(opened.notes)
    architecture = type(opened.skeleton).__name__
    known = architecture in ARCHITECTURES
    if opened.mixture is not None and not known:
        raise CheckpointError(
            f"{opened.source} has experts on {architecture}, and vLLM has a class of ours for "
            f"{', '.join(ARCHITECTURES)} alone: use the local backend"
        )
    if damaged := adapter_offences(opened):
        raise CheckpointError(offence_list(f"{opened.source} is damaged:", damaged))
    own = transformers_config(opened.weights)
    chosen = dtype_of(dtype, own, on_cpu=on_cpu)
    chosen = chosen if isinstance(chosen, torch.dtype) else torch.float32
    folder = folder or _place_of(model, base)
    with whole_folder(folder):
        effect = None
        if opened.kind == "peft-lora":
            pairs = plain_pairs(opened) if known else None
            if pairs is None:
                notes.append("what PEFT computes is merged into a copy of the base in the cache")
                opened, effect = _merged_copy(opened, chosen, folder / "merged")
            elif offences := pair_offences(opened, pairs):
                headline = f"{opened.source} does not fit its base, or is not whole:"
                raise CheckpointError(offence_list(headline, offences))
        config = opened.model_config
        if known and (lacking := list(beyond_vllm(architecture, config, on_cpu=on_cpu))):
            headline = f"{opened.source} is for the local backend; vLLM's {architecture} has no"
            raise CheckpointError(offence_list(headline, lacking))
        quantised = getattr(own, "quantization_config", None)
        files = _weights_of(opened)
        if known and not quantised and (offences := weight_offences(opened, TensorFiles(files))):
            headline = f"the weights of {opened.weights} do not fit the config of {opened.source}:"
            raise CheckpointError(offence_list(headline, offences))
        written = _config_json(opened, chosen)
        if quantised is not None:
            written["quantization_config"] = quantised
        text = json.dumps(written, indent=2, sort_keys=True, default=str)
        write_whole(folder / "config.json", [text, "\n"])
        _link(folder, [*files, *(files[0].with_name(name) for name in _BESIDE)])
        tokenizer = _save_tokenizer(folder, model, base)
        return Prepared(
            folder=folder,
            tokenizer=tokenizer,
            opened=opened,
            description=description,
            dtype=chosen,
            effect=effect,
            notes=tuple(notes),
        )


def _config_json(opened: OpenCheckpoint, dtype: torch.dtype) -> dict[str, object]:
    # A mixture's file tells of its base and of its adapter. vLLM would take that number of experts
    # for one of whole blocks, and bias = "none" for layers with biases.
    of_the_base = type(opened.model_config)().to_dict().keys()
    config = {
        name: value
        for name, value in opened.model_config.to_dict().items()
        if name in of_the_base or name not in ADAPTER_FIELDS
    }
    config["dtype"] = str(dtype).removeprefix("torch.")
    architecture = type(opened.skeleton).__name__
    config["architectures"] = [architecture]
    # As our own loader has it: a head in bf16 rounds logits until letters tie.
    config["head_dtype"] = "float32"
    if opened.mixture is None and opened.kind != "peft-lora":
        return config
    config["architectures"] = [ARCHITECTURES[architecture]]
    config[CONFIG_KEY] = {
        "checkpoint": _absolute(opened.source),
        "base": _absolute(opened.weights),
        # vLLM keeps compiled graphs by what the config says: these are constants in them.
        "settings": str(opened.mixture.config) if opened.mixture else None,
    }
    return config


def _absolute(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _place_of(model: str | Path, base: str | Path | None) -> Path:
    named = f"{_absolute(str(model))}\n{_absolute(str(base)) if base else ''}"
    return cache_dir() / "vllm" / xxhash.xxh3_64_hexdigest(named.encode())


def _weights_of(opened: OpenCheckpoint) -> tuple[Path, ...]:
    folder = Path(opened.weights)
    if not folder.is_dir():
        folder = fetch(opened.weights, WEIGHT_FILES)
    if files := weight_files(folder):
        return files
    raise CheckpointError(f"{folder} holds no weights: neither model.safetensors nor .bin")


def _merged_copy(
    opened: OpenCheckpoint, dtype: torch.dtype, folder: Path
) -> tuple[OpenCheckpoint, float | None]:
    """A PEFT adapter in a full copy of its base, as our own loader merges it; what it moves."""
    model = load_model(opened.folder, opened.weights, dtype=dtype, device="cpu", check=False)
    effect = probe(model)
    model.save_pretrained(folder)
    return open_checkpoint(folder), effect


def _link(folder: Path, files: Iterable[Path]) -> None:
    """Link what is there, and take away links of what stood under this name before."""
    targets = {file.name: file.resolve() for file in files if file.is_file()}
    for path in folder.iterdir():
        if path.is_symlink() and path.name not in targets:
            path.unlink()
    for name, target in targets.items():
        passing = folder / f".{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            passing.unlink()
        passing.symlink_to(target)
        passing.replace(folder / name)


def _save_tokenizer(folder: Path, model: str | Path, base: str | Path | None) -> Path:
    """The tokenizer as our own loader has it, so that vLLM's server splits texts alike; its place.

    Raises:
        CheckpointError: transformers makes another of it from its own files.
    """
    tokenizer = load_tokenizer(model, base)
    # Of some kinds of model transformers takes parts of a tokenizer from a class, whatever the file
    # says. It does not know the kind of a folder that has no config.json.
    for place in (folder, folder / "tokenizer"):
        tokenizer.save_pretrained(place)
        if not tokenizer.is_fast:
            return place
        path = place / "tokenizer_config.json"
        settings = {**json.loads(path.read_text("utf-8")), "tokenizer_class": "TokenizersBackend"}
        write_whole(path, [json.dumps(settings, indent=2), "\n"])
        again = AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
        if not keep_to_file(again, place):
            return place
    raise CheckpointError(f"transformers reads another tokenizer from {place} than was saved there")
