"""One model over some tasks: `evaluate(spec)` gives a Run; the only caller of lm-eval's evaluator.

Everything that can be refused is refused before the model is loaded; each task is saved when it is
done; every answer is stored as it comes, so that a run that was killed goes on where it stopped.
"""

import dataclasses
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mingmoe_eval import run_store, scoring
from mingmoe_eval.cost import price_said
from mingmoe_eval.engine.served_address import is_served, without_credentials
from mingmoe_eval.errors import MingMoeError, MissingDataError, UsageError
from mingmoe_eval.generation_protocol import refuse_senseless
from mingmoe_eval.harness import lm_eval_door
from mingmoe_eval.harness import results as harness_results
from mingmoe_eval.harness.files import remove_output, write_output
from mingmoe_eval.harness.tasks import HarnessTask, load_tasks
from mingmoe_eval.language_model import (
    CountsRouting,
    LanguageModel,
    MayLackAbilities,
    StatesGeneration,
    UsageKey,
    refuse_incomplete,
)
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.presence import refuse_absent
from mingmoe_eval.provenance import environment, task_provenance
from mingmoe_eval.records import (
    JsonDict,
    RequestUsage,
    Run,
    RunSpec,
    Sample,
    TaskResult,
    fingerprint,
)
from mingmoe_eval.repeats import draws, refuse_without_draws, seed_of
from mingmoe_eval.reply_room import make_room_for_targets, remarks, tell_of_short_context
from mingmoe_eval.task_catalog import Selection, TaskCatalog, definition_facts, open_catalog

if TYPE_CHECKING:
    from mingmoe_eval.engine.backend import Backend, Checkpoint


class Watch:
    """Told how a run goes; this one says nothing."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def task_started(self, task: str, docs: int) -> None:
        """A task's requests are about to be built."""

    def requests_done(self, done: int, total: int) -> None:
        """So many of the current task's requests have an answer."""

    def task_done(self, result: TaskResult) -> None:
        """A task is scored and saved."""


OpenModel = Callable[[RunSpec, Path | None, Watch], LanguageModel]

StartWorkers = Callable[["Checkpoint", Callable[[str], None]], "Backend"]
"""Gets workers that have a checkpoint loaded; told whom to tell of what happens to them."""


@quiet_libraries()
def evaluate(
    spec: RunSpec,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    watch: Watch | None = None,
    open_model: OpenModel | None = None,
) -> Run:
    """Evaluate a model on tasks.

    Args:
        spec: What to run.
        folder: Where the run is saved, task by task; without it nothing is written.
        resume: `folder` holds a run of the same spec that is unfinished or incomplete.
        watch: Told how the run goes.
        open_model: How to get the model; default: what `spec.model` names.

    Raises:
        MingMoeError: a mistake in the spec, the data or the checkpoint, found before anything runs.
    """
    watch = watch or Watch()
    opening, spec = spec, dataclasses.replace(spec, model=without_credentials(spec.model))
    _refuse_contradictions(spec)
    if spec.price is not None:
        price = price_said(spec.price, Path(spec.model).name, spec.model)
        if price is None:
            watch.note(f"{spec.price} has no price for {spec.model}: the run has no cost in money")
        # The file may change or go; the run keeps what it said.
        spec = dataclasses.replace(spec, price=price.said if price else None)
    catalog = open_catalog(spec.include_path)
    selection = catalog.select(spec.tasks, foreign=True, columns=spec.columns)
    # Now, for the files may be gone when the run is done.
    definitions = {d.name: definition_facts(d) for d in (*selection.leaves, *selection.groups)}
    # What can be refused at once comes before the first library that takes seconds to import.
    if folder:
        run_store.refuse_taken(folder, resume=resume)
    if spec.data_dir is not None and not Path(spec.data_dir).is_dir():
        raise MissingDataError(f"--data-dir {spec.data_dir}: there is no such folder")
    if open_model is None and not is_served(spec.model):
        refuse_absent(spec.model, spec.base)
    exams = (definition.exam for definition in selection.leaves)
    for told in dict.fromkeys(f"{e.path}: {'; '.join(e.found)}" for e in exams if e):
        watch.note(told)
    tasks, passed_over = load_tasks(selection, spec)
    for name in passed_over:
        watch.note(f"{name}: no data, passed over because of --partial")
    texts = {task.name: task.generation_arguments for task in tasks if task.generates}
    refuse_without_draws(spec, {name: not draws(given) for name, given in texts.items()})
    if spec.coverage and all(task.settings.form != "letters" for task in tasks):
        raise UsageError(
            "--coverage ranks questions by the log-likelihoods of their letters, and no task here "
            "compares any: take a form whose name ends in _ll, or leave it out"
        )
    if spec.repeats > 1 and (once := [task.name for task in tasks if not task.generates]):
        watch.note(f"asked once, for a log-likelihood is the same every time: {', '.join(once)}")
    with run_store.claim(folder, resume=resume) if folder else nullcontext() as path:
        if path:
            run_store.save_unfinished(path, spec)
        try:
            lm = (open_model or open_named)(opening, path, watch)
            refuse_incomplete(lm)
            conditions = _Conditions(
                lm=lm,
                spec=spec,
                chat=_chat_template(spec, lm),
                watch=watch,
                catalog=catalog,
                definitions=definitions,
            )
            _refuse_template_words(conditions)
            _refuse_greedy_model(spec, lm, tasks)
            if isinstance(lm, MayLackAbilities):
                kinds = {task.name: task.output_type for task in tasks}
                lm.refuse_unless_able(kinds, chat=conditions.chat)
            if path and (path / run_store.RUN_FILE).exists():
                # The incomplete run that this one takes up: its numbers are about to go.
                remove_output(run_store.load_run(path, samples=False), path / "lm_eval")
            return _run_all(conditions, tasks, selection, path)
        except (MingMoeError, ModuleNotFoundError):
            if path and not resume:
                run_store.discard_if_bare(path)
            raise


def open_named(
    spec: RunSpec, folder: Path | None, watch: Watch, *, start: StartWorkers | None = None
) -> LanguageModel:
    """What `spec.model` names: a served model, or a checkpoint; see `open_checkpoint`."""
    if is_served(spec.model):
        return open_served(spec, folder, watch)
    return open_checkpoint(spec, folder, watch, start=start)


def open_served(spec: RunSpec, folder: Path | None, watch: Watch) -> LanguageModel:
    """The endpoint that a spec names; `batch_size` is how many requests may be under way.

    Nobody can fingerprint a served model's weights: replies are kept beside the run alone, and
    reused only when that run is resumed.

    Raises:
        UsageError: options that only a checkpoint has.
    """
    from mingmoe_eval.engine.served_client import Patience
    from mingmoe_eval.engine.served_lm import ServedLM

    given = {"--base": spec.base, "--dtype": spec.dtype, "--device": spec.device}
    given |= {"--backend": spec.backend}
    if idle := [flag for flag, value in given.items() if value not in (None, "auto", "local")]:
        raise UsageError(f"{', '.join(idle)}: the server decides on that; leave it out")
    auto = spec.batch_size == "auto"
    model: LanguageModel = ServedLM(
        spec.model,
        patience=Patience() if auto else Patience(concurrency=int(spec.batch_size)),
        seed=spec.seed,
        chat_arguments=_told_of_chats(spec),
        store=folder / run_store.STORE_FILE if folder else None,
        on_progress=watch.requests_done,
        on_note=watch.note,
    )
    return model


def _told_of_chats(spec: RunSpec) -> JsonDict:
    """What a server is told besides a chat; its template's switch cannot be looked up from here."""
    template = dict(spec.chat_template_args)
    if spec.thinking != "auto":
        # Servers pass on what a template knows and drop the rest: these two are most families'.
        on = spec.thinking == "on"
        template = {"enable_thinking": on, "thinking": on, **template}
    effort = {} if spec.reasoning_effort is None else {"reasoning_effort": spec.reasoning_effort}
    return {**({"chat_template_kwargs": template} if template else {}), **effort}


def open_checkpoint(
    spec: RunSpec,
    folder: Path | None,
    watch: Watch,
    *,
    loaded: Any = None,
    start: StartWorkers | None = None,
) -> LanguageModel:
    """The checkpoint that a spec names, with the response store that it asks for.

    `loaded` is its model, if that is in memory already; `start` has workers compute the answers,
    instead of a model in this process.
    """
    from mingmoe_eval.engine import CheckpointLM
    from mingmoe_eval.engine.backend import Checkpoint
    from mingmoe_eval.engine.thinking import template_args
    from mingmoe_eval.locations import cache_dir
    from mingmoe_eval.molora import load_tokenizer

    # Without the shared store, answers still go beside the run, so that it can be resumed.
    store = cache_dir() / run_store.STORE_FILE if spec.cache else None
    if store is None and folder is not None:
        store = folder / run_store.STORE_FILE
    tokenizer = load_tokenizer(spec.model, spec.base)
    if spec.backend != "local" and start is None:
        raise UsageError(
            f"backend {spec.backend!r} is opened by `mingmoe_eval.vllm.backend.open_model`: pass "
            "that as open_model"
        )
    told = template_args(tokenizer, spec.protocol)  # refused before the weights are read
    checkpoint = Checkpoint(
        model=spec.model,
        base=spec.base,
        dtype=spec.dtype,
        device=spec.device,
        batch_size=spec.batch_size,
        prompt_lookup=spec.prompt_lookup,
    )
    lm = CheckpointLM.from_backend(
        start(checkpoint, watch.note) if start else checkpoint.backend(tokenizer, loaded),
        tokenizer,
        batch_size=spec.batch_size,
        chat_template_args=told,
        store=store,
        seed=spec.seed,
        on_progress=watch.requests_done,
        on_note=watch.note,
    )
    effect = lm.probe()
    if effect is not None:
        watch.note(f"the adapter is live: without it a probe differs by up to {effect:.2g}")
    return lm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conditions:
    """What is the same for every task of a run."""

    lm: LanguageModel
    spec: RunSpec
    chat: bool
    watch: Watch
    catalog: TaskCatalog
    definitions: Mapping[str, JsonDict]
    """By task and group, what a run keeps of a definition that is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """One task, run and scored."""

    result: TaskResult
    samples: list[Sample]
    provenance: JsonDict
    usage: Sequence[RequestUsage]


def _run_all(
    conditions: _Conditions,
    tasks: Sequence[HarnessTask],
    selection: Selection,
    path: Path | None,
) -> Run:
    started = time.perf_counter()
    lm, spec, watch = conditions.lm, conditions.spec, conditions.watch
    room = {task.name: make_room_for_targets(lm, task, spec) for task in tasks}
    tell_of_short_context(lm, tasks, spec, chat=conditions.chat, note=watch.note)
    done: dict[str, _Done] = {}
    for task in tasks:
        done[task.name] = _run_task(conditions, task, room[task.name])
        if path:
            run_store.save_samples(path, task.name, done[task.name].samples)
        conditions.watch.task_done(done[task.name].result)
    results = {name: one.result for name, one in done.items()}
    samples = {name: one.samples for name, one in done.items()}
    groups = scoring.fold_groups(
        conditions.catalog, selection.groups, results, samples, refused=conditions.watch.note
    )
    run = Run(
        name=path.name if path else "run",
        spec=conditions.spec,
        provenance=_provenance(conditions, done),
        results={**results, **groups},
        samples=samples,
        timing=_timing(done, time.perf_counter() - started),
        routing=conditions.lm.routing if isinstance(conditions.lm, CountsRouting) else None,
    )
    if path:
        _save(run, path)
    return run


def _save(run: Run, path: Path) -> None:
    """Make the folder a run; its stored answers go, unless failed docs are to be asked again."""
    write_output(run, path / "lm_eval")
    run_store.finish(path, run)
    if not run.incomplete:
        run_store.discard_answers(path)


def _run_task(conditions: _Conditions, task: HarnessTask, room: JsonDict) -> _Done:
    """Ask, score, fold: a task, as often as it is asked; `room`: what its replies have room for."""
    spec = conditions.spec
    # A log-likelihood is the same every time.
    repeats = spec.repeats if task.generates else 1
    generation = _generation(conditions.lm, task)  # with the first seed
    rounds = [_ask(conditions, task, repeat, repeats) for repeat in range(repeats)]
    samples = [sample for one in rounds for sample in one.samples]
    seconds = sum(one.seconds for one in rounds)
    if not task.is_ours:
        result = harness_results.foreign_result_of_repeats(
            task.name, [(one.samples, one.results) for one in rounds], seconds=seconds
        )
    else:
        result = _fold(task, samples, seconds, tuple(remarks(room)))
    return _Done(
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


def _ask(conditions: _Conditions, task: HarnessTask, repeat: int, repeats: int) -> _Round:
    """Ask a task once and score it, exactly as a run of its own with this repeat's seed would."""
    spec, lm = conditions.spec, conditions.lm
    if repeats > 1:
        task.draw_with(seed_of(spec, repeat), shots=spec.seed)
    _seed_everything(spec.seed + repeat)
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


class Questions:
    """A model and some tasks, loaded once, whose questions are asked a few at a time.

    Requests are those of the whole run, worked examples included; answers go into the response
    store, from which a run of the whole takes them.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        watch: Watch | None = None,
        open_model: OpenModel | None = None,
    ) -> None:
        """Load tasks and model.

        Args:
            spec: The run whose questions these are.
            watch: Told how it goes.
            open_model: How to get the model; default: what `spec.model` names.

        Raises:
            MingMoeError: a mistake in the spec, the data or the checkpoint.
            UsageError: a task is scored by lm-eval, which needs all of it at once.
        """
        watch = watch or Watch()
        _refuse_contradictions(spec)
        catalog = open_catalog(spec.include_path)
        selection = catalog.select(spec.tasks, foreign=True, columns=spec.columns)
        if open_model is None and not is_served(spec.model):
            refuse_absent(spec.model, spec.base)
        self._tasks = {task.name: task for task in load_tasks(selection, spec)[0]}
        if foreign := [task.name for task in self._tasks.values() if not task.is_ours]:
            raise UsageError(f"{', '.join(foreign)}: lm-eval scores such a task as a whole")
        lm = (open_model or open_named)(spec, None, watch)
        refuse_incomplete(lm)
        spec = dataclasses.replace(spec, model=without_credentials(spec.model))
        self._conditions = _Conditions(
            lm=lm,
            spec=spec,
            chat=_chat_template(spec, lm),
            watch=watch,
            catalog=catalog,
            definitions={
                d.name: definition_facts(d) for d in (*selection.leaves, *selection.groups)
            },
        )
        _refuse_template_words(self._conditions)
        if isinstance(lm, MayLackAbilities):
            kinds = {task.name: task.output_type for task in self._tasks.values()}
            lm.refuse_unless_able(kinds, chat=self._conditions.chat)
        self._requests: dict[str, dict[str, list[Any]]] = {}

    def ask(self, docs: Mapping[str, Sequence[str]]) -> Run:
        """Put some docs to the model, by task and id; gives a run over these alone.

        Raises:
            UsageError: the task's data do not hold such a doc.
        """
        started = time.perf_counter()
        done = {task: self._ask_task(self._tasks[task], ids) for task, ids in docs.items()}
        return Run(
            name=Path(self._conditions.spec.model).name,
            spec=self._conditions.spec,
            provenance=_provenance(self._conditions, done),
            results={name: one.result for name, one in done.items()},
            samples={name: one.samples for name, one in done.items()},
            timing=_timing(done, time.perf_counter() - started),
        )

    def _ask_task(self, task: HarnessTask, ids: Sequence[str]) -> _Done:
        by_doc = self._requests_of(task)
        if lacking := [doc for doc in ids if doc not in by_doc]:
            raise UsageError(
                f"{task.name}: {len(lacking)} docs of the baseline are not in the data, the first "
                f"is {lacking[0]}; use the data that the baseline was made with"
            )
        lm = self._conditions.lm
        _seed_everything(self._conditions.spec.seed)
        lm.take_usage()
        started = time.perf_counter()
        requests = [request for doc in ids for request in by_doc[doc]]
        lm_eval_door.answer(lm, requests)
        usage = lm.take_usage()
        seconds = time.perf_counter() - started
        samples = [
            dataclasses.replace(
                scoring.make_sample(
                    task.name, a.position, a.doc, a.prompt, a.response, task.settings
                ),
                doc_id=doc,
            )
            for doc, a in zip(ids, harness_results.answers(task.name, requests, usage), strict=True)
        ]
        return _Done(
            result=_fold(task, samples, seconds, ()),
            samples=samples,
            provenance={
                **task_provenance(task.docs, samples, task.settings),
                **_generation(lm, task),
            },
            usage=list(usage.values()),
        )

    def _requests_of(self, task: HarnessTask) -> dict[str, list[Any]]:
        """By a doc's id, as samples have it, the requests that ask it."""
        if task.name not in self._requests:
            by_doc: dict[int, list[Any]] = {}
            for request in lm_eval_door.requests_of(
                self._conditions.lm,
                task.task,
                limit=None,
                chat=self._conditions.chat,
                system=self._conditions.spec.system_instruction,
            ):
                by_doc.setdefault(request.doc_id, []).append(request)
            seen: Counter[str] = Counter()
            named: dict[str, list[Any]] = {}
            for requests in by_doc.values():
                doc = fingerprint(requests[0].doc)
                seen[doc] += 1
                # As `scoring.distinct_ids` names the second of two equal docs.
                named[doc if seen[doc] == 1 else f"{doc}#{seen[doc]}"] = requests
            self._requests[task.name] = named
        return self._requests[task.name]


def _refuse_contradictions(spec: RunSpec) -> None:
    """What no run can do, whatever its tasks and its model hold."""
    refuse_senseless(spec.protocol)
    of_vllm = ("tensor_parallel", "gpu_memory", "max_model_len")
    if spec.backend == "local" and (idle := [n for n in of_vllm if getattr(spec, n) is not None]):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise UsageError(f"{flags}: for --backend vllm alone")
    if spec.prompt_lookup and (spec.backend != "local" or is_served(spec.model)):
        raise UsageError("--prompt-lookup: for this program's own engine; leave it out")


def _refuse_greedy_model(spec: RunSpec, lm: LanguageModel, tasks: Sequence[HarnessTask]) -> None:
    """`--gen-kwargs model` may come to greedy decoding, which only the model's config says."""
    if spec.repeats > 1 and isinstance(lm, StatesGeneration):
        facts = {t.name: lm.generation_facts(t.generation_arguments) for t in tasks if t.generates}
        refuse_without_draws(spec, {name: bool(one.get("greedy")) for name, one in facts.items()})


def _generation(lm: LanguageModel, task: HarnessTask) -> JsonDict:
    """What this model makes of the task's generation arguments, where it can say."""
    if not task.generates or not isinstance(lm, StatesGeneration):
        return {}
    return {"generation": lm.generation_facts(task.generation_arguments)}


def _fold(
    task: HarnessTask, samples: Sequence[Sample], seconds: float, notes: tuple[str, ...]
) -> TaskResult:
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


def _chat_template(spec: RunSpec, lm: LanguageModel) -> bool:
    """On when the tokenizer has a template, unless the user says otherwise; always recorded."""
    if spec.chat_template and not lm.has_chat_template:
        raise UsageError(
            f"--chat-template: the tokenizer of {spec.model} has no chat template; leave the flag "
            "out, or add one to its tokenizer_config.json"
        )
    return lm.has_chat_template if spec.chat_template is None else spec.chat_template


def _refuse_template_words(conditions: _Conditions) -> None:
    """What is said to a chat template, where none is applied."""
    spec = conditions.spec
    said = {
        f"--thinking {spec.thinking}": spec.thinking != "auto",
        "--chat-template-args": bool(spec.chat_template_args),
        "--reasoning-effort": spec.reasoning_effort is not None,
    }
    if not conditions.chat and (idle := [option for option, given in said.items() if given]):
        raise UsageError(
            f"{', '.join(idle)}: told to a chat template, and this run applies none; leave it out, "
            "or run with --chat-template"
        )


def _seed_everything(seed: int) -> None:
    """Before each task, so that a task's answers do not depend on those run before it."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def _provenance(conditions: _Conditions, done: Mapping[str, _Done]) -> JsonDict:
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


def _protocol(conditions: _Conditions) -> JsonDict:
    """How texts were asked for: what was said, and what the chat template was told of it."""
    told: JsonDict = {}
    if conditions.chat and isinstance(conditions.lm, StatesGeneration):
        told = conditions.lm.template_facts()
    said = conditions.spec.protocol.to_json()
    # Of a served model the switch is known only as it was asked for.
    return {**said, **told}


def _timing(done: Mapping[str, _Done], seconds: float) -> dict[str, float]:
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
