"""Processes that end with the one that they work for, however that ends.

An engine or a server whose owner was killed would keep its memory and its port.
"""

import ctypes
import os
import select
import signal
import sys
import threading

OWNER = "MINGMOE_EVAL_ENGINE_OWNER"
"""The variable of the environment that tells vLLM's processes of one run who asked for them."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Has Linux send SIGTERM to this process when the thread that started it ends.

    For a child of a main thread, between fork and exec.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_owner() -> None:
    """Has this process killed when the owner that its environment names ends; Linux alone.

    vLLM's engine and its workers are children of threads and of each other, so that the death of a
    parent is no sign.
    """
    owner = int(os.environ.get(OWNER, 0))
    if sys.platform != "linux" or owner in (0, os.getpid()):
        return
    try:
        ending = os.pidfd_open(owner)
    except ProcessLookupError:
        os._exit(1)
    except OSError:  # a kernel before 5.3
        return

    def watch() -> None:
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-owner", daemon=True).start()
