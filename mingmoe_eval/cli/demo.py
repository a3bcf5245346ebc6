"""`mingmoe-eval demo`: two tiny checkpoints on the bundled sample, with the command users type."""

import filecmp
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingmoe_eval.errors import RunStoreError, UsageError

if TYPE_CHECKING:
    from mingmoe_eval.records import Run


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for the checkpoints and the runs; made if it is not there.")
    ] = Path("demo"),
) -> None:
    """Evaluate a tiny base model and a tiny MoLoRA adapter on the bundled sample, offline.

    Leaves both checkpoints and both run folders, to try things on. Run again, it adds two runs.
    Example: mingmoe-eval demo --output demo
    """
    from mingmoe_eval.demo import ADAPTER, BASE
    from mingmoe_eval.run_store import load_run

    place_checkpoints(output)
    base, adapter = (_evaluate(output, name) for name in (BASE, ADAPTER))
    _print_side_by_side(load_run(base), load_run(adapter))
    _print_what_next(output, base, adapter)


def place_checkpoints(output: Path) -> None:
    """Copy both checkpoints into a folder, unless they are there already.

    Raises:
        UsageError: the folder holds something else, or the checkpoints were changed.
        RunStoreError: the folder cannot be written.
    """
    from mingmoe_eval.demo import checkpoints_dir

    shipped = checkpoints_dir()
    try:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output} is a file; choose a folder with --output DIR")
        if output.is_dir() and any(output.iterdir()):
            _refuse_unless_ours(output, shipped)
            return
        shutil.copytree(shipped, output, dirs_exist_ok=True)
    except OSError as error:
        raise RunStoreError(f"cannot write the demo to {output}: {error}") from error


def _refuse_unless_ours(output: Path, shipped: Path) -> None:
    files = sorted(path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file())
    _, changed, absent = filecmp.cmpfiles(shipped, output, map(str, files), shallow=False)
    if len(absent) == len(files):
        raise UsageError(
            f"{output} is not empty and holds no demo; choose another folder with --output DIR"
        )
    if changed or absent:
        raise UsageError(
            f"{output} holds a demo whose checkpoints were changed: {', '.join(changed + absent)}. "
            "Nothing is overwritten; choose another folder with --output DIR, or remove this one"
        )


def _evaluate(output: Path, checkpoint: str) -> Path:
    """Run one checkpoint as a user would, showing the command; the folder of the new run."""
    from mingmoe_eval.cli.run import run
    from mingmoe_eval.demo import TASKS

    runs = output / "runs"
    model, tasks = str(output / checkpoint), ",".join(task.name for task in TASKS)
    _print_heading(_command("--model", model, "--tasks", tasks, "--sample", "--output", str(runs)))
    before = set(_folders(runs))
    run(model=model, tasks=tasks, sample=True, output=runs)
    (made,) = set(_folders(runs)) - before
    return made


def _folders(runs: Path) -> Iterator[Path]:
    return (path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else iter(())


def _print_side_by_side(base: "Run", adapter: "Run") -> None:
    """Both runs in one table; which tasks the adapter was taught; what guessing would score."""
    from mingmoe_eval.cli.console import print_table
    from mingmoe_eval.demo import TASKS
    from mingmoe_eval.metrics.showing import with_interval

    rows = []
    for task in TASKS:
        ours, theirs = adapter.results[task.name], base.results[task.name]
        chance = "" if ours.chance is None else f"{100 * ours.chance:.1f}"
        scores = (chance, with_interval(theirs.main), with_interval(ours.main), str(ours.main.n))
        rows.append((task.name, task.taught, *scores))
    print()
    print_table(
        "invented sample: base against adapter, % [95 % interval]",
        ("task", "taught to the adapter", "chance", "base", "adapter", "docs"),
        rows,
        words=("taught to the adapter",),
    )


def _print_what_next(output: Path, base: Path, adapter: Path) -> None:
    checkpoint = str(output / "molora-adapter")
    print(f"\nBoth checkpoints and both runs are in {output}. Try next:")
    for command, purpose in (
        (_command("inspect", checkpoint), "layers, experts, ranks, parameters"),
        (_command("compare", str(base), str(adapter)), "doc by doc, with tests"),
        (_command("report", str(base), str(adapter)), "one page with every question and answer"),
        (
            _command("--model", checkpoint, "--tasks", "mcmle", "--data-dir", "data"),
            "the same on your own copy of the data",
        ),
    ):
        print(f"  {command}\n      {purpose}")


def _command(*words: str) -> str:
    return shlex.join(["mingmoe-eval", *words])


def _print_heading(command: str) -> None:
    # Flushed, so that it stands before what the run writes to stderr.
    print(f"\n$ {command}", flush=True)
