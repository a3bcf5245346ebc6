"""The language model behind a run: `CheckpointLM`, an lm-eval `LM` over one checkpoint."""

from typing import TYPE_CHECKING

from mingmoe_eval.lazy_names import on_first_use

if TYPE_CHECKING:
    from mingmoe_eval.engine.checkpoint_lm import CheckpointLM

__all__ = ["CheckpointLM"]

if not TYPE_CHECKING:  # it would let a type checker pass any name
    __getattr__ = on_first_use(__name__, {"CheckpointLM": "checkpoint_lm"})
