"""Whether a model is there at all, told before torch is imported: a slip waits for nothing.

What is in it is told later, from its files (`sources`).
"""

import difflib
import importlib.util
import re
from pathlib import Path

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.hub import fetch
from mingmoe_eval.json_files import shown
from mingmoe_eval.molora.config import ADAPTER_CONFIG, MODEL_CONFIG, read_json

# One word, or two with a slash. No backslash and no colon, which paths of another system have.
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")

_LONGEST_ID = 200  # two words of 96, which the hub allows

_NAMES_ANOTHER = f"{{}}/{ADAPTER_CONFIG} names it: give a base's directory or hub id with --base"

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "adapter_model.*", "non_lora_trainables.*")
"""What of a hub repository tells its kind, and is the whole of an adapter."""


def refuse_absent(model: str | Path, base: str | Path | None = None) -> None:
    """Refuse a model, or the base of an adapter, that is neither here nor on the hub.

    Raises:
        CheckpointError: naming what is not there, and what it may have been meant to be.
        ModuleNotFoundError: torch is not installed, so that no model is of use.
    """
    # Found, not imported. A light install should not first fetch a model that it cannot load.
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    if is_gguf(model):
        if not Path(model).is_file():
            raise CheckpointError(f"there is no file {model}{_near(str(model), files=True)}")
        if importlib.util.find_spec("gguf") is None:
            raise ModuleNotFoundError("No module named 'gguf'", name="gguf")
        return
    folder = _model_folder(str(model))
    if (folder / ADAPTER_CONFIG).is_file():
        named = named_base(folder, base)
        if not is_directory(Path(named)):
            try:
                fetch(named, (MODEL_CONFIG,))
            except CheckpointError as error:
                if base is not None:
                    raise
                raise CheckpointError(f"{error}; {_NAMES_ANOTHER.format(folder)}") from error
    elif base is not None:
        refuse_lost_path(str(base), "base model directory")


def is_gguf(name: str | Path) -> bool:
    """Whether a name is that of a file of llama.cpp's, which holds a whole model."""
    return str(name).lower().endswith(".gguf")


def named_base(folder: Path, base: str | Path | None) -> str:
    """The base model's directory or hub id: the one given, else the one that the adapter names.

    Raises:
        CheckpointError: neither gives one, or it is a directory that is not there.
    """
    if base is not None:
        refuse_lost_path(str(base), "base model directory")
        return str(base)
    named = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG} names no base model: give one with --base"
        )
    # A relative path is meant from the checkpoint, wherever the command runs.
    if is_directory(folder / named):
        found = (folder / named).resolve()
        if (found / MODEL_CONFIG).is_file():
            return str(found)
        raise CheckpointError(
            f"the base model {shown(named)} that {folder / ADAPTER_CONFIG} names has no "
            f"{MODEL_CONFIG}: give a base's directory or hub id with --base"
        )
    if _is_path(named):
        raise CheckpointError(
            f"the base model {shown(named)} that {folder / ADAPTER_CONFIG} names is not there: "
            "give its directory or hub id with --base"
        )
    return named


def is_directory(path: Path) -> bool:
    """Whether it is one, and not when it cannot be: a name from a file may be of any length."""
    try:
        return path.is_dir()
    except OSError:
        return False


def refuse_lost_path(name: str, what: str = "model directory") -> None:
    """Refuse what is no directory here, and no hub id either.

    Raises:
        CheckpointError: with the nearest names that are there.
    """
    if is_directory(Path(name)):
        return
    if Path(name).exists():
        raise CheckpointError(f"{name} is a file: a {what} is wanted")
    if "://" in name:
        # Not repeated: an address may hold a password.
        raise CheckpointError(
            f"an address is no {what}: a served model is named openai:http://HOST:PORT/v1#NAME, "
            "one on the hub OWNER/NAME"
        )
    if _is_path(name):
        raise CheckpointError(f"there is no {what} {name}{_near(name)}")


def _model_folder(name: str) -> Path:
    refuse_lost_path(name)
    if Path(name).is_dir():
        return Path(name)
    try:
        return fetch(name, SMALL_FILES)
    except CheckpointError as error:
        # `ckpt/adaptr` may well be a hub id; more often it is a slip.
        raise CheckpointError(f"{error}{_near(name)}") from error


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path."""
    looks = name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name)
    return looks or len(name) > _LONGEST_ID


def _near(name: str, *, files: bool = False) -> str:
    """What is here under nearly the same name: directories, or files."""
    beside = Path(name).parent
    paths = list(beside.iterdir()) if beside.is_dir() else []
    there = [path.name for path in paths if (path.is_file() if files else path.is_dir())]
    near = difflib.get_close_matches(Path(name).name, there)
    return f"; did you mean {' or '.join(str(beside / one) for one in near)}?" if near else ""
