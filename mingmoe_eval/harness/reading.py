"""Output directories of lm-eval 0.4.2 to 0.4.13, read into runs.

A task of ours, also one that stock lm-eval ran (`--include_path tasks`), is read and scored by us,
from what the model answered; any other keeps lm-eval's scores.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.errors import MingMoeError, RunStoreError, UsageError, offence_list
from mingmoe_eval.foreign_logs.log import ROUNDING, CitedNumber, Imported
from mingmoe_eval.harness.files import (
    OURS,
    as_lm_eval_writes,
    filters_of,
    read_results,
    results_files,
    samples_by_filter,
    samples_file,
)
from mingmoe_eval.harness.results import foreign_result, foreign_samples, logged_answers, replies_in
from mingmoe_eval.json_files import as_record
from mingmoe_eval.metrics.of_lm_eval import foreign_metric, is_mean_of_docs
from mingmoe_eval.provenance import task_provenance
from mingmoe_eval.records import (
    Counts,
    JsonDict,
    MetricValue,
    Run,
    RunSpec,
    Sample,
    TaskResult,
    TaskSettings,
)
from mingmoe_eval.repeats import repeats_of
from mingmoe_eval.run_loading import doc_type
from mingmoe_eval.task_catalog import load_catalog

# Two results files of one model may be put together only where these are the same.
_OF_A_RUN = ("model", "model_args", "limit", "gen_kwargs", "fewshot_seed")
_LOCAL_MODELS = ("hf", "hf-auto", "huggingface")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One task that a results file speaks of; no samples: its numbers can only be cited."""

    name: str
    results: Mapping[str, Any]
    filter: str
    samples: Sequence[Sample] = ()
    settings: TaskSettings | None = None
    """None where the scores are lm-eval's."""
    replies: int = 1
    """To each doc, at most."""


def read_output(directory: str | Path, *, filter_name: str | None = None) -> Run:
    """The results of one model in an lm-eval output directory, as a run.

    Raises:
        RunStoreError: as `read_outputs`; or there are several models, or no samples.
    """
    imported = read_outputs(Path(directory), filter_name=filter_name)
    if len(imported) > 1:
        names = ", ".join(one.name for one in imported)
        raise RunStoreError(f"{directory} holds results of several models: {names}")
    (one,) = imported
    if one.run is None:
        listed = sorted({number.task for number in one.cited})
        raise RunStoreError(
            offence_list(
                f"{directory} cannot become a run: its samples are not there; run lm-eval with "
                "--log_samples",
                listed,
            )
        )
    return one.run


def read_outputs(
    place: Path, *, filter_name: str | None = None, model_folder: str | None = None
) -> list[Imported]:
    """Every model's results below a place, newest first where a task was run twice.

    Args:
        place: What `--output_path` named, a model's folder in it, or one results file.
        filter_name: The filter pipeline whose scores count; default: each task's first.
        model_folder: Only the results in the folder of that name.

    Raises:
        RunStoreError: there are no results, or a file is damaged: samples that are fewer or more
            than were run, numbers that no metric can have, or that the samples do not give; every
            offence is listed.
        UsageError: there is no such model folder, or filter.
    """
    by_folder: dict[Path, list[Path]] = {}
    for file in results_files(place):
        by_folder.setdefault(file.parent, []).append(file)
    if model_folder is not None:
        named = {
            folder: files for folder, files in by_folder.items() if folder.name == model_folder
        }
        if not named:
            there = ", ".join(sorted(folder.name for folder in by_folder))
            raise UsageError(f"--model-folder {model_folder!r}: {place} holds results in {there}")
        by_folder = named
    return [_imported(place, folder, files, filter_name) for folder, files in by_folder.items()]


def _imported(
    place: Path, folder: Path, files: Sequence[Path], filter_name: str | None
) -> Imported:
    """The results of one model; of a task that was run twice, the newest."""
    tasks: dict[str, _Task] = {}
    left_out: list[str] = []
    groups: dict[str, Mapping[str, Any]] = {}
    newest: tuple[Path, JsonDict] | None = None
    for file in sorted(files, key=lambda file: file.stem, reverse=True):
        results = read_results(file)
        if newest is not None and (differs := _other_settings(newest[1], results)):
            left_out.append(
                f"{file.name}: other {differs} than {newest[0].name}; import it by itself"
            )
            continue
        newest = newest or (file, results)
        with as_lm_eval_writes(file):
            for task, lines in _tasks_in(file, results, filter_name):
                left_out += [f"{task.name}: {line}" for line in lines]
                if task.name in tasks:
                    left_out.append(f"{task.name}: {file.name} has it too, from before")
                else:
                    tasks[task.name] = task
            for name, members in results.get("group_subtasks", {}).items():
                if members and name not in groups:
                    groups[name] = {
                        "members": tuple(members),
                        "results": results,
                        "filters": {task.filter for task in tasks.values()},
                    }
    assert newest is not None
    with as_lm_eval_writes(newest[0]):
        return _put_together(place, folder, newest, tasks, groups, left_out)


def _other_settings(newest: Mapping[str, Any], older: Mapping[str, Any]) -> str:
    pair = [results.get("config") or {} for results in (newest, older)]
    differing = [name for name in _OF_A_RUN if pair[0].get(name) != pair[1].get(name)]
    if newest.get("chat_template_sha") != older.get("chat_template_sha"):
        differing.append("chat template")
    return ", ".join(differing)


def _tasks_in(
    file: Path, results: JsonDict, filter_name: str | None
) -> Iterator[tuple[_Task, list[str]]]:
    """Each task with what of it is left out."""
    subtasks = results.get("group_subtasks", {})
    offences: list[str] = []
    read = []
    # Up to 0.4.8 a plain task is listed too, as a group without members.
    for name in [task for task in results["results"] if not subtasks.get(task)]:
        filters = filters_of(results["results"][name])
        if filter_name is not None and filter_name not in filters and len(filters) > 1:
            raise UsageError(f"--filter {filter_name!r}: {name} has {', '.join(filters)}")
        chosen = filter_name if filter_name in filters else (filters or ["none"])[0]
        others = [other for other in filters if other != chosen]
        lines = [
            f"filter {o} ({_in_words(results['results'][name], o)}); --filter {o} takes it"
            for o in others
        ]
        logged = samples_file(file, name, results)
        if logged is None:
            lines.append("no samples, so its numbers can only be cited; lm-eval: --log_samples")
        task = _read_task(name, logged, results, chosen, filters)
        if task.settings is None and task.replies > 1:
            lines.append(
                f"replies 2 to {task.replies} to each doc: its score is what filter {chosen} and "
                "lm-eval made of all of them"
            )
        offences += _faults(task, logged)
        read.append((task, lines))
    if offences:
        raise RunStoreError(offence_list(f"{file} cannot become a run", offences))
    yield from read


def _in_words(numbers: Mapping[str, Any], filter_name: str) -> str:
    shown = (
        f"{key.partition(',')[0]} {value:.4g}"
        for key, value in numbers.items()
        if key.endswith(f",{filter_name}") and isinstance(value, float) and "_stderr" not in key
    )
    return ", ".join(shown)


def _read_task(
    name: str,
    file: Path | None,
    results: Mapping[str, Any],
    chosen: str,
    filters: Sequence[str],
) -> _Task:
    if file is None:
        return _Task(name=name, results=results, filter=chosen)
    with as_lm_eval_writes(file):
        by_filter = samples_by_filter(file, filters)
        logged = by_filter.get(chosen) or next(iter(by_filter.values()), [])
        settings = _own_settings(name, logged, results)
        if settings is None:
            samples = foreign_samples(name, results, {}, logged=logged)
        else:
            samples = scoring.distinct_ids(
                [
                    scoring.make_sample(
                        name, a.position, a.doc, a.prompt, a.response, settings, a.repeat
                    )
                    for a in logged_answers(name, logged)
                ]
            )
    return _Task(
        name=name,
        results=results,
        filter=chosen,
        samples=samples,
        settings=settings,
        replies=max(map(replies_in, logged), default=1),
    )


def _own_settings(
    task: str, logged: Sequence[JsonDict], results: Mapping[str, Any]
) -> TaskSettings | None:
    """How we score a task of ours; None for one of lm-eval's, or somebody's of the same name."""
    catalog = load_catalog()
    if not catalog.scores(task):
        return None
    definition = catalog.definitions[task]
    try:
        for entry in logged:
            as_record(doc_type(definition.settings.suite), entry["doc"], of="doc")
    except MingMoeError:
        return None
    said = results.get(OURS) or {}
    return definition.settings.in_run(
        reading=None,
        profile=None,
        permute_options=(said.get("spec") or _metadata(results)).get("permute_options"),
    )


def _faults(task: _Task, file: Path | None) -> Iterator[str]:
    """Why a task's numbers cannot be what they are said to be."""
    counted = (task.results.get("n-samples", {}).get(task.name) or {}).get("effective")
    docs = len({sample.position for sample in task.samples})
    if file is not None and (not docs or counted not in (None, docs)):
        yield f"{task.name}: {file.name} has {docs} docs, of {counted} that were run"
    for key, value in task.results["results"][task.name].items():
        name, _, of = key.partition(",")
        if of != task.filter or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        low, high = foreign_metric(name).range
        if not (math.isnan(value) or low <= value <= high):
            yield f"{task.name}: {name} is {value:g}, and can only be from {low:g} to {high:g}"
        elif task.settings is None and is_mean_of_docs(name):
            values = [sample.counts[name] for sample in task.samples if name in sample.counts]
            given = sum(values) / len(values) if values else value
            if len(values) == len(task.samples) and abs(given - value) > ROUNDING:
                yield f"{task.name}: {name} is {value:g}, and its {len(values)} docs give {given:g}"


def _put_together(
    place: Path,
    folder: Path,
    newest: tuple[Path, JsonDict],
    tasks: Mapping[str, _Task],
    groups: Mapping[str, Mapping[str, Any]],
    left_out: list[str],
) -> Imported:
    file, results = newest
    with_docs = {name: task for name, task in tasks.items() if task.samples}
    spec = _spec(results, with_docs)
    leaves = {name: _result(task, spec) for name, task in with_docs.items()}
    samples = {name: list(task.samples) for name, task in with_docs.items()}
    run = None
    if with_docs:
        run = Run(
            name=place.name or folder.name,
            spec=spec,
            provenance=_provenance(results, with_docs),
            results={**leaves, **_groups(groups, leaves, samples, left_out)},
            samples=samples,
            timing={"seconds": float(results.get("total_evaluation_time_seconds") or 0.0)},
        )
    cited = [number for task in tasks.values() if not task.samples for number in _cited(task)]
    version = results.get("lm_eval_version") or "of an unknown version"
    return Imported(
        name=folder.name,
        model=spec.model,
        source=f"lm-eval {version}, {file.name}",
        run=run,
        cited=cited,
        left_out=tuple(left_out),
    )


def _result(task: _Task, spec: RunSpec) -> TaskResult:
    results = task.results
    if task.settings is None:
        return foreign_result(task.name, task.samples, results, filter_name=task.filter)
    said = (results.get(OURS) or {}).get("tasks", {}).get(task.name, {})
    version = results.get("versions", {}).get(task.name)
    folded = scoring.fold_task(
        task.name,
        task.samples,
        task.settings,
        num_fewshot=int(results.get("n-shot", {}).get(task.name) or 0),
        marks=tuple(said.get("marks") or _rows_mark(task, spec)),
    )
    return dataclasses.replace(folded, version=folded.version if version is None else str(version))


def _rows_mark(task: _Task, spec: RunSpec) -> Iterator[str]:
    """That the data were only a part of the exam; a few rows may have been unusable."""
    from mingmoe_eval.exams.facts_files import benchmarks

    config = task.results.get("configs", {}).get(task.name) or {}
    known = benchmarks().get((config.get("dataset_kwargs") or {}).get("benchmark", ""))
    docs = (task.results.get("n-samples", {}).get(task.name) or {}).get("original")
    rows = known.part(spec.split).rows if known else None
    if not spec.sample and docs and rows and abs(docs - rows) > rows / 50:
        yield f"{docs:,} docs, where the official part has {rows:,}"


def _groups(
    groups: Mapping[str, Mapping[str, Any]],
    leaves: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    left_out: list[str],
) -> dict[str, TaskResult]:
    """Ours are made again; of others, lm-eval's own number, where all its members are here."""
    catalog = load_catalog()
    made: dict[str, TaskResult] = {}
    waiting = dict(groups)
    while ready := [
        name
        for name, group in waiting.items()
        if all(member in leaves or member in made for member in group["members"])
    ]:
        for name in ready:
            group = waiting.pop(name)
            members = {m: leaves.get(m) or made[m] for m in group["members"]}
            if catalog.scores(name) and catalog.definitions[name].is_group:
                definition = catalog.definitions[name]
                made |= scoring.fold_groups(
                    catalog, [definition], {**leaves, **made}, samples, refused=left_out.append
                )
            elif (result := _foreign_group(name, members, group)) is not None:
                made[name] = result
            else:
                left_out.append(f"{name}: a group without a number of its own")
    left_out += [f"{name}: a group of which some members are not here" for name in waiting]
    return made


def _foreign_group(
    name: str, members: Mapping[str, TaskResult], group: Mapping[str, Any]
) -> TaskResult | None:
    results = group["results"]
    numbers = results["results"].get(name) or results.get("groups", {}).get(name) or {}
    counts = sum((member.counts for member in members.values()), Counts())
    metrics: dict[str, MetricValue] = {}
    for key, value in numbers.items():
        metric, _, of = key.partition(",")
        wanted = of in group["filters"] and not metric.endswith("_stderr")
        if wanted and isinstance(value, int | float):
            stated = MetricValue(value=float(value), n=counts.docs)
            metrics.setdefault(metric, foreign_metric(metric).stamped(stated))
    if not metrics:
        return None
    return TaskResult(
        task=name,
        main_metric="score",
        metrics={"score": next(iter(metrics.values())), **metrics},
        counts=counts,
        version=str(results.get("versions", {}).get(name, "")),
        members=tuple(members),
    )


def _cited(task: _Task) -> Iterator[CitedNumber]:
    """The first number of a task, which is its headline, with what is known of it."""
    for key, value in task.results["results"][task.name].items():
        name, _, of = key.partition(",")
        if of == task.filter and not name.endswith("_stderr") and isinstance(value, int | float):
            shots = task.results.get("n-shot", {}).get(task.name)
            yield CitedNumber(
                task=task.name,
                metric=name,
                value=float(value),
                is_share=foreign_metric(name).unit == "share",
                num_fewshot=None if shots is None else int(shots),
            )
            return


def _spec(results: Mapping[str, Any], tasks: Mapping[str, _Task]) -> RunSpec:
    if said := (results.get(OURS) or {}).get("spec"):
        return dataclasses.replace(RunSpec.from_json(said), tasks=tuple(tasks))
    config = results.get("config", {})
    metadata = _metadata(results)
    seed = config.get("fewshot_seed")
    return RunSpec.from_json(
        {
            "model": str(results.get("model_name") or config.get("model", "unknown")),
            "tasks": list(tasks),
            "limit": _limit(config.get("limit"), tasks),
            "seed": 1234 if seed is None else seed,
            "sample": bool(metadata.get("sample")),
            "partial": bool(metadata.get("partial")),
            "split": metadata.get("split"),
            "permute_options": metadata.get("permute_options"),
            "repeats": max((repeats_of(task.samples) for task in tasks.values()), default=1),
        }
    )


def _metadata(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """What stock lm-eval was told by `--metadata`, which it writes into each task's definition."""
    configs = results.get("configs") or {}
    both: dict[str, Any] = {}
    for config in configs.values():
        both |= (config.get("metadata") or {}) if isinstance(config, dict) else {}
    return both


def _limit(limit: float | None, tasks: Mapping[str, _Task]) -> int | None:
    """Docs a task at most; a limit below 1 is a share of each task, and comes as what it left."""
    if not limit:
        return None
    return int(limit) if limit >= 1 else max((len(t.samples) for t in tasks.values()), default=1)


def _provenance(results: Mapping[str, Any], tasks: Mapping[str, _Task]) -> JsonDict:
    config = results.get("config", {})
    said = results.get(OURS) or {}
    # Not its device, which is what it was asked for, and no account of where it then ran.
    model = {
        "engine": "transformers" if config.get("model") in _LOCAL_MODELS else config.get("model"),
        "dtype": str(dtype).removeprefix("torch.")
        if (dtype := config.get("model_dtype"))
        else None,
        "lm_eval_model": config.get("model"),
        "arguments": config.get("model_args"),
    }
    return {
        "imported_from": "lm-eval",
        "packages": {
            "lm_eval": results.get("lm_eval_version"),
            "transformers": results.get("transformers_version"),
        },
        "chat_template": {"applied": bool(results.get("chat_template_sha"))},
        "model": said.get("model") or {k: v for k, v in model.items() if v is not None},
        "tasks": {
            name: said.get("tasks", {}).get(name, {}).get("provenance") or _of_task(task)
            for name, task in tasks.items()
        },
    }


def _of_task(task: _Task) -> JsonDict:
    if task.settings is None:
        return {"data_fingerprint": task.results.get("task_hashes", {}).get(task.name)}
    return task_provenance([], task.samples, task.settings)
