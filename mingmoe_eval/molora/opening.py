"""Reads what a model directory says of itself, and checks all of it before any weight is loaded."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.config import (
    ADAPTER_CONFIG,
    MODEL_CONFIG,
    MoLoraConfig,
    read_config,
    read_json,
)
from mingmoe_eval.molora.formats import Kind, ming, siblings, sniff
from mingmoe_eval.molora.formats.family import Family
from mingmoe_eval.molora.formats.keys import (
    Layers,
    expert_offences,
    pair_offences,
    read_experts,
    sort_into_layers,
)
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, preferred_file, weight_files
from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.molora.sources import (
    SMALL_FILES,
    WEIGHT_FILES,
    base_of,
    fetch,
    skeleton_of,
    transformers_config,
)
from mingmoe_eval.molora.structure import FFN_LINEARS, ffn_blocks, linear_sizes

NO_FILES = TensorFiles(())


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCheckpoint:
    """A model that was found and checked, with everything that loading its weights needs.

    `weights` is the directory or hub id of the base's, or the model's own, full weights.
    `experts` and `pairs` name, by layer, the tensors in `expert_files` and `pair_files`.
    """

    source: str
    kind: Kind
    folder: Path
    weights: str
    model_config: PretrainedConfig
    skeleton: nn.Module
    molora: MoLoraConfig | None = None
    experts: Layers = field(default_factory=dict)
    expert_files: TensorFiles = NO_FILES
    pairs: Layers = field(default_factory=dict)
    pair_files: TensorFiles = NO_FILES
    family: Family | None = None
    notes: tuple[str, ...] = ()

    def read_block(self, block: str) -> dict[str, LinearExperts]:
        """The experts of a block's layers by their names, in fp32; empty if it has none."""
        return {
            path.rpartition(".")[2]: self._read(path)
            for path in self.experts
            if path.rpartition(".")[0] == block
        }

    @property
    def expert_blocks(self) -> tuple[str, ...]:
        """The paths of the modules whose linear layers have experts."""
        layers = linear_sizes(self.skeleton)
        return tuple(dict.fromkeys(p.rpartition(".")[0] for p in self.experts if p in layers))

    def _read(self, path: str) -> LinearExperts:
        assert self.molora is not None
        if self.family is None:
            return read_experts(self.experts[path], self.expert_files, self.molora)
        return siblings.read_family_experts(
            self.family, path, self.experts, self.expert_files, self.molora
        )


@quiet_libraries()
def open_checkpoint(
    adapter: str | Path, base: str | Path | None = None, *, reference_compat: bool = False
) -> OpenCheckpoint:
    """Finds a model, tells its kind, and checks names and shapes of all that is to be loaded.

    Reads JSON, safetensors headers and the adapter's own tensors; nothing of the base but its
    config. See `load_model` for the arguments.

    Raises:
        CheckpointError: listing every offence.
    """
    source = str(adapter)
    kind = sniff(source)
    folder = Path(source)
    if kind == "hub":
        folder = fetch(source, SMALL_FILES)
        kind = sniff(folder)
    if kind == "molora":
        return _open_adapter(source, folder, base_of(folder, base), reference_compat)
    if kind == "peft-lora":
        return _open_peft(source, folder, base_of(folder, base))
    if family := siblings.family_of(folder, _adapter_config(folder)):
        return _open_sibling(source, folder, base_of(folder, base), family)
    notes = () if base is None else (f"a full model needs no base: {base} is not used",)
    if kind == "molora-merged":
        return _open_merged(source, folder, reference_compat, notes)
    config = transformers_config(source)
    return OpenCheckpoint(
        source=source,
        kind=kind,
        weights=source,
        folder=folder,
        model_config=config,
        skeleton=skeleton_of(config, source),
        notes=notes,
    )


def _open_adapter(
    source: str, folder: Path, weights: str, reference_compat: bool
) -> OpenCheckpoint:
    settings = read_json(folder / ADAPTER_CONFIG)
    molora = read_config(
        settings, read_json(folder / MODEL_CONFIG), reference_compat=reference_compat
    )
    # The checkpoint's own config decides, not the base's: a changed rope_theta was trained with.
    config = transformers_config(folder)
    expert_files = _tensor_files(folder, ming.EXPERTS_STEM)
    has_pairs = bool(settings.get("target_modules"))
    pair_files = _tensor_files(folder, ming.ATTENTION_STEM) if has_pairs else NO_FILES
    experts, strays = sort_into_layers(expert_files.shapes, ming.expert_slot)
    pairs, more_strays = sort_into_layers(pair_files.shapes, ming.pair_slot)
    opened = OpenCheckpoint(
        source=source,
        kind="molora",
        weights=weights,
        folder=folder,
        model_config=config,
        skeleton=skeleton_of(config, source),
        molora=molora,
        experts=experts,
        expert_files=expert_files,
        pairs=pairs,
        pair_files=pair_files,
        notes=molora.notes,
    )
    _refuse_mismatch(opened, molora, [*strays, *more_strays])
    return opened


def _open_merged(
    source: str, folder: Path, reference_compat: bool, notes: tuple[str, ...]
) -> OpenCheckpoint:
    if not weight_files(folder):
        folder = fetch(source, WEIGHT_FILES)
    fields = read_json(folder / MODEL_CONFIG)
    molora = read_config(fields, fields, reference_compat=reference_compat)
    config = transformers_config(folder)
    files = TensorFiles(weight_files(folder))
    # What is no expert's tensor belongs to the full model, and its own loading accounts for it.
    experts, _ = sort_into_layers(files.shapes, ming.expert_slot)
    opened = OpenCheckpoint(
        source=source,
        kind="molora-merged",
        weights=str(folder),
        folder=folder,
        model_config=config,
        skeleton=skeleton_of(config, source),
        molora=molora,
        experts=experts,
        expert_files=files,
        notes=(*notes, *molora.notes),
    )
    _refuse_mismatch(opened, molora, [])
    return opened


def _open_peft(source: str, folder: Path, weights: str) -> OpenCheckpoint:
    # Which tensors there must be only PEFT knows: loading asks it. Here they are counted.
    files = _tensor_files(folder, ming.ATTENTION_STEM)
    config = transformers_config(weights)
    return OpenCheckpoint(
        source=source,
        kind="peft-lora",
        weights=weights,
        folder=folder,
        model_config=config,
        skeleton=skeleton_of(config, weights),
        pairs=sort_into_layers(files.shapes, ming.pair_slot)[0],
        pair_files=files,
    )


def _open_sibling(source: str, folder: Path, weights: str, family: Family) -> OpenCheckpoint:
    molora = siblings.read_settings(family, _adapter_config(folder))
    files = _tensor_files(folder, ming.ATTENTION_STEM)
    experts, others = sort_into_layers(files.shapes, family.expert_slot)
    pairs, strays = sort_into_layers(others, family.pair_slot)
    config = transformers_config(weights)
    skeleton = skeleton_of(config, weights)
    sizes = linear_sizes(skeleton)
    offences = [f"unexpected tensor {name}" for name in strays]
    offences += siblings.family_offences(family, experts, files, sizes, molora)
    paired = tuple(name for name in molora.target_modules if not family.has_experts(name))
    offences += pair_offences(pairs, files, sizes, replace(molora, target_modules=paired))
    if offences:
        headline = f"{source} does not fit its base, or is not whole:"
        raise CheckpointError(offence_list(headline, offences))
    return OpenCheckpoint(
        source=source,
        kind=family.name,
        weights=weights,
        folder=folder,
        model_config=config,
        skeleton=skeleton,
        molora=molora,
        experts=experts,
        expert_files=files,
        pairs=pairs,
        pair_files=files,
        family=family,
        notes=molora.notes,
    )


def _refuse_mismatch(opened: OpenCheckpoint, molora: MoLoraConfig, strays: list[str]) -> None:
    sizes = linear_sizes(opened.skeleton)
    blocks = ffn_blocks(opened.skeleton)
    due = {f"{block}.{name}": sizes[f"{block}.{name}"] for block in blocks for name in FFN_LINEARS}
    offences = [f"unexpected tensor {name}" for name in strays]
    if not due:
        offences.append(
            f"{type(opened.skeleton).__name__} has no block with {', '.join(FFN_LINEARS)}"
        )
    offences += expert_offences(opened.experts, opened.expert_files, due, molora)
    offences += pair_offences(opened.pairs, opened.pair_files, sizes, molora)
    if offences:
        headline = f"{opened.source} does not fit its base, or is not whole:"
        raise CheckpointError(offence_list(headline, offences))


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    return read_json(path) if path.is_file() else {"peft_type": "LORA"}


def _tensor_files(folder: Path, stem: str) -> TensorFiles:
    path = preferred_file(folder, stem)
    if path is None:
        raise CheckpointError(f"{folder} has neither {stem}.safetensors nor {stem}.bin")
    return TensorFiles((path,))
