"""`mingmoe-eval train`: fine-tune an adapter beside a frozen base model."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from mingmoe_eval.cli.exits import EXIT_INTERRUPTED
from mingmoe_eval.training.spec import (
    OBJECTIVES,
    AdapterShape,
    DataStream,
    Method,
    RouterObjective,
    Schedule,
    TrainingSpec,
)

_SHAPE, _SCHEDULE = AdapterShape(), Schedule()


def train(
    base: Annotated[str, typer.Option(help="Base model: a directory or hub id.")],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE[=WEIGHT]",
            help="Conversations, MING's or OpenAI's form, .jsonl or .json; may be given again. "
            "Weights say in which proportion files are mixed; default: by size.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the checkpoint; never overwritten.")],
    method: Annotated[Method, typer.Option(help="What to train.")] = "molora",
    num_experts: Annotated[int, typer.Option(help="Experts a layer.")] = _SHAPE.num_experts,
    experts_per_token: Annotated[
        int, typer.Option(help="How many of them a token passes through.")
    ] = _SHAPE.experts_per_token,
    rank: Annotated[int, typer.Option(help="Of experts and attention LoRA.")] = _SHAPE.rank,
    alpha: Annotated[float, typer.Option(help="lora_alpha: scaling is alpha/r.")] = _SHAPE.alpha,
    rslora: Annotated[bool, typer.Option("--rslora", help="Scaling is alpha/sqrt(r).")] = False,
    epochs: Annotated[float, typer.Option(help="Passes over all data.")] = _SCHEDULE.epochs,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of epochs.")] = None,
    batch_size: Annotated[
        int, typer.Option(help="Examples a process and pass.")
    ] = _SCHEDULE.batch_size,
    accumulation: Annotated[int, typer.Option(help="Passes a step.")] = _SCHEDULE.accumulation,
    learning_rate: Annotated[
        float, typer.Option(help="At its height: warm-up, then cosine to zero.")
    ] = _SCHEDULE.learning_rate,
    max_tokens: Annotated[int, typer.Option(help="Longer examples lose their end.")] = 2048,
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
    save_every: Annotated[
        int, typer.Option(help="Steps between training states; a multiple of --log-every.")
    ] = _SCHEDULE.save_every,
    keep: Annotated[
        int, typer.Option(help="So many training states stay on disk; 0: all.")
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
    given = {"balance": balance, "z": z_loss, "contrast": contrast}
    objective = dataclasses.replace(
        OBJECTIVES[method],
        anchors=anchors,
        temperature=temperature,
        queue=queue,
        responses_only=responses_only,
        **{name: value for name, value in given.items() if value is not None},
    )
    spec = TrainingSpec(
        base=base,
        data=tuple(DataStream.parse(text) for text in data),
        method=method,
        shape=AdapterShape(
            num_experts=num_experts,
            experts_per_token=experts_per_token,
            rank=rank,
            alpha=alpha,
            rslora=rslora,
        ),
        objective=objective,
        schedule=Schedule(
            learning_rate=learning_rate,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            accumulation=accumulation,
            seed=seed,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
            log_every=log_every,
            save_every=save_every,
            keep=keep or None,
        ),
        max_tokens=max_tokens,
        chat_template=chat_template,
    )
    spec.check()
    from mingmoe_eval.cli.progress import TrainingProgress
    from mingmoe_eval.training import train_adapter
    from mingmoe_eval.training.output_folder import training_states

    with TrainingProgress() as console:
        try:
            train_adapter(spec, output, resume=resume, watch=console)
        except KeyboardInterrupt:
            states = training_states(output)
            way_out = "go on with the same command and --resume last" if states else "no state yet"
            console.note(f"interrupted after {len(states)} training states: {way_out}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        console.note(f"{output} holds the checkpoint: mingmoe-eval inspect {output}")
