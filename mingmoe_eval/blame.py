"""Which layer, and which expert in it, a change between two checkpoints of one base comes from.

Of a baseline A and a candidate B, parts of A are put into B, and B's run is made again: what a part
gives back of the difference is compared doc by doc with B's own run. Layers are halved until one is
left, each time into the half that turns more docs back; of that layer the attention, the routers
and each expert are tried alone. That is 2 log2(layers) + experts runs instead of layers x experts.

Parts work together: two halves need not add up to the whole, and an expert that was moved to other
tokens by its router shows with the router. What only both give back is said, and goes to neither.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mingmoe_eval.ablation import resident
from mingmoe_eval.comparison import Comparison, Flip, compare
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.language_model import LanguageModel
from mingmoe_eval.metrics.showing import interval_shown, shown
from mingmoe_eval.metrics.significance import holm_adjusted
from mingmoe_eval.model_opening import OpenModel, Watch, open_named
from mingmoe_eval.molora.layers import RoutedExperts
from mingmoe_eval.records import JsonDict, Run

_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors of one model that can be taken from another of the same shape, under a name."""

    label: str
    tensors: Callable[[nn.Module], list[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The candidate with a part of the baseline's, against the candidate as it is.

    Attributes:
        part: What was put back.
        comparison: From the candidate's run to the one with the part.
        restored: Of the docs that differ between baseline and candidate, how many the part turns
            back towards the baseline.
        moved: Docs that did not differ, and do with the part.
    """

    part: str
    comparison: Comparison
    restored: int
    moved: int

    @property
    def net(self) -> int:
        """Docs turned back, less those moved beside: a score alone may stay while docs flip."""
        return self.restored - self.moved

    @property
    def given_back(self) -> float:
        """The mean change over all docs, each task in its own metric; more is nearer to better."""
        return _mean_change(self.comparison)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """What was tried, in order, and where it led.

    Attributes:
        whole: From the candidate to the baseline: what all parts together give back.
        trials: Each part that was put back.
        flips: How many docs differ in score between the two runs.
        found: The part, no range of layers, that turns back most docs, net of those that it moves;
            "" where none turns back more than it moves.
    """

    whole: Comparison
    trials: tuple[Trial, ...]
    flips: int
    found: str


def blame(
    baseline: Run,
    candidate: Run,
    *,
    watch: Watch | None = None,
    open_model: OpenModel = open_named,
    alpha: float = 0.05,
) -> Blame:
    """Search for the part of the candidate that its difference from the baseline comes from.

    Both models are in memory. Nothing is written, and no answer is taken from a store.

    Raises:
        UsageError: the two are no checkpoints of one shape, or equal in every weight.
        IncomparableRunsError: the runs differ in more than their model, or data, tasks or code
            changed since they were made.
    """
    watch = watch or Watch()
    whole = compare(candidate, baseline, alpha=alpha)
    lm, other = (open_model(run.spec, None, watch) for run in (candidate, baseline))
    model, source = _module(lm, candidate), _module(other, baseline)
    _refuse_unlike(model, source)
    search = _Search(candidate, whole, lm, model, source, watch, alpha)
    layers = [i for i in range(_layers(model)) if search.differs(_layers_part(i, i))]
    if search.differs(_OUTSIDE):
        search.try_part(_OUTSIDE)
    if not layers and not search.trials:
        raise UsageError(
            f"{candidate.spec.model} and {baseline.spec.model} are equal in every weight"
        )
    if layers:
        search.bisect(layers)
    singles = [t for t in search.trials if " to " not in t.part]
    best = max(singles, key=lambda trial: trial.net, default=None)
    found = best.part if best is not None and best.net > 0 else ""
    return Blame(whole=whole, trials=tuple(search.trials), flips=search.flips, found=found)


class _Search:
    """Runs the candidate with one part after the other put back."""

    def __init__(
        self,
        candidate: Run,
        whole: Comparison,
        lm: LanguageModel,
        model: nn.Module,
        source: nn.Module,
        watch: Watch,
        alpha: float,
    ) -> None:
        self.candidate, self.whole = candidate, whole
        self.lm, self.model, self.source = lm, model, source
        self.watch, self.alpha = watch, alpha
        self.trials: list[Trial] = []
        self._lost = {task: _places(one.gained) for task, one in whole.tasks.items()}
        self._won = {task: _places(one.lost) for task, one in whole.tasks.items()}

    @property
    def flips(self) -> int:
        """Docs that differ between the two runs."""
        return sum(map(len, (*self._lost.values(), *self._won.values())))

    def differs(self, part: Part) -> bool:
        """Whether the two models have any other value there."""
        pairs = zip(part.tensors(self.model), part.tensors(self.source), strict=True)
        return any(not torch.equal(mine, theirs) for mine, theirs in pairs)

    def try_part(self, part: Part) -> Trial:
        """The candidate's run again with that part of the baseline's."""
        with put_back(part, self.model, self.source):
            # Stored answers are known by weights that are hashed once: these are others.
            spec = replace(self.candidate.spec, cache=False)
            run = evaluate(spec, watch=self.watch, open_model=resident(self.lm))
        run = replace(run, name=f"{self.candidate.name} with the baseline's {part.label}")
        comparison = compare(
            self.candidate, replace(run, spec=self.candidate.spec), alpha=self.alpha
        )
        restored = moved = 0
        for task, one in comparison.tasks.items():
            gained, lost = _places(one.gained), _places(one.lost)
            back = len(gained & self._lost[task]) + len(lost & self._won[task])
            known = self._lost[task] | self._won[task]
            restored, moved = restored + back, moved + len((gained | lost) - known)
        trial = Trial(part=part.label, comparison=comparison, restored=restored, moved=moved)
        self.trials.append(trial)
        return trial

    def bisect(self, layers: Sequence[int]) -> None:
        """Halve until one layer is left, then try what that layer is made of."""
        while len(layers) > 1:
            middle = len(layers) // 2
            halves = layers[:middle], layers[middle:]
            first, second = (self.try_part(_layers_part(h[0], h[-1])) for h in halves)
            layers = halves[0] if first.net >= second.net else halves[1]
        (layer,) = layers
        if not any(trial.part == _layers_part(layer, layer).label for trial in self.trials):
            self.try_part(_layers_part(layer, layer))
        for part in _parts_of_layer(self.model, layer):
            if self.differs(part):
                self.try_part(part)


@contextlib.contextmanager
def put_back(part: Part, model: nn.Module, source: nn.Module) -> Iterator[None]:
    """Within the block, `model` has the values that `source` has there; then its own again."""
    mine, theirs = part.tensors(model), part.tensors(source)
    kept = [tensor.clone() for tensor in mine]
    try:
        with torch.no_grad():
            for tensor, other in zip(mine, theirs, strict=True):
                tensor.copy_(other)
        yield
    finally:
        with torch.no_grad():
            for tensor, own in zip(mine, kept, strict=True):
                tensor.copy_(own)


def blame_rows(found: Blame) -> list[tuple[str, ...]]:
    """For a table: part, docs turned back, docs moved beside, task, change, interval, p."""
    tested = [(trial, task) for trial in found.trials for task in trial.comparison.tasks.values()]
    adjusted = holm_adjusted([task.p_value for _, task in tested])
    rows: list[tuple[str, ...]] = []
    for (trial, task), p in zip(tested, adjusted, strict=True):
        paired = task.paired
        rows.append(
            (
                trial.part,
                f"{trial.restored}/{found.flips}",
                str(trial.moved),
                task.task,
                shown(paired.baseline, task.unit, decimals=2),
                shown(paired.difference, task.unit, decimals=2, signed=True),
                interval_shown(paired.interval, task.unit, decimals=2, signed=True),
                f"{p:.3g}",
            )
        )
    return rows


def blame_json(found: Blame) -> JsonDict:
    """The same with all digits; p-values are after Holm's procedure over all trials and tasks."""
    tested = [(trial, task) for trial in found.trials for task in trial.comparison.tasks.values()]
    adjusted = holm_adjusted([task.p_value for _, task in tested])
    return {
        "whole": {name: task.paired.difference for name, task in found.whole.tasks.items()},
        "docs_that_differ": found.flips,
        "found": found.found,
        "trials": [
            {
                "part": trial.part,
                "turned_back": trial.restored,
                "moved_beside": trial.moved,
                "task": task.task,
                "docs": task.docs,
                "given_back": task.paired.difference,
                "interval": list(task.paired.interval),
                "p_adjusted": p,
            }
            for (trial, task), p in zip(tested, adjusted, strict=True)
        ],
    }


def sentence(found: Blame) -> str:
    """Where the search led, in one sentence, with what it cannot tell."""
    whole = _mean_change(found.whole)
    told = {trial.part: trial for trial in found.trials}
    if not found.found:
        return (
            "No single part turns back more docs than it moves: the change is of parts together, "
            "or of what is left to chance."
        )
    part = told[found.found]
    share = f"{100 * part.given_back:+.2f} of {100 * whole:+.2f} points"
    return (
        f"Most comes back with {found.found}: {share} on the mean over docs, "
        f"{part.restored} of {found.flips} differing docs turned back, {part.moved} others moved. "
        "Parts work together: what only several give back is in no row."
    )


def _mean_change(comparison: Comparison) -> float:
    total = sum(task.docs for task in comparison.tasks.values())
    signs = {"lower": -1.0}
    return (
        sum(
            signs.get(task.better, 1.0) * task.paired.difference * task.docs
            for task in comparison.tasks.values()
        )
        / total
    )


def _places(flips: Sequence[Flip]) -> set[int]:
    """By the docs' places in the candidate's run, from which each comparison here starts."""
    return {flip.baseline_position for flip in flips}


def _module(lm: LanguageModel, run: Run) -> nn.Module:
    model = getattr(lm, "model", None)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{run.spec.model} is no checkpoint whose weights can be changed")
    return model


def _state(model: nn.Module) -> Mapping[str, Tensor]:
    return dict(model.named_parameters())


def _refuse_unlike(model: nn.Module, source: nn.Module) -> None:
    mine, theirs = ({n: t.shape for n, t in _state(m).items()} for m in (model, source))
    if mine != theirs:
        odd = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))
        raise UsageError(
            f"the two models are not of one shape ({odd[0]} and {len(odd) - 1} others differ): "
            "blame is for two checkpoints of one base, with as many experts of one rank"
        )


def _layers(model: nn.Module) -> int:
    return 1 + max((int(m[1]) for name in _state(model) if (m := _LAYER.search(name))), default=-1)


def _layers_part(first: int, last: int) -> Part:
    def tensors(model: nn.Module) -> list[Tensor]:
        return [
            tensor
            for name, tensor in _state(model).items()
            if (found := _LAYER.search(name)) and first <= int(found[1]) <= last
        ]

    return Part(f"layer {first}" if first == last else f"layers {first} to {last}", tensors)


_OUTSIDE = Part(
    "embeddings, last norm and head",
    lambda model: [tensor for name, tensor in _state(model).items() if not _LAYER.search(name)],
)


def _parts_of_layer(model: nn.Module, layer: int) -> Iterator[Part]:
    """Attention, feed-forward weights, routers, and each expert of one layer."""
    routed = [name for name, module in model.named_modules() if isinstance(module, RoutedExperts)]
    here = [n for n in routed if (found := _LAYER.search(f"{n}.")) and int(found[1]) == layer]

    def plain(of_attention: bool) -> Callable[[nn.Module], list[Tensor]]:
        def tensors(one: nn.Module) -> list[Tensor]:
            return [
                tensor
                for name, tensor in _state(one).items()
                if (found := _LAYER.search(name))
                and int(found[1]) == layer
                and ("attn" in name or "attention" in name) == of_attention
                and not any(name.startswith(f"{path}.") for path in here)
            ]

        return tensors

    yield Part(f"attention of layer {layer}", plain(of_attention=True))
    yield Part(f"feed-forward weights and norms of layer {layer}", plain(of_attention=False))
    if not here:
        return

    def experts_of(one: nn.Module) -> list[RoutedExperts]:
        modules = dict(one.named_modules())
        return [module for n in here if isinstance(module := modules[n], RoutedExperts)]

    yield Part(
        f"routers of layer {layer}",
        lambda one: [t for module in experts_of(one) for t in (module.router, module.router_bias)],
    )
    for expert in range(experts_of(model)[0].num_experts):

        def of_expert(one: nn.Module, expert: int = expert) -> list[Tensor]:
            return [
                half[expert]
                for module in experts_of(one)
                for record in module.unstack()
                for half in (record.a.detach(), record.b.detach())
            ]

        yield Part(f"expert {expert} of layer {layer}", of_expert)
