"""What the engine itself costs: everything but the model, and how it grows.

    python benchmarks/overhead.py [--quick]

The model is a script that answers at once. What is left is tokenisation, the prefix plan, masks,
sums and the store: time for each request and memory, for 1,000 to 100,000 requests. Each size runs
in a process of its own, so that its peak memory is its own.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace

import torch
from transformers import Qwen2Config
from transformers.cache_utils import Cache
from workload import WORDS, common_arguments, instances, letters, tokenizer

from mingmoe_eval.engine import CheckpointLM

SIZES = (1_000, 10_000, 100_000)


class ScriptedModel(torch.nn.Module):
    """A causal language model that is done before it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Qwen2Config(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
            num_key_value_heads=1, intermediate_size=8, max_position_embeddings=4096,
        )  # fmt: skip
        self.config._attn_implementation = "sdpa"
        self.dtype = torch.float32
        self.embedding, self.head = torch.nn.Embedding(WORDS + 8, 8), torch.nn.Linear(8, 8)
        self.requires_grad_(False)

        self.get_input_embeddings = lambda: self.embedding
        self.get_output_embeddings = lambda: self.head
        self.get_decoder = lambda: self._decode

    def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        """The logits of `_decode`'s hidden states."""
        return SimpleNamespace(logits=self.head(torch.zeros(*input_ids.shape, 8)))

    def _decode(
        self, input_ids: torch.Tensor, cache: Cache | None = None, **_: object
    ) -> tuple[torch.Tensor]:
        rows, tokens = input_ids.shape
        if cache is not None:
            states = torch.zeros(rows, 1, tokens, 1)
            cache.update(states, states, 0)
        return (torch.zeros(rows, tokens, 8),)


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--size", type=int, help="measure this many requests, in this process")
    parser.add_argument("--shots", action="store_true", help="560 tokens of examples in front")
    options = parser.parse_args()
    if options.size:
        measure(options.size, shots=options.shots)
        return
    for flags in ([], ["--shots"]):
        for size in SIZES[:2] if options.quick else SIZES:
            command = [sys.executable, "-W", "ignore", __file__, "--size", str(size), *flags]
            subprocess.run(command, check=True)


def measure(size: int, *, shots: bool) -> None:
    """Four letters a question: `size` requests in all."""
    words = tokenizer()
    requests = instances("loglikelihood", letters(size // 4, shots=shots))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "responses.sqlite"
        lm = CheckpointLM.from_loaded(ScriptedModel(), words, store=store)
        lm.loglikelihood(requests[:4])
        before = peak_mebibytes()
        wall, own = perf_counter(), process_time()
        lm.loglikelihood(requests)
        wall, own = perf_counter() - wall, process_time() - own
        again = process_time()
        lm.loglikelihood(requests)
        again = process_time() - again
    print(
        f"{size} requests{', with examples' if shots else ''}: {1e3 * wall / size:.3f} ms each "
        f"({1e3 * own / size:.3f} ms of CPU time; {1e3 * again / size:.3f} when all are stored), "
        f"{peak_mebibytes() - before:.0f} MiB more at the peak",
        flush=True,
    )


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
