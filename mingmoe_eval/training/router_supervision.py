"""The routers' part of the loss, and the curves that tell how routing develops."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mingmoe_eval.training.contrast import ExpertMemory
from mingmoe_eval.training.router_losses import balance_loss
from mingmoe_eval.training.routing_watch import Seen
from mingmoe_eval.training.spec import RouterObjective

DEAD_BELOW = 0.1
"""An expert with less than this part of the uniform load counts as dead."""


class RouterSupervision:
    """Weighs what was seen of the routers into one loss, and keeps score between log lines."""

    def __init__(self, objective: RouterObjective) -> None:
        self.objective = objective
        self.memory = ExpertMemory(objective.queue, objective.temperature)
        self._sums: dict[str, Tensor] = {}
        self._passes = 0
        self._chosen: dict[str, Tensor] = {}

    def loss(self, seen: Sequence[Seen]) -> Tensor:
        """Coefficients times losses, for one forward pass; what was seen enters the memory."""
        terms = {
            "balance": torch.cat([balance_loss(one.summary) for one in seen]).mean(),
            "z": torch.cat([one.summary.z for one in seen]).mean(),
        }
        if self.objective.contrast:
            terms["contrast"] = self._contrast(seen)
        self._keep_score(seen, terms)
        weights = self.objective.coefficients
        parts = [weights[name] * term for name, term in terms.items() if name in weights]
        return torch.stack(parts).sum() if parts else terms["z"].new_zeros(())

    def take_scores(self) -> dict[str, Any]:
        """The losses, unweighted, and the routing since the last call, which begins anew.

        `load` is each expert's share of the picks, by layer; `max_violation` the mean over layers
        of max share x N - 1 (0: uniform); `dead_experts` how many get next to nothing.
        """
        if not self._passes:
            return {}
        scores: dict[str, Any] = {
            name: (total / self._passes).item() for name, total in self._sums.items()
        }
        load = {path: chosen / chosen.sum().clamp(min=1) for path, chosen in self._chosen.items()}
        shares = list(load.values())
        worst = [share.max().item() * len(share) - 1 for share in shares]
        scores["routing"] = {
            "max_violation": sum(worst) / len(worst),
            "dead_experts": sum(int((s < DEAD_BELOW / len(s)).sum()) for s in shares),
            "load": {path: [round(x, 4) for x in share.tolist()] for path, share in load.items()},
        }
        self._sums, self._passes, self._chosen = {}, 0, {}
        return scores

    def _contrast(self, seen: Sequence[Seen]) -> Tensor:
        losses = []
        for one in seen:
            assert one.anchors is not None
            name = "|".join(one.paths)
            losses.append(self.memory.loss(name, one.anchors))
            self.memory.remember(name, one.anchors)
        return torch.stack(losses).mean()

    def _keep_score(self, seen: Sequence[Seen], terms: Mapping[str, Tensor]) -> None:
        self._passes += 1
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0) + term.detach()
        for one in seen:
            for path, chosen in zip(one.paths, one.summary.chosen, strict=True):
                self._chosen[path] = self._chosen.get(path, 0) + chosen
