"""What of transformers' insides the engine relies on; the releases from 5.0 on differ here."""

import inspect
import typing
from collections.abc import Callable
from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import create_causal_mask

_KEEPS_KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)
_CATCH_ALL = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_ATTENTION = ("attention", "full_attention", "sliding_attention", "chunked_attention")


def cache_argument(forward: Callable[..., Any]) -> str | None:
    """What a model's or decoder's `forward` calls the cache of keys and values; None: it has none.

    `past_key_values` until transformers 5.23, `cache` since, where the older name warns. A model
    whose code comes with its checkpoint has the name of the release it was written for: so the
    signature is asked, never the version.
    """
    parameters = inspect.signature(forward).parameters
    if {parameter.kind for parameter in parameters.values()} <= _CATCH_ALL:
        # Somebody's wrapper, which hands on what it is given: what this release's models take.
        parameters = inspect.signature(create_causal_mask).parameters
    for name in ("cache", "past_key_values"):
        if name in parameters:
            return name if _takes_any_cache(parameters[name].annotation) else None
    return None


def _takes_any_cache(annotation: object) -> bool:
    # Before 5.10 a hybrid of attention and recurrence (Jamba, Qwen3-Next) takes only a cache class
    # of its own, and says so in its signature alone.
    return not any(
        isinstance(kind, type)
        and kind.__name__.endswith("Cache")
        and not issubclass(DynamicCache, kind)
        for kind in (typing.get_args(annotation) or (annotation,))
    )


def attention_layers(config: Any) -> list[DynamicLayer] | None:
    """A fresh cache's layers, if keys and values are all that each layer remembers; else None."""
    # Asked first: old releases give a recurrent layer the cache of an attention layer.
    if any(kind not in _ATTENTION for kind in getattr(config, "layer_types", None) or ()):
        return None
    layers: list[DynamicLayer] = DynamicCache(config=config).layers
    return layers if all(type(layer) in _KEEPS_KEYS_AND_VALUES for layer in layers) else None
