"""Evaluate medical language models, above all mixtures of LoRA experts.

The verbs of the package, each imported when it is first used: `evaluate`, `load_run`, `compare`,
`judge`, `render_report`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["compare", "evaluate", "judge", "load_run", "render_report"]

if TYPE_CHECKING:
    from mingmoe_eval.comparison import compare
    from mingmoe_eval.evaluation import evaluate
    from mingmoe_eval.regression_gate import judge
    from mingmoe_eval.report import render_report
    from mingmoe_eval.run_store import load_run

_HOMES = {
    "compare": "comparison",
    "evaluate": "evaluation",
    "judge": "regression_gate",
    "load_run": "run_store",
    "render_report": "report",
}


def __getattr__(name: str) -> Any:
    """Import a verb from its home on first use, so that `import mingmoe_eval` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
