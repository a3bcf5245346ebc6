"""How much a machine with GPUs answers with vLLM: letters and texts a second, mixture and base.

    python benchmarks/vllm_throughput.py --model ckpt/ [--base base/] [--tensor-parallel 4]

Prints a row for the table in docs/vllm.md. Prompts are of exact lengths, in ids drawn at random;
nothing comes from a store. Nobody has run it on a GPU yet.
"""

import argparse
import time

import numpy as np

from mingmoe_eval.engine.backend import Checkpoint
from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.vllm.backend import EngineSettings, VllmBackend, VllmCheckpoint

PROMPT_TOKENS, EXAMPLE_TOKENS, NEW_TOKENS = 120, 560, 256
LETTERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--base")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--gpu-memory", type=float)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--docs", type=int, default=2000)
    parser.add_argument("--texts", type=int, default=500)
    options = parser.parse_args()
    settings = EngineSettings(
        tensor_parallel=options.tensor_parallel,
        gpu_memory=options.gpu_memory,
        max_model_len=options.max_model_len,
    )
    checkpoint = Checkpoint(model=options.model, base=options.base, dtype=options.dtype)
    backend = VllmCheckpoint(checkpoint=checkpoint, settings=settings).backend(print)
    try:
        list(backend.score(letters(8, examples=0), None))  # whatever is compiled at first use
        plain = rate(backend, letters(options.docs, examples=0))
        shown = rate(backend, letters(options.docs, examples=EXAMPLE_TOKENS))
        begin = time.perf_counter()
        answers = [one for some in backend.generate(texts(options.texts), None) for _, one in some]
        seconds = time.perf_counter() - begin
        tokens = sum(one.generated_tokens for one in answers)
    finally:
        backend.close()
    print("| model | engine | questions a second, 0 examples | 560 tokens of examples | "
          "new tokens a second |")  # fmt: skip
    print(f"| {options.model} | {backend.describe()['engine_version']}, "
          f"{options.tensor_parallel} processes | {plain:.1f} | {shown:.1f} | "
          f"{tokens / seconds:.0f} |")  # fmt: skip


def rate(backend: VllmBackend, pairs: list[EncodedPair]) -> float:
    """Questions a second."""
    begin = time.perf_counter()
    answered = sum(len(some) for some in backend.score(pairs, None))
    assert answered == len(pairs)
    return answered / LETTERS / (time.perf_counter() - begin)


def letters(docs: int, *, examples: int) -> list[EncodedPair]:
    rng = np.random.default_rng(0)
    block = rng.integers(100, 5000, examples)
    contexts = [rng.integers(100, 5000, PROMPT_TOKENS) for _ in range(docs)]
    return [
        EncodedPair(np.array([*block, *context, 50 + letter], np.int32), 1)
        for context in contexts
        for letter in range(LETTERS)
    ]


def texts(count: int) -> list[Prompt]:
    rng = np.random.default_rng(1)
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS)
    return [
        Prompt(rng.integers(100, 5000, PROMPT_TOKENS).astype(np.int32), settings)
        for _ in range(count)
    ]


if __name__ == "__main__":
    main()
