"""How much work is done again after a run was killed.

    python benchmarks/resume.py [--quick]

A process scores questions with a response store, and is killed (SIGKILL) when part of the work is
done; a second one then runs all of them. Work is tokens that a model took in, counted as each pass
begins, so that a pass which the kill cut short counts in full.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from workload import Texts, common_arguments, instances, tokenizer

from mingmoe_eval.engine import CheckpointLM

SHARES = (0.3, 0.5, 0.8)


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--worker", type=Path, help="score with this store, and report each pass")
    parser.add_argument("--questions", type=int, default=6000)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.questions)
        return
    questions = 3000 if options.quick else options.questions
    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder) / "whole", questions)
        for share in SHARES:
            store = Path(folder) / f"killed at {share}"
            before = run(store, questions, kill_at=share * whole)
            after = run(store, questions)
            again = before + after - whole
            print(
                f"killed after {before} of {whole} tokens: {again} done again, {again / whole:.2%}"
            )


def run(store: Path, questions: int, *, kill_at: float | None = None) -> int:
    """Tokens that one process took in, up to its end or its kill."""
    command = [sys.executable, "-W", "ignore", __file__, "--worker", str(store)]
    command += ["--questions", str(questions)]
    tokens = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            tokens += int(line)
            if kill_at is not None and tokens >= kill_at:
                os.kill(process.pid, signal.SIGKILL)
                kill_at = None
    return tokens


def work(store: Path, questions: int) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32_000, hidden_size=128, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    lm = CheckpointLM.from_loaded(model, tokenizer(), store=store)
    model.model.register_forward_pre_hook(
        lambda _, __, inputs: print(inputs["input_ids"].numel(), flush=True), with_kwargs=True
    )
    texts = Texts()
    pairs = [(q, f" {x}") for q in texts.questions(questions) for x in "ABCD"]
    lm.loglikelihood(instances("loglikelihood", pairs))


if __name__ == "__main__":
    main()
