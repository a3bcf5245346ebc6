"""What of an adapter goes into its base's weights, tensor by tensor as they are read.

Plain low-rank pairs, and experts that every token passes through (a single one, shared ones), cost
nothing once they are in the weights. vLLM fuses layers when it loads them, so they are added to
each tensor on its way there.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.json_files import read_object
from mingmoe_eval.molora.config import ADAPTER_CONFIG, lora_offences, lora_scaling
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.families import (
    Layers,
    Mixture,
    linear_sizes,
    read_pair,
    sort_into_layers,
)
from mingmoe_eval.molora.formats.tensor_files import TensorFiles
from mingmoe_eval.molora.opening import OpenCheckpoint

logger = logging.getLogger("mingmoe_eval.vllm")

Weights = Iterable[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPairs:
    """The low-rank pairs of a PEFT LoRA that is nothing else."""

    layers: Layers
    files: TensorFiles
    scaling: float


def plain_pairs(opened: OpenCheckpoint) -> PlainPairs | None:
    """The pairs of a LoRA of PEFT's own format; None where PEFT computes more than a product.

    Raises:
        CheckpointError: the pairs do not fit the base; lists every offence.
    """
    config = read_object(opened.folder / ADAPTER_CONFIG, CheckpointError)
    if lora_offences({**config, "layers_to_transform": None}):
        return None
    layers, strays = sort_into_layers(opened.files.shapes, ming.pair_slot)
    # A head that is the embeddings has no weight of its own for its pair to go into.
    if strays or ("lm_head" in layers and opened.model_config.tie_word_embeddings):
        return None
    sizes, rank = linear_sizes(opened.skeleton), config["r"]
    offences = []
    for path, slots in layers.items():
        if path not in sizes:
            offences.append(f"{path} has a low-rank pair, but the base has no such layer")
            continue
        inputs, outputs = sizes[path]
        for half, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            found = opened.files.shapes[slots[half]] if half in slots else None
            if found != shape:
                offences.append(f"{path} has {half} of shape {found} instead of {shape}")
    if offences or not layers:
        headline = f"{opened.source} does not fit its base, or is not whole:"
        raise CheckpointError(offence_list(headline, offences or ["it has no low-rank pair"]))
    scaling = lora_scaling(config["lora_alpha"], rank, rslora=bool(config.get("use_rslora")))
    return PlainPairs(layers=layers, files=opened.files, scaling=scaling)


class Merging:
    """Adds pairs to weights as they pass, once each, and knows what is left over.

    Args:
        mixture: whose plain pairs and always-on experts are added; None: `pairs` alone.
        pairs: those of a plain LoRA.
        dtype: of the model; a product is added in fp32 and rounded once.
    """

    def __init__(
        self, mixture: Mixture | None, pairs: PlainPairs | None, *, dtype: torch.dtype
    ) -> None:
        self._mixture, self._pairs, self._dtype = mixture, pairs, dtype
        self._in_model = mixture is not None and mixture.family.in_model
        self._left = set(pairs.layers) if pairs else set()
        if mixture is not None:
            self._left |= set(mixture.pairs) | {
                p for p in mixture.experts if _always_on(mixture, p)
            }
        self.changed: dict[str, float] = {}
        """By path: the most that a weight moved by."""

    def into(self, weights: Weights) -> Iterator[tuple[str, Tensor]]:
        """The weights, with experts' own tensors left out.

        Raises:
            CheckpointError: values that are not finite, or pairs whose weight never came.
        """
        for name, tensor in weights:
            if self._in_model and ming.expert_slot(name):
                continue
            path, _, kind = name.rpartition(".")
            if kind == "weight" and path in self._left:
                yield name, self._added(path, tensor)
            else:
                yield name, tensor
        if self._left:
            headline = "low-rank pairs without a weight to go into (is the base quantised?):"
            raise CheckpointError(offence_list(headline, sorted(self._left)))

    def _added(self, path: str, tensor: Tensor) -> Tensor:
        self._left.remove(path)
        # As the local loader has it: the weight in the model's dtype, the sum rounded to it.
        before = tensor.to(self._dtype)
        weight = before.float()
        if weight is before:
            weight = weight.clone()
        for a, b, scaling in self._products(path):
            if not (a.isfinite().all() and b.isfinite().all()):
                raise CheckpointError(f"{path} holds values that are not finite")
            weight.add_(b.to(weight.device) @ a.to(weight.device), alpha=scaling)
        after = weight.to(self._dtype)
        self.changed[path] = float((after.float() - before.float()).abs().max())
        return after

    def _products(self, path: str) -> Iterator[tuple[Tensor, Tensor, float]]:
        if self._pairs is not None:
            a, b = read_pair(self._pairs.layers[path], self._pairs.files)
            yield a, b, self._pairs.scaling
        mixture = self._mixture
        if mixture is None:
            return
        if path in mixture.pairs:
            a, b = read_pair(mixture.pairs[path], mixture.files)
            yield a, b, mixture.config.attention_scaling
        if path in mixture.experts and _always_on(mixture, path):
            experts = mixture.read_layer(path)
            for a, b in experts.always_on:
                yield a, b, experts.scaling


def _always_on(mixture: Mixture, path: str) -> bool:
    """Whether a layer has experts that every token passes through; tells it without reading."""
    slots: Mapping[str, str] = mixture.experts[path]
    count = sum(slot.startswith("B ") for slot in slots)
    single = count == 1 and not mixture.family.block_router
    return single or "shared A" in slots
