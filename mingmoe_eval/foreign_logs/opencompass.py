"""Work directories of OpenCompass 0.3 to 0.5: predictions, and what became of each.

`predictions/<model>/<data set>.json` holds each prompt, reply and gold answer under its number, in
parts `_0`, `_1` where workers shared it; `results/<model>/<data set>.json` the numbers, in percent,
and below `details` whether each was right. Without details nobody knows what its postprocessors
read in a reply: such numbers can only be cited.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.foreign_logs.log import (
    CitedNumber,
    Imported,
    LoggedDoc,
    LoggedTask,
    contradictions,
    imported,
)
from mingmoe_eval.json_files import read_object
from mingmoe_eval.records import JsonDict

_PER_CENT = ("accuracy", "score", "pass@1", "em", "f1", "exact_match")
"""Numbers that OpenCompass's evaluators multiply by 100."""


def is_here(place: Path) -> bool:
    """Whether a folder is a work directory, or the folder of one of its runs."""
    return place.is_dir() and _home(place) is not None


def read(place: Path) -> list[Imported]:
    """Each model's run.

    Raises:
        RunStoreError: a file is damaged, or states a number that its details do not give.
    """
    home = _home(place)
    assert home is not None
    names = {d.name for part in ("predictions", "results") for d in (home / part).glob("*/")}
    return [_imported(home, model) for model in sorted(names)]


def _home(place: Path) -> Path | None:
    """The newest run: a work directory has a folder a run, named after its time."""
    found = [
        folder
        for folder in (place, *sorted(place.glob("*/")))
        if any(folder.glob("predictions/*/*.json")) and not any(folder.glob("reviews/*"))
    ]
    return found[-1] if found else None


def _imported(home: Path, model: str) -> Imported:
    tasks, cited, left_out, offences = [], [], [], []
    predictions = dict(_predictions(home / "predictions" / model))
    results = {f.stem: read_object(f, RunStoreError) for f in _json(home / "results" / model)}
    for name in sorted({*predictions, *results}):
        try:
            details = results.get(name, {}).get("details")
            stated = dict(_numbers(results.get(name, {})))
            docs = list(_docs(predictions.get(name, {}), details))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunStoreError(
                f"{home}, {name} of {model}: not as OpenCompass writes it ({reason})"
            ) from error
        if docs:
            task = LoggedTask(name=name, docs=docs, stated=_of_docs(stated))
            tasks.append(task)
            offences += list(contradictions(task))
        elif stated:
            metric, value = next(iter(stated.items()))
            cited.append(CitedNumber(task=name, metric=metric, value=value, is_share=True))
            left_out.append(
                f"{name}: its results say of no doc whether it was right (OpenCompass: "
                "--dump-eval-details), so its number can only be cited"
            )
        else:
            left_out.append(
                f"{name}: replies without results; `mingmoe-eval score exams --columns "
                "reply=prediction,key=gold,question=origin_prompt` reads them here"
            )
    if offences:
        raise RunStoreError(offence_list(f"{home} contradicts itself", offences))
    return imported(
        "OpenCompass",
        model,
        tasks,
        cited=cited,
        left_out=tuple(left_out),
    )


def _json(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _predictions(folder: Path) -> Iterator[tuple[str, JsonDict]]:
    """By data set; parts of one are put behind each other, under numbers that go on."""
    files = {file.stem: file for file in _json(folder)}
    for stem in files:
        base, _, part = stem.rpartition("_")
        if part.isdigit() and part != "0" and f"{base}_0" in files:
            continue  # with its first part
        whole: JsonDict = {}
        number = 0
        names = [stem]
        if part == "0":
            stem = base
            while f"{base}_{len(names)}" in files:
                names.append(f"{base}_{len(names)}")
        for name in names:
            for record in read_object(files[name], RunStoreError).values():
                whole[str(number)] = record
                number += 1
        yield stem, whole


def _numbers(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Those that are shares, as fractions."""
    for name, value in results.items():
        if name in _PER_CENT and isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 <= value <= 100:
                raise ValueError(f"{name} is {value:g}, and can only be from 0 to 100")
            yield name, value / 100


def _of_docs(stated: Mapping[str, float]) -> dict[str, float]:
    """The first number is what the details add up to, whatever it is called."""
    return dict([("correct", value) for name, value in stated.items() if name != "f1"][:1])


def _docs(predictions: Mapping[str, Any], details: Any) -> Iterator[LoggedDoc]:
    if isinstance(details, list):
        details = {str(number): detail for number, detail in enumerate(details)}
    if not isinstance(details, dict):
        return
    numbers = [number for number in details if number.isdigit()]
    if not all("correct" in details[n] or "is_correct" in details[n] for n in numbers):
        return
    for position, number in enumerate(sorted(numbers, key=int)):
        detail, said = details[number], predictions.get(number, {})
        verdict = detail.get("correct", detail.get("is_correct"))
        # Some evaluators keep one verdict for each of several replies.
        verdicts = verdict if isinstance(verdict, list) else [verdict]
        gold = detail.get("references", detail.get("answer", said.get("gold")))
        prompt = _text(detail.get("prompt", said.get("origin_prompt")))
        answers = _each(detail.get("predictions", detail.get("pred")), len(verdicts))
        replies = _each(said.get("prediction", detail.get("origin_prediction")), len(verdicts))
        for repeat, (right, answered, reply) in enumerate(
            zip(verdicts, answers, replies, strict=True)
        ):
            yield LoggedDoc(
                position=position,
                doc={"id": number, "question": prompt, "gold": gold},
                prompt=prompt,
                expected=str(gold),
                reply=reply if isinstance(reply, str) else None,
                answered=None if answered is None else _text(answered),
                values={"correct": float(right)},
                repeat=repeat,
            )


def _each(value: Any, replies: int) -> list[Any]:
    """What each of several replies has of a value; one value that all share is none of them."""
    if replies == 1:
        return [value]
    listed = isinstance(value, list) and len(value) == replies
    return list(value) if listed else [None] * replies


def _text(value: Any) -> str:
    """A prompt is a text, or the turns of a chat."""
    if isinstance(value, list):
        turns = (
            turn.get("prompt", turn.get("content", "")) for turn in value if isinstance(turn, dict)
        )
        return (
            "\n\n".join(map(str, turns)) if any(isinstance(v, dict) for v in value) else str(value)
        )
    return "" if value is None else str(value)
