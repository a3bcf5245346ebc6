"""`mingmoe-eval serve`: an OpenAI-compatible endpoint for a checkpoint, by vLLM."""

import shlex
import signal
from pathlib import Path
from typing import Annotated

import typer

from mingmoe_eval.errors import MingMoeError


def serve(
    checkpoint: Annotated[
        str,
        typer.Argument(help="Directory or hub id: MoLoRA adapter, PEFT LoRA adapter, full model."),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(help="After --: options of vLLM's own server.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base model of an adapter; default: what its adapter_config.json names."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients; default: the folder's.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for other machines too.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    tensor_parallel: Annotated[
        int | None, typer.Option(min=1, help="Split the model over so many GPUs.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=0.05, max=1.0, help="The share of each GPU's memory it takes."),
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=2, help="The most tokens of prompt and text.")
    ] = None,
    prepare_only: Annotated[
        Path | None,
        typer.Option(
            "--prepare",
            help="Make the folder that vLLM takes for a model, print the command, and end.",
        ),
    ] = None,
) -> None:
    """Serve a checkpoint with vLLM until Ctrl-C, as an OpenAI-compatible endpoint.

    Its address is announced on stdout once it answers; vLLM's own talk goes to stderr.
    Example: mingmoe-eval serve ckpt/ --port 8000 -- --max-num-seqs 64
    """
    from mingmoe_eval.cli.console import print_line
    from mingmoe_eval.vllm import door

    on_cpu = door.on_cpu() if prepare_only is None else False
    from mingmoe_eval.molora.presence import refuse_absent
    from mingmoe_eval.vllm.prepared import prepare
    from mingmoe_eval.vllm.serving import Serving, port_for, served

    refuse_absent(checkpoint, base)
    serving = Serving(
        name=name or Path(checkpoint.rstrip("/")).name or Path(checkpoint).resolve().name,
        host=host,
        # Whoever only prepares a folder may serve it elsewhere.
        port=port if prepare_only and port else port_for(host, port),
        tensor_parallel=tensor_parallel,
        gpu_memory=gpu_memory,
        max_model_len=max_model_len,
        options=tuple(options or ()),
    )
    prepared = prepare(checkpoint, base, dtype=dtype, on_cpu=on_cpu, folder=prepare_only)
    for note in prepared.notes:
        typer.echo(note, err=True)
    if prepare_only is not None:
        words = serving.arguments(prepared, on_cpu=on_cpu)[2:]
        print_line(shlex.join(["vllm", "serve", str(prepared.folder), *words]))
        return
    # What ends a service, too, must end its children; and a shell may have silenced Ctrl-C.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    try:
        with served(prepared, serving) as server:
            print_line(f"serving {serving.name} at {serving.address}/v1")
            print_line(f"health: {serving.address}/health")
            model = shlex.quote(f"openai:{serving.address}/v1#{serving.name}")
            print_line(f"evaluate it: mingmoe-eval --model {model} --tasks ...")
            status = server.wait()
    except KeyboardInterrupt:
        typer.echo("\nended", err=True)
        return
    raise MingMoeError(f"vLLM's server ended by itself, with status {status}")
