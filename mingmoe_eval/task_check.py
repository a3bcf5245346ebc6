"""A folder of tasks tried out without a model: what is asked first, and how replies would score."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.errors import DataError, MingMoeError
from mingmoe_eval.harness import lm_eval_door
from mingmoe_eval.harness.tasks import HarnessTask, load_tasks
from mingmoe_eval.records import Response, RunSpec, TaskSettings
from mingmoe_eval.task_catalog import Selection, open_catalog
from mingmoe_eval.task_definitions import TaskDefinition

_MOST_DOCS = 2_000
"""So many docs are given their own answer as a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """What trying a task showed.

    Attributes:
        name: The task.
        faults: Why it cannot run, or would score wrongly; empty where it is sound.
        summary: How it asks and scores, in one line.
        notes: What a reader of its numbers must know.
        prompt: The first prompt, without a chat template.
        replies: Invented replies to it, with what they earn.
    """

    name: str
    faults: tuple[str, ...] = ()
    summary: str = ""
    notes: tuple[str, ...] = ()
    prompt: str = ""
    replies: tuple[str, ...] = ()


def check_tasks(
    folder: Path, pattern: str = "*", *, data_dir: str | None = None
) -> list[CheckedTask]:
    """Try every task that a folder defines.

    Raises:
        MingMoeError: the folder's definitions cannot be read, or it has none of that name.
    """
    catalog = open_catalog([folder])
    here = folder.resolve()
    names = catalog.select([pattern]) if pattern != "*" else None
    chosen = list(names.leaves if names else catalog.definitions.values())
    own = [d for d in chosen if d.path.resolve().is_relative_to(here) and not d.is_group]
    if not own:
        named = "" if pattern == "*" else f" named {pattern}"
        hint = "; .yml is not read: call it .yaml" if any(folder.rglob("*.yml")) else ""
        raise DataError(
            f"{folder} defines no task{named}: a task is an entry of a file _data.yaml, or a YAML "
            f"of lm-eval's{hint}"
        )
    spec = RunSpec(model="", tasks=(), data_dir=data_dir, include_path=(str(folder),))
    return [_checked(definition, spec) for definition in own]


def _checked(definition: TaskDefinition, spec: RunSpec) -> CheckedTask:
    try:
        ((task,), _) = load_tasks(Selection((definition,), ()), spec)
    except MingMoeError as error:
        return CheckedTask(name=definition.name, faults=(str(error),))
    docs = task.docs
    try:
        prompt = lm_eval_door.first_prompt(task.task)
    except Exception as error:  # whatever a task's own prompt runs into
        return CheckedTask(
            name=task.name, faults=(f"{task.name}: its prompt cannot be made: {error}",)
        )
    return CheckedTask(
        name=task.name,
        faults=tuple(_scored_wrongly(task)) if task.is_ours else (),
        summary=_summary(task),
        notes=(*getattr(docs, "notes", ()), *getattr(docs, "marks", ())),
        prompt=prompt,
        replies=tuple(_tried(task)) if task.is_ours else (),
    )


def _summary(task: HarnessTask) -> str:
    settings, docs = task.settings, len(task.docs)
    if not task.is_ours:
        return f"{docs} docs; scored by lm-eval, for its YAML names no suite"
    suite = scoring.suite_named(settings.suite)
    form = f", form {settings.form}" if settings.form else ""
    metric = settings.metric or next(iter(suite.METRICS))
    return f"suite {settings.suite}{form}; {docs} docs; score: {metric}"


def _scored_wrongly(task: HarnessTask) -> Iterator[str]:
    """Docs whose own answer, given as a reply, does not earn everything."""
    wrong = []
    for place, doc in enumerate(list(task.docs)[:_MOST_DOCS]):
        score = _score(task, doc, _right(doc, task.settings))
        if not math.isclose(score.value, 1.0, abs_tol=1e-6):
            wrong.append(
                f"doc {place + 1}: {scoring.suite_named(task.settings.suite).expected(doc)!r} "
                f"earns {score.value:g}, read as {score.answered!r} ({score.reading})"
            )
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield f"{task.name}: its own answers do not score: {'; '.join(wrong[:3])}{more}"


def _tried(task: HarnessTask) -> Iterator[str]:
    doc = task.docs[0]
    for name, response in (
        ("right reply", _right(doc, task.settings)),
        ("wrong reply", _wrong(doc, task.settings)),
    ):
        score = _score(task, doc, response)
        said = response.text if response.text is not None else response.log_likelihoods
        read = f"read as {score.answered!r} ({score.reading})"
        yield f"{name} {said!r}: earns {score.value:.3g}, {read}"


def _score(task: HarnessTask, doc: Mapping[str, Any], response: Response) -> Any:
    return scoring.suite_named(task.settings.suite).score_doc(doc, response, task.settings)


def _right(doc: Mapping[str, Any], settings: TaskSettings) -> Response:
    if settings.suite == "choice":
        return _letters(str(doc["answer"]), doc["options"], settings)
    if settings.suite == "promptcblue":
        return Response(text=str(doc["target"]))
    return Response(text=str(doc["answer"]))


def _wrong(doc: Mapping[str, Any], settings: TaskSettings) -> Response:
    match settings.suite:
        case "choice":
            others = [letter for letter in doc["options"] if letter not in doc["answer"]]
            return _letters((others or list(doc["options"]))[0], doc["options"], settings)
        case "number":
            far = {"date": "1900-01-01", "weeks": "0 weeks and 1 days"}
            return Response(text=far.get(doc["kind"], f"{2 * abs(doc['upper']) + 1:g}"))
        case "labels":
            return Response(text=next(one for one in doc["labels"] if one != doc["answer"]))
        case "tuples":
            invented = [dict.fromkeys(doc["keys"], "?")]
            return Response(text=json.dumps([] if doc["items"] else invented))
        case _:
            return Response(text="?")


def _letters(letters: str, options: Sequence[str], settings: TaskSettings) -> Response:
    if settings.form == "letters":
        return Response(log_likelihoods=tuple(-1.0 if o in letters else -2.0 for o in options))
    if settings.form == "cot":
        return Response(
            text=f"答案为{letters}" if settings.language == "zh" else f"The answer is {letters}."
        )
    return Response(text=letters)
