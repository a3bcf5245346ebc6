"""Work directories of EvalScope 1.x: its reviews, with the predictions beside them.

`reviews/<model>/<data set>_<subset>.jsonl` holds a line a sample with the key, the messages, the
answer that was read and what it earned; `predictions/` of the same name how the reply ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.foreign_logs.log import Imported, LoggedDoc, LoggedTask, contradictions, imported
from mingmoe_eval.json_files import JsonFault, parse_lines, read_object
from mingmoe_eval.records import Finish, JsonDict

_FINISH: Mapping[str, Finish] = {"stop": "stop", "max_tokens": "length", "model_length": "length"}


def is_here(place: Path) -> bool:
    """Whether a folder is a work directory of EvalScope's."""
    return place.is_dir() and any(place.glob("reviews/*/*.jsonl"))


def read(place: Path) -> list[Imported]:
    """Each model's run.

    Raises:
        RunStoreError: a file is damaged, or a report states a number that its samples do not give.
    """
    models = sorted(folder for folder in (place / "reviews").iterdir() if folder.is_dir())
    return [_imported(place, folder.name) for folder in models]


def _imported(place: Path, model: str) -> Imported:
    reports = {}
    for file in sorted((place / "reports" / model).glob("*.json")):
        report = read_object(file, RunStoreError)
        reports[str(report.get("dataset_name", file.stem))] = report
    tasks, left_out, offences = [], [], []
    for file in sorted((place / "reviews" / model).glob("*.jsonl")):
        predictions = place / "predictions" / model / file.name
        answers = {line.get("index"): line for line in _lines(predictions)}
        try:
            docs = _docs(list(_lines(file)), answers)
            task = LoggedTask(name=_name(file), docs=docs, stated=_stated(file.stem, reports))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunStoreError(f"{file} is not as EvalScope 1.x writes it ({reason})") from error
        if docs:
            tasks.append(task)
            offences += list(contradictions(task))
        else:
            left_out.append(f"{task.name}: {file.name} holds no samples")
    if offences:
        raise RunStoreError(offence_list(f"{place} contradicts itself", offences))
    return imported(
        "EvalScope",
        model,
        tasks,
        left_out=tuple(left_out),
    )


def _name(file: Path) -> str:
    """The data set and its subset, without the one that is called `default`."""
    return file.stem.removesuffix("_default")


def _stated(stem: str, reports: Mapping[str, JsonDict]) -> dict[str, float]:
    """What a report states for one subset, by metric; nothing where it is not the mean of it."""
    stated = {}
    for data_set, report in reports.items():
        for metric in report.get("metrics") or ():
            identity = metric.get("identity") or {}
            if identity.get("aggregation", "mean") != "mean":
                continue
            for category in metric.get("categories") or ():
                for subset in category.get("subsets") or ():
                    if stem == f"{data_set}_{subset.get('name')}":
                        name = str(identity.get("name") or metric.get("name"))
                        stated[name] = float(subset["score"])
    return stated


def _docs(lines: Sequence[JsonDict], answers: Mapping[Any, JsonDict]) -> list[LoggedDoc]:
    """Each sample; those that a task's `repeats` made of one have a `group_id` in common."""
    groups: dict[Any, list[JsonDict]] = {}
    for number, line in enumerate(lines):
        group = line["sample_score"].get("group_id")
        groups.setdefault(("alone", number) if group is None else group, []).append(line)
    return [
        replace(_doc(number, line, answers), doc=doc, repeat=repeat)
        for number, kin in enumerate(groups.values())
        for doc in [_doc(number, kin[0], answers).doc]
        for repeat, line in enumerate(kin)
    ]


def _doc(number: int, line: JsonDict, answers: Mapping[Any, JsonDict]) -> LoggedDoc:
    score = line["sample_score"]["score"]
    main = score.get("main_score_name")
    given = {str(k): float(v) for k, v in score["value"].items() if isinstance(v, int | float)}
    values = {name: given[name] for name in (main, *given) if name in given}
    prediction = answers.get(line.get("index"), {})
    output = prediction.get("model_output") or {}
    usage = output.get("usage") or {}
    stop = (output.get("choices") or [{}])[0].get("stop_reason")
    target = line.get("target")
    prompt = "\n\n".join(
        _text(message.get("content"))
        for message in line.get("messages") or ()
        if message.get("role") != "assistant"
    )
    metadata = line["sample_score"].get("sample_metadata") or prediction.get("metadata") or {}
    answered = score.get("extracted_prediction")
    failed = score.get("status", "success") != "success"
    return LoggedDoc(
        position=number,
        doc={"id": str(line.get("index", number)), "question": prompt, "target": target}
        | ({"metadata": metadata} if metadata else {}),
        prompt=prompt,
        expected="".join(map(str, target)) if isinstance(target, list) else str(target),
        reply=score.get("prediction"),
        answered=None if answered is None else str(answered),
        values={} if failed else values,
        failure=str(
            output.get("error") or (f"scoring ended as {score['status']}" if failed else "")
        ),
        finish=_FINISH.get(str(stop), "none"),
        prompt_tokens=max(int(usage.get("input_tokens") or 0), 0),
        generated_tokens=max(int(usage.get("output_tokens") or 0), 0),
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _lines(file: Path) -> Iterator[JsonDict]:
    if not file.is_file():
        return
    for number, value in parse_lines(file.read_bytes()):
        if isinstance(value, JsonFault) or not isinstance(value, dict):
            raise RunStoreError(f"{file}, line {number}: no record of EvalScope ({value})")
        yield value
