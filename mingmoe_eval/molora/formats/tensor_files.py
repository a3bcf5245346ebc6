"""Tensors of a checkpoint by name, from safetensors or pickles, without running what is in them."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.json_files import shown
from mingmoe_eval.molora.config import read_json


class TensorFiles:
    """The tensors of one or several files: names and shapes at once, values when asked for.

    `integers` are the names of those that hold whole numbers or flags, which no weight does.

    Raises:
        CheckpointError: a file is unreadable, or holds something else than named tensors.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.integers: list[str] = []
        self._homes: dict[str, Path] = {}
        self._pickled: dict[str, Tensor] = {}
        for path in paths:
            # A safetensors header tells names and shapes; a pickle has to be read whole for them.
            shapes = self._read_safetensors(path) if is_safetensors(path) else self._unpickle(path)
            self.shapes |= shapes
            self._homes |= dict.fromkeys(shapes, path)

    def read(self, name: str) -> Tensor:
        """One tensor, in the dtype it is stored in, on the CPU."""
        if name in self._pickled:
            return self._pickled[name]
        with _readable(self._homes[name]), safe_open(self._homes[name], "pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    def _read_safetensors(self, path: Path) -> dict[str, tuple[int, ...]]:
        with _readable(path), safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            floating = ("F", "BF", "C")
            self.integers += [n for n, p in parts.items() if not p.get_dtype().startswith(floating)]
            return {name: tuple(part.get_shape()) for name, part in parts.items()}

    def _unpickle(self, path: Path) -> dict[str, tuple[int, ...]]:
        with _readable(path):
            # A pickle may run code when it is opened; of this kind only tensors are let through.
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
        ):
            raise CheckpointError(f"{path} is not a dict of tensors")
        self._pickled |= content
        self.integers += [n for n, t in content.items() if not t.is_floating_point()]
        return {name: tuple(tensor.shape) for name, tensor in content.items()}


def preferred_file(folder: Path, stem: str) -> Path | None:
    """`stem`.safetensors if the folder has it, else `stem`.bin, else None."""
    candidates = (folder / f"{stem}.safetensors", folder / f"{stem}.bin")
    return next((path for path in candidates if path.is_file()), None)


def required_file(folder: Path, stem: str) -> Path:
    """The same, of a file that must be there.

    Raises:
        CheckpointError: it is not.
    """
    path = preferred_file(folder, stem)
    if path is None:
        raise CheckpointError(f"{folder} has neither {stem}.safetensors nor {stem}.bin")
    return path


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of a full model's weights, safetensors before pickles; empty if there are none.

    Raises:
        CheckpointError: the index names a file outside the folder, or one that is not there.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if index.is_file():
            return _indexed_files(index)
        if (folder / f"{stem}.{suffix}").is_file():
            return (folder / f"{stem}.{suffix}",)
    return ()


def is_safetensors(path: Path) -> bool:
    """Whether the file's name says that it is a safetensors file."""
    return path.suffix == ".safetensors"


def indexed_names(index: Path) -> dict[str, str]:
    """The file that holds each tensor, by the tensor's name, as a sharded model's index says.

    Raises:
        CheckpointError: the file is no such index.
    """
    homes = read_json(index).get("weight_map")
    if not isinstance(homes, dict) or not all(isinstance(home, str) for home in homes.values()):
        raise CheckpointError(f"{index} is no index of weights: its weight_map names no files")
    return homes


def _indexed_files(index: Path) -> tuple[Path, ...]:
    names = sorted(set(indexed_names(index).values()))
    # Of the folder, not asked for each name: one from a file may be too long to be asked for.
    there = {path.name for path in index.parent.iterdir() if path.is_file()}
    bad = [name for name in names if name not in there]
    if bad or not names:
        told = ", ".join(map(shown, bad[:3])) or "none"
        raise CheckpointError(f"{index} names files that are not in its folder: {told}")
    return tuple(index.parent / name for name in names)


class _readable:
    """Turns what a broken file raises into a CheckpointError that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{self.path} is not a plain file of tensors and was not opened, since opening it "
                "could run code; save it again as safetensors, or with torch.save of tensors alone"
            ) from error
        # Broken bytes lead a pickle's reader anywhere, and what a KeyError says is a mere key.
        if isinstance(error, KeyError | IndexError):
            raise CheckpointError(
                f"{self.path} cannot be read: it is no file of tensors"
            ) from error
        if isinstance(error, Exception):
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error
