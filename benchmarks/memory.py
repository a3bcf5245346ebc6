"""Peak memory above the model's own, against lm-eval's `hf` model.

    python benchmarks/memory.py [--quick]

Letters after 560 tokens of examples; each engine in a process of its own, stock with 8 rows, ours
with batch size auto. The peak is the process's highest resident size, less what it was before.
"""

import logging
import subprocess
import sys
from pathlib import Path

from lm_eval.models.huggingface import HFLM
from workload import base_model, common_arguments, instances, letters, tokenizer

from mingmoe_eval.engine import CheckpointLM


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--engine", choices=("stock", "ours"), help="measure it in this process")
    parser.add_argument("--questions", type=int, default=32)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.engine:
        measure(options.engine, options.questions)
        return
    questions = 8 if options.quick else options.questions
    peaks = {}
    for engine in ("stock", "ours"):
        command = [sys.executable, "-W", "ignore", __file__, "--engine", engine]
        command += ["--questions", str(questions)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[engine] = float(done.stdout.split()[-1])
    print(
        f"{questions} questions: stock {peaks['stock']:.0f} MiB, ours {peaks['ours']:.0f} MiB, "
        f"{peaks['ours'] / peaks['stock']:.3f} of it"
    )


def measure(engine: str, questions: int) -> None:
    model, words = base_model(), tokenizer()
    lm = (
        HFLM(model, tokenizer=words, batch_size=8)
        if engine == "stock"
        else CheckpointLM.from_loaded(model, words)
    )
    # A first small call pays for what is paid once.
    lm.loglikelihood(instances("loglikelihood", [("w1 w2", " A")]))
    # From here on, Linux counts the highest size anew: building the model took more than it is.
    Path("/proc/self/clear_refs").write_text("5")
    before = mebibytes("VmRSS")
    lm.loglikelihood(instances("loglikelihood", letters(questions, shots=True)))
    print(mebibytes("VmHWM") - before)


def mebibytes(field: str) -> float:
    """A size that Linux knows of this process: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


if __name__ == "__main__":
    main()
