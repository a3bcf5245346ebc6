"""vLLM's OpenAI-compatible server for a checkpoint of ours, as a child process.

The child is vLLM's own server on a prepared folder, with whatever options of vLLM's the user adds.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mingmoe_eval.errors import MingMoeError, UsageError
from mingmoe_eval.vllm import door
from mingmoe_eval.vllm.endings import end_with_parent
from mingmoe_eval.vllm.prepared import Prepared

_POLL_SECONDS = 0.5
_FAREWELL_SECONDS = 20.0
_ANY_HOST = ("", "0.0.0.0", "::")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a checkpoint is served.

    `port`: 0 for any that is free; `options`: of `vllm serve`, which count more than ours.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    tensor_parallel: int | None = None
    gpu_memory: float | None = None
    max_model_len: int | None = None
    options: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where clients on this machine find it."""
        host = "127.0.0.1" if self.host in _ANY_HOST else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def arguments(self, prepared: Prepared, *, on_cpu: bool) -> list[str]:
        """What vLLM's server is told."""
        ours: dict[str, object] = {
            "--model": prepared.folder,
            "--tokenizer": prepared.tokenizer,
            "--served-model-name": self.name,
            "--host": self.host,
            "--port": self.port,
            "--dtype": str(prepared.dtype).removeprefix("torch."),
            "--tensor-parallel-size": self.tensor_parallel,
            "--gpu-memory-utilization": self.gpu_memory,
            "--max-model-len": self.max_model_len,
            # A letter's log-probability is looked for among the likeliest of all tokens.
            "--max-logprobs": 100,
        }
        told = [word for name, value in ours.items() if value is not None for word in (name, value)]
        return [*map(str, told), *(door.CPU_OPTIONS if on_cpu else ()), *self.options]


def command(prepared: Prepared, serving: Serving, *, on_cpu: bool) -> list[str]:
    """The command of the server; `vllm serve` is not there in the build for CPUs."""
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*server, *serving.arguments(prepared, on_cpu=on_cpu)]


def port_for(host: str, port: int) -> int:
    """The port, or for 0 any that nobody listens on; asked before a model is loaded for nothing.

    Raises:
        UsageError: it is taken, or not to be had.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return int(probe.getsockname()[1])
        except OSError as error:
            raise UsageError(
                f"port {port} of {host} is not to be had ({error.strerror}): give another with "
                "--port, or --port 0 for any"
            ) from error


@contextmanager
def served(prepared: Prepared, serving: Serving) -> Iterator["Server"]:
    """A server that is up, for as long as the block lasts.

    Raises:
        MingMoeError: it ended before it answered; what it said is on stderr.
    """
    on_cpu = door.on_cpu()
    environment = {**door.environment(on_cpu), **os.environ}
    environment.setdefault("PYTHONWARNINGS", "ignore")
    child = subprocess.Popen(
        command(prepared, serving, on_cpu=on_cpu),
        env=environment,
        stdout=sys.stderr.fileno(),  # stdout is for what we announce
        start_new_session=True,  # a Ctrl-C is ours to pass on, once
        preexec_fn=end_with_parent,
    )
    server = Server(child, serving.address)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.end()


class Server:
    """The child process."""

    def __init__(self, child: "subprocess.Popen[bytes]", address: str) -> None:
        self._child, self._address = child, address

    def wait_until_up(self) -> None:
        """Until it answers; a large model may take minutes to load.

        Raises:
            MingMoeError: it has ended.
        """
        while not self._is_up():
            if (status := self._child.poll()) is not None:
                raise MingMoeError(
                    f"vLLM's server ended with status {status} before it answered; the lines above "
                    "say why"
                )
            time.sleep(_POLL_SECONDS)

    def wait(self) -> int:
        """Until it ends by itself; gives its exit status."""
        return self._child.wait()

    def end(self) -> None:
        """End it and the processes that it started."""
        for sign, seconds in ((signal.SIGTERM, _FAREWELL_SECONDS), (signal.SIGKILL, None)):
            # The whole session: engine and workers are children of the child.
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)

    def _is_up(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self._address}/health", timeout=5) as got:
            return bool(got.status == 200)
        return False
