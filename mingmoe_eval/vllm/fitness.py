"""What is asked of a checkpoint before vLLM sees it, and what vLLM itself would not ask.

vLLM fuses layers as it loads them, and takes half of one for the whole; it leaves out tensors that
its class of a model has no place for; and an adapter that is half there is an adapter to it.
"""

from collections.abc import Iterator
from typing import Any

from mingmoe_eval.molora import peft_door
from mingmoe_eval.molora.formats import ming
from mingmoe_eval.molora.formats.tensor_files import TensorFiles
from mingmoe_eval.molora.opening import OpenCheckpoint
from mingmoe_eval.vllm import door
from mingmoe_eval.vllm.merging import PlainPairs

_NO_WEIGHTS = (".rotary_emb.inv_freq",)
"""Ends of names that older files hold and no model reads."""

_ACTIVATIONS = {
    **dict.fromkeys(("Qwen2", "Qwen3", "Llama", "Mistral"), "silu"),
    **dict.fromkeys(("Gemma", "Gemma2"), "gelu_pytorch_tanh"),
}
"""The only one that vLLM's class computes, whatever a Gemma's config says."""


def beyond_vllm(architecture: str, config: Any, *, on_cpu: bool) -> Iterator[str]:
    """What a config asks for that vLLM's class of the model has not, and mostly leaves out unsaid.

    Args:
        architecture: transformers' class of it, one of `ARCHITECTURES`.
        config: as transformers has it.
        on_cpu: whether vLLM computes on a CPU.
    """
    name = architecture.removesuffix("ForCausalLM")
    if name == "Gemma2" and not getattr(config, "tie_word_embeddings", True):
        yield "head apart from its embeddings"
    if name in ("Gemma", "Qwen3") and getattr(config, "attention_bias", False):
        yield "place for all biases of attention_bias"
    if name in ("Qwen2", "Qwen3") and len(set(getattr(config, "layer_types", None) or ())) > 1:
        yield "sliding window in some layers alone"
    if name in _ACTIVATIONS:
        for field in ("hidden_act", "hidden_activation"):
            if getattr(config, field, None) not in (None, _ACTIVATIONS[name]):
                yield f"{field} but {_ACTIVATIONS[name]!r}, not {getattr(config, field)!r}"
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if on_cpu and size not in (sizes := door.cpu_head_sizes()):
        told = ", ".join(map(str, sizes))
        yield f"heads of {size} on a CPU, but of {told}"


def adapter_offences(opened: OpenCheckpoint) -> list[str]:
    """The adapter's own tensors that hold what is no number."""
    inside = opened.mixture is not None and opened.mixture.family.in_model
    return [
        f"{name} holds values that are not finite"
        for name in sorted(opened.files.shapes)
        if (not inside or ming.expert_slot(name))
        and not bool(opened.files.read(name).float().isfinite().all())
    ]


def pair_offences(opened: OpenCheckpoint, pairs: PlainPairs) -> list[str]:
    """Layers that PEFT would put a low-rank pair on and the file has none of, and the reverse.

    Raises:
        CheckpointError: PEFT cannot put this adapter on its base.
    """
    due, there = peft_door.layers_due(opened), set(pairs.layers)
    offences = [f"{path} lacks its low-rank pair" for path in sorted(due - there)]
    return offences + [
        f"{path} has a low-rank pair, and adapter_config.json does not say so"
        for path in sorted(there - due)
    ]


def weight_offences(opened: OpenCheckpoint, folder_files: TensorFiles) -> list[str]:
    """What the full weights lack, have in another shape than the config says, or have too many."""
    due = {name: tuple(tensor.shape) for name, tensor in opened.skeleton.state_dict().items()}
    if getattr(opened.model_config, "tie_word_embeddings", False):
        due.pop("lm_head.weight", None)
    there = folder_files.shapes
    offences = [f"no weights for {name}" for name in sorted(due.keys() - there.keys())]
    offences += [
        f"{name} is of shape {list(there[name])}, where the config makes it {list(shape)}"
        for name, shape in sorted(due.items())
        if name in there and there[name] != shape
    ]
    offences += [
        f"{name} holds whole numbers, which no config explains"
        for name in sorted(due.keys() & set(folder_files.integers))
    ]
    inside = opened.mixture is not None and opened.mixture.family.in_model
    known = {*due, "lm_head.weight"}
    offences += [
        f"weights without a place: {name}"
        for name in sorted(there.keys() - known)
        if not name.endswith(_NO_WEIGHTS) and not (inside and ming.expert_slot(name))
    ]
    return offences
