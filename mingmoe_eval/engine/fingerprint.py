"""Which function a loaded model computes, as a short text: equal means that answers may be reused.

Taken from the model in memory, not from its files: what was merged, cast, masked or switched off
since counts, and a checkpoint that was swapped under the same path is another one.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import xxhash

# A tensor of up to so many numbers (norms, router biases) is read again at every call, as it may
# be edited between two of them: an expert is masked through its router's bias.
_SMALL = 65_536

# What says where a model came from, and nothing of what it does.
_ORIGIN = ("_name_or_path", "name_or_path", "transformers_version", "architectures")

_SIMPLE = (bool, int, float, str, tuple, torch.dtype)


def weights_fingerprint(model: torch.nn.Module) -> str:
    """A 128-bit hash of every parameter and buffer with its name, type and shape."""
    return _tensors_digest(dict(_tensors(model)))


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of vocabulary, merges, normalisation and special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = json.dumps(sorted(map(str, tokenizer.all_special_tokens)))
    return xxhash.xxh3_128_hexdigest((text + special).encode("utf-8", "surrogatepass"))


def settings_fingerprint(model: Any) -> str:
    """A hash of what else decides: config, kernels, each module's settings, small tensors.

    Cheap enough to be asked at every call.
    """
    small = {name: tensor for name, tensor in _tensors(model) if tensor.numel() <= _SMALL}
    facts = {
        "config": {k: v for k, v in model.config.to_dict().items() if k not in _ORIGIN},
        "attention": model.config._attn_implementation,
        "modules": [
            [name, type(module).__qualname__, _simple_settings(module)]
            for name, module in model.named_modules()
        ],
        "small tensors": _tensors_digest(small),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _simple_settings(module: torch.nn.Module) -> dict[str, str]:
    """Numbers, flags and names that a module carries: scaling, K, epsilon, whether it is on."""
    return {
        name: str(value)
        for name, value in vars(module).items()
        if isinstance(value, _SIMPLE) and not name.startswith("_") and name not in _ORIGIN
    }
