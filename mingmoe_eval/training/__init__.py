"""Trains adapters beside a frozen base model, and composes finished ones.

`train_adapter` fine-tunes a mixture of LoRA experts or a plain LoRA on conversations;
`compose_adapter` sums finished LoRAs as LoRAHub does; `compose_mixture` makes them the experts of
a mixture and trains its routers.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mingmoe_eval.training.fine_tuning import train_adapter
    from mingmoe_eval.training.lora_mixture import compose_mixture
    from mingmoe_eval.training.lorahub import compose_adapter

__all__ = ["compose_adapter", "compose_mixture", "train_adapter"]

_HOMES = {
    "train_adapter": "fine_tuning",
    "compose_mixture": "lora_mixture",
    "compose_adapter": "lorahub",
}


def __getattr__(name: str) -> Any:
    # On demand: torch, transformers and peft take seconds, and `--help` needs none of them.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
