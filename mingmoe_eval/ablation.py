"""What a run's scores lose without an expert: usage alone proves no importance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mingmoe_eval.comparison import Comparison, compare
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.language_model import LanguageModel
from mingmoe_eval.metrics.showing import interval_shown, shown
from mingmoe_eval.metrics.significance import holm_adjusted
from mingmoe_eval.model_opening import OpenModel, Watch, open_named
from mingmoe_eval.molora.router import ExpertMask, masked
from mingmoe_eval.records import JsonDict, Run, RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A run against itself without some experts; `usage` is those experts' share of all choices."""

    masks: tuple[ExpertMask, ...]
    comparison: Comparison
    usage: float | None

    @property
    def label(self) -> str:
        """The masked experts as a user writes them."""
        return "+".join(map(str, self.masks))


def ablate(
    baseline: Run,
    trials: Sequence[tuple[ExpertMask, ...]],
    *,
    watch: Watch | None = None,
    open_model: OpenModel = open_named,
    alpha: float = 0.05,
) -> Iterator[Ablation]:
    """Runs a finished run again, once for each set of masked experts, and compares doc by doc.

    The model is loaded once. Nothing is written, except answers into the response store.

    Raises:
        UsageError: the model has no routers, or not these experts.
        IncomparableRunsError: data, tasks or code changed since the baseline was made.
    """
    watch = watch or Watch()
    lm = open_model(baseline.spec, None, watch)
    model = getattr(lm, "model", None)
    if model is None:
        raise UsageError(f"{baseline.spec.model} is no checkpoint whose experts can be masked")
    for masks in trials:
        with masked(model, masks):
            run = evaluate(baseline.spec, watch=watch, open_model=resident(lm))
        label = "+".join(map(str, masks))
        candidate = replace(run, name=f"{baseline.name} without expert {label}")
        yield Ablation(
            masks=masks,
            comparison=compare(baseline, candidate, alpha=alpha),
            usage=_usage(baseline.routing, masks),
        )


def ablation_rows(ablations: Sequence[Ablation]) -> list[tuple[str, ...]]:
    """For a table: experts, usage, task, score with all and without them, change, interval, p."""
    tested = [(one, task) for one in ablations for task in one.comparison.tasks.values()]
    adjusted = holm_adjusted([task.p_value for _, task in tested])
    rows: list[tuple[str, ...]] = []
    for (one, task), p in zip(tested, adjusted, strict=True):
        paired = task.paired
        rows.append(
            (
                one.label,
                "" if one.usage is None else f"{100 * one.usage:.1f}",
                task.task,
                shown(paired.baseline, task.unit, decimals=2),
                shown(paired.candidate, task.unit, decimals=2),
                shown(paired.difference, task.unit, decimals=2, signed=True),
                interval_shown(paired.interval, task.unit, decimals=2, signed=True),
                f"{p:.3g}",
            )
        )
    return rows


def ablation_json(ablations: Sequence[Ablation]) -> JsonDict:
    """The same with all digits; p-values are after Holm's procedure over all trials and tasks."""
    tested = [(one, task) for one in ablations for task in one.comparison.tasks.values()]
    adjusted = holm_adjusted([task.p_value for _, task in tested])
    return {
        "trials": [
            {
                "experts": one.label,
                "usage": one.usage,
                "task": task.task,
                "docs": task.docs,
                "baseline": task.paired.baseline,
                "without": task.paired.candidate,
                "difference": task.paired.candidate - task.paired.baseline,
                "interval": list(task.paired.interval),
                "p_adjusted": p,
            }
            for (one, task), p in zip(tested, adjusted, strict=True)
        ]
    }


def resident(lm: LanguageModel) -> OpenModel:
    """Gives each run the model that is loaded already, as it is at that time."""

    def given(spec: RunSpec, folder: Path | None, watch: Watch) -> LanguageModel:
        return lm

    return given


def _usage(routing: Mapping[str, Any] | None, masks: Sequence[ExpertMask]) -> float | None:
    """The masked experts' share of all choices in the layers concerned; None if unknown."""
    loads = [facts["load"] for facts in dict((routing or {}).get("tasks") or {}).values()]
    if not loads:
        return None
    layers = len(loads[0])
    named = {
        (layer, mask.expert)
        for mask in masks
        for layer in (range(layers) if mask.layer is None else [mask.layer])
    }
    rows = sorted({layer for layer, _ in named})
    total = sum(load[layer][expert] for load in loads for layer, expert in named)
    return float(total / (len(loads) * len(rows)))
