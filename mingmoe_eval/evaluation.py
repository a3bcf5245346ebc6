"""One model over some tasks: `evaluate(spec)` gives a Run; the only caller of lm-eval's evaluator.

Everything that can be refused is refused before the model is loaded; each task is saved when it is
done; every answer is stored as it comes, so that a run that was killed goes on where it stopped.
"""

import dataclasses
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mingmoe_eval import run_store, scoring
from mingmoe_eval.asking import (
    AnsweredTask,
    Conditions,
    ask_task,
    run_provenance,
    run_timing,
    settle,
)
from mingmoe_eval.cost import price_said
from mingmoe_eval.engine.served_address import is_served, without_credentials
from mingmoe_eval.errors import MingMoeError, MissingDataError, UsageError
from mingmoe_eval.generation_protocol import refuse_senseless
from mingmoe_eval.harness.files import remove_output, write_output
from mingmoe_eval.harness.tasks import HarnessTask, load_tasks
from mingmoe_eval.language_model import CountsRouting, LanguageModel, StatesGeneration
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.model_opening import OpenModel, Watch, open_named
from mingmoe_eval.molora.presence import refuse_absent
from mingmoe_eval.records import Run, RunSpec
from mingmoe_eval.repeats import draws, refuse_without_draws
from mingmoe_eval.reply_room import make_room_for_targets, tell_of_short_context
from mingmoe_eval.task_catalog import Selection, TaskCatalog, definition_facts, open_catalog


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
    refuse_contradictions(spec)
    spec = _with_price_said(spec, watch)
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
    _refuse_idle_options(spec, tasks)
    if spec.repeats > 1 and (once := [task.name for task in tasks if not task.generates]):
        watch.note(f"asked once, for a log-likelihood is the same every time: {', '.join(once)}")
    with run_store.claim(folder, resume=resume) if folder else nullcontext() as path:
        if path:
            run_store.save_unfinished(path, spec)
        try:
            lm = (open_model or open_named)(opening, path, watch)
            conditions = settle(lm, spec, tasks, definitions=definitions, watch=watch)
            _refuse_greedy_model(spec, lm, tasks)
            if path and (path / run_store.RUN_FILE).exists():
                # The incomplete run that this one takes up: its numbers are about to go.
                remove_output(run_store.load_run(path, samples=False), path / "lm_eval")
            return _run_all(conditions, tasks, catalog, selection, path)
        except (MingMoeError, ModuleNotFoundError):
            if path and not resume:
                run_store.discard_if_bare(path)
            raise


def _run_all(
    conditions: Conditions,
    tasks: Sequence[HarnessTask],
    catalog: TaskCatalog,
    selection: Selection,
    path: Path | None,
) -> Run:
    started = time.perf_counter()
    lm, spec, watch = conditions.lm, conditions.spec, conditions.watch
    room = {task.name: make_room_for_targets(lm, task, spec) for task in tasks}
    tell_of_short_context(lm, tasks, spec, chat=conditions.chat, note=watch.note)
    done: dict[str, AnsweredTask] = {}
    for task in tasks:
        done[task.name] = ask_task(conditions, task, room[task.name])
        if path:
            run_store.save_samples(path, task.name, done[task.name].samples)
        watch.task_done(done[task.name].result)
    results = {name: one.result for name, one in done.items()}
    samples = {name: one.samples for name, one in done.items()}
    groups = scoring.fold_groups(catalog, selection.groups, results, samples, refused=watch.note)
    run = Run(
        name=path.name if path else "run",
        spec=spec,
        provenance=run_provenance(conditions, done),
        results={**results, **groups},
        samples=samples,
        timing=run_timing(done, time.perf_counter() - started),
        routing=lm.routing if isinstance(lm, CountsRouting) else None,
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


def refuse_contradictions(spec: RunSpec) -> None:
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


def _with_price_said(spec: RunSpec, watch: Watch) -> RunSpec:
    """The spec with the price itself: a price file may change or go, the run keeps what it said."""
    if spec.price is None:
        return spec
    price = price_said(spec.price, Path(spec.model).name, spec.model)
    if price is None:
        watch.note(f"{spec.price} has no price for {spec.model}: the run has no cost in money")
    return dataclasses.replace(spec, price=price.said if price else None)


def _refuse_idle_options(spec: RunSpec, tasks: Sequence[HarnessTask]) -> None:
    """What was asked for and none of these tasks could give."""
    texts = {task.name: task.generation_arguments for task in tasks if task.generates}
    refuse_without_draws(spec, {name: not draws(given) for name, given in texts.items()})
    if spec.coverage and all(task.settings.form != "letters" for task in tasks):
        raise UsageError(
            "--coverage ranks questions by the log-likelihoods of their letters, and no task here "
            "compares any: take a form whose name ends in _ll, or leave it out"
        )
