"""`mingmoe-eval [run]`: evaluate a model on tasks."""

import dataclasses
import functools
import logging
import os
import shlex
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingmoe_eval.cli import EXIT_INCOMPLETE, EXIT_INTERRUPTED
from mingmoe_eval.engine.served_address import is_served, model_in_words, without_credentials
from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import RunSpec

if TYPE_CHECKING:
    from mingmoe_eval.evaluation import OpenModel

EXAMPLE = "Example: mingmoe-eval --tasks pharmacist2023 --model ckpt/ --data-dir data/"


def run(
    model: Annotated[
        str | None,
        typer.Option(
            help="Directory or hub id: MoLoRA adapter, PEFT LoRA adapter or full model; or an "
            "endpoint: openai:http://HOST:PORT/v1#NAME (key: MINGMOE_API_KEY or OPENAI_API_KEY)."
        ),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Task, group or glob names, by comma.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model of an adapter; default: what its adapter_config.json names."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Local data: DIR/<data set>/<split>.jsonl and the like.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Use the small invented sample; every output says so.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Another split than the official test split.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Go on with only those parts whose data is there.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N docs a task.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Worked examples before each question.")
    ] = None,
    batch_size: Annotated[
        str, typer.Option(help="Most rows at once, or 'auto' for what memory allows.")
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1 ...; auto spreads over several GPUs.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of few-shot draws and of sampling.")
    ] = 1234,
    chat_template: Annotated[
        bool | None,
        typer.Option(
            "--chat-template/--no-chat-template",
            help="Default: on when the tokenizer has one.",
        ),
    ] = None,
    permute_options: Annotated[
        str | None,
        typer.Option(
            help="Ask each question under several option orders: cyclic, all, or how many."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("reports"),
    name: Annotated[
        str | None, typer.Option(help="The run folder's name; default: the model's and the time.")
    ] = None,
    adapters: Annotated[
        str | None,
        typer.Option(help="Adapters by comma, one run each, on --model as the base, loaded once."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Finish this run; nothing computed so far is done again.")
    ] = None,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Reuse answers of earlier runs of the same model."),
    ] = True,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write run.json's content to a file, or - .")
    ] = None,
) -> None:
    """Evaluate a model on tasks and save the run.

    Results go to stdout, talk and progress to stderr.
    Example: mingmoe-eval --tasks pharmacist2023 --model ckpt/ --data-dir data/
    """
    if resume is not None:
        spec, folder = _spec_to_resume(resume, model, tasks), resume
    elif model is None or tasks is None:
        missing = " and ".join(n for n, v in (("--model", model), ("--tasks", tasks)) if v is None)
        raise UsageError(f"{missing} must be given. {EXAMPLE}")
    else:
        if sample and data_dir:
            raise UsageError("--sample and --data-dir exclude each other: leave one out")
        spec = RunSpec(
            model=model,
            tasks=tuple(name for name in tasks.replace(" ", "").split(",") if name),
            base=base,
            data_dir=str(data_dir) if data_dir else None,
            sample=sample,
            split=split,
            partial=partial,
            limit=limit,
            num_fewshot=num_fewshot,
            batch_size=_batch_size(batch_size),
            dtype=_dtype(dtype),
            device=device,
            seed=seed,
            chat_template=chat_template,
            cache=cache,
            permute_options=permute_options,
        )
        if adapters is not None:
            _run_adapters(spec, adapters, output, name, json_to)
            return
        folder = output / (name or _default_name(model))
    if not _run(spec, folder, resuming=resume is not None, json_to=json_to):
        raise typer.Exit(EXIT_INCOMPLETE)


def _run_adapters(
    spec: RunSpec, adapters: str, output: Path, name: str | None, json_to: str | None
) -> None:
    """One run an adapter, in folders named after them; the base is loaded once."""
    if spec.base is not None:
        raise UsageError("--base: with --adapters the base is --model; leave --base out")
    if json_to is not None:
        raise UsageError("--json holds one run, and --adapters makes several: read their run.json")
    paths = [path for path in adapters.replace(" ", "").split(",") if path]
    folders = [
        output / (f"{name}-{Path(path).name}" if name else _default_name(path)) for path in paths
    ]
    if len(set(folders)) < len(folders):
        raise UsageError(f"--adapters {adapters}: two of them have the same last name; rename one")
    quieten_libraries()
    from mingmoe_eval.evaluation import open_checkpoint
    from mingmoe_eval.molora import load_adapters

    models = load_adapters(spec.model, paths, dtype=spec.dtype, device=spec.device)
    whole = [
        _run(
            dataclasses.replace(spec, model=path, base=spec.model),
            folder,
            open_model=functools.partial(open_checkpoint, loaded=model),
        )
        for path, folder, model in zip(paths, folders, models, strict=True)
    ]
    if not all(whole):
        raise typer.Exit(EXIT_INCOMPLETE)


def _run(
    spec: RunSpec,
    folder: Path,
    *,
    resuming: bool = False,
    json_to: str | None = None,
    open_model: "OpenModel | None" = None,
) -> bool:
    """Evaluate, save and print; says whether the run is complete."""
    from mingmoe_eval.cli.console import ConsoleWatch, print_results, write_json
    from mingmoe_eval.evaluation import evaluate
    from mingmoe_eval.run_store import summary

    quieten_libraries()
    started = time.perf_counter()
    try:
        with ConsoleWatch() as watch:
            run = evaluate(spec, folder=folder, resume=resuming, watch=watch, open_model=open_model)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; every answer so far is kept. Go on with:\n"
            f"  mingmoe-eval run --resume {shlex.quote(str(folder))}",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if json_to:
        write_json(summary(run), json_to)
    if json_to != "-":
        print_results(run)
    seconds = time.perf_counter() - started
    _write_page(run, folder)
    print(f"{folder}: saved after {seconds:.1f} s", file=sys.stderr)
    if run.incomplete:
        print(
            f"incomplete: {', '.join(run.incomplete)} (failed docs are listed in "
            f"{folder / 'samples'}); the regression gate and the table refuse this run",
            file=sys.stderr,
        )
    return not run.incomplete


def _write_page(run: object, folder: Path) -> None:
    from mingmoe_eval.records import Run
    from mingmoe_eval.report import render_report

    assert isinstance(run, Run)
    render_report([run], folder / "report.html")


def _spec_to_resume(folder: Path, model: str | None, tasks: str | None) -> RunSpec:
    """What is to be finished; an endpoint's address may be given again, with its credentials."""
    from mingmoe_eval.run_store import unfinished_spec

    if model is None and tasks is None:
        return unfinished_spec(folder)
    if tasks is None and model is not None and is_served(model):
        spec = unfinished_spec(folder)
        if without_credentials(model) == spec.model:
            return dataclasses.replace(spec, model=model)
    raise UsageError("--resume takes model and tasks from the run that it finishes: leave them")


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r} is neither 'auto' nor a number from 1 up")
    return int(text)


def _dtype(text: str) -> str:
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    name = short.get(text, text)
    if name not in ("auto", *short.values()):
        raise UsageError(f"--dtype {text!r} is none of auto, float32, bfloat16, float16")
    return name


def _default_name(model: str) -> str:
    last = model_in_words(model) or Path(model.rstrip("/")).name or Path(model).resolve().name
    return f"{last}-{datetime.now():%Y%m%d-%H%M%S}"


def quieten_libraries() -> None:
    """Their progress bars and hints would cover ours; their errors still come through."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
