"""Reads what a model directory says of itself, and checks all of it before any weight is loaded.

From a path to a checked record: find it, tell its form and read its JSON files (`sources`), read
its settings and sort its tensors into layers (`formats`), lay them against the base's layers, and
refuse whatever is left over or lacking.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedModel

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.config import (
    MODEL_CONFIG,
    flag_offences,
    read_json,
    unknown_fields,
)
from mingmoe_eval.molora.formats.families import (
    Family,
    Mixture,
    last_of,
    linear_sizes,
    read_mixture,
)
from mingmoe_eval.molora.formats.ming import ATTENTION_STEM, PREFIX
from mingmoe_eval.molora.formats.tensor_files import TensorFiles, required_file
from mingmoe_eval.molora.sources import Kind, Place, find_model

_LOW_RANK = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.\w+)?\.weight")

_WHOLE = ("", "base_layer.", "modules_to_save.", "token_adapter.base_layer.")
"""Below a layer's path: where PEFT stores its whole matrix, depending on what is trained of it."""

_OF_MODELS = (
    *("torch_dtype", "rope_theta", "rope_scaling", "auto_map", "quantization_config"),
    *("head_dim", "attention_bias", "mlp_bias", "adapter_path", "model_max_length"),
)
"""What a config.json may say that a config of transformers 5 no longer has, or not by itself."""

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
    skeleton: PreTrainedModel
    files: TensorFiles = NO_FILES
    mixture: Mixture | None = None
    notes: tuple[str, ...] = ()

    @property
    def vocabulary_rows(self) -> dict[str, int | None]:
        """How many rows the files hold of embedding and head, whole; None where they hold none."""
        paths = {module: path for path, module in self.skeleton.named_modules()}
        ends = {
            "embedding": self.skeleton.get_input_embeddings(),
            "head": self.skeleton.get_output_embeddings(),
        }
        return {end: _rows_of(paths[module], self.files) for end, module in ends.items()}


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
        # Which tensors there must be only PEFT knows: loading asks it.
        files = TensorFiles((required_file(place.folder, ATTENTION_STEM),))
        offences = [*flag_offences(place.adapter), *_pairs_that_do_not_fit(files, place)]
        offences += [f"{name} holds whole numbers" for name in files.integers]
        if offences:
            raise CheckpointError(
                offence_list(f"{place.source} does not fit {place.weights}:", offences)
            )
    elif place.form == "gguf":
        notes.append("its packed weights are unpacked as they are read, and computed in full")
    if unknown := _unknown_fields(place):
        notes.append(
            f"{', '.join(unknown)}: unknown here, and passed over; what they mean may change what "
            "is to be computed"
        )
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


def _unknown_fields(place: Place) -> list[str]:
    """What an adapter's files say that nobody here reads, beside what is its base's."""
    if place.form in ("full", "gguf"):
        return []
    if not place.model:
        return unknown_fields(place.adapter)
    # The base's own file has fields of its publisher's, which are no matter of the adapter.
    file = Path(place.weights) / MODEL_CONFIG
    base = read_json(file) if file.is_file() and file.parent != place.folder else {}
    of_models = {*type(place.config)().to_dict(), *base, *_OF_MODELS}
    adapter = {} if place.adapter is place.model else place.adapter
    return sorted({*unknown_fields(adapter), *unknown_fields(place.model, of_models)})


def _rows_of(path: str, files: TensorFiles) -> int | None:
    """How many rows a PEFT adapter's file holds of a layer that it stores whole."""
    shapes = (files.shapes.get(f"{PREFIX}{path}.{middle}weight") for middle in _WHOLE)
    return next((shape[0] for shape in shapes if shape), None)


def _pairs_that_do_not_fit(files: TensorFiles, place: Place) -> Iterator[str]:
    """Halves of PEFT's low-rank pairs that the base has no linear layer for, or of another size.

    Names of other modules are left to PEFT, which knows embeddings, parameters, renamed layers and
    the experts of a base that were layers once.
    """
    sizes = linear_sizes(place.skeleton)
    for path, (inputs, outputs) in sizes.items():
        # A head of another vocabulary than the base's brings its own rows along.
        sizes[path] = inputs, _rows_of(path, files) or outputs
    kinds = {last_of(path) for path in sizes}
    replicated = bool(place.adapter.get("layer_replication"))
    for name, shape in files.shapes.items():
        if not (found := _LOW_RANK.fullmatch(name)) or last_of(found[1]) not in kinds:
            continue
        if found[1] not in sizes:
            if not replicated and ".experts." not in name:
                yield f"{name}: the base has no layer {found[1]}"
            continue
        inputs, outputs = sizes[found[1]]
        size, due = (shape[-1], inputs) if found[2] == "A" else (shape[0], outputs)
        if size != due and not place.adapter.get("fan_in_fan_out"):
            yield f"{name} has shape {list(shape)}, its layer {inputs} inputs and {outputs} outputs"
