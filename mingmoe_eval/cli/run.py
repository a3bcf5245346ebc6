"""`mingmoe-eval [run]`: evaluate a model on tasks."""

import contextlib
import dataclasses
import functools
import itertools
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingmoe_eval.cli.exits import EXIT_INCOMPLETE, EXIT_INTERRUPTED, headline, is_interrupt, say
from mingmoe_eval.cli.include_path import IncludePath, folders_said
from mingmoe_eval.engine.served_address import is_served, model_in_words, without_credentials
from mingmoe_eval.errors import CheckpointError, RunStoreError, TakenFolderError, UsageError
from mingmoe_eval.records import Engine, Run, RunSpec

if TYPE_CHECKING:
    from mingmoe_eval.language_model import LanguageModel
    from mingmoe_eval.model_opening import OpenModel, Watch

EXAMPLE = "Example: mingmoe-eval --tasks pharmacist2023 --model ckpt/ --data-dir data/"


def run(
    model: Annotated[
        str | None,
        typer.Option(
            help="Directory or hub id: MoLoRA adapter, PEFT LoRA adapter or full model; a GGUF "
            "file; or an "
            "endpoint: openai:http://HOST:PORT/v1#NAME (key: MINGMOE_API_KEY or OPENAI_API_KEY). "
            "Several by comma: one run each."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Task, group or glob names, by comma; or files of questions: exam.xlsx, and "
            "exam.xlsx_ll, exam.xlsx_cot for its other forms."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model of an adapter; default: what its adapter_config.json names."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Local data: DIR/<data set>/<split>.jsonl and the like.")
    ] = None,
    include_path: IncludePath = None,
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
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Longest reply in tokens, in place of each task's own limit; with --think, "
            "longest answer behind the thought.",
        ),
    ] = None,
    think: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="At most so many tokens of thought; what is not done by then is closed, and the "
            "answer forced.",
        ),
    ] = None,
    gen_kwargs: Annotated[
        str | None,
        typer.Option(
            help="How tokens are chosen: temperature=0.6,top_p=0.95,top_k,min_p, "
            "repetition_penalty,presence_penalty,frequency_penalty,seed; or 'model' for what the "
            "checkpoint recommends. Default: greedy."
        ),
    ] = None,
    system_instruction: Annotated[
        str | None,
        typer.Option(help="TEXT, or @FILE: the system message of each chat."),
    ] = None,
    thinking: Annotated[
        str,
        typer.Option(help="on, off or auto: the chat template's switch, whatever it calls it."),
    ] = "auto",
    chat_template_args: Annotated[
        str | None, typer.Option(help="More for the chat template: name=value,... or JSON.")
    ] = None,
    reasoning_effort: Annotated[
        str | None,
        typer.Option(help="For served models, and templates, that have it: low, medium, high."),
    ] = None,
    prompt_lookup: Annotated[
        bool,
        typer.Option(
            "--prompt-lookup",
            help="Guess what replies copy from their prompts: the same texts, faster where they "
            "copy and rows are few.",
        ),
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Of exams that are files: question=NAME,options=NAME,answer=NAME,type=NAME, "
            "sheet=NAME, first=0 or 1 (what a number as an answer counts from)."
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(
            min=1,
            help="Ask each question so often, with seeds from --seed up; needs sampling, such as "
            "--gen-kwargs temperature=0.6.",
        ),
    ] = 1,
    coverage: Annotated[
        str | None,
        typer.Option(
            help="Of letters compared by log-likelihood: also the accuracy of this part of the "
            "questions, those of the highest confidence, 0.5,0.8 for instance."
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            help="What a million tokens of prompt and of reply cost, 0.5,1.5; or "
            "in=,out=,hour=,currency=; or a JSON file with one for each model."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="What pages and tables call tasks and the model: NAME=TEXT,NAME=TEXT or a file of "
            "them (YAML, JSON)."
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
        Path | None,
        typer.Option(help="Finish this run, or ask its failed docs again; the rest is kept."),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Reuse answers of earlier runs of the same model."),
    ] = True,
    backend: Annotated[
        str,
        typer.Option(help="What computes a checkpoint's answers: local, or vllm (docs/vllm.md)."),
    ] = "local",
    tensor_parallel: Annotated[
        int | None,
        typer.Option(min=1, help="vllm: split the model over so many GPUs; default 1."),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            min=0.05, max=1.0, help="vllm: the share of each GPU's memory it takes; default 0.92."
        ),
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=2, help="vllm: the most tokens of prompt and text; default: the model's own."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Compute on so many workers, started by Ray.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="The Ray cluster to use; default: one on this machine.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="Default: one, where there are any.")
    ] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write run.json's content to a file, or - .")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="These options from a YAML file; what is typed beside it counts more. A run's "
            "eval.yaml repeats that run."
        ),
    ] = None,
) -> None:
    """Evaluate a model on tasks and save the run.

    Results go to stdout, talk and progress to stderr.
    Example: mingmoe-eval --tasks pharmacist2023 --model ckpt/ --data-dir data/
    """
    from mingmoe_eval.cli.run_places import opener
    from mingmoe_eval.exams.exam_files import columns_said
    from mingmoe_eval.generation_protocol import (
        gen_kwargs_said,
        instruction_said,
        template_args_said,
        thinking_said,
    )
    from mingmoe_eval.labels import read_labels
    from mingmoe_eval.metrics.calibration import coverage_said

    del config  # `run_file` has made options of it
    of_engine = _backend(backend)
    if gpus_per_worker is None and of_engine == "vllm" and tensor_parallel is not None:
        gpus_per_worker = None if workers is None and ray_address is None else tensor_parallel
    with opener(workers, ray_address, gpus_per_worker) as open_model:
        if resume is not None:
            spec = _spec_to_resume(resume, model, tasks)
            _refuse_idle_workers([spec.model], open_model)
            whole = _run(spec, resume, resuming=True, json_to=json_to, open_model=open_model)
            if not whole:
                raise typer.Exit(EXIT_INCOMPLETE)
            return
        if model is None or tasks is None:
            given = (("--model", model), ("--tasks", tasks))
            missing = " and ".join(option for option, value in given if value is None)
            raise UsageError(f"{missing} must be given. {EXAMPLE}")
        if sample and data_dir:
            raise UsageError("--sample and --data-dir exclude each other: leave one out")
        spec = RunSpec(
            model=model,
            tasks=_task_names(tasks),
            base=base,
            data_dir=str(data_dir) if data_dir else None,
            include_path=folders_said(include_path),
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
            columns=columns_said(columns),
            labels=read_labels([labels] if labels else ()),
            max_new_tokens=max_new_tokens,
            think=think,
            gen_kwargs=gen_kwargs_said(gen_kwargs),
            system_instruction=instruction_said(system_instruction),
            thinking=thinking_said(thinking),
            chat_template_args=template_args_said(chat_template_args),
            reasoning_effort=reasoning_effort,
            repeats=repeats,
            coverage=coverage_said(coverage),
            backend=of_engine,
            tensor_parallel=tensor_parallel,
            gpu_memory=gpu_memory,
            max_model_len=max_model_len,
            prompt_lookup=prompt_lookup,
            price=price,
        )
        _run_as_asked(spec, adapters, output, name, json_to, open_model)


def _run_as_asked(
    spec: RunSpec,
    adapters: str | None,
    output: Path,
    name: str | None,
    json_to: str | None,
    open_model: "OpenModel | None",
) -> None:
    """One run, or one for each model or adapter of a list."""
    from mingmoe_eval.cli.several_runs import plan_runs, run_each, split_models, with_models
    from mingmoe_eval.run_store import folder_named

    models = [spec.model] if adapters is not None else split_models(spec.model)
    _refuse_idle_workers(models, open_model)
    models = [_named(model) for model in models]
    if adapters is None and len(models) == 1:
        (spec,) = with_models(spec, models)
        folder = folder_named(output, name or _free_name(output, _default_name(spec.model)))
        if not _run(spec, folder, json_to=json_to, open_model=open_model):
            raise typer.Exit(EXIT_INCOMPLETE)
        return
    if json_to is not None:
        several = "--model a,b" if adapters is None else "--adapters"
        raise UsageError(f"--json holds one run, and {several} makes several: read their run.json")

    def name_of(model: str) -> str:
        return f"{name}-{model}" if name else _free_name(output, _default_name(model))

    if adapters is None:
        plan = plan_runs(with_models(spec, models), output, name_of)
    else:
        if spec.base is not None:
            raise UsageError("--base: with --adapters the base is --model; leave --base out")
        if spec.backend != "local":
            raise UsageError(
                "--adapters shares a base in this process: with --backend vllm give --model "
                "adapter-a,adapter-b"
            )
        on_base = dataclasses.replace(spec, base=spec.model)
        plan = plan_runs(with_models(on_base, split_models(adapters)), output, name_of)
        if open_model is None:
            open_model = _resident(spec, [one.model for one, _ in plan])
    run_each(plan, functools.partial(_run, open_model=open_model))


def _resident(spec: RunSpec, adapters: list[str]) -> "OpenModel":
    """Opens one adapter after the other on a base that is loaded once."""
    from mingmoe_eval.molora.presence import refuse_absent

    refuse_absent(spec.model)
    for adapter in adapters:
        refuse_absent(adapter, spec.model)  # whatever base its own config names
    # Only now what imports torch.
    from mingmoe_eval.model_opening import open_checkpoint
    from mingmoe_eval.molora import load_adapters

    models = load_adapters(spec.model, adapters, dtype=spec.dtype, device=spec.device)
    each = zip(adapters, models, strict=False)
    live = next(each, None)  # refuses now, of all of them, what cannot share the base

    def open_next(wanted: RunSpec, folder: Path | None, watch: "Watch") -> "LanguageModel":
        nonlocal live
        # A run that failed before it wanted its model is passed over.
        while live is not None and live[0] != wanted.model:
            live = next(each, None)
        if live is None:
            raise CheckpointError(
                f"{spec.model} is left as an adapter before made it: run {wanted.model} by itself"
            )
        return open_checkpoint(wanted, folder, watch, loaded=live[1])

    return open_next


def _named(model: str) -> str:
    """A served model under its own name, also where the address alone was given: runs bear it."""
    if not is_served(model):
        return model
    from mingmoe_eval.engine.served_client import with_model_name

    return with_model_name(model)


def _refuse_idle_workers(models: Sequence[str], open_model: "OpenModel | None") -> None:
    if open_model is not None and any(map(is_served, models)):
        raise UsageError("a served model computes elsewhere: leave out what starts workers")


def _run(
    spec: RunSpec,
    folder: Path,
    *,
    resuming: bool = False,
    json_to: str | None = None,
    open_model: "OpenModel | None" = None,
) -> bool:
    """Evaluate, save and print; says whether the run is complete."""
    from mingmoe_eval.cli.console import print_results, refuse_unwritable, write_json
    from mingmoe_eval.cli.progress import RunProgress
    from mingmoe_eval.cli.run_places import by_backend
    from mingmoe_eval.evaluation import evaluate
    from mingmoe_eval.run_store import UNFINISHED_FILE, summary

    if json_to:
        refuse_unwritable(json_to)
    started = time.perf_counter()
    try:
        # Libraries that print do so on stdout, which is for results.
        with (
            RunProgress() as watch,
            contextlib.redirect_stdout(sys.stderr),
            by_backend(spec, open_model) as opens,
        ):
            run = evaluate(spec, folder=folder, resume=resuming, watch=watch, open_model=opens)
    except TakenFolderError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        ended = is_interrupt(error) or isinstance(error, RunStoreError)
        if not ended or not (folder / UNFINISHED_FILE).exists():
            raise  # or before there was anything to go on with
        go_on = f"every answer so far is kept. Go on with:\n  {_resume_command(folder)}"
        if not is_interrupt(error):
            raise RunStoreError(f"{error}; {go_on}") from error
        say(f"\ninterrupted; {go_on}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    seconds = time.perf_counter() - started
    try:
        if json_to:
            write_json(summary(run), json_to)
        if json_to != "-":
            print_results(run)
    finally:
        # Whatever keeps the results from stdout: the run is saved, and its page with it.
        _save_page(run, folder)
        say(f"{folder}: saved after {seconds:.1f} s")
    if run.incomplete:
        say(
            f"incomplete: {', '.join(_short(run))} (failed docs are listed in "
            f"{folder / 'samples'}); the regression gate and the table refuse this run. Ask the "
            f"failed docs again with:\n  {_resume_command(folder)}"
        )
    return not run.incomplete


def _save_page(run: Run, folder: Path) -> None:
    """Write the run's page; a page that fails is told of, and the run is finished all the same."""
    from mingmoe_eval.report import render_report
    from mingmoe_eval.run_store import load_overlap

    again = f"make it again with:\n  mingmoe-eval report {shlex.quote(str(folder))}"
    try:
        render_report(
            [run],
            folder / "report.html",
            # There is one already where an incomplete run was resumed.
            overlaps=[load_overlap(folder)],
            told=lambda text: say(f"note: {text}; {again}"),
        )
    except Exception as error:  # whatever it is: hours of work are saved, and must not look lost
        say(f"note: the run has no page ({headline(error)}); {again}")


def _short(run: Run) -> list[str]:
    """The incomplete tasks, each with what it is short of."""
    told = ((name, run.results.get(name)) for name in run.incomplete)
    return [f"{name}: {result.shortfall if result else 'did not run'}" for name, result in told]


def _resume_command(folder: Path) -> str:
    return f"mingmoe-eval run --resume {shlex.quote(str(folder))}"


def _spec_to_resume(folder: Path, model: str | None, tasks: str | None) -> RunSpec:
    """What is to be finished; an endpoint's address may be given again, with its credentials."""
    from mingmoe_eval.run_store import spec_to_resume

    if model is None and tasks is None:
        return spec_to_resume(folder)
    if tasks is None and model is not None and is_served(model):
        spec = spec_to_resume(folder)
        named = model if "#" in model else f"{model}#{spec.model.partition('#')[2]}"
        if without_credentials(named) == spec.model:
            return dataclasses.replace(spec, model=named)
    raise UsageError("--resume takes model and tasks from the run that it finishes: leave them")


def _task_names(text: str) -> tuple[str, ...]:
    # Only around the names: the path of a file may hold blanks.
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    if not names:
        raise UsageError(f"--tasks {text!r} names no task. {EXAMPLE}")
    return names


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r} is neither 'auto' nor a number from 1 up")
    return int(text)


def _backend(text: str) -> Engine:
    if text == "vllm":
        return "vllm"
    if text != "local":
        raise UsageError(f"--backend {text!r} is none of local, vllm")
    return "local"


def _dtype(text: str) -> str:
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    name = short.get(text, text)
    if name not in ("auto", *short.values()):
        raise UsageError(f"--dtype {text!r} is none of auto, float32, bfloat16, float16")
    return name


def _free_name(output: Path, name: str) -> str:
    """With a number where a run of the same second has the name."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([name], numbered) if not (output / n).exists())


def _default_name(model: str) -> str:
    last = model_in_words(model) or Path(model.rstrip("/")).name or Path(model).resolve().name
    words = "".join(c if c.isprintable() else "-" for c in last)
    while len(os.fsencode(words)) > 150:
        words = words[:-1]
    return f"{words}-{datetime.now():%Y%m%d-%H%M%S}"
