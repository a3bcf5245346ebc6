"""Sees every routing of a forward pass and sums it up, without keeping anything per token."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.molora.layers import RoutedExperts
from mingmoe_eval.molora.router import Router
from mingmoe_eval.training.contrast import AnchorBatch, make_anchors
from mingmoe_eval.training.router_losses import RoutingSummary, summarise
from mingmoe_eval.training.spec import RouterObjective


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
