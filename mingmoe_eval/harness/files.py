"""lm-eval's output directory: read one into a run, and write one beside a run for its viewers."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.harness.results import foreign_result, foreign_samples
from mingmoe_eval.json_files import JsonFault, parse_lines, read_object
from mingmoe_eval.records import JsonDict, Run, RunSpec, Sample, TaskResult
from mingmoe_eval.run_store import write_json, write_json_lines

_NO_METRICS = frozenset(
    (
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
        *("doc_hash", "prompt_hash", "target_hash"),
    )
)
"""What lm-eval logs of a doc besides one entry a metric."""


_UPWARDS = {"higher": True, "lower": False}
"""What lm-eval calls a direction; None, where none is better, is its word too."""


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
    samples: dict[str, list[Sample]] = {}
    offences = []
    with _as_lm_eval_writes(results_file):
        # Up to 0.4.8 a plain task is listed too, as a group without members.
        subtasks = results.get("group_subtasks", {})
        leaves = [task for task in results["results"] if not subtasks.get(task)]
        for task in leaves:
            file = results_file.with_name(f"samples_{task}_{stamp}.jsonl")
            if not file.is_file():
                offences.append(f"{task}: {file.name} is not there; run lm-eval with --log_samples")
                continue
            samples[task] = _samples(task, file, results)
            counted = results.get("n-samples", {}).get(task, {}).get("effective")
            if not samples[task] or counted not in (None, len(samples[task])):
                offences.append(
                    f"{task}: {file.name} has {len(samples[task])} docs, of {counted} that were run"
                )
    if offences:
        raise RunStoreError(offence_list(f"{folder} cannot become a run", offences))
    with _as_lm_eval_writes(results_file):
        return _run(folder, results, samples)


def write_output(run: Run, folder: Path) -> None:
    """Write `results_<time>.json` and `samples_<task>_<time>.jsonl` as lm-eval lays them out."""
    write_json(folder / _results_name(run), _results_dict(run))
    for task, samples in run.samples.items():
        rows = (_logged(sample, run.results[task]) for sample in samples)
        write_json_lines(folder / _samples_name(run, task), rows)


def remove_output(run: Run, folder: Path) -> None:
    """Remove what `write_output` wrote of a run, and the folder where nothing else lies in it."""
    with contextlib.suppress(OSError):  # not there, or not empty
        for name in (_results_name(run), *(_samples_name(run, task) for task in run.leaves)):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _results_name(run: Run) -> str:
    return f"results_{_stamp(run)}.json"


def _samples_name(run: Run, task: str) -> str:
    # A task's name from outside must not lead out of the folder.
    return f"samples_{task.replace('/', '%2F')}_{_stamp(run)}.jsonl"


def _stamp(run: Run) -> str:
    return re.sub(r"[^0-9T+.-]", "-", str(run.provenance.get("created", ""))) or "unknown"


def _samples(task: str, file: Path, results: Mapping[str, Any]) -> list[Sample]:
    with _as_lm_eval_writes(file):
        logged = list(_read_lines(file))
        return foreign_samples(task, results, {}, logged=logged)


@contextmanager
def _as_lm_eval_writes(file: Path) -> Iterator[None]:
    """What is not laid out as lm-eval lays it out is the file's fault, and named so."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RunStoreError(f"{file} is not as lm-eval writes it ({reason})") from error


def _run(folder: Path, results: Mapping[str, Any], samples: Mapping[str, list[Sample]]) -> Run:
    config = results.get("config", {})
    tasks: dict[str, TaskResult] = {
        task: foreign_result(task, listed, results) for task, listed in samples.items()
    }
    return Run(
        name=folder.name,
        spec=RunSpec.from_json(
            {
                "model": str(results.get("model_name") or config.get("model", "unknown")),
                "tasks": list(tasks),
                "limit": _limit(config.get("limit"), samples),
                "seed": config.get("fewshot_seed") or 1234,
            }
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


def _limit(limit: float | None, samples: Mapping[str, Sequence[Sample]]) -> int | None:
    """Docs a task at most; a limit below 1 is a share of each task, and comes as what it left."""
    if not limit:
        return None
    return int(limit) if limit >= 1 else max(map(len, samples.values()))


def _newest_results(folder: Path) -> Path:
    # lm-eval makes a folder for the model below the --output_path that it is given.
    found = sorted([*folder.glob("results_*.json"), *folder.glob("*/results_*.json")])
    if not found:
        raise RunStoreError(f"{folder} holds no results_*.json of lm-eval")
    return max(found, key=lambda path: path.stem)


def _read_json(path: Path) -> JsonDict:
    data = read_object(path, RunStoreError)
    if not isinstance(data.get("results"), dict):
        raise RunStoreError(f"{path} is not a results file of lm-eval: it has no `results`")
    return data


def _read_lines(path: Path) -> Iterator[JsonDict]:
    for number, entry in parse_lines(path.read_bytes()):
        try:
            if isinstance(entry, JsonFault):
                raise entry
            if not isinstance(entry["doc"], Mapping) or not isinstance(entry["doc_id"], int):
                raise TypeError("`doc` must be an object and `doc_id` its position")
            metrics = [name for name in entry if name not in _NO_METRICS]
            arguments = _arguments(entry["arguments"])
            # Releases before 0.4.5 name neither the filter nor the metrics.
            yield {"filter": "none", "metrics": metrics, **entry, "arguments": arguments}
        except (JsonFault, KeyError, TypeError, AttributeError) as error:
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
            name: {metric: _UPWARDS.get(value.better) for metric, value in result.metrics.items()}
            for name, result in run.results.items()
        },
        "n-samples": {
            name: {"original": result.counts.docs, "effective": len(run.samples[name])}
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
