"""Loads a checkpoint's tokenizer, and holds it to its `tokenizer.json`.

transformers picks a tokenizer's class by the model's type, and some classes (Qwen2's, for one) take
only the vocabulary from the file and split text in their own way. A base whose file says otherwise
would be asked in other tokens than it was trained on, and nothing would say so.
"""

import functools
import json
import logging
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.hub import fetch
from mingmoe_eval.json_files import shown
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora.formats.ming import MERGED
from mingmoe_eval.molora.presence import SMALL_FILES
from mingmoe_eval.molora.sources import base_of, blaming, home_of, where

logger = logging.getLogger("mingmoe_eval.molora")

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer.model", "vocab.json", "vocab.txt")

# What normalizers and pre-tokenizers differ in: an accent that stands by itself, full-width forms,
# ligatures, digits, runs of blanks, contractions, punctuation before a line feed.
_PROBE = "Cafe\u0301 ５ｍｇ ﬁbre, it's 12345\u3000 x   y\n\n头痛？\n体温38.5℃ Ａ．是  "

_PARTS = ("normalizer", "pre_tokenizer", "decoder")
_VOCABULARY = ("vocab", "merges")


@quiet_libraries()
def load_tokenizer(adapter: str | Path, base: str | Path | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint: its own if it has one, else its base's.

    It splits text as its tokenizer.json says, whatever class transformers takes for it.

    Raises:
        CheckpointError: neither has one that loads without running its code.
    """
    home, form = home_of(str(adapter))
    if form == "gguf":
        return _of_gguf(str(adapter))
    if not has_tokenizer(home) and form not in (MERGED, "full"):
        base = base_of(home, base)
        home = Path(base) if Path(base).is_dir() else fetch(base, SMALL_FILES)
    # Asked for itself: transformers makes an empty tokenizer where there is none.
    if not has_tokenizer(home):
        raise CheckpointError(f"{home} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    with blaming(f"the tokenizer of {home} cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(str(home), trust_remote_code=False)
        most = tokenizer.model_max_length
        if isinstance(most, bool) or not isinstance(most, int | float):
            raise ValueError(f"model_max_length must be a number, not {shown(most)}")
        if isinstance(template := tokenizer.chat_template, dict):
            template = template.get("default")
        if not isinstance(template, str | None):
            raise ValueError(f"chat_template must be a text, not {shown(template)}")
        by_class = _ids_of_probe(tokenizer)
        differing = keep_to_file(tokenizer, home)
        if differing and _ids_of_probe(tokenizer) != by_class:
            _say_once(str(home), " and ".join(differing), type(tokenizer).__name__)
    return tokenizer


def _of_gguf(file: str) -> PreTrainedTokenizerBase:
    """The tokenizer that a GGUF file describes, as transformers reads it."""
    with blaming(f"the tokenizer of {file} cannot be loaded"):
        return AutoTokenizer.from_pretrained(**where(file), trust_remote_code=False)


def _ids_of_probe(tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """None where it cannot be encoded: a class may split into what has no token."""
    try:
        ids: list[int] = tokenizer.encode(_PROBE, add_special_tokens=False)
    except Exception:  # the Rust library raises nothing else
        return None
    return ids


@functools.cache
def _say_once(home: str, parts: str, kind: str) -> None:
    logger.warning(
        "%s: tokens are those of its %s, not those of transformers' %s (%s): tools that take the "
        "class as it is ask some texts in other tokens",
        home,
        TOKENIZER_FILE,
        kind,
        parts,
    )


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


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of its own."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


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
