"""Our checkpoints on vLLM: a plugin with model classes, a backend of runs, and a server.

Stands beside the core, which never imports it. vLLM itself is imported by `models` and `door`.
"""

from mingmoe_eval.vllm.endings import end_with_owner

ARCHITECTURES = {
    f"{base}ForCausalLM": f"MoLora{base}ForCausalLM"
    for base in ("Qwen2", "Qwen3", "Llama", "Mistral", "Gemma", "Gemma2", "Gemma3")
}
"""transformers' class of a base model -> ours on vLLM, which is a subclass of vLLM's own."""

CONFIG_KEY = "mingmoe"
"""In the config.json of a prepared folder: where the adapter and its base are."""


def register() -> None:
    """Tell vLLM of our classes; called by vLLM itself, in each of its processes."""
    from vllm import ModelRegistry

    end_with_owner()
    for ours in ARCHITECTURES.values():
        ModelRegistry.register_model(ours, f"mingmoe_eval.vllm.models:{ours}")
