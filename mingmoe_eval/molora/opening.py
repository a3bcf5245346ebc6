"""Reads what a model directory says of itself, and checks all of it before any weight is loaded.

From a path to a checked record: find it, tell its form and read its JSON files (`sources`), read
its settings and sort its tensors into layers (`formats`), lay them against the base's layers, and
refuse whatever is left over or lacking.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PretrainedConfig

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.formats.families import Family, Mixture, linear_sizes, read_mixture
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, required_file
from mingmoe_eval.molora.sources import Kind, find_model

NO_FILES = TensorFiles(())


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCheckpoint:
    """A model that was found and checked, with everything that loading its weights needs.

    `weights` is the directory or hub id of the base's, or the model's own, full weights; `skeleton`
    the model without memory for them; `files` the tensors that are not the base's; `mixture` None
    where there are no experts.
    """

    source: str
    kind: Kind
    folder: Path
    weights: str
    model_config: PretrainedConfig
    skeleton: nn.Module
    files: TensorFiles = NO_FILES
    mixture: Mixture | None = None
    notes: tuple[str, ...] = ()


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
    place = find_model(str(adapter), base)
    mixture, files, notes = None, NO_FILES, []
    if base is not None and place.weights in (place.source, str(place.folder)):
        notes.append(f"a full model needs no base: {base} is not used")
    if isinstance(place.form, Family):
        mixture = read_mixture(
            place.form, place.folder, place.adapter, place.model, reference_compat=reference_compat
        )
        files = mixture.files
        notes += mixture.config.notes
        architecture = type(place.skeleton).__name__
        if offences := mixture.offences(linear_sizes(place.skeleton), architecture):
            headline = f"{place.source} does not fit its base, or is not whole:"
            raise CheckpointError(offence_list(headline, offences))
    elif place.form == "peft-lora":
        # Which tensors there must be only PEFT knows: loading asks it. Here they are counted.
        files = TensorFiles((required_file(place.folder, ATTENTION_STEM),))
    elif place.form == "gguf":
        notes.append("its packed weights are unpacked as they are read, and computed in full")
    return OpenCheckpoint(
        source=place.source,
        kind=place.kind,
        folder=place.folder,
        weights=place.weights,
        model_config=place.config,
        skeleton=place.skeleton,
        files=files,
        mixture=mixture,
        notes=tuple(notes),
    )
