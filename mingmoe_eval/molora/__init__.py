"""Mixtures of low-rank experts: their checkpoints, their arithmetic, their routing."""

from typing import TYPE_CHECKING

from mingmoe_eval.lazy_names import on_first_use

if TYPE_CHECKING:
    from mingmoe_eval.molora.checkpoint import describe_checkpoint, load_model
    from mingmoe_eval.molora.probing import probe
    from mingmoe_eval.molora.resident_base import load_adapters
    from mingmoe_eval.molora.tokenizer import load_tokenizer

__all__ = ["describe_checkpoint", "load_adapters", "load_model", "load_tokenizer", "probe"]

if not TYPE_CHECKING:  # it would let a type checker pass any name
    __getattr__ = on_first_use(
        __name__,
        {
            "describe_checkpoint": "checkpoint",
            "load_adapters": "resident_base",
            "load_model": "checkpoint",
            "load_tokenizer": "tokenizer",
            "probe": "probing",
        },
    )
