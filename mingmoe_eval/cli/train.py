"""`mingmoe-eval train` and `compose`: adapters of one's own, trained or put together."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from mingmoe_eval.cli.exits import EXIT_INTERRUPTED
from mingmoe_eval.errors import MissingDataError, UsageError
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
            help="Conversations in ShareGPT's, OpenAI's, Alpaca's, TRL's or PromptCBLUE's form, "
            ".jsonl or .json; may be given again. "
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
    alpha: Annotated[
        float | None, typer.Option(help="lora_alpha: scaling is alpha/r. Default: twice the rank.")
    ] = None,
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
    skip_too_long: Annotated[
        bool,
        typer.Option(
            "--skip-too-long",
            help="Leave out, and count, conversations of which no response lies within "
            "--max-tokens; else they stop the training.",
        ),
    ] = False,
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
            # As in LLaMA-Factory: another rank keeps the scaling.
            alpha=2.0 * rank if alpha is None else alpha,
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
        skip_too_long=skip_too_long,
    )
    spec.check()
    _refuse_at_once([base], [stream.path for stream in spec.data], output if not resume else None)
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


def compose(
    adapters: Annotated[
        str, typer.Option(help="PEFT LoRA adapters, directories or hub ids, by comma.")
    ],
    few_shot: Annotated[Path, typer.Option(help="A few conversations of the new task.")],
    output: Annotated[Path, typer.Option(help="Folder of the outcome; never overwritten.")],
    into: Annotated[
        Literal["lora", "molora"],
        typer.Option(
            help="lora: one LoRA, by LoRAHub. molora: the adapters as experts, and routers trained."
        ),
    ] = "lora",
    base: Annotated[
        str | None, typer.Option(help="Base model; default: what the adapters name.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of the search (40), or of the routers' training (100).")
    ] = None,
    experts_per_token: Annotated[
        int | None, typer.Option(help="With --into molora; default 2.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="With --into molora; default 0.001.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="With --into molora; default 8.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longer examples lose their end.")] = 2048,
    chat_template: Annotated[
        Path | None, typer.Option(help="Jinja file, for a base without a chat template.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 42,
    json_to: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write JSON; - is stdout.")
    ] = None,
) -> None:
    """Compose finished LoRAs for a new task, from a few examples of it.

    Example: mingmoe-eval compose --adapters a,b,c --few-shot examples.jsonl --output composed/
    """
    names = tuple(name.strip() for name in adapters.split(",") if name.strip())
    routed = {
        "--experts-per-token": experts_per_token,
        "--learning-rate": learning_rate,
        "--batch-size": batch_size,
    }
    misplaced = [name for name, value in routed.items() if value is not None and into == "lora"]
    if misplaced:
        raise UsageError(f"{', '.join(misplaced)} has a meaning with --into molora alone")
    _refuse_at_once([*names, *([base] if base else [])], [few_shot], output)
    from mingmoe_eval.cli.console import write_json
    from mingmoe_eval.cli.progress import TrainingProgress
    from mingmoe_eval.training.lora_mixture import MixtureSpec, compose_mixture
    from mingmoe_eval.training.lorahub import CompositionSpec, compose_adapter

    with TrainingProgress() as console:
        if into == "lora":
            spec = CompositionSpec(
                adapters=names,
                few_shot=few_shot,
                base=base,
                steps=40 if steps is None else steps,
                seed=seed,
                bf16=bf16,
                max_tokens=max_tokens,
                chat_template=chat_template,
            )
            record = compose_adapter(spec, output, watch=console)
        else:
            mixture = MixtureSpec(
                adapters=names,
                few_shot=few_shot,
                base=base,
                steps=100 if steps is None else steps,
                seed=seed,
                bf16=bf16,
                max_tokens=max_tokens,
                chat_template=chat_template,
                experts_per_token=2 if experts_per_token is None else experts_per_token,
                schedule=Schedule(
                    learning_rate=1e-3 if learning_rate is None else learning_rate,
                    batch_size=8 if batch_size is None else batch_size,
                ),
            )
            record = compose_mixture(mixture, output, watch=console)
        console.note(f"{output} holds the outcome: mingmoe-eval inspect {output}")
    if json_to is not None:
        write_json(record, json_to)


def _refuse_at_once(models: Sequence[str], files: Sequence[Path], output: Path | None) -> None:
    """Refuse what is not there, and an output that is, before torch is imported."""
    from mingmoe_eval.molora.presence import refuse_absent
    from mingmoe_eval.training.output_folder import refuse_taken

    if output is not None:
        refuse_taken(output)
    if missing := [str(file) for file in files if not file.is_file()]:
        raise MissingDataError(f"there is no file {', '.join(missing)}")
    for model in models:
        refuse_absent(model)
