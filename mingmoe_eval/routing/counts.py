"""What routers did over some tokens, in counts alone, for all linear layers at once.

One flat vector, so that adding, storing and summing over passes are each one operation. Its parts,
block after block, and in a block layer after layer, for a layer with N experts of which a token
passes K:

    chosen [N]            tokens that chose the expert
    probability [N]       sum over tokens of the softmax over all N logits
    weight [N]            sum over tokens of the expert's weight, 0 where it was not chosen
    together [N(N-1)/2]   tokens that chose both experts i < j, row by row
    entropy [1]           sum over tokens of the entropy of that softmax, in nats

and after a block's layers, for each pair of them with the same N and K (gate-up, gate-down,
up-down): agreement [1], the number of experts that the two chose in common, by index.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

PHASES = ("prompt", "generated")
"""Tokens of the prompt, and tokens of the answer that the model read back."""


@dataclass(frozen=True, slots=True)
class RoutedLayer:
    """One linear layer with a router, or one feed-forward block that has one for all its layers."""

    path: str
    experts: int
    top_k: int

    @property
    def size(self) -> int:
        """How many numbers describe the layer."""
        return 3 * self.experts + self.experts * (self.experts - 1) // 2 + 1


@dataclass(frozen=True, slots=True)
class RoutedBlock:
    """Layers below one module, all with the same N and K: their choices can be compared."""

    path: str
    layers: tuple[RoutedLayer, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many layers, N and K: blocks of one shape have like parts in the vector."""
        return len(self.layers), self.layers[0].experts, self.layers[0].top_k

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Which of the layers are compared, by their places."""
        return tuple(itertools.combinations(range(len(self.layers)), 2))

    @property
    def size(self) -> int:
        """How many numbers describe the block."""
        return sum(layer.size for layer in self.layers) + len(self.pairs)


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """One layer's part of the counts; `together` [N, N] has `chosen` on its diagonal."""

    layer: RoutedLayer
    chosen: Array
    probability: Array
    weight: Array
    together: Array
    entropy: float


@dataclass(frozen=True)
class RoutingLayout:
    """Where in the vector what is."""

    blocks: tuple[RoutedBlock, ...]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(block.size for block in self.blocks))

    @property
    def layers(self) -> tuple[RoutedLayer, ...]:
        """All layers, in order."""
        return tuple(layer for block in self.blocks for layer in block.layers)

    def layer_counts(self, values: Array) -> Iterator[LayerCounts]:
        """The parts of a vector, layer by layer."""
        start = 0
        for block in self.blocks:
            for layer in block.layers:
                yield _layer_counts(layer, values[start : start + layer.size])
                start += layer.size
            start += len(block.pairs)

    def agreements(self, values: Array) -> Iterator[tuple[str, str, float]]:
        """(layer, layer, experts in common) of each pair that is compared."""
        start = 0
        for block in self.blocks:
            stop = start + block.size
            found = values[stop - len(block.pairs) : stop]
            for (one, other), value in zip(block.pairs, found.tolist(), strict=True):
                yield block.layers[one].path, block.layers[other].path, value
            start = stop

    def chosen_places(self) -> npt.NDArray[np.int64]:
        """The places of all `chosen` in a vector, layer after layer."""
        places, start = [], 0
        for block in self.blocks:
            for layer in block.layers:
                places.append(np.arange(start, start + layer.experts))
                start += layer.size
            start += len(block.pairs)
        return np.concatenate(places) if places else np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class RoutingCounts:
    """The vectors of both phases, [2, size], and how many tokens stand behind each, [2]."""

    values: Array
    tokens: Array

    def __iadd__(self, other: "RoutingCounts") -> Self:
        np.add(self.values, other.values, out=self.values)
        np.add(self.tokens, other.tokens, out=self.tokens)
        return self

    @property
    def is_finite(self) -> bool:
        """False where a router gave no numbers: such counts must not spoil others' sums."""
        return bool(np.isfinite(self.values).all())

    def to_bytes(self) -> bytes:
        """For a store: fp32, in which a count is exact up to 16 million."""
        whole = np.concatenate([self.tokens[:, None], self.values], 1)
        return zlib.compress(whole.astype("<f4").tobytes(), 1)

    @classmethod
    def from_bytes(cls, data: bytes, layout: RoutingLayout) -> "RoutingCounts | None":
        """What `to_bytes` wrote; None if it belongs to another layout."""
        whole = np.frombuffer(zlib.decompress(data), "<f4").astype(np.float64)
        if whole.size != len(PHASES) * (1 + layout.size):
            return None
        whole = whole.reshape(len(PHASES), -1)
        return cls(whole[:, 1:], whole[:, 0])


def layout_of(layers: Sequence[RoutedLayer]) -> RoutingLayout:
    """The layout of a model's routed layers: neighbours of one parent, N and K form a block."""
    grouped = itertools.groupby(
        layers, key=lambda one: (one.path.rpartition(".")[0], one.experts, one.top_k)
    )
    return RoutingLayout(tuple(RoutedBlock(key[0], tuple(group)) for key, group in grouped))


def no_counts(layout: RoutingLayout) -> RoutingCounts:
    """Counts of no tokens."""
    return RoutingCounts(np.zeros((len(PHASES), layout.size)), np.zeros(len(PHASES)))


def _layer_counts(layer: RoutedLayer, values: Array) -> LayerCounts:
    n = layer.experts
    chosen, probability, weight = values[:n], values[n : 2 * n], values[2 * n : 3 * n]
    together = np.zeros((n, n))
    # Only pairs i < j are stored: the matrix is symmetric, and its diagonal is `chosen`.
    together[np.triu_indices(n, 1)] = values[3 * n : -1]
    together += together.T + np.diag(chosen)
    return LayerCounts(layer, chosen, probability, weight, together, float(values[-1]))
