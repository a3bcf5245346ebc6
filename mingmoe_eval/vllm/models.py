"""vLLM's own model classes with an adapter's experts on them; vLLM finds them by `register`.

Nothing of vLLM's models is written again. A linear layer there asks its `quant_method` for the
product, before anything is summed over processes or added by others: that is where experts join
in, quantised base or not, whatever class the layer belongs to. Low-rank pairs go into the weights
as they stream in. `RELIES_ON` names what is used of vLLM that its documentation does not promise.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)
from vllm.model_executor.layers.linear import LinearMethodBase, QKVParallelLinear
from vllm.model_executor.models.gemma import GemmaForCausalLM
from vllm.model_executor.models.gemma2 import Gemma2ForCausalLM
from vllm.model_executor.models.gemma3 import Gemma3ForCausalLM
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.model_executor.models.utils import PPMissingLayer

from mingmoe_eval.errors import CheckpointError, offence_list
from mingmoe_eval.molora.formats.families import Mixture
from mingmoe_eval.molora.layers import LinearExperts
from mingmoe_eval.molora.opening import open_checkpoint
from mingmoe_eval.vllm import CONFIG_KEY
from mingmoe_eval.vllm.merging import Merging, Weights, plain_pairs
from mingmoe_eval.vllm.sharded_experts import (
    Placed,
    Shard,
    SplitBlockExperts,
    SplitInputExperts,
    SplitOutputExperts,
    alone,
    side_by_side,
)

RELIES_ON = (
    "model_executor.layers.linear.LinearMethodBase.apply",
    "model_executor.layers.linear.MergedColumnParallelLinear",
    "model_executor.layers.linear.QKVParallelLinear",
    "model_executor.layers.linear.RowParallelLinear",
    "model_executor.models.qwen2.Qwen2ForCausalLM.packed_modules_mapping",
    "model_executor.models.utils.PPMissingLayer",
)
"""Below `vllm`."""

OF_A_LAYER = ("output_sizes", "quant_method", "reduce_results")
"""Of vLLM's linear layers; and of one for q, k and v:"""

OF_QKV = ("head_size", "num_heads", "num_kv_heads", "num_kv_head_replicas")

EXPERTS = "molora"
"""The name of the experts below a linear layer or a block."""


class _MoLora:
    """What is the same for all families: a mixin before vLLM's class."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        said: Mapping[str, Any] = getattr(self.config, CONFIG_KEY)  # type: ignore[attr-defined]
        device, dtype = torch.get_default_device(), vllm_config.model_config.dtype
        self._packed = vllm_config.model_config.quantization is not None
        # Files are read, and layers without memory made, as where nobody set a device.
        with torch.device("cpu"):
            opened = open_checkpoint(said["checkpoint"], said.get("base"))
            pairs = plain_pairs(opened) if opened.kind == "peft-lora" else None
            self._merging = partial(Merging, opened.mixture, pairs, dtype=dtype)
            if opened.mixture is not None:
                _place(self, opened.mixture, dtype, device)  # type: ignore[arg-type]

    def load_weights(self, weights: Weights) -> set[str]:
        """The base's weights, with what is merged; the experts are there already."""
        merging = self._merging()
        loaded: set[str] = super().load_weights(merging.into(weights))  # type: ignore[misc]
        self.merged = dict(merging.changed)
        names = {name for name, _ in self.named_parameters()}  # type: ignore[attr-defined]
        loaded |= {name for name in names if f".{EXPERTS}." in name}
        # vLLM asks this of all but the linear layers, which then hold what the memory held before.
        if (lacking := names - loaded) and not self._packed:
            raise CheckpointError(offence_list("no weights came for these:", sorted(lacking)))
        return loaded


class MoLoraQwen2ForCausalLM(_MoLora, Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen 2 and 2.5."""


class MoLoraQwen3ForCausalLM(_MoLora, Qwen3ForCausalLM):  # type: ignore[misc]
    """Qwen 3, dense."""


class MoLoraLlamaForCausalLM(_MoLora, LlamaForCausalLM):  # type: ignore[misc]
    """Llama 1 to 3."""


class MoLoraMistralForCausalLM(_MoLora, MistralForCausalLM):  # type: ignore[misc]
    """Mistral."""


class MoLoraGemmaForCausalLM(_MoLora, GemmaForCausalLM):  # type: ignore[misc]
    """Gemma 1."""


class MoLoraGemma2ForCausalLM(_MoLora, Gemma2ForCausalLM):  # type: ignore[misc]
    """Gemma 2."""


class MoLoraGemma3ForCausalLM(_MoLora, Gemma3ForCausalLM):  # type: ignore[misc]
    """Gemma 3, text alone."""


class WithExperts(LinearMethodBase):  # type: ignore[misc]
    """A layer's product and its experts': takes the place of the layer's `quant_method`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def create_weights(self, *arguments: Any, **named: Any) -> None:
        """As the layer's own."""
        self.inner.create_weights(*arguments, **named)

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """As the layer's own."""
        self.inner.process_weights_after_loading(layer)

    def apply(self, layer: nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Takes x [T, in of this process], gives [T, out of this process]."""
        experts: nn.Module = getattr(layer, EXPERTS)
        output: Tensor = experts(x, self.inner.apply(layer, x, bias))
        return output


class MixedBlock(nn.Module):
    """MixLoRA's block in place of a feed-forward block; keeps its layers under their own names."""

    def __init__(self, mlp: Any, experts: SplitBlockExperts, act_fn: str) -> None:
        super().__init__()
        self.gate_up_proj: Any = mlp.gate_up_proj
        self.down_proj: Any = mlp.down_proj
        # What the experts add to down's part of the sum must come before the sum.
        self.reduce = tensor_model_parallel_all_reduce if self.down_proj.reduce_results else alone
        self.down_proj.reduce_results = False
        self.act_fn = ACT2FN[act_fn]
        setattr(self, EXPERTS, experts)

    def forward(self, x: Tensor) -> Tensor:
        """Takes x [T, d], gives [T, d]."""
        both, _ = self.gate_up_proj(x)
        gate, up = both.chunk(2, -1)
        inner, added = getattr(self, EXPERTS)(x, gate, up, self.act_fn)
        output, _ = self.down_proj(inner)
        return self.reduce(output if added is None else output + added)


def _place(model: nn.Module, mixture: Mixture, dtype: torch.dtype, device: torch.device) -> None:
    """Put the experts of a checked mixture on the model, this process's part of them."""
    shard = Shard(get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size())
    packed: Mapping[str, list[str]] = model.packed_modules_mapping  # type: ignore[assignment]
    for path, experts in mixture.read_blocks():
        if _is_elsewhere(model, path):
            continue
        block = model.get_submodule(path)
        if mixture.family.block_router:
            config = model.config
            act_fn = mixture.config.act_fn or getattr(config, "hidden_act", None)
            act_fn = act_fn or config.hidden_activation  # type: ignore[union-attr]
            routed = SplitBlockExperts(experts, shard, dtype=dtype).to(device)
            model.set_submodule(path, MixedBlock(block, routed, str(act_fn)))
            continue
        for name, layer, module in _beside(block, packed, experts, shard, dtype):
            if layer is None:
                raise CheckpointError(f"{path}.{name} has experts; vLLM has no place for them")
            setattr(layer, EXPERTS, module.to(device))
            layer.quant_method = WithExperts(layer.quant_method)


def _beside(
    block: nn.Module,
    packed: Mapping[str, list[str]],
    experts: Mapping[str, LinearExperts],
    shard: Shard,
    dtype: torch.dtype,
) -> Iterator[tuple[str, Any, nn.Module]]:
    """(Name, vLLM's layer, its experts) of each layer of a block that routes."""
    routed = {name: one for name, one in experts.items() if one.router_weight is not None}
    for fused, names in packed.items():
        mine = [name for name in names if name in routed]
        if mine:
            layer = getattr(block, fused)
            places = dict(zip(names, _places(layer, shard), strict=True))
            placed = [
                Placed(experts=routed.pop(name), rows=places[name][0], columns=places[name][1])
                for name in mine
            ]
            yield fused, layer, SplitOutputExperts(placed, dtype=dtype)
    for name, one in routed.items():
        split = SplitInputExperts(one, shard, tensor_model_parallel_all_reduce, dtype=dtype)
        yield name, getattr(block, name, None), split


def _places(layer: Any, shard: Shard) -> list[tuple[slice, slice]]:
    """Which rows of each layer that was fused are here, and where its output lies."""
    if isinstance(layer, QKVParallelLinear):
        keys = layer.num_kv_heads * layer.head_size
        of_keys = shard.rank // layer.num_kv_head_replicas
        sizes = [layer.num_heads * layer.head_size, keys, keys]
        return side_by_side(sizes, [shard.rank, of_keys, of_keys])
    sizes = [size // shard.size for size in layer.output_sizes]
    return side_by_side(sizes, [shard.rank] * len(sizes))


def _is_elsewhere(model: nn.Module, path: str) -> bool:
    """Whether another process of a pipeline has the block."""
    parent = path.rpartition(".")[0]
    return isinstance(model.get_submodule(parent), PPMissingLayer)
