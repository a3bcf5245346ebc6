"""`mingmoe-eval inspect`: what a checkpoint is, and whether it is whole."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mingmoe_eval.molora.description import CheckpointDescription
    from mingmoe_eval.records import JsonDict


def inspect(
    checkpoint: Annotated[str, typer.Argument(help="Directory or hub id of a model or adapter.")],
    base: Annotated[
        str | None, typer.Option(help="Base model; default: what the adapter names.")
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Also load it, and see whether the adapter changes anything."),
    ] = False,
    json_to: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Write JSON; - is stdout.")
    ] = None,
) -> None:
    """Tell what a checkpoint is, check that it is whole, and count its parameters.

    Example: mingmoe-eval inspect ckpt/moe-adapter --base Qwen/Qwen1.5-4B-Chat
    """
    from mingmoe_eval.cli.console import print_table, write_json
    from mingmoe_eval.molora.presence import refuse_absent

    refuse_absent(checkpoint, base)
    # Only now what imports torch.
    from mingmoe_eval.molora import describe_checkpoint

    description = describe_checkpoint(checkpoint, base)
    data = description.to_json()
    if probe:
        data["largest_logit_change"] = _largest_logit_change(checkpoint, base)
    if json_to is not None:
        write_json(data, json_to)
    if json_to != "-":
        print_table(description.source, ("", ""), _rows(description, data), words=("",))


def _largest_logit_change(checkpoint: str, base: str | None) -> float | None:
    from mingmoe_eval.molora import load_model, probe

    return probe(load_model(checkpoint, base, check=False))


def _rows(description: "CheckpointDescription", data: "JsonDict") -> list[tuple[str, str]]:
    rows = [
        ("kind", description.kind),
        ("architecture", f"{description.architecture}, {description.layers} layers"),
    ]
    if description.base:
        rows.append(("base", description.base))
    if mixture := description.mixture:
        rows += [
            ("experts", f"{mixture.num_experts}, {mixture.experts_per_token} a token"),
            ("rank, alpha", f"{mixture.rank}, {mixture.alpha:g}"),
            ("scaling of experts", f"{mixture.expert_scaling:g}"),
            ("scaling of low-rank pairs", f"{mixture.attention_scaling:g}"),
            ("generation", str(mixture.generation or "")),
        ]
    rows += [
        ("layers with experts", _layer_counts(description.expert_layers)),
        ("layers with a low-rank pair", _layer_counts(description.low_rank_layers)),
        ("parameters", f"{description.parameters.total:,}"),
        ("of which the adapter's", f"{description.parameters.adapter:,}"),
        ("active for a token", f"{description.parameters.active:,}"),
    ]
    if "largest_logit_change" in data:
        rows.append(("largest change of a logit", str(data["largest_logit_change"])))
    rows += [("note", note) for note in description.notes]
    return [(label, value) for label, value in rows if value]


def _layer_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
