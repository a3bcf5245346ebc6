"""Evaluate medical language models, above all mixtures of LoRA experts.

The whole public surface; docs/python.md shows each name at work. Each is imported when it is first
used, so that `import mingmoe_eval` stays light.
"""

from typing import TYPE_CHECKING

from mingmoe_eval.lazy_names import on_first_use

if TYPE_CHECKING:
    from mingmoe_eval.comparison import compare
    from mingmoe_eval.errors import (
        CheckpointError,
        DataError,
        IncomparableRunsError,
        MingMoeError,
        MissingDataError,
        RunStoreError,
        UnknownTaskError,
        UsageError,
    )
    from mingmoe_eval.evaluation import evaluate
    from mingmoe_eval.language_model import LanguageModel
    from mingmoe_eval.records import RequestUsage, Run, RunSpec, Sample
    from mingmoe_eval.regression_gate import judge
    from mingmoe_eval.report import render_report
    from mingmoe_eval.rescoring import rescore
    from mingmoe_eval.run_store import load_run, save_run

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DataError",
    "IncomparableRunsError",
    "LanguageModel",
    "MingMoeError",
    "MissingDataError",
    "RequestUsage",
    "Run",
    "RunSpec",
    "RunStoreError",
    "Sample",
    "UnknownTaskError",
    "UsageError",
    "compare",
    "evaluate",
    "judge",
    "load_run",
    "render_report",
    "rescore",
    "save_run",
]

if not TYPE_CHECKING:  # it would let a type checker pass any name
    __getattr__ = on_first_use(
        __name__,
        {
            **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
            **dict.fromkeys(("RequestUsage", "Run", "RunSpec", "Sample"), "records"),
            **dict.fromkeys(("load_run", "save_run"), "run_store"),
            "LanguageModel": "language_model",
            "compare": "comparison",
            "evaluate": "evaluation",
            "judge": "regression_gate",
            "render_report": "report",
            "rescore": "rescoring",
        },
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
