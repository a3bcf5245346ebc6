"""Means over tasks: the official overall score, and each family's."""

from collections.abc import Mapping, Sequence

from mingmoe_eval.errors import DataError
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.promptcblue.catalogue import TASKS, Family
from mingmoe_eval.records import MetricValue, Sample, TaskResult


def fold_group(
    members: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    *,
    weight_by_size: bool = False,
) -> dict[str, MetricValue]:
    """The mean of the main metrics of all 16 tasks, or of the tasks of one family.

    Over all 16 it is the official overall score; then each family's mean is given too. Tasks weigh
    the same, whatever their size. The interval takes the tasks for independent: the standard
    error is sqrt(sum of SE^2) / k, with each task's SE read off its interval's width.

    Raises:
        DataError: Neither all 16 are there, nor all of one family; names the missing ones.
    """
    by_name = {task.lm_eval_name: task for task in TASKS.values()}
    families: dict[Family, list[str]] = {}
    for name, task in by_name.items():
        families.setdefault(task.family, []).append(name)
    if weight_by_size:
        raise DataError("PromptCBLUE's groups are plain means; weight_by_size has to be false")
    present = set(members)
    if any(present == set(names) for names in families.values()):
        return {"score": mean_of_parts([result.main for result in members.values()])}
    if missing := [name for name in by_name if name not in present]:
        raise DataError(
            f"PromptCBLUE's overall score is over all 16 tasks; {len(missing)} are missing: "
            f"{', '.join(missing)}"
        )
    means = {
        f"score_{family}": mean_of_parts([members[name].main for name in names])
        for family, names in families.items()
    }
    return {"score": mean_of_parts([members[name].main for name in by_name]), **means}
