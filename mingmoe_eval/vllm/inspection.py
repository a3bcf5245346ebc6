"""What each of vLLM's processes is asked of the model that it holds; mixed into vLLM's worker."""

from typing import Any

from torch import nn

from mingmoe_eval.vllm.sharded_experts import Mix


class Inspection:
    """Methods that vLLM's `collective_rpc` calls by their names."""

    model_runner: Any

    def molora_merged_change(self) -> float:
        """The most that a low-rank pair moved a weight by when it was merged; 0 without any."""
        return max(getattr(self._molora_model(), "merged", {}).values(), default=0.0)

    def molora_set_experts(self, live: bool) -> int:
        """Silence the routed experts, or let them speak; gives how many routers there are."""
        mixes = [module for module in self._molora_model().modules() if isinstance(module, Mix)]
        for mix in mixes:
            # In place: a captured graph reads the same memory.
            mix.live.fill_(1.0 if live else 0.0)
        return len(mixes)

    def _molora_model(self) -> nn.Module:
        model: nn.Module = self.model_runner.get_model()
        return model
