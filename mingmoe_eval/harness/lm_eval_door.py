"""The one door to lm-eval: its model class, its index of tasks, its evaluator.

Nothing else in the package imports lm_eval. What is used of it is named here; a test resolves each
name, so that a release that takes one away is found by its name. What its requests hold, models
read as our own `language_model.Request`; its result dicts are read in `results` and `files` alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mingmoe_eval.language_model import LanguageModel

if TYPE_CHECKING:
    from lm_eval.api.model import LM as LM
    from lm_eval.tasks import TaskManager

RELIES_ON = (
    "api.model:LM.rank",
    "api.model:LM.world_size",
    "api.model:LM.apply_chat_template",
    "api.model:LM.chat_template",
    "api.model:LM.tokenizer_name",
    "api.task:ConfigurableTask.eval_docs",
    "api.task:ConfigurableTask.get_config",
    "api.task:ConfigurableTask.has_training_docs",
    "api.task:ConfigurableTask.process_results",
    "api.task:ConfigurableTask.set_config",
    "api.task:ConfigurableTask.set_fewshot_seed",
    "api.task:Task.build_all_requests",
    "api.task:Task.instances",
    "api.task:tqdm",  # switched off in library_noise: the bar over the docs has no switch
    "evaluator:evaluate",
    "tasks:TaskManager.all_tasks",
    "tasks:TaskManager.load",
    "tasks._yaml_loader:load_yaml",
)
"""Modules below `lm_eval`, and what is used of each."""

OF_A_TASK = ("OUTPUT_TYPE", "config", "fewshot_cfg", "sampler")
"""Of a task that is loaded; `fewshot_cfg.split` and `sampler.df` say what shots are drawn from."""

OF_A_REQUEST = ("args", "doc", "doc_id", "idx", "resps", "task_name")
"""Of an Instance; `resps` holds what the model gave, once a task was asked."""

OF_RESULTS = ("higher_is_better", "n-samples", "n-shot", "results", "samples", "versions")
"""Of what `evaluate` gives; a result's keys are `metric,filter`, `acc,none` for instance."""

OF_A_LOGGED_SAMPLE = (
    *("arguments", "doc", "doc_id", "filter", "filtered_resps", "metrics", "resps", "target"),
)


def __getattr__(name: str) -> Any:
    """`LM`, the base class of models, when it is first used: lm-eval takes seconds to import."""
    if name != "LM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lm_eval.api.model import LM

    return LM


def index_of(folders: Sequence[Path], metadata: Mapping[str, Any]) -> "TaskManager":
    """The tasks of some folders alone: reading lm-eval's own takes seconds.

    `metadata` reaches every task's loader, which is how a YAML's code learns where its data are.
    """
    from lm_eval.tasks import TaskManager

    paths = [str(folder) for folder in folders]
    return TaskManager(include_path=paths, include_defaults=False, metadata=dict(metadata))


def index_of_its_own() -> "TaskManager":
    """The tasks that come with lm-eval."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def load(index: "TaskManager", task: str | dict[str, Any]) -> dict[str, Any]:
    """The task of a name with its data, or those of a group, by their names; or one of a config."""
    return dict(index.load([task])["tasks"])


def read_yaml(path: Path) -> dict[str, Any]:
    """A task's YAML with what it includes, its functions found."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return dict(load_yaml(path))


def requests_of(
    lm: LanguageModel, task: Any, *, limit: int | None, chat: bool, system: str | None
) -> list[Any]:
    """The requests that `ask` will put to a model, made as its evaluator makes them."""
    task.build_all_requests(
        limit=limit,
        system_instruction=system,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=lm.apply_chat_template if chat else None,
    )
    return list(task.instances)


def first_prompt(task: Any) -> str:
    """What a task asks of its first doc, shots included, without a chat template."""
    task.build_all_requests(limit=1, rank=0, world_size=1)
    return str(task.instances[0].args[0])


def answer(lm: LanguageModel, requests: Sequence[Any]) -> None:
    """Put some requests to a model; they hold the answers afterwards."""
    by_type: dict[str, list[Any]] = {}
    for request in requests:
        by_type.setdefault(request.request_type, []).append(request)
    for kind, same in by_type.items():
        for request, given in zip(same, getattr(lm, kind)(same), strict=True):
            request.resps.append(given)


def ask(
    lm: LanguageModel,
    name: str,
    task: Any,
    *,
    limit: int | None,
    chat: bool,
    system: str | None = None,
    log_samples: bool,
) -> Mapping[str, Any]:
    """Put a task's questions to a model; its requests hold the answers afterwards.

    Args:
        lm: The model.
        name: The task's name.
        task: The task, loaded.
        limit: Docs at most.
        chat: Put them as the turns of a chat.
        system: An instruction that stands before everything, in a chat as its system message.
        log_samples: Score as lm-eval does, and keep what it logs of each doc.

    Returns:
        lm-eval's result dict.
    """
    from lm_eval.evaluator import evaluate

    results: Mapping[str, Any] = evaluate(
        lm=lm,
        task_dict={"tasks": {name: task}},
        limit=limit,
        bootstrap_iters=0,  # the intervals are ours
        log_samples=log_samples,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        system_instruction=system,
    )
    return results
