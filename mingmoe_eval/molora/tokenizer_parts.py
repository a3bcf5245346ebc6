"""Holds a tokenizer to its `tokenizer.json`.

transformers picks a tokenizer's class by the model's type, and some classes (Qwen2's, for one) take
only the vocabulary from the file and split text in their own way. A base whose file says otherwise
would be asked in other tokens than it was trained on, and nothing would say so.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

TOKENIZER_FILE = "tokenizer.json"

_PARTS = ("normalizer", "pre_tokenizer", "decoder")
_VOCABULARY = ("vocab", "merges")


def keep_to_file(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[str, ...]:
    """Give a tokenizer the parts that its folder's `tokenizer.json` states; changes the tokenizer.

    Its special tokens, its template and what it puts around a text stay.

    Returns:
        The names of the parts that differed; empty where there is no such file.
    """
    file = folder / TOKENIZER_FILE
    if not tokenizer.is_fast or not file.is_file():
        return ()
    stated = json.loads(file.read_text("utf-8"))
    backend = tokenizer.backend_tokenizer
    differing = tuple(
        name
        for name in _PARTS
        if _that_matters(_state(backend, name)) != _that_matters(stated.get(name))
    )
    if not _same_model(backend.model, stated.get("model") or {}):
        differing = (*differing, "model")
    if differing:
        whole = Tokenizer.from_file(str(file))
        for name in differing:
            setattr(backend, name, getattr(whole, name))
    return differing


def _state(backend: Tokenizer, name: str) -> Any:
    part = getattr(backend, name)
    return None if part is None else json.loads(part.__getstate__())


def _that_matters(state: Any) -> Any:
    """A part's settings without the one that moves offsets alone, of which nothing here is made."""
    if isinstance(state, dict):
        return {name: _that_matters(v) for name, v in state.items() if name != "trim_offsets"}
    return [_that_matters(one) for one in state] if isinstance(state, list) else state


def _same_model(model: Any, stated: dict[str, Any]) -> bool:
    """Whether kind and settings agree; an empty text and none mean the same, as does silence."""
    settings = {
        name: value
        for name, value in stated.items()
        if name not in (*_VOCABULARY, "type") and hasattr(model, name)
    }
    return stated.get("type", type(model).__name__) == type(model).__name__ and all(
        (getattr(model, name) or None) == (value or None) for name, value in settings.items()
    )
