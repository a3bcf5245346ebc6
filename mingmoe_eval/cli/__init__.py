"""The command: one verb a module; each turns arguments into one function call and an exit status.

Verbs are imported when they are called, so that `mingmoe-eval --help` answers at once and no verb
pays for another's imports.
"""

import functools
import gc
import importlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mingmoe_eval import __version__
from mingmoe_eval.cli.exits import (
    EXIT_DONE,
    EXIT_USER_MISTAKE,
    ended_as_interrupted,
    explain,
    lasting_streams,
    say,
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: the function of its name in `mingmoe_eval.cli.<module>`, or `function` there."""

    module: str
    summary: str
    function: str = ""
    below: tuple[str, ...] = ()
    """The verbs below this one, as in `score promptcblue`; each is a function of the module."""


VERBS: dict[str, Verb] = {
    "run": Verb("run", "evaluate a model on tasks (the default verb)"),
    "tasks": Verb("tasks", "list the tasks and groups; tasks check DIR: try those of a folder"),
    "tasks check": Verb("tasks", "check a folder of tasks: prompts, replies, faults", "check"),
    "inspect": Verb("inspect", "say what a checkpoint holds, and whether its adapter is live"),
    "score": Verb("score", "score predictions made elsewhere", below=("exams", "promptcblue")),
    "rescore": Verb("answers", "all metrics of a run again from its responses, without the model"),
    "budget": Verb("budget", "the score against the budget of thought, from one run's thoughts"),
    "report": Verb("pages", "one offline HTML page from one to eight runs"),
    "compare": Verb("compare", "two runs, doc by doc, with intervals and tests"),
    "gate": Verb("compare", "the regression gate: pass or fail a candidate against a baseline"),
    "table": Verb("pages", "a paper's table from runs: Markdown, LaTeX, CSV, HTML"),
    "explain": Verb("explaining", "why a run's number differs from a published one"),
    "overlap": Verb("overlap", "which test questions stand in training data"),
    "import": Verb(
        "answers", "turn logs of lm-eval, inspect_ai and others into run folders", "import_"
    ),
    "convert": Verb("score", "original CBLUE files into PromptCBLUE records", below=("cblue",)),
    "ablate": Verb("ablate", "what a run's scores lose without an expert"),
    "blame": Verb("blame", "which layer or expert a change between two checkpoints comes from"),
    "train": Verb("train", "fine-tune a mixture of LoRA experts, or a plain LoRA"),
    "compose": Verb("compose", "one adapter from several finished LoRAs and a few examples"),
    "serve": Verb("serve", "serve a checkpoint with vLLM, as an OpenAI-compatible endpoint"),
    "demo": Verb("demo", "evaluate a tiny base and a tiny MoLoRA on invented questions"),
}


# Importing torch, transformers and lm-eval makes millions of lasting objects: to look among them
# for garbage after every few hundred new ones, as Python does, is a good part of the start.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    words = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_streams(), ended_as_interrupted() as status_of:
        try:
            status = _run(words)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            status = explain(error)
        return status_of(status)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return EXIT_DONE
    if words[0] in ("-V", "--version"):
        print(f"mingmoe-eval {__version__}")
        return EXIT_DONE
    if words[0] not in VERBS:
        if not words[0].startswith("-"):
            say(f"error: no verb {words[0]!r}\n\n{_help()}")
            return EXIT_USER_MISTAKE
        words.insert(0, "run")
    # Here, for to import what keeps libraries quiet takes as long as to answer --help.
    from mingmoe_eval.library_noise import quiet_command

    with quiet_command():
        if (two := " ".join(words[:2])) in VERBS:
            return _call(two, words[2:])
        if words[0] == "run":
            from mingmoe_eval.cli.run_file import run_as_said

            return run_as_said(words[1:], functools.partial(_call, "run"))
        return _call(words[0], words[1:])


def _call(name: str, arguments: list[str], **context: Any) -> int:
    import typer

    verb = VERBS[name]
    module = importlib.import_module(f"mingmoe_eval.cli.{verb.module}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    # typer makes an exit without a word of a Ctrl-C, and status 1 of some other errors.
    raised: list[BaseException] = []
    for below in verb.below or (name,):
        app.command(name=below)(_keeping(raised, getattr(module, verb.function or below)))
    if verb.below:
        app.callback(help=verb.summary.capitalize() + ".")(lambda: None)
    # click's UsageError, which newer releases of typer bring themselves.
    option_mistake = cast(type[typer.BadParameter], typer.BadParameter.__base__)
    status = None
    try:
        status = app(arguments, prog_name=f"mingmoe-eval {name}", standalone_mode=False, **context)
    except option_mistake as mistake:
        said = io.StringIO()
        mistake.show(said)
        say(said.getvalue().rstrip())
        return EXIT_USER_MISTAKE
    except (typer.Abort, SystemExit):
        if not raised:
            raise KeyboardInterrupt from None
    if raised:
        raise raised[0]
    return status if isinstance(status, int) else EXIT_DONE


def _keeping(raised: list[BaseException], verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, with whatever it raises kept, but for an exit that it chose."""
    import typer

    @functools.wraps(verb)
    def call(*arguments: Any, **options: Any) -> None:
        try:
            verb(*arguments, **options)
        except typer.Exit:
            raise
        except BaseException as error:
            raised.append(error)
            raise

    return call


def _help() -> str:
    verbs = "\n".join(
        f"  {name:<9} {verb.summary}" for name, verb in VERBS.items() if " " not in name
    )
    return f"""\
mingmoe-eval {__version__}: evaluate medical language models, MoLoRA checkpoints above all.

  mingmoe-eval --tasks pharmacist2023 --model ckpt/ --data-dir data/
  mingmoe-eval --tasks usmle,usmle_ll --model ckpt/ --sample --limit 5

Verbs (each has --help):
{verbs}

Exit status: 0 done; 1 the regression gate failed, and nothing else; 2 a mistake that you can mend;
3 the regression gate could not decide (with --strict); 4 the run is incomplete; 70 a bug of ours;
130 interrupted, 143 ended by SIGTERM, each with everything so far kept."""
