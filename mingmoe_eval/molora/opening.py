"""Reads what a model directory says of itself, and checks all of it before any weight is loaded.

From a path to a checked record: find it and tell its kind (`sources`), read its settings and map
its tensors to layers (`formats`), lay them against the base's layers, refuse whatever is left over
or lacking.
"""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
from transformers import PretrainedConfig

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.config import ADAPTER_CONFIG, MODEL_CONFIG, MoLoraConfig, read_json
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.families import (
    Family,
    Layers,
    expert_offences,
    ffn_paths,
    last_of,
    linear_sizes,
    pair_offences,
    parent_of,
    read_experts,
    read_pair,
    sort_into_layers,
)
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, preferred_file, weight_files
from mingmoe_eval.molora.layers import FFN_LINEARS, LinearExperts
from mingmoe_eval.molora.sources import (
    WEIGHT_FILES,
    Kind,
    Place,
    base_of,
    fetch,
    find_model,
    skeleton_of,
    transformers_config,
)

NO_FILES = TensorFiles(())


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCheckpoint:
    """A model that was found and checked, with everything that loading its weights needs.

    `weights` is the directory or hub id of the base's, or the model's own, full weights; `skeleton`
    the model without memory for them.
    `experts` and `pairs` name, by layer, the tensors in `files`. `family` and `molora` are those of
    a mixture, else None.
    """

    source: str
    kind: Kind
    folder: Path
    weights: str
    model_config: PretrainedConfig
    skeleton: nn.Module
    files: TensorFiles = NO_FILES
    family: Family | None = None
    molora: MoLoraConfig | None = None
    experts: Layers = field(default_factory=dict)
    pairs: Layers = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def expert_blocks(self) -> tuple[str, ...]:
        """The paths of the modules whose linear layers have experts."""
        layers = linear_sizes(self.skeleton)
        return tuple(dict.fromkeys(parent_of(path) for path in self.experts if path in layers))

    def read_block(self, block: str) -> dict[str, LinearExperts]:
        """The experts of a block's layers by their names, in fp32; empty if it has none."""
        return {
            last_of(path): self.read_layer(path)
            for path in self.experts
            if parent_of(path) == block
        }

    def read_layer(self, path: str) -> LinearExperts:
        """The experts of one layer, in fp32."""
        assert self.family is not None
        assert self.molora is not None
        return read_experts(self.family, path, self.experts, self.files, self.molora)

    def read_pair(self, path: str) -> tuple[Tensor, Tensor]:
        """The plain low-rank pair of one layer, in fp32."""
        return read_pair(self.pairs[path], self.files)


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
    place = find_model(adapter)
    if isinstance(place.form, Family):
        return _open_mixture(place, place.form, base, reference_compat=reference_compat)
    if place.form == "peft-lora":
        return _open_peft(place, base_of(place.folder, base))
    config = transformers_config(place.source)
    return OpenCheckpoint(
        source=place.source,
        kind=place.kind,
        folder=place.folder,
        weights=place.source,
        model_config=config,
        skeleton=skeleton_of(config, place.source),
        notes=_unused(base),
    )


def _open_mixture(
    place: Place, family: Family, base: str | Path | None, *, reference_compat: bool
) -> OpenCheckpoint:
    folder = place.folder
    if family.in_model and not weight_files(folder):
        folder = fetch(place.source, WEIGHT_FILES)
    weights = str(folder) if family.in_model else base_of(folder, base)
    model = read_json(folder / MODEL_CONFIG) if family.own_config else {}
    # A merged checkpoint keeps in config.json what an adapter has in a file of its own.
    adapter = model if family.in_model else read_json(folder / ADAPTER_CONFIG)
    molora = family.read_settings(adapter, model, reference_compat=reference_compat)
    pairs_due = bool(adapter.get("target_modules"))
    paths = weight_files(folder) if family.in_model else _adapter_files(folder, family, pairs_due)
    files = TensorFiles(paths)
    experts, others = sort_into_layers(files.shapes, family.expert_slot)
    pairs, strays = sort_into_layers(others, family.pair_slot)
    # The checkpoint's own config decides, not the base's: a changed rope_theta was trained with.
    described = folder if family.own_config else weights
    config = transformers_config(described)
    opened = OpenCheckpoint(
        source=place.source,
        kind=place.kind,
        folder=folder,
        weights=weights,
        model_config=config,
        skeleton=skeleton_of(config, str(described)),
        files=files,
        family=family,
        molora=molora,
        experts=experts,
        pairs=pairs,
        notes=(*(_unused(base) if family.in_model else ()), *molora.notes),
    )
    offences = [] if family.in_model else [f"unexpected tensor {name}" for name in strays]
    if offences := [*offences, *_mismatches(opened, family, molora)]:
        headline = f"{place.source} does not fit its base, or is not whole:"
        raise CheckpointError(offence_list(headline, offences))
    return opened


def _open_peft(place: Place, weights: str) -> OpenCheckpoint:
    # Which tensors there must be only PEFT knows: loading asks it. Here they are counted.
    files = TensorFiles((_tensor_file(place.folder, ming.ATTENTION_STEM),))
    config = transformers_config(weights)
    return OpenCheckpoint(
        source=place.source,
        kind=place.kind,
        folder=place.folder,
        weights=weights,
        model_config=config,
        skeleton=skeleton_of(config, weights),
        files=files,
        pairs=sort_into_layers(files.shapes, ming.pair_slot)[0],
    )


def _mismatches(opened: OpenCheckpoint, family: Family, molora: MoLoraConfig) -> list[str]:
    """Everything that keeps a checkpoint's tensors from being those of its base's layers."""
    sizes, offences = linear_sizes(opened.skeleton), []
    if family.every_ffn and not ffn_paths(sizes):
        offences.append(
            f"{type(opened.skeleton).__name__} has no block with {', '.join(FFN_LINEARS)}"
        )
    offences += expert_offences(family, opened.experts, opened.files, sizes, molora)
    offences += pair_offences(family, opened.pairs, opened.files, sizes, molora)
    return offences


def _adapter_files(folder: Path, family: Family, pairs_due: bool) -> tuple[Path, ...]:
    """The family's files; one that is there is read, whether or not the config speaks of pairs."""
    first, *others = family.file_stems
    there = [stem for stem in others if pairs_due or preferred_file(folder, stem)]
    return tuple(_tensor_file(folder, stem) for stem in (first, *there))


def _tensor_file(folder: Path, stem: str) -> Path:
    path = preferred_file(folder, stem)
    if path is None:
        raise CheckpointError(f"{folder} has neither {stem}.safetensors nor {stem}.bin")
    return path


def _unused(base: str | Path | None) -> tuple[str, ...]:
    return () if base is None else (f"a full model needs no base: {base} is not used",)
