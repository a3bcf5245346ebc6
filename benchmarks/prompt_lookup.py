"""Generation with guesses from the prompt against the same without, on the 16 PromptCBLUE tasks.

    python benchmarks/prompt_lookup.py --model DIR [--rows 2] [--docs 2] [--data records.jsonl]

How much is guessed right depends on what a model says, so that a real one is needed, best one that
was fine-tuned on the tasks: the more of its answers it copies, the more is saved. Texts are
compared word by word. Without --data the invented samples are asked.
"""

import json
from collections import defaultdict
from pathlib import Path

import torch
from workload import choose_clock, common_arguments, instances, paired_seconds, ratio

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.molora import load_model, load_tokenizer
from mingmoe_eval.promptcblue.catalogue import TASKS

SAMPLE = Path(__file__).parents[1] / "tasks" / "promptcblue" / "sample.jsonl"


def main() -> None:
    arguments = common_arguments(__doc__)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--data", type=Path, default=SAMPLE)
    arguments.add_argument("--rows", type=int, default=2)
    arguments.add_argument("--docs", type=int, default=2, help="of each task")
    arguments.add_argument("--most", type=int, default=128, help="new tokens a text at most")
    options = arguments.parse_args()
    clock = choose_clock(cpu_seconds=options.cpu_seconds)
    tokenizer = load_tokenizer(options.model, None)
    model = load_model(options.model, dtype="float32")
    sides = {
        name: CheckpointLM.from_loaded(
            model, tokenizer, batch_size=options.rows, prompt_lookup=name == "guessing"
        )
        for name in ("plain", "guessing")
    }
    by_task = defaultdict(list)
    for line in options.data.read_text("utf-8").splitlines():
        record = json.loads(line)
        by_task[record["task_dataset"]].append(record)
    above, below, differing, texts = [], [], 0, 0
    for name, task in TASKS.items():
        records = by_task[name][: options.docs]
        limit = min(task.max_gen_toks, options.most)
        asked = []
        for record in records:
            chat = [{"role": "user", "content": record["input"]}]
            lm = sides["plain"]
            prompt = lm.apply_chat_template(chat) if lm.has_chat_template else record["input"]
            asked.append((prompt, {"until": [], "max_gen_toks": limit}))
        requests = instances("generate_until", asked)
        given: dict[str, list[str]] = {}

        def run(side: str, requests=requests, given=given) -> None:
            given[side] = sides[side].generate_until(requests)

        seconds = paired_seconds(
            1 if options.quick else 2,
            clock,
            **{side: lambda side=side, run=run: run(side) for side in sides},
        )
        above.append(sum(seconds["plain"]))
        below.append(sum(seconds["guessing"]))
        differing += sum(a != b for a, b in zip(given["plain"], given["guessing"], strict=True))
        texts += len(records)
        print(f"{name}: {ratio(seconds['plain'], seconds['guessing'])} times as fast")
    print(
        f"all {texts} texts, {options.rows} rows, {torch.get_num_threads()} threads: "
        f"{sum(above) / sum(below):.2f} times as fast; {differing} texts differ"
    )


if __name__ == "__main__":
    main()
