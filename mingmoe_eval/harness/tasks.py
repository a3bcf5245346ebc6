"""lm-eval task objects, made ready to run: data found, shots set, seeds set.

Only lm-eval's `simple_evaluate` applies shots and seeds; we call its `evaluate` task by task, so
both are set here.
"""

import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import (
    DataError,
    MingMoeError,
    MissingDataError,
    UsageError,
    offence_list,
)
from mingmoe_eval.exams.option_orders import OptionOrders
from mingmoe_eval.generation_protocol import over_task
from mingmoe_eval.harness import lm_eval_door
from mingmoe_eval.harness.forms import config_of
from mingmoe_eval.language_model import LanguageModel
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.locations import plugin_folders
from mingmoe_eval.records import RunSpec, TaskSettings
from mingmoe_eval.scoring import suite_named
from mingmoe_eval.task_catalog import Selection, load_catalog, open_catalog
from mingmoe_eval.task_definitions import TaskDefinition

# What lm-eval's own tasks call the limit, besides `max_gen_toks`.
_OTHER_LIMITS = ("max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessTask:
    """One lm-eval task with its data loaded; `settings` say how it is scored."""

    name: str
    task: Any
    settings: TaskSettings

    @property
    def docs(self) -> Any:
        """The docs under test, as the task's loader made them."""
        return self.task.eval_docs

    @property
    def num_fewshot(self) -> int:
        """How many worked examples stand before each question."""
        return int(self.task.get_config("num_fewshot") or 0)

    @property
    def output_type(self) -> str:
        """What it asks of a model, as lm-eval calls it: `generate_until`, for instance."""
        return str(self.task.OUTPUT_TYPE)

    @property
    def is_ours(self) -> bool:
        """False for a task without a suite, whose scores are lm-eval's."""
        return bool(self.settings.suite)

    @quiet_libraries()
    def ask(
        self, lm: LanguageModel, *, limit: int | None, chat: bool, system: str | None = None
    ) -> Mapping[str, Any]:
        """Put its questions to a model, `system` before each; gives lm-eval's result dict."""
        return lm_eval_door.ask(
            lm,
            self.name,
            self.task,
            limit=limit,
            chat=chat,
            system=system,
            log_samples=not self.is_ours,
        )

    @property
    def generates(self) -> bool:
        """Whether it asks for texts, so that a generation protocol is about it."""
        return self.output_type == "generate_until"

    @property
    def generation_arguments(self) -> dict[str, Any]:
        """What its requests ask of a generation: its own arguments under those of the run."""
        return dict(self.task.get_config("generation_kwargs") or {})

    def set_generation(self, arguments: Mapping[str, Any]) -> None:
        """Have its requests ask for texts with these arguments."""
        # Not `update=True`: that would write into a dict that tasks of one YAML may share.
        self.task.set_config(key="generation_kwargs", value=dict(arguments))

    @quiet_libraries()
    def prompts(
        self, lm: LanguageModel, *, limit: int | None, chat: bool, spec: RunSpec
    ) -> list[str]:
        """The prompts of its requests, before they are asked; shots are drawn as they will be."""
        requests = lm_eval_door.requests_of(
            lm, self.task, limit=limit, chat=chat, system=spec.system_instruction
        )
        self.task.set_fewshot_seed(seed=spec.seed)
        return [str(request.args[0]) for request in requests]

    def draw_with(self, seed: int, *, shots: int) -> None:
        """Have the next answers drawn with a seed, behind the same worked examples as before.

        lm-eval goes on drawing examples where it stopped: without setting that seed again a
        question would have other ones in each repeat.
        """
        self.set_generation({**self.generation_arguments, "seed": seed})
        self.task.set_fewshot_seed(seed=shots)

    @property
    def requests(self) -> list[Any]:
        """lm-eval's requests, which hold the answers once the task was asked."""
        return list(self.task.instances)


def load_tasks(selection: Selection, spec: RunSpec) -> tuple[list[HarnessTask], tuple[str, ...]]:
    """Load every selected task before any model is; also the names that `--partial` passed over.

    Raises:
        MingMoeError: listing every task whose data or shots cannot be had.
    """
    metadata = {
        "data_dir": spec.data_dir,
        "sample": spec.sample,
        "split": spec.split,
        "partial": spec.partial,
        "include_path": [str(folder) for folder in plugin_folders(spec.include_path)],
        **_option_orders(selection, spec),
    }
    # Only the folders that are needed: lm-eval parses every YAML below what it is given.
    folders = sorted({d.path.parent for d in selection.leaves if not _is_made(d)})
    ours = lm_eval_door.index_of(folders, metadata)
    loaded: list[HarnessTask] = []
    passed_over: list[str] = []
    faults: list[MingMoeError] = []
    for definition in selection.leaves:
        try:
            settings = definition.settings.in_run(
                reading=None,
                profile=None,
                permute_options=spec.permute_options,
                coverage=spec.coverage,
            )
            loaded.append(_load(ours, definition, settings, spec))
        except MissingDataError as error:
            passed_over.append(definition.name)
            if not spec.partial:
                faults.append(error)
        except MingMoeError as error:
            faults.append(error)
    if faults:
        raise _together(list({str(fault): fault for fault in faults}.values()))
    if not loaded and not selection.foreign:
        raise MissingDataError(f"none of the tasks has data below {spec.data_dir}")
    return [*loaded, *_foreign_tasks(selection.foreign, spec)], tuple(passed_over)


def _is_made(definition: TaskDefinition) -> bool:
    """Whether its config is made here, and stands in no YAML of lm-eval's."""
    return definition.exam is not None or definition.benchmark is not None


def _option_orders(selection: Selection, spec: RunSpec) -> dict[str, Any]:
    """What a loader is told so that it asks each question under several option orders.

    Raises:
        UsageError: no such orders, or a task whose answers are no options is among those selected.
    """
    if spec.permute_options is None:
        return {}
    OptionOrders.named(spec.permute_options)
    without = [d.name for d in selection.leaves if d.settings.suite != "choice"] + [
        *selection.foreign
    ]
    if without:
        raise UsageError(
            offence_list(
                "--permute-options: these are no multiple-choice tasks of ours; leave them out",
                without,
            )
        )
    return {"permute_options": spec.permute_options, "limit": spec.limit}


@quiet_libraries()
def _load(
    manager: Any, definition: TaskDefinition, settings: TaskSettings, spec: RunSpec
) -> HarnessTask:
    name = definition.name
    _refuse_unknown_metric(definition)
    if not settings.suite:
        task = _loaded(manager, name, definition.path)[name]
    else:
        with _own_errors():
            asked = config_of(definition) if _is_made(definition) else name
            task = lm_eval_door.load(manager, asked)[name]
        # Its YAML's own scoring is for lm-eval's command: here a suite scores responses, once.
        task.process_results = lambda doc, results: {}
    ready = HarnessTask(name=name, task=task, settings=settings)
    _set_shots(ready, spec)
    _set_generation(ready, spec)
    return ready


def _refuse_unknown_metric(definition: TaskDefinition) -> None:
    """Before the model is asked, and not when its replies are to be scored."""
    settings = definition.settings
    named = (("metric", settings.metric), *(("also", name) for name in settings.also))
    for field, name in named:
        known = suite_named(settings.suite).SCORES if settings.suite and name else {}
        if known and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise DataError(
                f"{definition.path}: {definition.name}: {field}: suite {settings.suite} has no "
                f"{name!r}; {hint}"
            )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Let our own errors out of whatever lm-eval wraps them in; quieten its loading warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except MingMoeError:
            raise
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, MingMoeError):
                    raise cause from None
                cause = cause.__cause__ or cause.__context__
            raise


def _set_shots(ready: HarnessTask, spec: RunSpec) -> None:
    """Shots and few-shot seed, as `simple_evaluate` would set them.

    A `num_fewshot: 0` in a definition cannot be overridden in lm-eval; here `--num-fewshot` means
    what it says, and is refused where there is nothing to draw from.
    """
    task = ready.task
    if spec.num_fewshot is not None:
        task.set_config(key="num_fewshot", value=spec.num_fewshot)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    examples = _count_examples(task)
    if ready.num_fewshot > examples:
        way_out = f"use --num-fewshot {examples} or less" if examples else "leave --num-fewshot out"
        raise UsageError(
            f"{ready.name} has {examples or 'no'} worked examples here (they come from another "
            f"split than the docs under test), {ready.num_fewshot} are asked for; {way_out}"
        )
    task.set_fewshot_seed(seed=spec.seed)


def _set_generation(ready: HarnessTask, spec: RunSpec) -> None:
    """The run's protocol over the task's own generation arguments."""
    if ready.generates and (changes := over_task(spec.protocol)):
        arguments = {**ready.generation_arguments, **changes}
        if "max_gen_toks" in changes:
            arguments = {k: v for k, v in arguments.items() if k not in _OTHER_LIMITS}
        ready.set_generation(arguments)


def _count_examples(task: Any) -> int:
    """How many docs there are to draw shots from; those under test are none of them.

    Without a few-shot split lm-eval falls back to the training split, then to the docs under test.
    """
    if not hasattr(task, "sampler"):
        return 0
    if task.fewshot_cfg.split is None and not task.has_training_docs():
        return 0
    return len(task.sampler.df)


@quiet_libraries()
def _foreign_tasks(names: tuple[str, ...], spec: RunSpec) -> list[HarnessTask]:
    """Tasks that come with lm-eval; its own index takes seconds, so it is read only for these."""
    if not names:
        return []
    if spec.sample or spec.data_dir or spec.split:
        catalog = open_catalog(spec.include_path)
        for name in names:
            if catalog.meant_by(name) or difflib.get_close_matches(name, catalog.names, n=1):
                raise catalog.unknown(name)
        raise UsageError(
            f"{', '.join(names)}: not a task of ours, and lm-eval's own take no --sample, "
            "--data-dir or --split (list ours with `mingmoe-eval tasks`)"
        )
    manager = lm_eval_door.index_of_its_own()
    for name in names:
        if name not in manager.all_tasks:
            raise open_catalog(spec.include_path).unknown(name, manager.all_tasks)
    tasks = {key: task for name in names for key, task in _loaded(manager, name).items()}
    its_own = TaskSettings()  # no suite: its own scoring stays in force
    ready = [HarnessTask(name=name, task=task, settings=its_own) for name, task in tasks.items()]
    for task in ready:
        _set_shots(task, spec)
        _set_generation(task, spec)
    return ready


def _loaded(manager: Any, name: str, path: Path | None = None) -> dict[str, Any]:
    """A task that lm-eval scores, of its own or of the YAML at `path`, or those of its group.

    Raises:
        DataError: whatever lm-eval, `datasets` and the task's own code run into meanwhile: without
            a network that is the rule, and nothing of it is ours to mend.
    """
    with _own_errors():
        try:
            return lm_eval_door.load(manager, name)
        except MingMoeError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if path is not None:
                raise DataError(f"{path}: lm-eval cannot load {name}: {reason}") from error
            ours = load_catalog().meant_by(name)
            instead = f"; a task of ours is {' or '.join(ours)}" if ours else ""
            raise DataError(
                f"{name}, a task of lm-eval's own, cannot be loaded: {reason} (its data come from "
                f"the hub: a network is needed, or a copy in the local cache){instead}"
            ) from error


def _together(faults: list[MingMoeError]) -> MingMoeError:
    if len(faults) == 1:
        return faults[0]
    kind = type(faults[0]) if len({type(fault) for fault in faults}) == 1 else DataError
    if kind not in (DataError, MissingDataError, UsageError):
        kind = DataError
    return kind(offence_list(f"{len(faults)} tasks cannot run", [str(f) for f in faults]))
