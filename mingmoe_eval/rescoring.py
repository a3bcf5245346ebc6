"""All metrics of a run again from its stored responses, without the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.errors import UsageError
from mingmoe_eval.provenance import environment
from mingmoe_eval.records import RequestUsage, Response, Run, Sample, TaskResult, TaskSettings
from mingmoe_eval.task_catalog import open_catalog


def rescore(
    run: Run,
    *,
    reading: str | None = None,
    profile: str | None = None,
    coverage: tuple[float, ...] = (),
    name: str | None = None,
    refused: Callable[[str], None] = lambda text: None,
) -> Run:
    """A new run with the same responses, read and scored under other settings.

    Args:
        run: The run whose responses are scored again.
        reading: The compatibility mode by which the replies of exams are read; default: each
            task's own.
        profile: The official scorer's profile for PromptCBLUE; default: each task's own.
        coverage: Which parts of the questions, those of the highest confidence, have their accuracy
            told; default: as the run was asked.
        name: The new run's name.
        refused: Told of each group that cannot be folded, and why.

    Raises:
        UsageError: the run holds tasks of lm-eval's own, whose scorers are not ours.
    """
    settings = {
        task: own.in_run(
            reading=reading,
            profile=profile,
            permute_options=run.spec.permute_options,
            coverage=coverage or run.spec.coverage,
        )
        for task, own in settings_of_all(run, "rescore").items()
    }
    if without := [task for task, old in run.samples.items() if _lacks_options(old)]:
        raise UsageError(
            f"cannot rescore {', '.join(without)}: the run was made from letters alone, and its "
            "questions have no options"
        )
    given = {"reading": reading, "profile": profile}
    changes = {key: value for key, value in given.items() if value is not None}
    samples = {
        task: [_again(sample, settings[task]) for sample in old]
        for task, old in run.samples.items()
    }
    return Run(
        name=name or "-".join([run.name, "rescored", *changes.values()]),
        spec=replace(run.spec, coverage=coverage or run.spec.coverage),
        provenance=_provenance(run, changes),
        results=refold(run, samples, settings, refused=refused),
        samples=samples,
        timing=run.timing,
        routing=run.routing,
        parent=run.name,
        missing_tasks=run.missing_tasks,
    )


def settings_of_all(run: Run, deed: str) -> dict[str, TaskSettings]:
    """How each task of a run is scored.

    Raises:
        UsageError: it holds tasks of lm-eval's own; `deed` is what cannot be done to them.
    """
    catalog = open_catalog().remembering(run)
    found = {task: catalog.settings_in(run, task) for task in run.samples}
    if foreign := sorted(task for task, settings in found.items() if settings is None):
        raise UsageError(f"cannot {deed} {', '.join(foreign)}: lm-eval's own tasks keep its scores")
    return {task: settings for task, settings in found.items() if settings is not None}


def refold(
    run: Run,
    samples: Mapping[str, list[Sample]],
    settings: Mapping[str, TaskSettings],
    *,
    refused: Callable[[str], None],
) -> dict[str, TaskResult]:
    """The results of a run's tasks and groups again, from other samples of the same docs."""
    catalog = open_catalog().remembering(run)
    results = {
        task: _fold(run.results[task], of_task, settings[task]) for task, of_task in samples.items()
    }
    grouped = [name for name, result in run.results.items() if result.is_group]
    for name in grouped:
        if name not in catalog.definitions:
            refused(f"{name}: no group of ours, so that nobody knows how it is made")
    groups = [catalog.definitions[name] for name in grouped if name in catalog.definitions]
    return {**results, **scoring.fold_groups(catalog, groups, results, samples, refused=refused)}


def _lacks_options(samples: Sequence[Sample]) -> bool:
    """A calculation among questions with options is read by itself, and lacks nothing."""
    docs = [sample.doc for sample in samples if "options" in sample.doc]
    return bool(docs) and not any(doc["options"] for doc in docs)


def _again(sample: Sample, settings: TaskSettings) -> Sample:
    usage = RequestUsage(
        prompt_tokens=sample.prompt_tokens,
        generated_tokens=sample.generated_tokens,
        finish=sample.finish,
        prompt_truncated=sample.prompt_truncated,
        thought_tokens=sample.thought_tokens,
        forced=sample.forced,
        # A doc that got no answer then has none now.
        failure=sample.failure,
    )
    response = Response(
        text=sample.response, log_likelihoods=sample.log_likelihoods, usage=(usage,)
    )
    return scoring.scored_again(sample, response, settings)


def _fold(old: TaskResult, samples: list[Sample], settings: TaskSettings) -> TaskResult:
    return scoring.fold_task(
        old.task,
        samples,
        settings,
        unusable=old.counts.unusable,
        num_fewshot=old.num_fewshot,
        notes=old.notes,
        marks=old.marks,
        seconds=old.seconds,
    )


def _provenance(run: Run, changes: Mapping[str, str]) -> dict[str, Any]:
    """The model's facts stay the parent's; what scored it is of now."""
    tasks = {
        task: {**facts, **{k: v for k, v in changes.items() if k in _read_by(run, task)}}
        for task, facts in run.provenance.get("tasks", {}).items()
    }
    now = environment()
    scored_by = {key: now[key] for key in ("mingmoe_eval", "commit", "created")}
    return {**run.provenance, "tasks": tasks, "rescored": {**scored_by, "settings": dict(changes)}}


def _read_by(run: Run, task: str) -> tuple[str, ...]:
    suite = run.results[task].suite
    if suite in ("promptcblue", "labels", "tuples"):
        return ("profile",)
    return ("reading",) if suite == "choice" else ()
