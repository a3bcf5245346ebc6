"""What must be equal before two runs may be compared, and which sample is paired with which."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.errors import IncomparableRunsError, UsageError, offence_list
from mingmoe_eval.records import Run, Sample, TaskResult
from mingmoe_eval.repeats import mean_of
from mingmoe_eval.scoring import described

KINDS = {
    "tasks": "tasks that only one of the runs has",
    "docs": "docs that only one of the runs has, or whose expected answer differs",
    "prompt": "prompts as the model saw them, chat template included",
    "fewshot": "number of worked examples",
    "form": "form of the task, for instance letters instead of free answers",
    "reading": "rules by which answers are read",
    "profile": "profile of the official scorer",
    "version": "version of the task's definition",
    "data": "fingerprint of the data files",
    "metric": "main metric",
    "budget": "how many tokens a reply, or a thought, may have",
    "sampling": "how tokens are chosen: temperature, penalties and the like",
    "thinking": "whether the chat template has the model think, or how hard",
    "template": "what else the chat template is told",
    "system": "system instruction",
    "engine": "what ran the model: this program, a server, lm-eval",
    "dtype": "precision of the weights, such as bfloat16 against float32",
    "attention": "implementation of attention",
    "device": "kind of device, such as cpu against cuda",
    "batch": "batch size, where it moves numbers: below float32 and without batch invariance",
}
"""What may be allowed to differ, by the name that `--allow` takes."""

_FROM_PROVENANCE = {
    "form": "form",
    "reading": "reading",
    "profile": "profile",
    "data": "data_fingerprint",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One way in which two runs differ besides their model."""

    kind: str
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.task}: {self.text} [{self.kind}]"


@dataclass(frozen=True, slots=True)
class Pair:
    """One doc as both runs answered it; of several repeats a side holds the mean.

    `answers`: every repeat of the baseline, and of the candidate, which may have more or fewer.
    """

    baseline: Sample
    candidate: Sample
    answers: tuple[Sequence[Sample], Sequence[Sample]]


def kinds_named(words: Iterable[str]) -> frozenset[str]:
    """What `--allow` was given, each time one kind or several by comma."""
    return frozenset(kind for word in words for kind in word.replace(" ", "").split(",") if kind)


def check_comparable(
    baseline: Run, candidate: Run, allow: frozenset[str]
) -> tuple[Difference, ...]:
    """Refuse two runs that differ in more than their model; returns the differences allowed.

    Raises:
        UsageError: `allow` names something that is no kind of difference.
        IncomparableRunsError: they differ in something not allowed, or share no task; every
            difference is named.
    """
    if unknown := sorted(allow - set(KINDS)):
        raise UsageError(
            f"--allow does not know {', '.join(map(repr, unknown))}; it takes {', '.join(KINDS)}"
        )
    differences = tuple(find_differences(baseline, candidate))
    if refused := [d for d in differences if d.kind not in allow]:
        kinds = " ".join(f"--allow {kind}" for kind in dict.fromkeys(d.kind for d in refused))
        raise IncomparableRunsError(
            offence_list(
                f"{candidate.name} and {baseline.name} differ in more than their model",
                [str(difference) for difference in refused],
            )
            + f"\nRun both in the same way, or override with {kinds} (recorded in every output)"
        )
    if not shared_tasks(baseline, candidate):
        raise IncomparableRunsError(f"{candidate.name} and {baseline.name} share no task")
    return differences


def find_differences(baseline: Run, candidate: Run) -> Iterator[Difference]:
    """Every difference besides the model, task by task."""
    for task in (*baseline.leaves, *candidate.leaves):
        if (task in baseline.leaves) != (task in candidate.leaves):
            owner = baseline if task in baseline.leaves else candidate
            yield Difference(kind="tasks", task=task, text=f"only {owner.name} has this task")
    yield from _engine_differences(baseline, candidate)
    yield from _protocol_differences(baseline, candidate)
    for task in shared_tasks(baseline, candidate):
        yield from _setting_differences(task, baseline, candidate)
        yield from _doc_differences(
            task, baseline.samples.get(task, ()), candidate.samples.get(task, ())
        )


def _engine_differences(baseline: Run, candidate: Run) -> Iterator[Difference]:
    """In what ran the model; of weights that are the same, these alone move scores.

    Only what both runs know is held against each other: a server says nothing of its precision.
    """
    mine, theirs = _how_it_ran(baseline), _how_it_ran(candidate)
    for kind, value in mine.items():
        if None not in (value, theirs[kind]) and value != theirs[kind]:
            text = f"{_shown(value)} against {_shown(theirs[kind])}"
            yield Difference(kind=kind, task="every task", text=text)


def _protocol_differences(baseline: Run, candidate: Run) -> Iterator[Difference]:
    """In how texts were asked for; runs from before that was recorded say nothing of it."""
    mine, theirs = _told(baseline), _told(candidate)
    for kind in mine.keys() & theirs.keys():
        if mine[kind] != theirs[kind]:
            text = f"{_shown(mine[kind])} against {_shown(theirs[kind])}"
            yield Difference(kind=kind, task="every task", text=text)
    for task in shared_tasks(baseline, candidate):
        pair = [_generation(run, task) for run in (baseline, candidate)]
        for kind in pair[0].keys() & pair[1].keys():
            if pair[0][kind] != pair[1][kind]:
                text = f"{_in_words(pair[0][kind])} against {_in_words(pair[1][kind])}"
                yield Difference(kind=kind, task=task, text=text)


def _told(run: Run) -> dict[str, Any]:
    """What a whole run was told of how to ask, by kind of difference."""
    protocol = run.provenance.get("protocol")
    if not isinstance(protocol, Mapping):
        return {}
    told = {
        "system": protocol.get("system_instruction"),
        "template": protocol.get("template") or {},
    }
    # A template without a switch, and a server's, leave the thinking to the model: that is no
    # difference in how it was asked.
    thinks = {"on": "on", "always": "on", "off": "off"}.get(str(protocol.get("thinking")))
    if effort := protocol.get("reasoning_effort"):
        thinks = f"{thinks or 'on'}, effort {effort}"
    if thinks is not None:
        told["thinking"] = thinks
    return told


def _generation(run: Run, task: str) -> dict[str, dict[str, Any]]:
    """Budget and sampling of a task's texts; nothing where they are not known.

    Seeds are left out: other draws are no other way to ask.
    """
    facts = run.provenance.get("tasks", {}).get(task, {})
    said, targets = facts.get("generation"), facts.get("targets")
    if not isinstance(said, Mapping):
        return {}
    budget = {name: said[name] for name in ("max_new_tokens", "think") if name in said}
    if isinstance(targets, Mapping) and targets.get("by_targets"):
        # Room for the same texts, which two tokenizers count differently.
        budget["max_new_tokens"] = "as the targets need"
    others = {k: v for k, v in said.items() if k not in ("max_new_tokens", "think", "seed")}
    return {"budget": budget, "sampling": others}


def _in_words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _how_it_ran(run: Run) -> dict[str, str | None]:
    """By kind of difference; None is unknown, or of no account."""
    said = run.provenance.get("model")
    model: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    dtype, device = model.get("dtype"), model.get("device")
    # Rounding in float32 is too small to turn an answer; below it, a batch of another shape may.
    steady = dtype in (None, "float32") or model.get("batch_invariant")
    return {
        "engine": _engine(run, model),
        "dtype": dtype and str(dtype),
        "attention": model.get("attention"),
        "device": device and str(device).partition(":")[0],
        "batch": None if steady else str(model.get("batch_size") or run.spec.batch_size),
    }


def _engine(run: Run, model: Mapping[str, Any]) -> str | None:
    """Runs of version 0.1.0 do not name it, but say things that only one engine does."""
    if named := model.get("engine"):
        return str(named)
    if model.get("served_by"):
        return "served"
    if imported := run.provenance.get("imported_from"):
        return str(imported)
    return "transformers" if model.get("class") else None


def shared_tasks(baseline: Run, candidate: Run) -> list[str]:
    """The leaf tasks of both runs, in the baseline's order."""
    return [task for task in baseline.leaves if task in candidate.leaves]


def pair_samples(baseline: Sequence[Sample], candidate: Sequence[Sample]) -> list[Pair]:
    """Pair samples by the content of their docs, in the baseline's order.

    Where a data set holds the very same doc twice, its first occurrences are paired, then its
    second ones. Docs of only one side are left out, and so are docs changed to test for
    robustness: they are not what the headline is made from. The repeats of a doc are no docs of
    their own: they enter together, as one question.
    """
    mine, theirs = _by_doc(baseline), _by_doc(candidate)
    return [
        Pair(mean_of(answers), mean_of(theirs[key]), (answers, theirs[key]))
        for key, answers in mine.items()
        if key in theirs
    ]


def _by_doc(samples: Iterable[Sample]) -> dict[tuple[str, int], list[Sample]]:
    """The repeats of each doc under its id and the occurrence of that id."""
    seen: Counter[tuple[int, str]] = Counter()
    docs: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        if not sample.variant:
            occurrence = seen[sample.repeat, sample.doc_id]
            docs.setdefault((sample.doc_id, occurrence), []).append(sample)
            seen[sample.repeat, sample.doc_id] += 1
    return docs


def _setting_differences(task: str, baseline: Run, candidate: Run) -> Iterator[Difference]:
    mine, theirs = _settings(task, baseline), _settings(task, candidate)
    names = [described(run.leaves[task]).main.metric for run in (baseline, candidate)]
    if all(names):  # "score" tells little: a run says which metric that is, unless it is old
        mine["metric"], theirs["metric"] = names
    for kind, value in mine.items():
        # Whose files nobody knows, as of an import, are held against each other doc by doc.
        if kind == "data" and None in (value, theirs[kind]):
            continue
        if value != theirs[kind]:
            yield Difference(
                kind=kind, task=task, text=f"{_shown(value)} against {_shown(theirs[kind])}"
            )


def _settings(task: str, run: Run) -> dict[str, Any]:
    """What a run says of how one task was asked and scored; None is unknown."""
    result: TaskResult = run.leaves[task]
    said: Mapping[str, Any] = run.provenance.get("tasks", {}).get(task, {})
    return {
        "version": result.version,
        "fewshot": result.num_fewshot,
        "metric": result.main_metric,
        **{kind: said.get(key) for kind, key in _FROM_PROVENANCE.items()},
    }


def _shown(value: Any) -> str:
    return "unknown" if value is None else repr(value)


def _doc_differences(
    task: str, baseline: Sequence[Sample], candidate: Sequence[Sample]
) -> Iterator[Difference]:
    mine, theirs = len(_by_doc(baseline)), len(_by_doc(candidate))
    pairs = pair_samples(baseline, candidate)
    missing, added = mine - len(pairs), theirs - len(pairs)
    if missing or added:
        text = f"{missing} of {mine} docs are only in the baseline, {added} of "
        text += f"{theirs} only in the candidate"
        yield Difference(kind="docs", task=task, text=text)
    for kind, what, field in (
        ("docs", "expected answer", "expected"),
        ("prompt", "prompt", "prompt"),
    ):
        differing = [p for p in pairs if getattr(p.baseline, field) != getattr(p.candidate, field)]
        if differing:
            text = f"another {what} for {len(differing)} of {len(pairs)} docs, the first is "
            text += differing[0].baseline.doc_id
            yield Difference(kind=kind, task=task, text=text)
