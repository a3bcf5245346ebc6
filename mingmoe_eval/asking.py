"""One task put to one model: asked, scored, folded, and what a run says of it."""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval import scoring
from mingmoe_eval.errors import UsageError
from mingmoe_eval.harness import results as harness_results
from mingmoe_eval.harness.tasks import HarnessTask
from mingmoe_eval.language_model import (
    LanguageModel,
    MayLackAbilities,
    StatesGeneration,
    UsageKey,
    refuse_incomplete,
)
from mingmoe_eval.model_opening import Watch
from mingmoe_eval.provenance import environment, task_provenance
from mingmoe_eval.records import (
    JsonDict,
    RequestUsage,
    RunSpec,
    Sample,
    TaskResult,
    fingerprint,
)
from mingmoe_eval.repeats import seed_of
from mingmoe_eval.reply_room import remarks


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What is the same for every task of a run."""

    lm: LanguageModel
    spec: RunSpec
    chat: bool
    watch: Watch
    definitions: Mapping[str, JsonDict]
    """By task and group, what a run keeps of a definition that is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredTask:
    """One task, run and scored."""

    result: TaskResult
    samples: list[Sample]
    provenance: JsonDict
    usage: Sequence[RequestUsage]


def settle(
    lm: LanguageModel,
    spec: RunSpec,
    tasks: Sequence[HarnessTask],
    *,
    definitions: Mapping[str, JsonDict],
    watch: Watch,
) -> Conditions:
    """What holds for every task of a run with this model.

    The chat template is on when the tokenizer has one, unless the spec says otherwise.

    Raises:
        MingMoeError: the model cannot do something that the spec or a task asks of it.
    """
    refuse_incomplete(lm)
    if spec.chat_template and not lm.has_chat_template:
        raise UsageError(
            f"--chat-template: the tokenizer of {spec.model} has no chat template; leave the flag "
            "out, or add one to its tokenizer_config.json"
        )
    chat = lm.has_chat_template if spec.chat_template is None else spec.chat_template
    told_to_a_template = {
        f"--thinking {spec.thinking}": spec.thinking != "auto",
        "--chat-template-args": bool(spec.chat_template_args),
        "--reasoning-effort": spec.reasoning_effort is not None,
    }
    if not chat and (idle := [option for option, given in told_to_a_template.items() if given]):
        raise UsageError(
            f"{', '.join(idle)}: told to a chat template, and this run applies none; leave it out, "
            "or run with --chat-template"
        )
    if isinstance(lm, MayLackAbilities):
        lm.refuse_unless_able({task.name: task.output_type for task in tasks}, chat=chat)
    return Conditions(lm=lm, spec=spec, chat=chat, watch=watch, definitions=definitions)


def ask_task(conditions: Conditions, task: HarnessTask, room: JsonDict) -> AnsweredTask:
    """Ask, score, fold: a task, as often as it is asked; `room`: what its replies have room for."""
    spec = conditions.spec
    # A log-likelihood is the same every time.
    repeats = spec.repeats if task.generates else 1
    generation = generation_facts(conditions.lm, task)  # with the first seed
    rounds = [_ask_once(conditions, task, repeat, repeats) for repeat in range(repeats)]
    samples = [sample for one in rounds for sample in one.samples]
    seconds = sum(one.seconds for one in rounds)
    if not task.is_ours:
        result = harness_results.foreign_result_of_repeats(
            task.name, [(one.samples, one.results) for one in rounds], seconds=seconds
        )
    else:
        result = fold(task, samples, seconds, tuple(remarks(room)))
    return AnsweredTask(
        result=result,
        samples=samples,
        provenance={
            **task_provenance(task.docs, rounds[0].samples, task.settings),
            **generation,
            **({"targets": room} if room else {}),
        },
        usage=[usage for one in rounds for usage in one.usage.values()],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """One task, asked once."""

    samples: list[Sample]
    results: Mapping[str, Any]
    usage: Mapping[UsageKey, RequestUsage]
    seconds: float


def _ask_once(conditions: Conditions, task: HarnessTask, repeat: int, repeats: int) -> _Round:
    """Ask a task once and score it, exactly as a run of its own with this repeat's seed would."""
    spec, lm = conditions.spec, conditions.lm
    if repeats > 1:
        task.draw_with(seed_of(spec, repeat), shots=spec.seed)
    seed_everything(spec.seed + repeat)
    # With several option orders a question, the loader itself counts questions.
    limit = None if spec.permute_options else spec.limit
    docs = len(task.docs) if limit is None else min(limit, len(task.docs))
    name = f"{task.name}, repeat {repeat + 1} of {repeats}" if repeats > 1 else task.name
    conditions.watch.task_started(name, docs)
    lm.take_usage()
    started = time.perf_counter()
    results = task.ask(lm, limit=limit, chat=conditions.chat, system=spec.system_instruction)
    usage = lm.take_usage()
    seconds = time.perf_counter() - started
    if not task.is_ours:
        samples = harness_results.foreign_samples(task.name, results, usage, repeat=repeat)
    else:
        samples = scoring.distinct_ids(
            [
                scoring.make_sample(
                    task.name, a.position, a.doc, a.prompt, a.response, task.settings, repeat
                )
                for a in harness_results.answers(task.name, task.requests, usage)
            ]
        )
    return _Round(samples=samples, results=results, usage=usage, seconds=seconds)


def generation_facts(lm: LanguageModel, task: HarnessTask) -> JsonDict:
    """What this model makes of the task's generation arguments, where it can say."""
    if not task.generates or not isinstance(lm, StatesGeneration):
        return {}
    return {"generation": lm.generation_facts(task.generation_arguments)}


def fold(
    task: HarnessTask, samples: Sequence[Sample], seconds: float, notes: tuple[str, ...]
) -> TaskResult:
    """A task's samples as its result, with what its data have to say of themselves."""
    return scoring.fold_task(
        task.name,
        samples,
        task.settings,
        unusable=len(getattr(task.docs, "unusable", ())),
        num_fewshot=task.num_fewshot,
        notes=(*getattr(task.docs, "notes", ()), *notes),
        marks=tuple(getattr(task.docs, "marks", ())),
        seconds=seconds,
    )


def seed_everything(seed: int) -> None:
    """Before each task, so that a task's answers do not depend on those run before it."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def run_provenance(conditions: Conditions, done: Mapping[str, AnsweredTask]) -> JsonDict:
    """What a run was made from: environment, model, chat template, protocol, tasks."""
    text = conditions.lm.chat_template(True) if conditions.chat else None
    definitions = conditions.definitions
    return {
        **environment(),
        "model": conditions.lm.describe(),
        "chat_template": {
            "applied": conditions.chat,
            "fingerprint": fingerprint(text) if text else None,
        },
        "protocol": _protocol(conditions),
        "seed": conditions.spec.seed,
        "tasks": {
            name: {**one.provenance, **definitions.get(name, {})} for name, one in done.items()
        },
        "groups": {
            name: facts for name, facts in definitions.items() if facts and name not in done
        },
    }


def _protocol(conditions: Conditions) -> JsonDict:
    """How texts were asked for: what was said, and what the chat template was told of it."""
    told: JsonDict = {}
    if conditions.chat and isinstance(conditions.lm, StatesGeneration):
        told = conditions.lm.template_facts()
    said = conditions.spec.protocol.to_json()
    # Of a served model the switch is known only as it was asked for.
    return {**said, **told}


def run_timing(done: Mapping[str, AnsweredTask], seconds: float) -> dict[str, float]:
    """Seconds and tokens; what came out of the response store cost this run nothing."""
    usages = [usage for one in done.values() for usage in one.usage]
    fresh = [usage for usage in usages if not usage.from_store]
    return {
        "seconds": seconds,
        "requests": len(usages),
        "requests_from_store": len(usages) - len(fresh),
        "prompt_tokens": sum(usage.prompt_tokens for usage in fresh),
        "generated_tokens": sum(usage.generated_tokens for usage in fresh),
    }
