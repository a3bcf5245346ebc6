"""`mingmoe-eval score promptcblue`: score predictions that were made elsewhere."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingmoe_eval.errors import RunStoreError, offence_list

if TYPE_CHECKING:
    from mingmoe_eval.promptcblue.scorer import Scorecard

_REFUSED = 2


def promptcblue(
    gold: Annotated[
        Path, typer.Option(help="Records with `target`, or a structured file (task -> samples).")
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            help="Lines of {sample_id, task_dataset, prediction}; or records whose `target` holds "
            "the output; or MING's {prompt, text, additional_info} lines; or a structured file."
        ),
    ],
    profile: Annotated[
        str,
        typer.Option(
            help="official; legacy (the evaluator of May 2023); or lenient (ours: not comparable)."
        ),
    ] = "official",
    partial: Annotated[
        bool, typer.Option("--partial", help="Score the tasks that gold has; no overall score.")
    ] = False,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the result as JSON to a file, or - .")
    ] = None,
) -> None:
    """Score PromptCBLUE predictions as the official evaluator does, and say what is malformed.

    A submission with any fault is refused whole (exit status 2), with every fault and its place.
    Example: mingmoe-eval score promptcblue --gold dev.jsonl --predictions predictions.jsonl
    """
    from mingmoe_eval.promptcblue.parsing import profile_named
    from mingmoe_eval.promptcblue.scorer import score_files

    card = score_files(gold, predictions, profile=profile_named(profile), partial=partial)
    for note in card.notes:
        print(f"note: {note}", file=sys.stderr)
    if json_to is not None:
        _write_json(card, json_to)
    if not card.success:
        faults = [_printable(str(fault)) for fault in card.faults]
        headline = f"the submission is refused, as officially; {len(faults)} faults"
        print(f"error: {offence_list(headline, faults)}", file=sys.stderr)
        raise typer.Exit(_REFUSED)
    if json_to != "-":
        print(_table(card))


def _table(card: "Scorecard") -> str:
    """The official scores as percentages, with what else a reader should see."""
    from mingmoe_eval.promptcblue.catalogue import TASKS

    lines = [f"{'task':<14}{'metric':<10}{'score %':>8}  {'95 % interval':<15}{'malformed %':>12}"]
    for name, detail in card.detail.items():
        metric = TASKS[name].score_key.removeprefix(f"{name}-")
        low, high = detail["interval"]
        malformed = detail["malformed"]
        share = f"{100 * malformed['share']:.1f}" if malformed else ""
        value = 100 * card.scores[TASKS[name].score_key]
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        lines.append(f"{name:<14}{metric:<10}{value:>8.2f}  {interval:<15}{share:>12}")
    if "score" in card.scores:
        lines.append(f"{'mean of 16':<24}{100 * card.scores['score']:>8.2f}")
    lines += [f"NOT COMPARABLE: {mark}" for mark in card.marks]
    if card.profile != "official":
        lines.append(f"profile {card.profile}: not comparable with official scores")
    return "\n".join(lines)


def _write_json(card: "Scorecard", to: str) -> None:
    text = json.dumps(card.to_json(), ensure_ascii=False, indent=1)
    # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
    data = text.encode("utf-8", "backslashreplace") + b"\n"
    if to == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    try:
        Path(to).write_bytes(data)
    except OSError as error:
        raise RunStoreError(f"cannot write {to}: {error.strerror}") from error


def _printable(text: str) -> str:
    """Text from a file, with control characters shown instead of obeyed by the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
