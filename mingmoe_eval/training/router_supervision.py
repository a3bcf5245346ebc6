"""What is asked of routers beside the token loss: watched in each pass, weighed, and scored.

For one linear layer with N experts, K chosen for each of T counted tokens, logits g:

    f_i = how often expert i was chosen / (T K)        sums to 1
    P_i = mean over tokens of softmax(g)_i             sums to 1
    balance = N sum_i f_i P_i                          1 for a uniform router, N at the worst
    z = mean over tokens of logsumexp(g)^2

Balance is the load-balance loss of Switch Transformers (arXiv 2101.03961, equations 4 to 6), with
top-K counts as in Mixtral; transformers' Mixtral counts without dividing by K, so that its loss is
K times ours. It is taken for each linear layer apart and then averaged, not pooled over layers:
pooled, one layer's imbalance could hide another's. z is that of ST-MoE (arXiv 2202.08906,
equation 5). f has no gradient.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.molora.layers import RoutedExperts
from mingmoe_eval.molora.router import Router
from mingmoe_eval.training.contrast import AnchorBatch, ExpertMemory, make_anchors
from mingmoe_eval.training.spec import RouterObjective


@dataclass(frozen=True, slots=True, eq=False)
class RoutingSummary:
    """The routing of some tokens through the G routers of one module.

    chosen [G, N] counts, mean_probability [G, N], z [G]; tokens is a scalar.
    """

    chosen: Tensor
    mean_probability: Tensor
    z: Tensor
    tokens: Tensor


def summarise(logits: Tensor, index: Tensor, counted: Tensor) -> RoutingSummary:
    """Sums up a routing: logits [T, G, N], chosen indices [T, G, K], counted [T] true or false.

    No counted token at all gives zeros.
    """
    weight = counted.to(logits.dtype)
    tokens = weight.sum()
    divisor = tokens.clamp(min=1)
    picks = torch.zeros_like(logits).scatter(-1, index, 1.0)
    return RoutingSummary(
        chosen=torch.einsum("t,tgn->gn", weight, picks).detach(),
        mean_probability=torch.einsum("t,tgn->gn", weight, logits.softmax(-1)) / divisor,
        z=torch.einsum("t,tg->g", weight, logits.logsumexp(-1) ** 2) / divisor,
        tokens=tokens.detach(),
    )


def balance_loss(summary: RoutingSummary) -> Tensor:
    """N sum_i f_i P_i of each router, [G]; 0 where nothing was counted."""
    picks = summary.chosen.sum(-1, keepdim=True).clamp(min=1)
    share = summary.chosen / picks
    return summary.chosen.shape[-1] * (share * summary.mean_probability).sum(-1)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one module's routers did in one forward pass."""

    paths: tuple[str, ...]
    summary: RoutingSummary
    anchors: AnchorBatch | None


class RoutingWatch:
    """Watches the routers of a model while it is trained.

    With gradient checkpointing every layer runs twice. Its second run must do the same sums, since
    autograd matches the two by what they save; but only the first is kept.
    """

    def __init__(self, model: nn.Module, objective: RouterObjective) -> None:
        self.objective = objective
        self._counted: Tensor | None = None
        self._keeping = False
        self._seen: list[Seen] = []
        self._inputs: dict[RoutedExperts, Tensor] = {}
        for module in routed_experts(model):
            module.observer = self._observe
            if objective.contrast:
                module.register_forward_pre_hook(self._remember_input)

    @contextlib.contextmanager
    def forward(self, counted: Tensor) -> Iterator[list[Seen]]:
        """Watches one forward pass; `counted` [B, S] says which tokens count."""
        self._counted, self._keeping, self._seen = counted.bool(), True, []
        try:
            yield self._seen
        finally:
            self._keeping = False

    def _remember_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, RoutedExperts)
        self._inputs[module] = inputs[0]

    def _observe(self, module: Router, logits: Tensor, index: Tensor, weights: Tensor) -> None:
        assert isinstance(module, RoutedExperts)
        x = self._inputs.pop(module, None)
        if self._counted is None or not torch.is_grad_enabled():
            return
        counted = self._counted.to(logits.device)
        summary = summarise(logits, index, counted.flatten())
        anchors = None
        if x is not None:
            anchors = make_anchors(module, x, (index, weights), counted, self.objective.anchors)
        if self._keeping:
            self._seen.append(Seen(module.paths, summary, anchors))


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
