"""lm-eval's own output layout: read as 0.4.2 to 0.4.13 write it, written beside a run.

Where the files lie, and what a line holds, changed on the way:

- 0.4.2: `results.json`, or a name that the user gave, and one JSON array a task in
  `<model args>_<task>.jsonl`; from 0.4.3 `<model>/results_<time>.json` and JSON Lines,
  `samples_<task>_<time>.jsonl`.
- Up to 0.4.4 a line names neither its filter nor its metrics, and a doc comes once a filter, in
  their order.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.json_files import JsonFault, parse, parse_lines, read_object
from mingmoe_eval.records import JsonDict, Run, Sample
from mingmoe_eval.repeats import mean_of
from mingmoe_eval.run_store import write_json, write_json_lines

OURS = "mingmoe_eval"
"""Under which key a results file that we wrote says what lm-eval's layout has no place for."""

_NO_METRICS = frozenset(
    (
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
        *("doc_hash", "prompt_hash", "target_hash", "failure", "failures"),
    )
)
"""What lm-eval logs of a doc besides one entry a metric."""

_UPWARDS = {"higher": True, "lower": False}
"""What lm-eval calls a direction; None, where none is better, is its word too."""


def results_files(place: Path) -> list[Path]:
    """The results files below a place, or the one that it is.

    Raises:
        RunStoreError: there are none.
    """
    if place.is_file():
        return [place]
    # lm-eval makes a folder for the model below the --output_path that it is given.
    patterns = ("results_*.json", "results.json", "*/results_*.json", "*/results.json")
    found = [file for pattern in patterns for file in sorted(place.glob(pattern))]
    if not found:
        raise RunStoreError(f"{place} holds no results_*.json of lm-eval")
    return found


def filters_of(numbers: Mapping[str, Any]) -> list[str]:
    """The names of a task's filter pipelines, in the order in which lm-eval applied them."""
    pairs = (key.partition(",") for key in numbers)
    names = (after for before, comma, after in pairs if comma and not before.endswith("_stderr"))
    return list(dict.fromkeys(names))


def samples_file(file: Path, task: str, results: Mapping[str, Any]) -> Path | None:
    """Where a task's samples lie beside their results; None: they were not logged."""
    stamp = file.stem.removeprefix("results_")
    of_0_4_2 = re.sub("/|=", "__", str((results.get("config") or {}).get("model_args")))
    names = (f"samples_{task}_{stamp}.jsonl", f"{of_0_4_2}_{task}.jsonl")
    found = (file.with_name(name) for name in names)
    return next((path for path in found if path.is_file()), None)


def read_results(path: Path) -> JsonDict:
    """A results file.

    Raises:
        RunStoreError: it is none.
    """
    data = read_object(path, RunStoreError)
    if not isinstance(data.get("results"), dict):
        raise RunStoreError(f"{path} is not a results file of lm-eval: it has no `results`")
    return data


def samples_by_filter(path: Path, filters: Sequence[str]) -> dict[str, list[JsonDict]]:
    """The logged samples of a task by filter pipeline, each of which logs every doc again.

    Args:
        path: The file of samples.
        filters: The names in the order in which they were applied: releases before 0.4.5 do not
            say whose sample a line is.

    Raises:
        RunStoreError: a line is no sample.
    """
    by_filter: dict[str, list[JsonDict]] = {}
    seen: Counter[int] = Counter()
    names = list(filters) or ["none"]
    for entry in _samples(path):
        turn = seen[entry["doc_id"]]
        seen[entry["doc_id"]] += 1
        name = entry.get("filter") or names[min(turn, len(names) - 1)]
        by_filter.setdefault(name, []).append({**entry, "filter": name})
    return by_filter


@contextlib.contextmanager
def as_lm_eval_writes(file: Path) -> Iterator[None]:
    """What is not laid out as lm-eval lays it out is the file's fault, and named so."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise RunStoreError(f"{file} is not as lm-eval writes it ({reason})") from error


def write_output(run: Run, folder: Path) -> None:
    """Write `results_<time>.json` and `samples_<task>_<time>.jsonl` as lm-eval lays them out."""
    write_json(folder / _results_name(run), _results_dict(run))
    for task, samples in run.samples.items():
        # As lm-eval does, a doc stands once, with the replies of all its repeats.
        docs: dict[int, list[Sample]] = {}
        for sample in samples:
            docs.setdefault(sample.position, []).append(sample)
        rows = (_logged(answers) for answers in docs.values())
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
            name: dict.fromkeys(("original", "effective"), result.counts.docs // result.repeats)
            for name, result in run.leaves.items()
        },
        "config": {"model": "mingmoe", "model_args": run.spec.model, "limit": run.spec.limit},
        "model_name": run.spec.model,
        "lm_eval_version": run.provenance.get("packages", {}).get("lm_eval"),
        "total_evaluation_time_seconds": run.timing.get("seconds"),
        # What its layout has no place for, so that nothing is lost where this is imported again.
        OURS: {
            "spec": run.spec.to_json(),
            "model": run.provenance.get("model"),
            "tasks": {
                name: {
                    "marks": list(result.marks),
                    "provenance": run.provenance.get("tasks", {}).get(name, {}),
                }
                for name, result in run.leaves.items()
            },
        },
    }


def _logged(answers: Sequence[Sample]) -> JsonDict:
    """One doc as lm-eval logs it: every response value a string."""
    sample = mean_of(answers)
    values = sample.log_likelihoods
    options = [str(letter) for letter in sample.doc.get("options") or {}]
    if values is not None:
        continuations = options if len(options) == len(values) else [""] * len(values)
        requests: Sequence[tuple[str, Any]] = [(sample.prompt, text) for text in continuations]
        responses: list[Any] = [[[str(value), "False"]] for value in values]
    else:
        requests, responses = [(sample.prompt, {})], [[one.response or "" for one in answers]]
    failures = {str(n): one.failure for n, one in enumerate(answers) if one.failure}
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
        **({"failure": sample.failure} if sample.failure else {}),
        **({"failures": failures} if failures and len(answers) > 1 else {}),
    }


def _samples(path: Path) -> Iterator[JsonDict]:
    for number, entry in _entries(path.read_bytes()):
        try:
            if isinstance(entry, JsonFault):
                raise entry
            position = entry["doc_id"]
            if not isinstance(entry["doc"], Mapping) or type(position) is not int or position < 0:
                raise TypeError("`doc` must be an object and `doc_id` its position")
            metrics = [name for name in entry if name not in _NO_METRICS]
            # Releases before 0.4.5 name neither the filter nor the metrics.
            yield {"metrics": metrics, **entry, "arguments": _arguments(entry["arguments"])}
        except (JsonFault, KeyError, TypeError, AttributeError) as error:
            raise RunStoreError(
                f"{path}, line {number}: not a logged sample of lm-eval ({error})"
            ) from error


def _entries(data: bytes) -> Iterator[tuple[int, Any]]:
    """JSON Lines; 0.4.2 gave that name to one array."""
    if data.lstrip()[:1] != b"[":
        yield from parse_lines(data)
        return
    try:
        yield from enumerate(parse(data), start=1)
    except JsonFault as fault:
        yield 1, fault


def _arguments(arguments: Any) -> list[tuple[Any, ...]]:
    """On disk `{"gen_args_0": {"arg_0": ..., "arg_1": ...}, ...}`, in memory a list of tuples."""
    if isinstance(arguments, Mapping):
        return [tuple(request.values()) for request in arguments.values()]
    return [tuple(request) for request in arguments]
