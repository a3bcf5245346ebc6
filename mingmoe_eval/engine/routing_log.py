"""Sums what a model's routers do over the tokens of its passes, for whoever those tokens belong to.

Routers are only listened to: a pass keeps references to what they computed anyway, and sums are
made over several passes, layers and owners at once. So a decoding step costs one list entry a
router, and padding and idle rows are never counted because nobody claims them.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mingmoe_eval.molora.router import Router, routers
from mingmoe_eval.molora.routing_counts import Array, RoutedLayer, RoutingLayout, layout_of

Indices = npt.NDArray[np.int64]

# Of features that are made at once; more would leave a CPU's cache and spoil a GPU's memory.
_MOST_NUMBERS = 4 * 2**20


class Routing(NamedTuple):
    """One router's part in a pass: logits [T, G, N], indices and weights [T, G, K]."""

    logits: Tensor
    index: Tensor
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
        self._homes = [(place, g) for place, one in enumerate(found) for g in range(len(one.paths))]
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
        for first, last in self._runs():
            sizes = [block.size for block in self.layout.blocks[first:last]]
            features = self._features(first, last)
            device = features.device
            summed = nn.functional.embedding_bag(
                columns.to(device), features, offsets.to(device), mode="sum"
            )
            sums[:, start : start + sum(sizes)] = summed.cpu().numpy()
            start += sum(sizes)
        for owner, values in zip(owners, sums, strict=True):
            self._sums[owner] = self._sums.get(owner, 0) + values
        self._pending, self._now = [], _Pass()

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

    def _runs(self) -> list[tuple[int, int]]:
        """Neighbouring blocks of one shape and device, as many as fit: ranges of `blocks`."""
        tokens, runs = self.pending_tokens, list[tuple[int, int]]()
        kinds = []
        start = 0
        for block in self.layout.blocks:
            device = self._routing(start, self._pending[0]).logits.device
            first = block.layers[0]
            kinds.append((len(block.layers), first.experts, first.top_k, device, block.size))
            start += len(block.layers)
        for place, kind in enumerate(kinds):
            low = runs[-1][0] if runs else 0
            fits = (place + 1 - low) * kind[-1] * tokens <= _MOST_NUMBERS
            if runs and kind == kinds[low] and fits:
                runs[-1] = (low, place + 1)
            else:
                runs.append((place, place + 1))
        return runs

    def _features(self, first: int, last: int) -> Tensor:
        """What each pending token adds to the vector of blocks of one shape, [T, numbers]."""
        blocks = self.layout.blocks
        start = sum(len(block.layers) for block in blocks[:first])
        layers = range(start, start + sum(len(block.layers) for block in blocks[first:last]))
        logits, index, weights = (
            torch.cat(
                [
                    torch.stack([self._routing(layer, one)[part] for layer in layers], 1)
                    for one in self._pending
                ]
            )
            for part in range(3)
        )
        shape = (len(logits), last - first, len(blocks[first].layers))
        chosen = torch.zeros_like(logits).scatter_(-1, index, 1.0)
        mix = torch.zeros_like(logits).scatter_(-1, index, weights)
        probability = torch.softmax(logits, -1)
        spread = torch.special.entr(probability).sum(-1, keepdim=True)
        one, other = torch.triu_indices(logits.shape[-1], logits.shape[-1], 1, device=logits.device)
        pairs = chosen[..., one] * chosen[..., other]
        of_layers = torch.cat([chosen, probability, mix, pairs, spread], -1)
        chosen = chosen.view(*shape, -1)
        agreed = [
            (chosen[:, :, i] * chosen[:, :, j]).sum(-1, keepdim=True)
            for i, j in blocks[first].pairs
        ]
        parts = torch.cat([of_layers.view(*shape[:2], -1), *agreed], -1)
        return parts.flatten(1)

    def _routing(self, layer: int, one: _Pass) -> Routing:
        """A layer's part in a pass, [T, N] and [T, K]."""
        place, group = self._homes[layer]
        routing = one.routings[place]
        return Routing(*(tensor[:, group] for tensor in routing))
