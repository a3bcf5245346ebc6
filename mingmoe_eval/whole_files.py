"""Files written whole or not at all: beside their place, made durable, then moved into it.

A reader never sees half a file, and a disk that fills up in between leaves what was there before.
"""

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

_BESIDE = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.mingmoe-eval")
"""A name that no editor and no user gives to a file."""
_LONGEST = 220  # bytes of a name; 255 are most systems' limit


def write_whole(path: Path, content: bytes | Iterable[str]) -> Path:
    """Write a file; its folder is made where it is not there.

    Args:
        path: Where; what is no file, such as `/dev/stdout` or a pipe, is written to as it is.
        content: All of it, or its text piece by piece, which becomes UTF-8.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    if path.exists() and not path.is_file():
        _write(path, content)
        return path
    place = path.resolve()  # a link to a file stays one
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place)
    beside = place.with_name(f".{_cut(place.name)}.{os.getpid()}.mingmoe-eval")
    try:
        _write(beside, content, durable=True)
        beside.replace(place)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[None]:
    """A folder for the block to fill; one that was not there goes again where an error ends it.

    Half of it would be taken for the whole.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing in a folder that nobody else writes to by now."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if _BESIDE.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
            entry.unlink()


def _write(path: Path, content: bytes | Iterable[str], *, durable: bool = False) -> None:
    with path.open("wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            file.writelines(piece.encode("utf-8") for piece in content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _remove_abandoned(place: Path) -> None:
    """What a process that was killed had written of this very file."""
    if os.name != "posix":  # elsewhere a process cannot be asked for without harm
        return
    for entry in place.parent.glob(f".{glob.escape(_cut(place.name))}.*.mingmoe-eval"):
        match = _BESIDE.fullmatch(entry.name)
        if not match or match["name"] != _cut(place.name) or _is_alive(int(match["process"])):
            continue
        if entry.is_file() and not entry.is_symlink():  # a folder or a link is a user's
            entry.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _cut(name: str) -> str:
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name
