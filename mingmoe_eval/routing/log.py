"""Sums what a model's routers do over the tokens of its passes, for whoever those tokens belong to.

Routers are only listened to: a pass keeps references to what they computed anyway, and sums are
made over several passes, layers and owners at once. So a decoding step costs one list entry a
router, and padding and idle rows are never counted because nobody claims them.
"""

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mingmoe_eval.molora.router import Router, routers
from mingmoe_eval.routing.counts import (
    Array,
    RoutedBlock,
    RoutedLayer,
    RoutingLayout,
    layout_of,
)

Indices = npt.NDArray[np.int64]

# Of features that are made at once: more would leave a CPU's cache.
_MOST_NUMBERS = 2**19
# Sums cost a few dozen small operations, however many tokens they are of.
_ENOUGH_TOKENS = 1024


class Routing(NamedTuple):
    """One router's part in a pass: logits [T, G, N], chosen experts and weights [T, G, K]."""

    logits: Tensor
    experts: Tensor
    weights: Tensor


class _Pass:
    """What the routers did in one pass, and whose its tokens are."""

    def __init__(self) -> None:
        self.routings: dict[int, Routing] = {}
        self.claims: list[tuple[Hashable, Indices]] = []
        self.tokens = 0


class RoutingLog:
    """Listens to all routers of a model from its making on."""

    def __init__(self, found: Sequence[Router]) -> None:
        layers = [
            RoutedLayer(path, router.num_experts, router.top_k)
            for router in found
            for path in router.paths
        ]
        self.layout: RoutingLayout = layout_of(layers)
        self._place = {id(router): place for place, router in enumerate(found)}
        places = {path: place for place, router in enumerate(found) for path in router.paths}
        self._homes = [
            list(dict.fromkeys(places[layer.path] for layer in block.layers))
            for block in self.layout.blocks
        ]
        self._now = _Pass()
        self._pending: list[_Pass] = []
        self._sums: dict[Hashable, Array] = {}
        for router in found:
            router.observer = self._observe

    @classmethod
    def of(cls, model: nn.Module) -> Self | None:
        """A log of the model's routers; None if it has none."""
        found = routers(model)
        return cls(found) if found else None

    @property
    def pending_tokens(self) -> int:
        """Tokens that were claimed and not yet summed."""
        return sum(one.tokens for one in self._pending)

    def begin_pass(self) -> None:
        """A pass is about to run; what nobody claimed of the last one is dropped."""
        self._now = _Pass()

    def claim(self, owner: Hashable, columns: Indices) -> None:
        """These tokens of the latest pass, by their places in its flattened input, are `owner`'s.

        A token may have several owners, and an owner tokens of several passes.
        """
        if len(self._now.routings) < len(self._place):
            return  # Switched off, or listened to by someone else.
        if not self._now.claims:
            if self.pending_tokens >= _ENOUGH_TOKENS:
                self.settle()
            self._pending.append(self._now)
        self._now.claims.append((owner, columns))

    def take(self, owner: Hashable) -> Array:
        """The sums [size] of all that an owner claimed since they were last taken."""
        if self._pending:
            self.settle()
        found = self._sums.pop(owner, None)
        return np.zeros(self.layout.size) if found is None else found

    def forget(self) -> None:
        """Drop all that was not taken."""
        self._now, self._pending, self._sums = _Pass(), [], {}

    @torch.inference_mode()
    def settle(self) -> None:
        """Sum what is pending, and let go of it."""
        owners, columns, offsets = self._flat_claims()
        sums = np.zeros((len(owners), self.layout.size))
        start = 0
        for blocks, homes in self._runs():
            stop = start + sum(block.size for block in blocks)
            whole = sums[:, start:stop].reshape(len(owners), len(blocks), -1)
            of_layers = sum(layer.size for layer in blocks[0].layers)
            for part, features in (
                (slice(0, of_layers), self._layer_features(homes)),
                (slice(of_layers, None), self._agreements(homes, blocks)),
            ):
                if features.shape[1]:
                    device = features.device
                    summed = nn.functional.embedding_bag(
                        columns.to(device), features, offsets.to(device), mode="sum"
                    )
                    shape = (len(owners), len(blocks), -1)
                    whole[:, :, part] = summed.view(*shape).cpu().numpy()
            sums[:, start:stop] = whole.reshape(len(owners), -1)
            start = stop
        for owner, values in zip(owners, sums, strict=True):
            self._sums[owner] = self._sums[owner] + values if owner in self._sums else values
        for one in self._pending:
            one.claims = []
        self._pending = []

    def _observe(self, router: Router, logits: Tensor, index: Tensor, weights: Tensor) -> None:
        self._now.routings[self._place[id(router)]] = Routing(logits, index, weights)
        self._now.tokens = len(logits)

    def _flat_claims(self) -> tuple[list[Hashable], Tensor, Tensor]:
        """Owners, their columns one after the other, and where each owner's begin."""
        by_owner: dict[Hashable, list[Indices]] = {}
        before = 0
        for one in self._pending:
            for owner, columns in one.claims:
                by_owner.setdefault(owner, []).append(columns + before)
            before += one.tokens
        parts = [np.concatenate(columns) for columns in by_owner.values()]
        offsets = np.cumsum([0, *(len(part) for part in parts[:-1])])
        flat = torch.from_numpy(np.concatenate(parts).astype(np.int64))
        return list(by_owner), flat, torch.from_numpy(offsets.astype(np.int64))

    def _runs(self) -> Iterator[tuple[tuple[RoutedBlock, ...], list[int]]]:
        """Neighbouring blocks of one shape and device, as many as fit, with their routers."""
        most = max(1, _MOST_NUMBERS // max(1, self.pending_tokens))
        latest = self._pending[-1].routings
        for _, alike in itertools.groupby(
            zip(self.layout.blocks, self._homes, strict=True),
            key=lambda pair: (pair[0].shape, latest[pair[1][0]].logits.device),
        ):
            run = list(alike)
            step = max(1, most // run[0][0].size)
            for first in range(0, len(run), step):
                chosen = run[first : first + step]
                blocks = tuple(block for block, _ in chosen)
                yield blocks, [place for _, homes in chosen for place in homes]

    def _joined(self, homes: Sequence[int], part: int) -> Tensor:
        """One of logits, choices and weights, of all pending tokens, [T, layers, N or K]."""
        passes = [
            torch.cat([one.routings[place][part] for place in homes], 1) for one in self._pending
        ]
        return passes[0] if len(passes) == 1 else torch.cat(passes)

    def _layer_features(self, homes: Sequence[int]) -> Tensor:
        """What each pending token adds to the layers' parts of the vector, [T, numbers]."""
        logits, choices, weights = (self._joined(homes, part) for part in range(3))
        n = logits.shape[-1]
        pairs = n * (n - 1) // 2
        found = logits.new_zeros(*logits.shape[:2], 3 * n + pairs + 1)
        found.scatter_(-1, choices, 1.0)
        # Experts first: along a short last dimension a CPU's softmax is ten times as slow.
        probability = torch.softmax(logits.movedim(-1, 0), 0)
        found[..., n : 2 * n] = probability.movedim(0, -1)
        found.scatter_(-1, choices + 2 * n, weights)
        found.scatter_(-1, _pair_numbers(choices, n) + 3 * n, 1.0)
        # The floor makes 0 log 0 zero, and changes nothing else.
        logarithm = probability.clamp(min=torch.finfo(probability.dtype).tiny).log()
        found[..., -1] = -(probability * logarithm).sum(0)
        return found.flatten(1)

    def _agreements(self, homes: Sequence[int], blocks: Sequence[RoutedBlock]) -> Tensor:
        """How many experts the layers of a block have in common, pair by pair, [T, numbers]."""
        if not blocks[0].pairs:
            return torch.zeros(self.pending_tokens, 0)
        layers, experts, _ = blocks[0].shape
        choices = self._joined(homes, 1)
        choices = choices.view(len(choices), len(blocks), layers, -1)
        chosen = torch.zeros(*choices.shape[:-1], experts, device=choices.device)
        chosen.scatter_(-1, choices, 1.0)
        agreed = [chosen[:, :, j].gather(-1, choices[:, :, i]) for i, j in blocks[0].pairs]
        return torch.stack(agreed, 2).sum(-1).flatten(1)


def _pair_numbers(choices: Tensor, experts: int) -> Tensor:
    """Places of the pairs i < j among chosen experts [..., K], as in an upper triangle by rows."""
    one, other = torch.triu_indices(choices.shape[-1], choices.shape[-1], 1, device=choices.device)
    first, second = choices[..., one], choices[..., other]
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return low * (2 * experts - low - 1) // 2 + high - low - 1
