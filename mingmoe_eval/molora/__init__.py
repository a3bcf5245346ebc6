"""Mixtures of low-rank experts: their checkpoints, their arithmetic, their routing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mingmoe_eval.molora.checkpoint import describe_checkpoint, load_model, load_tokenizer
    from mingmoe_eval.molora.probing import probe
    from mingmoe_eval.molora.resident_base import load_adapters

__all__ = ["describe_checkpoint", "load_adapters", "load_model", "load_tokenizer", "probe"]


def __getattr__(name: str) -> Any:
    # On demand: torch and transformers take seconds, and commands that read runs need neither.
    if name == "probe":
        from mingmoe_eval.molora.probing import probe

        return probe
    if name == "load_adapters":
        from mingmoe_eval.molora.resident_base import load_adapters

        return load_adapters
    if name in __all__:
        from mingmoe_eval.molora import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
