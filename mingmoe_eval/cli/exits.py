"""How the command ends and talks: exit statuses, what is said of an error, streams that break.

1 says that the regression gate failed, and nothing else may say it: Python would end with 1 after
any exception, and a pipeline could not tell a worse model from a full disk.
"""

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mingmoe_eval import __version__
from mingmoe_eval.errors import MingMoeError, RunStoreError
from mingmoe_eval.extras import how_to_install
from mingmoe_eval.json_files import lone_surrogate

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

EXIT_DONE = 0
EXIT_GATE_FAILED = 1
EXIT_USER_MISTAKE = 2
EXIT_UNDECIDED = 3
EXIT_INCOMPLETE = 4
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell says it; after SIGTERM 143

# Which extra brings a package that the light install leaves out.
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "peft", "accelerate", "safetensors"), "hf"),
    **dict.fromkeys(("httpx2", "anyio"), "api"),
    "nevergrad": "train",
    "ray": "ray",
    "vllm": "vllm",
    "gguf": "gguf",
    "vl_convert": "report",
}

_OF_THE_MACHINE = {
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENAMETOOLONG"),
        *("EMFILE", "ENFILE", "ENOMEM", "ELOOP", "ESTALE"),
    )
    if hasattr(errno, name)
}
"""What a disk or its owner refuses; other errors of the operating system are oversights of ours."""

_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (tokenizers, safetensors) say what the system refused."""

_LOGIN = re.compile(
    r"""(https?:/{1,2})               # one slash is left of two where it was taken for a path
    (?:[^\s/]*@                      # user:password@, or a token alone
    |(?!\[?[\w.:-]+\]?:\d+/)         # no HOST:PORT/, whose path may well hold an "@" ...
    [^\s/:@]+:\S*@)                 # ... but a password with an unescaped "/", "#" or "@"
    """,
    re.VERBOSE | re.IGNORECASE,
)


def say(text: str) -> None:
    """A line to the user, on stderr, whatever the text came from."""
    print(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    """Text from outside as it may be printed: it commands no terminal, and gives no login away.

    Control characters are shown instead of obeyed. Of an address with a user name and a password,
    or what may be one, only the rest is left: the address may stand in the message about a slip,
    where nobody knows any more that it is one.
    """
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return _LOGIN.sub(r"\1***@", text) if "@" in text else text


def explain(error: BaseException) -> int:
    """Say on stderr what ended the command; returns the exit status."""
    if is_interrupt(error):
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    if (mistake := _mistake(error)) is not None:
        say(f"error: {mistake}")
        return EXIT_USER_MISTAKE
    import traceback

    say("".join(traceback.format_exception(error)).rstrip())
    say(
        f"error: this is a bug in mingmoe-eval {__version__}, and no mistake of yours: "
        f"{headline(error)}. Please report it, with the lines above and the command. What was "
        "saved before it is whole; a run goes on with `mingmoe-eval run --resume RUN`."
    )
    return EXIT_BUG


def headline(error: BaseException) -> str:
    """An error's first line; of what may be a bug, its kind as well."""
    if isinstance(error, MingMoeError):
        return str(error).partition("\n")[0]
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")


def _mistake(error: BaseException) -> str | None:
    """What the user can mend, in words; None for a bug."""
    if isinstance(error, MingMoeError):
        return str(error)
    if isinstance(error, ImportError) and (name := (error.name or "").split(".")[0]):
        if extra := EXTRAS.get(name):
            if isinstance(error, ModuleNotFoundError):
                return (
                    f"this needs {error.name}, which the light install leaves out: "
                    f"{how_to_install(extra)}"
                )
            return f"the installation of {name} is damaged ({error}): install it again"
        if isinstance(error, ModuleNotFoundError) and name != "mingmoe_eval":
            return f"this needs {error.name}, which is not installed: pip install {name}"
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; free some space, or choose another place"
    if (found := _OF_RUST.search(str(error))) and int(found[1]) in _OF_THE_MACHINE:
        return f"{headline(error)}; free some space, or choose another place"
    if isinstance(error, UnicodeEncodeError) and lone_surrogate([*sys.argv, str(Path.cwd())]):
        return (
            "a name that was given, or this folder's, has bytes that are no text here: set "
            "LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename it"
        )
    # torch's own, without importing torch to ask.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory ({headline(error)}): give less with --batch-size, or another --dtype"
    return None


_came: list[int] = []
"""The signals that asked the command to end, so far."""


@contextlib.contextmanager
def ended_as_interrupted() -> Iterator[Callable[[int], int]]:
    """Within the block SIGTERM does what Ctrl-C does; gives the status to end with for another.

    What a batch system or `docker stop` ends then also leaves no lock, and says how to go on.
    Where it may wait for other processes for ever, as under a launcher, and where the caller has
    an answer of its own, it is left alone.
    """
    _came.clear()

    def end(number: int, _: object) -> None:
        _came.append(number)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    alone = threading.current_thread() is threading.main_thread() and "RANK" not in os.environ
    mine = [number for number in before if alone and signal.getsignal(number) is before[number]]
    for number in mine:
        signal.signal(number, end)
    try:
        yield lambda status: 128 + _came[0] if _came and status != EXIT_DONE else status
    finally:
        for number in mine:
            signal.signal(number, before[number])


def is_interrupt(error: BaseException) -> bool:
    """Whether a signal ended what was done, whatever the libraries in between made of it.

    In the middle of an import or of their own work, many turn KeyboardInterrupt into another error.
    """
    return isinstance(error, KeyboardInterrupt) or bool(_came)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Within the block, a stdout or stderr that breaks does not break the work.

    A reader that has had enough of stdout, such as `head`, is no mistake: what comes after goes
    nowhere, the run is saved, and the exit status is what it would have been. What else keeps the
    results from stdout, such as a full disk, the user hears of. stderr is talk.
    """
    # Where a stream is closed, the next file to be opened would take its place.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    before = sys.stdout, sys.stderr
    sys.stdout = _lasting(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _lasting(sys.stderr, sys.__stderr__, 2)
    try:
        yield
    finally:
        # What is buffered would be lost where something, such as a traceback, keeps these alive
        # until Python ends.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(RunStoreError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


class _Lasting(io.FileIO):
    """Writes to a descriptor for as long as that can be written, and then nowhere."""

    def write(self, data: "Buffer", /) -> int:
        if not memoryview(data).nbytes:
            return 0  # typer tries a stream like this, and swallows what it says
        try:
            return super().write(data)
        except OSError as error:
            # Whatever flushes later, such as Python at its end, must not fail again.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                raise RunStoreError(f"cannot write to stdout: {error.strerror}") from error
            return memoryview(data).nbytes


def _lasting(stream: TextIO, original: TextIO | None, descriptor: int) -> TextIO:
    if stream is not original:
        return stream  # a caller's own, in the same process
    with contextlib.suppress(AttributeError):  # None where it is closed
        stream.flush()
    unbuffered = getattr(stream, "write_through", False)
    raw = _Lasting(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # as Python does
        encoding=getattr(stream, "encoding", "utf-8"),
        # A character that the terminal's encoding lacks is no reason to lose a table.
        errors="backslashreplace",
        # What is said on stderr is read as it comes, and by someone whose run was killed too.
        line_buffering=descriptor == 2 or getattr(stream, "line_buffering", False),
        write_through=unbuffered,
    )
