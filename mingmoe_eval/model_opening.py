"""How what a spec names becomes a `LanguageModel`: a checkpoint, or a served model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mingmoe_eval import run_store
from mingmoe_eval.engine.served_address import is_served
from mingmoe_eval.errors import UsageError
from mingmoe_eval.language_model import LanguageModel
from mingmoe_eval.records import JsonDict, RunSpec, TaskResult

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
