"""lm-eval's output directory: read one into a run, and write one beside a run for its viewers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.harness.results import foreign_result, foreign_samples
from mingmoe_eval.records import JsonDict, Run, RunSpec, Sample, TaskResult
from mingmoe_eval.run_store import write_json, write_json_lines
from mingmoe_eval.scoring import distinct_ids


def read_output(directory: str | Path) -> Run:
    """The newest results of an lm-eval 0.4 output directory, with their samples, as a run.

    Raises:
        RunStoreError: no results are there, or samples are missing (lm-eval writes them with
            `--log_samples`) or damaged; every offence is listed.
    """
    folder = Path(directory)
    results_file = _newest_results(folder)
    results = _read_json(results_file)
    stamp = results_file.stem.removeprefix("results_")
    leaves = [task for task in results["results"] if task not in results.get("group_subtasks", {})]
    samples, offences = {}, []
    for task in leaves:
        file = results_file.with_name(f"samples_{task}_{stamp}.jsonl")
        if not file.is_file():
            offences.append(f"{task}: {file.name} is not there; run lm-eval with --log_samples")
            continue
        samples[task] = distinct_ids(foreign_samples(task, list(_read_lines(file)), {}))
    if offences:
        raise RunStoreError(offence_list(f"{folder} cannot become a run", offences))
    return _run(folder, results, samples)


def write_output(run: Run, folder: Path) -> None:
    """Write `results_<time>.json` and `samples_<task>_<time>.jsonl` as lm-eval lays them out."""
    stamp = str(run.provenance.get("created", "")).replace(":", "-") or "unknown"
    write_json(folder / f"results_{stamp}.json", _results_dict(run))
    for task, samples in run.samples.items():
        rows = (_logged(sample, run.results[task]) for sample in samples)
        write_json_lines(folder / f"samples_{task}_{stamp}.jsonl", rows)


def _run(folder: Path, results: Mapping[str, Any], samples: Mapping[str, list[Sample]]) -> Run:
    config = results.get("config", {})
    tasks: dict[str, TaskResult] = {
        task: foreign_result(task, listed, results) for task, listed in samples.items()
    }
    return Run(
        name=folder.name,
        spec=RunSpec(
            model=str(results.get("model_name") or config.get("model", "unknown")),
            tasks=tuple(tasks),
            limit=int(config["limit"]) if config.get("limit") else None,
            seed=config.get("fewshot_seed") or 1234,
        ),
        provenance={
            "imported_from": "lm-eval",
            "packages": {
                "lm_eval": results.get("lm_eval_version"),
                "transformers": results.get("transformers_version"),
            },
            "chat_template": {"applied": bool(results.get("chat_template_sha"))},
            "model": {"lm_eval_model": config.get("model"), "arguments": config.get("model_args")},
            "tasks": {
                task: {"data_fingerprint": results.get("task_hashes", {}).get(task)}
                for task in tasks
            },
        },
        results=tasks,
        samples=dict(samples),
        timing={"seconds": float(results.get("total_evaluation_time_seconds") or 0.0)},
    )


def _newest_results(folder: Path) -> Path:
    # lm-eval makes a folder for the model below the --output_path that it is given.
    found = sorted([*folder.glob("results_*.json"), *folder.glob("*/results_*.json")])
    if not found:
        raise RunStoreError(f"{folder} holds no results_*.json of lm-eval")
    return max(found, key=lambda path: path.stem)


def _read_json(path: Path) -> JsonDict:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunStoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        raise RunStoreError(f"{path} is not a results file of lm-eval: it has no `results`")
    return data


def _read_lines(path: Path) -> Iterator[JsonDict]:
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            yield {**entry, "arguments": _arguments(entry["arguments"])}
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise RunStoreError(
                f"{path}, line {number}: not a logged sample of lm-eval ({error})"
            ) from error


def _arguments(arguments: Any) -> list[tuple[Any, ...]]:
    """On disk `{"gen_args_0": {"arg_0": ..., "arg_1": ...}, ...}`, in memory a list of tuples."""
    if isinstance(arguments, Mapping):
        return [tuple(request.values()) for request in arguments.values()]
    return [tuple(request) for request in arguments]


def _results_dict(run: Run) -> JsonDict:
    return {
        "results": {
            name: {
                "alias": name,
                **{f"{m},none": value.value for m, value in result.metrics.items()},
            }
            for name, result in run.results.items()
        },
        "group_subtasks": {
            name: list(result.members) for name, result in run.results.items() if result.is_group
        },
        "configs": {name: {"task": name} for name in run.leaves},
        "versions": {name: result.version for name, result in run.results.items()},
        "n-shot": {name: result.num_fewshot for name, result in run.results.items()},
        "higher_is_better": {
            name: dict.fromkeys(result.metrics, True) for name, result in run.results.items()
        },
        "n-samples": {
            name: {"original": result.counts.docs, "effective": result.main.n}
            for name, result in run.leaves.items()
        },
        "config": {"model": "mingmoe", "model_args": run.spec.model, "limit": run.spec.limit},
        "model_name": run.spec.model,
        "lm_eval_version": run.provenance.get("packages", {}).get("lm_eval"),
        "total_evaluation_time_seconds": run.timing.get("seconds"),
    }


def _logged(sample: Sample, result: TaskResult) -> JsonDict:
    """One sample as lm-eval logs it: every response value a string."""
    values = sample.log_likelihoods
    options = [str(letter) for letter in sample.doc.get("options") or {}]
    if values is not None:
        continuations = options if len(options) == len(values) else [""] * len(values)
        requests: Sequence[tuple[str, Any]] = [(sample.prompt, text) for text in continuations]
        responses: list[Any] = [[[str(value), "False"]] for value in values]
    else:
        requests, responses = [(sample.prompt, {})], [[sample.response]]
    return {
        "doc_id": sample.position,
        "doc": sample.doc,
        "target": sample.expected,
        "arguments": {
            f"gen_args_{i}": {"arg_0": prompt, "arg_1": rest}
            for i, (prompt, rest) in enumerate(requests)
        },
        "resps": responses,
        "filtered_resps": [sample.answered or ""] if values is None else [r[0] for r in responses],
        "filter": "none",
        "metrics": ["score"],
        "doc_hash": sample.doc_id,
        "prompt_hash": sample.prompt_id,
        "target_hash": "",
        "score": sample.score,
    }
