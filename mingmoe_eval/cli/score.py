"""`mingmoe-eval score` and `convert`: answers from elsewhere, and PromptCBLUE out of CBLUE."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingmoe_eval.cli.console import print_line, print_table, write_json
from mingmoe_eval.cli.exits import EXIT_USER_MISTAKE, printable, say
from mingmoe_eval.cli.include_path import IncludePath, folders_said
from mingmoe_eval.errors import RunStoreError, offence_list
from mingmoe_eval.whole_files import write_whole

if TYPE_CHECKING:
    from mingmoe_eval.promptcblue.scorer import Scorecard


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
        say(f"note: {note}")
    if json_to is not None:
        write_json(card.to_json(), json_to)
    if not card.success:
        faults = [printable(str(fault)).replace("\n", "\\n") for fault in card.faults]
        headline = f"the submission is refused, as officially; {len(faults)} faults"
        say(f"error: {offence_list(headline, faults)}")
        raise typer.Exit(EXIT_USER_MISTAKE)
    if json_to != "-":
        _print_scores(card)


def exams(
    task: Annotated[str, typer.Option(help="The exam whose questions were asked.")],
    answers: Annotated[
        Path,
        typer.Option(
            help="One record a question (.jsonl, .json, .csv, .parquet): a reply, or the letters "
            "that were read from it; with the question's text, its id and its key if there are. "
            "Or a folder of MIRAGE's predictions."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The run's name, and the model's; default: the file's.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the questions are; without it the file must bring the key."),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="The questions are the small invented sample.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Another split than the official test split.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="reply: read here, by our rules; letters: as they were read elsewhere. Default: "
            "replies, where the file has them and the questions are at hand."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="What columns hold, where names do not tell: reply=answer_text,key=gold"),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Leave questions without an answer out; marked. Pass over answers to others.",
        ),
    ] = False,
    pass_rule: Annotated[
        list[str] | None,
        typer.Option(help="Would it pass? A rule's name (jmle2026) or file: docs/pass_rules.md."),
    ] = None,
    include_path: IncludePath = None,
    output: Annotated[Path, typer.Option(help="Folder for run folders.")] = Path("reports"),
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write run.json's content to a file, or - .")
    ] = None,
) -> None:
    """Score a model's answers to an exam, and save them as a run to compare, gate and table.

    Example: mingmoe-eval score exams --task usmle --answers answers.jsonl --data-dir data/
    """
    from mingmoe_eval.cli.console import print_results
    from mingmoe_eval.elsewhere import Elsewhere, score_elsewhere
    from mingmoe_eval.exams.exam_files import columns_said
    from mingmoe_eval.pass_rules import rule_named, verdicts_of
    from mingmoe_eval.run_store import folder_named, save_run, summary

    wanted = Elsewhere(
        task=task,
        answers=answers,
        name=name or answers.stem,
        data_dir=None if data_dir is None else str(data_dir),
        sample=sample,
        split=split,
        partial=partial,
        by=by,
        columns=columns_said(columns),
        include_path=folders_said(include_path),
    )
    rules = list(map(rule_named, pass_rule or ()))
    run, notes = score_elsewhere(wanted)
    passing = [
        str(one) for rule in rules for [found] in [verdicts_of([run], rule)] for one in found
    ]
    folder = save_run(run, folder_named(output, run.name))
    if json_to is not None:
        write_json(summary(run), json_to)
    if json_to != "-":
        print_results(run)
        for line in passing:
            print_line(line)
    for note in notes:
        say(f"note: {note}")
    say(f"{folder}: saved")


def _print_scores(card: "Scorecard") -> None:
    """The official scores as percentages, with what else a reader should see."""
    from mingmoe_eval.promptcblue.catalogue import TASKS

    rows: list[tuple[str, ...]] = []
    for name, detail in card.detail.items():
        low, high = detail["interval"]
        malformed = detail["malformed"]
        rows.append(
            (
                name,
                TASKS[name].score_key.removeprefix(f"{name}-"),
                f"{100 * card.scores[TASKS[name].score_key]:.2f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{100 * malformed['share']:.1f}" if malformed else "",
            )
        )
    if "score" in card.scores:
        rows.append(("mean of 16", "", f"{100 * card.scores['score']:.2f}", "", ""))
    headings = ("task", "metric", "score %", "95 % interval", "malformed %")
    if sys.stdout.isatty():
        print_table(f"PromptCBLUE, profile {card.profile}", headings, rows)
    else:
        for cells in (headings, *rows):  # one task a line, for awk
            print("{:<14}{:<10}{:>8}  {:<15}{:>12}".format(*cells).rstrip())
    for mark in card.marks:
        print_line(f"NOT COMPARABLE: {mark}")
    if card.profile != "official":
        print_line(f"profile {card.profile}: not comparable with official scores")


_WARNING = """\
NOT COMPARABLE: these records have prompts of our own, options drawn by us and other docs than
PromptCBLUE's. No score on them compares with a published PromptCBLUE or MING-MOE number."""


def cblue(
    source: Annotated[
        Path, typer.Argument(help="The folder of the unpacked CBLUE files, or one file.")
    ],
    output: Annotated[Path, typer.Option(help="Where the records go, as JSON Lines.")],
    split: Annotated[
        str, typer.Option(help="Which files: those whose names end in _SPLIT.")
    ] = "dev",
    most: Annotated[int, typer.Option(min=1, help="At most so many records a task.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the options and docs drawn at random.")] = 0,
) -> None:
    """Make PromptCBLUE records from the original CBLUE files, with prompts of our own.

    For those who have CBLUE and not PromptCBLUE. The scores compare with each other only.
    Example: mingmoe-eval convert cblue CBLUE/ --output data/promptcblue/dev.jsonl
    """
    from mingmoe_eval.cblue_conversion.convert import convert

    done = convert(source, split=split, most=most, seed=seed)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in done.records]
    try:
        write_whole(output, "".join(lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunStoreError(f"cannot write {output}: {error.strerror}") from error
    for task, count in done.by_task.items():
        lost = done.unwritable[task]
        note = f" ({lost} left out: the format cannot hold their gold)" if lost else ""
        print(f"{task:<14}{count:>6} records{note}")
    for note in done.notes:
        say(f"note: {note}")
    say(_WARNING)
