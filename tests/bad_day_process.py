"""One process on one bad day: what `test_bad_days` has started, watched and put an end to.

A process of its own, warm (everything imported), gets requests as lines of JSON and forks for each:
a verb then takes some tenths of a second instead of several. The fork lives through its bad day by
itself. A request that is not `warm` has the interpreter start anew under the bad day.
"""

import contextlib
import ctypes
import importlib
import io
import json
import os
import pkgutil
import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOBODY = 54321  # a user without an entry in passwd
NOWHERE = "/proc/nowhere"  # /proc takes no folders from anyone, root included
LONGEST = 300.0  # seconds
_CLONE_NEWNET = 0x40000000
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 24, 47, 2
_CAPABILITY_VERSION = 0x20080522
_RIGHTS_OF_ROOT, _BITS = (1, 2), 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

Request = dict[str, Any]


def close(*descriptors: int) -> Callable[[Request], None]:
    def begin(_: Request) -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return begin


def full(descriptor: int) -> Callable[[Request], None]:
    def begin(_: Request) -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)

    return begin


def head(_: Request) -> None:
    """stdout is a pipe whose reader leaves after one line."""
    mine, theirs = os.pipe()
    if os.fork() == 0:
        os.close(theirs)
        with os.fdopen(mine) as lines:
            os.write(1, lines.readline().encode())
        os._exit(0)
    os.close(mine)
    os.dup2(theirs, 1)
    os.close(theirs)


def limit(what: int, most: int) -> Callable[[Request], None]:
    return lambda _: resource.setrlimit(what, (most, most))


def little_memory(megabytes: int) -> Callable[[Request], None]:
    """So much address space beyond what the process has by now."""

    def begin(_: Request) -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = now + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return begin


def as_a_user(_: Request) -> None:
    """Root whom the rights of files bind: Python itself may lie where nobody else can read."""
    for capability in _RIGHTS_OF_ROOT:
        _system("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)  # for what an exec begins
    _set_capabilities(lambda held: held & ~_BITS)


def without_home(_: Request) -> None:
    """Somebody whom passwd does not know, and who can still read what root can."""
    del os.environ["HOME"]
    _system("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    _set_capabilities(lambda held: _BITS)
    for capability in _RIGHTS_OF_ROOT:
        _system("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _set_capabilities(change: Callable[[int], int]) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    _system("capget", header, sets)
    for place in range(3):
        sets[place] = change(sets[place])
    _system("capset", header, sets)


def without_network(_: Request) -> None:
    """Not even loopback."""
    _system("unshare", _CLONE_NEWNET)


def _system(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


def without_folder(request: Request) -> None:
    """The folder that the command is started in has gone."""
    Path(request["gone"]).rmdir()


DAYS: dict[str, Callable[[Request], None]] = {
    "good": lambda _: None,
    "stdout closed": close(1),
    "stderr closed": close(2),
    "stdin closed": close(0),
    "all closed": close(0, 1, 2),
    "stdout full": full(1),
    "stderr full": full(2),
    "head": head,
    "file sizes": limit(resource.RLIMIT_FSIZE, 1000),
    "16 files": limit(resource.RLIMIT_NOFILE, 16),
    "32 files": limit(resource.RLIMIT_NOFILE, 32),
    "64 MB": little_memory(64),
    "512 MB": little_memory(512),
    "a user": as_a_user,
    "no home": without_home,
    "no network": without_network,
    "no folder": without_folder,
}


def begin(request: Request) -> None:
    """Make this process the one that the bad day happens to."""
    os.setsid()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if shift := request["clock"]:
        ctypes.c_long.in_dll(ctypes.CDLL(None), "clock_shift").value = shift
    os.closerange(3, 1000)
    DAYS[request["day"]](request)


def be_the_command(request: Request) -> int:
    """The command in this warm process: what a start of Python would do is done by hand."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(descriptor, request["encoding"]))
        setattr(sys, f"__{name}__", getattr(sys, name))
    words = request["words"]
    if request["encoding"] == "ascii":
        words = [os.fsencode(word).decode("ascii", "surrogateescape") for word in words]
    sys.argv = ["mingmoe-eval", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from mingmoe_eval.cli import main

    return main(words)


def _stream(descriptor: int, encoding: str) -> Any:
    try:
        os.fstat(descriptor)
    except OSError:
        return None
    mode, errors = ("r", "w", "w")[descriptor], ("surrogateescape", "strict", "backslashreplace")
    raw = io.FileIO(descriptor, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer, encoding=encoding, errors=errors[descriptor], line_buffering=descriptor == 2
    )


def live(request: Request, warm: bool) -> Request:
    """A process on its bad day, to its end: status, what it said, how long it took."""
    out, err = os.pipe(), os.pipe()
    started = time.monotonic()
    sys.stdout.flush()
    # What comes before the command has begun is no part of it; `be_the_command` listens again.
    signal.signal(signal.SIGINT, signal.SIG_IGN if warm else signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.dup2(out[1], 1)
        os.dup2(err[1], 2)
        begin(request)
        if warm:
            os._exit(be_the_command(request))  # Python's own end costs a second, all warm as it is
        words = [os.fsencode(word) for word in request["words"]]
        os.execve(sys.executable, [sys.executable, "-m", "mingmoe_eval", *words], os.environb)
    for _, end in (out, err):
        os.close(end)
    said = _watch(pid, (out[0], err[0]), _events(request), started)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it started and left
    return {
        "status": os.waitstatus_to_exitcode(status),
        "out": said[0].decode("utf-8", "replace"),
        "err": said[1].decode("utf-8", "replace"),
        "seconds": time.monotonic() - started,
    }


def _events(request: Request) -> list[tuple[float, Callable[[int], None]]]:
    """What happens to the process, and when."""

    def send(number: int) -> Callable[[int], None]:
        return lambda pid: os.kill(pid, number)

    def remove(path: str) -> Callable[[int], None]:
        return lambda _: _remove(path)

    events = [(at, send(number)) for at, number in request["signals"]]
    events += [(at, remove(path)) for at, path in request["removed"]]
    return sorted([*events, (LONGEST, send(signal.SIGKILL))], key=lambda event: event[0])


def _remove(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _watch(
    pid: int,
    ends: tuple[int, int],
    events: list[tuple[float, Callable[[int], None]]],
    started: float,
) -> list[bytearray]:
    said = [bytearray(), bytearray()]
    with selectors.DefaultSelector() as selector:
        for number, end in enumerate(ends):
            selector.register(end, selectors.EVENT_READ, number)
        # A pidfd is readable when the process has ended, whoever still holds its pipes.
        ended = os.pidfd_open(pid)
        selector.register(ended, selectors.EVENT_READ, None)
        alive = True
        while selector.get_map():
            at, event = events[0]
            ready = selector.select(max(0.0, started + at - time.monotonic()) if alive else 0.1)
            for key, _ in ready:
                if key.data is None:
                    alive = False
                    selector.unregister(ended)
                elif piece := os.read(key.fd, 65536):
                    said[key.data] += piece
                else:
                    selector.unregister(key.fd)
            if not alive and not ready:
                break
            if alive and time.monotonic() - started >= at:
                events.pop(0)
                event(pid)
    for descriptor in (*ends, ended):
        os.close(descriptor)
    return said


def warm_up() -> None:
    """Import whatever any verb imports."""
    import gc

    import mingmoe_eval
    from mingmoe_eval.library_noise import quiet_command

    with quiet_command():  # its variables stay
        pass
    for module in pkgutil.walk_packages(mingmoe_eval.__path__, "mingmoe_eval."):
        # Some need what is not installed here, such as vLLM.
        with contextlib.suppress(ImportError):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


LIBRARIES = (
    *("typer", "rich", "yaml", "pandas", "pyarrow.parquet", "scipy.stats", "statsmodels.api"),
    *("jinja2", "altair", "transformers", "peft", "accelerate", "datasets", "lm_eval.evaluator"),
    *("filelock", "sqlite3", "nevergrad", "itables", "rouge_score", "seqeval", "httpx2", "anyio"),
    *("transformers.models.qwen2.modeling_qwen2", "transformers.models.llama.modeling_llama"),
    *("torch._dynamo", "lm_eval.tasks", "lm_eval.models", "sklearn.metrics", "zmq", "gguf"),
)


def main() -> None:
    warm = sys.argv[1] == "warm"
    if warm:
        warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(live(json.loads(line), warm)), flush=True)


if __name__ == "__main__":
    main()
