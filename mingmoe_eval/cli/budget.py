"""`mingmoe-eval budget`: the score against the budget of thought, from one run's thoughts."""

from pathlib import Path
from typing import Annotated

import typer

from mingmoe_eval.cli.exits import say
from mingmoe_eval.errors import UsageError


def budget(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run whose replies think.")],
    budgets: Annotated[
        str, typer.Option(help="Tokens of thought, by comma, each below what the run had.")
    ] = "256,512,1024,2048",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer behind a cut thought; default: the run's own."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Where the run's model is now; default: where it was."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where run folders go; default: beside the run.")
    ] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the curve as JSON to a file, or - .")
    ] = None,
) -> None:
    """Cut a run's thoughts at each budget, have them answered, and score that: one run a budget.

    A thought that is shorter leaves its reply as it was. docs/reasoning.md says how to read it.
    Example: mingmoe-eval budget reports/qwen3-8b --budgets 256,512,1024
    """
    import dataclasses
    import shlex

    from mingmoe_eval.cli.console import print_line, print_table, refuse_unwritable
    from mingmoe_eval.cli.console import write_json as write_json_to
    from mingmoe_eval.cli.progress import RunProgress
    from mingmoe_eval.metrics.showing import with_interval
    from mingmoe_eval.molora.presence import refuse_absent
    from mingmoe_eval.run_store import (
        CURVE_FILE,
        folder_named,
        load_run,
        refuse_taken,
        save_run,
        write_json,
    )

    wanted = _budgets(budgets)
    if json_to:
        refuse_unwritable(json_to)
    whole = load_run(run)
    if model is not None:
        whole = dataclasses.replace(whole, spec=dataclasses.replace(whole.spec, model=model))
    refuse_absent(whole.spec.model, whole.spec.base)
    folder = output or run.parent
    for one in wanted:
        refuse_taken(folder_named(folder, f"{whole.name}-think-{one}"), resume=False)
    # Only now what imports torch.
    from mingmoe_eval.thought_budgets import at_budgets, curve_rows

    with RunProgress() as watch:
        cut = list(at_budgets(whole, wanted, answer_tokens=max_new_tokens, watch=watch))
    points = curve_rows(whole, cut)
    curve = {"run": whole.name, "points": points}
    write_json(run / CURVE_FILE, curve)
    say(f"the report shows the curve too: mingmoe-eval report {shlex.quote(str(run))}")
    for made in cut:
        say(f"{save_run(made, folder_named(folder, made.name))}: saved")
    if json_to:
        write_json_to(curve, json_to)
    if json_to == "-":
        return
    rows = [
        (
            point["task"],
            "none" if point["budget"] is None else str(point["budget"]),
            with_interval(one.results[point["task"]].main),
            f"{100 * point['forced'] / max(point['docs'], 1):.1f}",
            f"{100 * point['empty'] / max(point['docs'], 1):.1f}",
            "" if point["tokens"] is None else f"{point['tokens']:.0f}",
        )
        for point in sorted(points, key=lambda point: point["task"])
        for one in (*cut, whole)
        if one.spec.think == point["budget"] and (one is not whole or point["budget"] is None)
    ]
    headings = ("task", "tokens of thought", "score", "forced %", "empty %", "tokens a reply")
    print_table(f"{whole.name}: score against budget", headings, rows)
    if whole.marks:
        print_line(f"Not the benchmark: {', '.join(whole.marks)}.")


def _budgets(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"--budgets {text!r}: give whole numbers by comma, such as 256,512,1024")
    return sorted({int(word) for word in words})
