"""The processes that `accelerate launch` or `torchrun` started, before and during training."""

from typing import Any

import torch


def processes() -> Any:
    """Accelerate's PartialState, which is one for all callers in a process.

    Without a GPU it must be told to look for processes on the CPU, and whoever asks first decides.
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    return PartialState(cpu=not torch.cuda.is_available())
