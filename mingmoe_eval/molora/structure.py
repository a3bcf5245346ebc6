"""Finds the layers of a decoder by what they are, never by the name of the model's class."""

import itertools
from typing import cast

import torch
from torch import Tensor, nn

FFN_LINEARS = ("gate_proj", "up_proj", "down_proj")


def linear_sizes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Every layer that says how many features it takes and gives: path -> (in, out)."""
    return {
        path: (module.in_features, module.out_features)
        for path, module in model.named_modules()
        if isinstance(getattr(module, "in_features", None), int)
        and isinstance(getattr(module, "out_features", None), int)
    }


def ffn_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The feed-forward blocks with a gate, an up and a down projection, whatever their class."""
    sizes = linear_sizes(model)
    return {
        path: module
        for path, module in model.named_modules()
        if all(f"{path}.{name}" in sizes for name in FFN_LINEARS)
    }


def can_merge(linear: nn.Module) -> bool:
    """True if a product can be added into the layer's weight: a plain Linear that is in memory.

    Quantised layers are often subclasses of Linear, hence the exact type.
    """
    return (
        type(linear) is nn.Linear
        and linear.weight.is_floating_point()
        and linear.weight.device.type != "meta"
    )


def computes_gated_ffn(ffn: nn.Module) -> bool:
    """True if the block gives down(act(gate(x)) * up(x)) for a token drawn at random.

    Asked of the block itself, because blocks with the same layers may differ in what they do with
    them (some drop small activations, some clamp).
    """
    act_fn = getattr(ffn, "act_fn", None)
    if not callable(act_fn):
        return False
    gate, up, down = (ffn.get_submodule(name) for name in FFN_LINEARS)
    with torch.no_grad():
        x = _random_token(ffn, gate)
        expected = down(act_fn(gate(x)) * up(x))
        return torch.allclose(ffn(x), expected, rtol=1e-3, atol=1e-6)


def device_of(module: nn.Module) -> torch.device:
    """Where a layer computes: its weight's device, or the one an offloaded weight is brought to."""
    held = next(itertools.chain(module.parameters(), module.buffers()), None)
    device = torch.device("cpu") if held is None else held.device
    if device.type == "meta":
        hook = getattr(module, "_hf_hook", None)
        return torch.device(getattr(hook, "execution_device", None) or "cpu")
    return device


def _random_token(ffn: nn.Module, reader: nn.Module) -> Tensor:
    floating = (p.dtype for p in ffn.parameters() if p.is_floating_point())
    width = cast(int, reader.in_features)
    x = torch.randn(1, 1, width, generator=torch.Generator().manual_seed(0))
    return x.to(device_of(reader), next(floating, torch.get_default_dtype()))
