"""The command: one verb a module; each turns arguments into one function call and an exit status.

Verbs are imported when they are called, so that `mingmoe-eval --help` answers at once and no verb
pays for another's imports.
"""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from mingmoe_eval import __version__
from mingmoe_eval.errors import MingMoeError

EXIT_DONE = 0
EXIT_GATE_FAILED = 1
EXIT_USER_MISTAKE = 2
EXIT_UNDECIDED = 3
EXIT_INCOMPLETE = 4
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: the function `function` of `mingmoe_eval.cli.<module>`."""

    module: str
    summary: str
    function: str = ""
    verbs: tuple[str, ...] = ()
    """The verbs below this one, as in `score promptcblue`; each is a function of the module."""


VERBS: dict[str, Verb] = {
    "run": Verb("run", "evaluate a model on tasks (the default verb)"),
    "tasks": Verb("tasks", "list the tasks and groups"),
    "inspect": Verb("inspect", "say what a checkpoint holds, and whether its adapter is live"),
    "score": Verb("score", "score predictions made elsewhere", verbs=("promptcblue",)),
    "rescore": Verb("rescore", "all metrics of a run again from its responses, without the model"),
    "report": Verb("report", "one offline HTML page from one to eight runs"),
    "compare": Verb("compare", "two runs, doc by doc, with intervals and tests"),
    "gate": Verb("gate", "the regression gate: pass or fail a candidate against a baseline"),
    "table": Verb("table", "a paper's table from runs: Markdown, LaTeX, CSV, HTML"),
    "overlap": Verb("overlap", "which test questions stand in training data"),
    "import": Verb("import_", "turn an output directory of lm-eval into a run folder"),
    "convert": Verb("convert", "original CBLUE files into PromptCBLUE records", verbs=("cblue",)),
    "ablate": Verb("ablate", "what a run's scores lose without an expert"),
    "train": Verb("train", "fine-tune a mixture of LoRA experts, or a plain LoRA"),
    "compose": Verb("compose", "one adapter from several finished LoRAs and a few examples"),
    "demo": Verb("demo", "evaluate a tiny base and a tiny MoLoRA on invented questions"),
}


# Which extra brings a package that the light install leaves out.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "peft", "accelerate", "safetensors"), "hf"),
    **dict.fromkeys(("httpx2", "anyio"), "api"),
    "nevergrad": "train",
    "ray": "ray",
    "vl_convert": "report",
}


# Importing torch, transformers and lm-eval makes millions of lasting objects: to look among them
# for garbage after every few hundred new ones, as Python does, is a good part of the start.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    words = list(sys.argv[1:] if arguments is None else arguments)
    status = EXIT_DONE
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has had enough: no mistake. Nor may the last flush fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return EXIT_DONE
    if words[0] in ("-V", "--version"):
        print(f"mingmoe-eval {__version__}")
        return EXIT_DONE
    if words[0] not in VERBS:
        if not words[0].startswith("-"):
            print(f"error: no verb {words[0]!r}\n\n{_help()}", file=sys.stderr)
            return EXIT_USER_MISTAKE
        words.insert(0, "run")
    return _call(words[0], words[1:])


def _call(name: str, arguments: list[str]) -> int:
    import typer

    verb = VERBS[name]
    module = importlib.import_module(f"mingmoe_eval.cli.{verb.module}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    for function in verb.verbs or (verb.function or verb.module,):
        app.command(name=function.strip("_"))(getattr(module, function))
    if verb.verbs:
        app.callback(help=verb.summary.capitalize() + ".")(lambda: None)
    try:
        app(arguments, prog_name=f"mingmoe-eval {name}", standalone_mode=True)
    except SystemExit as stop:
        return int(stop.code or 0)
    except MingMoeError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_MISTAKE
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(
            f"error: this needs {error.name}, which the light install leaves out: "
            f"pip install 'mingmoe-eval[{extra}]'",
            file=sys.stderr,
        )
        return EXIT_USER_MISTAKE
    return EXIT_DONE


def _help() -> str:
    verbs = "\n".join(f"  {name:<9} {verb.summary}" for name, verb in VERBS.items())
    return f"""\
mingmoe-eval {__version__}: evaluate medical language models, MoLoRA checkpoints above all.

  mingmoe-eval --tasks pharmacist2023 --model ckpt/ --data-dir data/
  mingmoe-eval --tasks usmle,usmle_ll --model ckpt/ --sample --limit 5

Verbs (each has --help):
{verbs}

Exit status: 0 done; 1 the regression gate failed; 2 a mistake that you can mend; 3 the regression
gate could not decide (with --strict); 4 the run is incomplete; 130 interrupted."""
