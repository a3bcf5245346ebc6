"""The language model behind a run: `CheckpointLM`, an lm-eval `LM` over one checkpoint."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mingmoe_eval.engine.checkpoint_lm import CheckpointLM

__all__ = ["CheckpointLM"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch and transformers take seconds, and most verbs need neither."""
    if name == "CheckpointLM":
        from mingmoe_eval.engine.checkpoint_lm import CheckpointLM

        return CheckpointLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
