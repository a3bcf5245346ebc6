"""Trains adapters beside a frozen base model, and composes finished ones.

`train_adapter` fine-tunes a mixture of LoRA experts or a plain LoRA on conversations;
`compose_adapter` sums finished LoRAs as LoRAHub does; `compose_mixture` makes them the experts of
a mixture and trains its routers.
"""

from typing import TYPE_CHECKING

from mingmoe_eval.lazy_names import on_first_use

if TYPE_CHECKING:
    from mingmoe_eval.training.fine_tuning import train_adapter
    from mingmoe_eval.training.lora_mixture import compose_mixture
    from mingmoe_eval.training.lorahub import compose_adapter

__all__ = ["compose_adapter", "compose_mixture", "train_adapter"]

if not TYPE_CHECKING:  # it would let a type checker pass any name
    __getattr__ = on_first_use(
        __name__,
        {
            "compose_adapter": "lorahub",
            "compose_mixture": "lora_mixture",
            "train_adapter": "fine_tuning",
        },
    )
