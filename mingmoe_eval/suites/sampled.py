"""What suites have in common whose every number is a metric over samples."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mingmoe_eval.errors import DataError
from mingmoe_eval.metrics.metric import Metric, fold_together
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.records import MetricValue, Response, Sample, Score, TaskResult, TaskSettings

_NOT_STATED = "not stated"


@dataclass(frozen=True, kw_only=True)
class SampledSuite:
    """A suite as `scoring.Suite` has it, made of a scorer for one doc and of metrics.

    Attributes:
        METRICS: All metrics by name; the first is the score of a task that names none.
        score_doc: What one response earned; never raises for any reply.
        expected: The answer that counts as right, as text.
        by_label: Further tables, such as one row a label.
    """

    METRICS: Mapping[str, Metric]
    score_doc: Callable[[Mapping[str, Any], Response, TaskSettings], Score]
    expected: Callable[[Mapping[str, Any]], str]
    by_label: Callable[[Sequence[Sample]], Mapping[str, dict[str, MetricValue]]] = field(
        default=lambda samples: {}
    )

    @property
    def SCORES(self) -> Mapping[str, Metric]:
        """What a task may name as its score: all of them."""
        return self.METRICS

    def fold(self, samples: Sequence[Sample], settings: TaskSettings) -> dict[str, MetricValue]:
        """All metrics over the samples that did not fail; the task's own also as `score`."""
        clusters = [sample.cluster for sample in samples]
        metrics = fold_together(list(self.METRICS.values()), samples, clusters)
        return {"score": metrics[self.main(settings).name], **metrics}

    def main(self, settings: TaskSettings) -> Metric:
        """The metric that is the score.

        Raises:
            DataError: the task names a metric that the suite does not have.
        """
        name = settings.metric or next(iter(self.METRICS))
        if name not in self.METRICS:
            raise DataError(f"no metric named {name!r}; the suite has {', '.join(self.METRICS)}")
        return self.METRICS[name]

    def breakdowns(
        self, samples: Sequence[Sample], settings: TaskSettings
    ) -> dict[str, dict[str, MetricValue]]:
        """The score by each tag that has two values or more, and the suite's own tables."""
        tables: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
        for sample in samples:
            for tag, value in sample.tags.items():
                tables[tag][str(value or _NOT_STATED)].append(sample)
        main = self.main(settings)
        by_tag = {
            tag: {
                value: main.fold(part, [sample.cluster for sample in part])
                for value, part in sorted(by_value.items())
            }
            for tag, by_value in tables.items()
            if len(by_value) > 1
        }
        return {**by_tag, **self.by_label(samples)}

    def fold_group(
        self,
        members: Mapping[str, TaskResult],
        samples: Mapping[str, Sequence[Sample]],
        *,
        weight_by_size: bool,
    ) -> dict[str, MetricValue]:
        """The plain mean of the members' scores; `micro` over all docs where they are one metric.

        Raises:
            DataError: docs are to weigh the same, and the members have different metrics.
        """
        macro = mean_of_parts([result.main for result in members.values()])
        names = {result.main.metric for result in members.values()}
        metric = self.METRICS.get(next(iter(names))) if len(names) == 1 else None
        if metric is None:
            if weight_by_size:
                raise DataError(f"its members have different metrics: {', '.join(sorted(names))}")
            return {"score": macro}
        every = [sample for listed in samples.values() for sample in listed]
        usable = [sample for sample in every if sample.status != "failed"]
        micro = metric.fold(usable, [sample.cluster for sample in usable])
        return {"score": micro if weight_by_size else macro, "micro": micro, "macro": macro}
