"""`mingmoe-eval train`: adapters of one's own."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mingmoe_eval.cli.exits import EXIT_INTERRUPTED, is_interrupt
from mingmoe_eval.errors import MissingDataError, UsageError
from mingmoe_eval.training.spec import (
    OBJECTIVES,
    AdapterShape,
    DataStream,
    HeldOut,
    LrScheduler,
    Method,
    RouterObjective,
    Schedule,
    TrainingSpec,
)

_SHAPE, _SCHEDULE = AdapterShape(), Schedule()
_DATA_HELP = (
    "Conversations in ShareGPT's, OpenAI's, Alpaca's, TRL's or PromptCBLUE's form, .jsonl or "
    ".json; may be given again. Weights say in which proportion files are mixed; default: by size."
)


def train(
    data: Annotated[list[str], typer.Option(metavar="FILE[=WEIGHT]", help=_DATA_HELP)],
    output: Annotated[Path, typer.Option(help="Folder of the checkpoint; never overwritten.")],
    base: Annotated[
        str | None,
        typer.Option(help="Base model: a directory or hub id. With --from: if it is elsewhere."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="ADAPTER", help="Go on with a finished adapter, with its settings."
        ),
    ] = None,
    method: Annotated[Method | None, typer.Option(help="What to train. Default: molora.")] = None,
    num_experts: Annotated[
        int | None, typer.Option(help=f"Experts a layer. Default: {_SHAPE.num_experts}.")
    ] = None,
    experts_per_token: Annotated[
        int | None,
        typer.Option(
            help=f"How many of them a token passes through. Default: {_SHAPE.experts_per_token}."
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help=f"Of experts and attention LoRA. Default: {_SHAPE.rank}.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="lora_alpha: scaling is alpha/r. Default: twice the rank.")
    ] = None,
    rslora: Annotated[
        bool | None, typer.Option("--rslora/--no-rslora", help="Scaling is alpha/sqrt(r).")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Linear layers with a LoRA, or all. Default: attention's, and with method lora "
            "the feed-forward blocks' too.",
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over all data.")] = _SCHEDULE.epochs,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of epochs.")] = None,
    batch_size: Annotated[
        int, typer.Option(help="Examples, or packed rows, a process and pass.")
    ] = _SCHEDULE.batch_size,
    accumulation: Annotated[int, typer.Option(help="Passes a step.")] = _SCHEDULE.accumulation,
    learning_rate: Annotated[float, typer.Option(help="At its height.")] = _SCHEDULE.learning_rate,
    lr_scheduler: Annotated[
        LrScheduler, typer.Option(help="How it goes on after the warm-up: to zero, or as it is.")
    ] = _SCHEDULE.lr_scheduler,
    warmup: Annotated[
        float, typer.Option(help="Share of the steps in which it rises.")
    ] = _SCHEDULE.warmup,
    max_tokens: Annotated[int, typer.Option(help="Longer examples lose their end.")] = 2048,
    skip_too_long: Annotated[
        bool,
        typer.Option(
            "--skip-too-long",
            help="Leave out, and count, conversations of which no response lies within "
            "--max-tokens; else they stop the training.",
        ),
    ] = False,
    packing: Annotated[
        bool,
        typer.Option(
            "--packing", help="Several conversations a row of --max-tokens, none seeing another."
        ),
    ] = False,
    eval_data: Annotated[
        list[Path] | None,
        typer.Option(help="Conversations whose loss is watched; may be given again."),
    ] = None,
    eval_split: Annotated[
        float, typer.Option(help="Or this share of the conversations of each --data.")
    ] = 0.0,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between two looks. Default: --save-every.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many looks without a lower held-out loss than before."),
    ] = None,
    balance: Annotated[
        float | None, typer.Option(help="Coefficient of the load-balance loss.")
    ] = None,
    z_loss: Annotated[
        float | None, typer.Option(help="Coefficient of the routers' z loss.")
    ] = None,
    contrast: Annotated[
        float | None, typer.Option(help="Coefficient of the contrastive loss.")
    ] = None,
    anchors: Annotated[
        Literal["router", "output"], typer.Option(help="What is contrasted; see docs/training.md.")
    ] = "router",
    temperature: Annotated[
        float, typer.Option(help="Of the contrastive loss.")
    ] = RouterObjective().temperature,
    queue: Annotated[
        int, typer.Option(help="Sequences in the expert memory.")
    ] = RouterObjective().queue,
    responses_only: Annotated[
        bool,
        typer.Option(
            "--responses-only", help="Routers' losses count only tokens that are learned."
        ),
    ] = False,
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file, for a base without a chat template.")
    ] = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Compute in bfloat16; adapters and routers stay fp32.")
    ] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = _SCHEDULE.seed,
    log_every: Annotated[int, typer.Option(help="Steps.")] = _SCHEDULE.log_every,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too, in --output.")
    ] = False,
    save_every: Annotated[
        int, typer.Option(help="Steps between training states; a multiple of --log-every.")
    ] = _SCHEDULE.save_every,
    keep: Annotated[
        int, typer.Option(help="So many training states stay on disk, and the best; 0: all.")
    ] = _SCHEDULE.keep or 0,
    resume: Annotated[
        str | None,
        typer.Option(metavar="last|STEP", help="Go on from a training state in --output."),
    ] = None,
) -> None:
    """Fine-tune a mixture of LoRA experts, or a plain LoRA, on conversations.

    Several GPUs: accelerate launch -m mingmoe_eval train ... with the same options.
    Example: mingmoe-eval train --base Qwen/Qwen1.5-1.8B-Chat --data train.jsonl --output ckpt/
    """
    if base is None and start is None:
        raise UsageError("say which model is to be trained: --base, or --from a finished adapter")
    streams = tuple(DataStream.parse(text) for text in data)
    files = [*(stream.path for stream in streams), *(eval_data or ())]
    models = [name for name in (base, start) if name is not None]
    asked: dict[str, Any] = {
        "num_experts": num_experts,
        "experts_per_token": experts_per_token,
        "rank": rank,
        "alpha": alpha,
        "rslora": rslora,
        "targets": None if target is None else _names(target),
    }
    schedule = Schedule(
        learning_rate=learning_rate,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        accumulation=accumulation,
        lr_scheduler=lr_scheduler,
        warmup=warmup,
        seed=seed,
        bf16=bf16,
        gradient_checkpointing=gradient_checkpointing,
        log_every=log_every,
        save_every=save_every,
        keep=keep or None,
    )
    held_out = HeldOut(
        files=tuple(eval_data or ()), split=eval_split, every=eval_every, patience=patience
    )
    given = {"balance": balance, "z": z_loss, "contrast": contrast}
    weights = {name: value for name, value in given.items() if value is not None}

    def spec_of(base: str, method: Method, shape: AdapterShape) -> TrainingSpec:
        objective = dataclasses.replace(
            OBJECTIVES[method],
            anchors=anchors,
            temperature=temperature,
            queue=queue,
            responses_only=responses_only,
            **weights,
        )
        return TrainingSpec(
            base=base,
            data=streams,
            method=method,
            shape=shape,
            objective=objective,
            schedule=schedule,
            max_tokens=max_tokens,
            chat_template=chat_template,
            skip_too_long=skip_too_long,
            held_out=held_out,
            packing=packing,
            start=start,
        )

    # Before torch is imported: what the options alone tell, and what is not there.
    spec = spec_of(base or "", method or "molora", _fresh_shape(asked))
    spec.check()
    refuse_at_once(models, files, output if not resume else None)
    if start is not None:
        from mingmoe_eval.training.continuing import take_over

        goes_on = take_over(start, base, {**asked, "method": method})
        spec = spec_of(goes_on.base, goes_on.method, goes_on.shape)
    from mingmoe_eval.cli.progress import TrainingProgress
    from mingmoe_eval.training import train_adapter
    from mingmoe_eval.training.output_folder import training_states

    with TrainingProgress() as console:
        try:
            train_adapter(spec, output, resume=resume, watch=console, tensorboard=tensorboard)
        except (Exception, KeyboardInterrupt) as error:
            if not is_interrupt(error):
                raise
            states = training_states(output)
            way_out = "go on with the same command and --resume last" if states else "no state yet"
            console.note(f"interrupted after {len(states)} training states: {way_out}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        place = shlex.quote(str(output))
        console.note(f"{output} holds the checkpoint: mingmoe-eval inspect {place}")


def _names(target: str) -> tuple[str, ...]:
    names = sorted({name.strip() for name in target.split(",")} - {""})
    if not names:
        raise UsageError(f"--target {target!r} names no layer: for example q_proj,v_proj, or all")
    return tuple(names)


def _fresh_shape(asked: Mapping[str, Any]) -> AdapterShape:
    """A new adapter's shape; what nobody asked for is as always."""
    shape = {name: value for name, value in asked.items() if value is not None}
    # As in LLaMA-Factory: another rank keeps the scaling.
    shape.setdefault("alpha", 2.0 * shape.get("rank", _SHAPE.rank))
    return AdapterShape(**shape)


def refuse_at_once(models: Sequence[str], files: Sequence[Path], output: Path | None) -> None:
    """Refuse what is not there, and an output that is, before torch is imported."""
    from mingmoe_eval.molora.presence import refuse_absent
    from mingmoe_eval.training.output_folder import refuse_taken

    if output is not None:
        refuse_taken(output)
    if missing := [str(file) for file in files if not file.is_file()]:
        raise MissingDataError(f"there is no file {', '.join(missing)}")
    for model in models:
        refuse_absent(model)
