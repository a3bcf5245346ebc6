"""What an evaluation costs without a model, and how it grows.

    python benchmarks/harness.py [--quick]

Invented exam questions go through the whole of `evaluate`: data read, prompts built, answers of a
scripted model taken, read, scored, folded with intervals, and saved as a run. Each size runs in a
process of its own, so that its peak memory is its own. Time is the process's CPU time: by doc in
all, and by doc beyond the first thousand, which is what growth costs.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

from lm_eval.api.model import LM
from workload import common_arguments

from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RequestUsage, RunSpec

TASKS = {"usmle": "one text a question", "usmle_ll": "four log-likelihoods a question"}
FOLDER = "medqa_usmle_4opt"
SIZES = (1_000, 10_000, 100_000)


class ScriptedLM(LM):
    """Says B, at once."""

    has_chat_template = False

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[tuple[str, int, int], RequestUsage] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        """See lm-eval."""
        self._note(requests)
        return ["答案是B"] * len(requests)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """See lm-eval."""
        self._note(requests)
        return [(-1.0 - (request.idx != 1), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Asked of by no exam."""
        raise NotImplementedError

    def take_usage(self) -> dict[tuple[str, int, int], RequestUsage]:
        """See `mingmoe_eval.LanguageModel`."""
        taken, self._usage = self._usage, {}
        return taken

    def describe(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def _note(self, requests: list[Any]) -> None:
        for request in requests:
            key = (request.task_name, request.doc_id, request.idx)
            self._usage[key] = RequestUsage(prompt_tokens=len(request.args[0]))


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--size", type=int, help="evaluate this many docs, in this process")
    parser.add_argument("--task", default="usmle", choices=TASKS)
    options = parser.parse_args()
    if options.size:
        print(json.dumps(measure(options.size, options.task)))
        return
    for task, words in TASKS.items():
        first: tuple[int, float] | None = None
        for size in SIZES[:2] if options.quick else SIZES:
            seconds, mebibytes = in_a_process(size, task)
            first = first or (size, seconds)
            beyond = (seconds - first[1]) / (size - first[0]) if size > first[0] else None
            print(
                f"{words}, {size} docs: {1e3 * seconds / size:.3f} ms of CPU time a doc"
                + (f", {1e3 * beyond:.3f} beyond the first thousand" if beyond else "")
                + f"; peak memory {mebibytes:.0f} MiB in all",
                flush=True,
            )


def in_a_process(size: int, task: str) -> tuple[float, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--size", str(size), "--task", task]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, mebibytes = json.loads(output.splitlines()[-1])
    return seconds, mebibytes


def measure(size: int, task: str) -> tuple[float, float]:
    """(CPU seconds, peak MiB of the process) of one evaluation of so many docs."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / FOLDER
        data.mkdir()
        write_questions(data / "test.jsonl", size)
        spec = RunSpec(model="scripted", tasks=(task,), data_dir=folder)
        began = process_time()
        run = evaluate(spec, folder=Path(folder) / "run", open_model=lambda *_: ScriptedLM())
        seconds = process_time() - began
    assert len(run.samples[task]) == size
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_questions(path: Path, count: int) -> None:
    """Questions of 60 characters with four options of 12."""
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(chr(0x4E00 + draw.randrange(5000)) for _ in range(length))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            row = {
                "question": f"{text(60)}？",
                "options": {letter: text(12) for letter in "ABCD"},
                "answer_idx": draw.choice("ABCD"),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
