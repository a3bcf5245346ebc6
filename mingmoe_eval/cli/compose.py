"""`mingmoe-eval compose`: one adapter put together of several finished ones."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from mingmoe_eval.cli.train import refuse_at_once
from mingmoe_eval.errors import UsageError
from mingmoe_eval.training.spec import Schedule


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
    refuse_at_once([*names, *([base] if base else [])], [few_shot], output)
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
        place = shlex.quote(str(output))
        console.note(f"{output} holds the outcome: mingmoe-eval inspect {place}")
    if json_to is not None:
        write_json(record, json_to)
