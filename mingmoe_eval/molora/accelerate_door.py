"""The one door to accelerate: where an offloaded layer computes, and who else takes part.

`RELIES_ON` and `OF_PROCESSES` name what is used of it; a test resolves each, so that a release that
takes one away is found by its name.
"""

import itertools
from typing import Any

import torch
from torch import nn

RELIES_ON = ("PartialState", "hooks.AlignDevicesHook")
"""Below `accelerate`."""

OF_PROCESSES = ("is_main_process", "num_processes", "wait_for_everyone")
"""Of what `processes` gives."""

HOOK, HOOKS_DEVICE, HOOKS_OFFLOAD = "_hf_hook", "execution_device", "offload"
"""Where a module keeps its hook, and the hook the device where the module computes, and whether its
weights are brought there for each call."""


def device_of(module: nn.Module) -> torch.device:
    """Where a layer computes: its weight's device, or the one an offloaded weight is brought to."""
    held = next(itertools.chain(module.parameters(), module.buffers()), None)
    device = torch.device("cpu") if held is None else held.device
    if device.type == "meta":
        hook = getattr(module, HOOK, None)
        return torch.device(getattr(hook, HOOKS_DEVICE, None) or "cpu")
    return device


def only_moves_inputs(module: nn.Module) -> bool:
    """Whether a hook of accelerate's does no more than bring a module's inputs to its weights.

    So it is for a layer of a model that is spread over several GPUs.
    """
    hook = getattr(module, HOOK, None)
    return type(hook).__name__ == "AlignDevicesHook" and not getattr(hook, HOOKS_OFFLOAD, True)


def processes() -> Any:
    """The processes that `accelerate launch` or `torchrun` started, before and during training.

    Accelerate's PartialState, which is one for all callers in a process. Without a GPU it must be
    told to look for processes on the CPU, and whoever asks first decides.
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    return PartialState(cpu=not torch.cuda.is_available())
