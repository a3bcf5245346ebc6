"""A command for each verb, with what it reads, small enough to be tried hundreds of times."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from promptcblue_data import HERE

from mingmoe_eval.demo import ADAPTER, BASE, checkpoints_dir

CBLUE = Path(__file__).parent / "data" / "cblue"
TASKS = "usmle_ll,promptcblue_kuake_qic"
QUICKLY = "--steps 2 --rank 2 --batch-size 2 --log-every 1 --save-every 1"

COMMANDS: dict[str, str] = {
    "run": f"run --model IN/{ADAPTER} --tasks {TASKS} --sample --limit 3 --batch-size 1 "
    "--output OUT --name NAME",
    "tasks": "tasks --json OUT/NAME",
    "tasks check": "tasks check IN/ward_tasks",
    "inspect": f"inspect IN/{ADAPTER} --probe --json OUT/NAME",
    "score exams": "score exams --sample --task usmle --answers IN/answers.jsonl --output OUT "
    "--name NAME",
    "score promptcblue": "score promptcblue --gold IN/gold.jsonl "
    "--predictions IN/predictions.jsonl --json OUT/NAME",
    "rescore": "rescore IN/runs/adapter --output OUT --name NAME",
    "budget": "budget IN/runs/thinking --budgets 2,5 --output OUT",
    "report": "report IN/runs/adapter IN/runs/base --output OUT/NAME --figures OUT/figures",
    "compare": "compare IN/runs/base IN/runs/adapter --markdown OUT/NAME --json OUT/more",
    "gate": "gate IN/runs/adapter --baseline IN/runs/adapter --allow-marked --junit OUT/NAME "
    "--json OUT/more",
    "table": "table IN/runs/base IN/runs/adapter --allow-marked --output OUT/NAME",
    "explain": "explain IN/runs/usmle --published medcare --json OUT/NAME",
    "overlap": "overlap --train IN/train.jsonl --tasks usmle --sample --json OUT/NAME",
    "import": "import IN/runs/adapter/lm_eval --output OUT --name NAME",
    "convert cblue": "convert cblue IN/cblue --output OUT/NAME --most 3",
    "ablate": "ablate IN/runs/adapter --experts 0 --json OUT/NAME",
    "blame": "blame IN/runs/adapter IN/runs/damaged --json OUT/NAME",
    "train": f"train --base IN/chat --data IN/train.jsonl --output OUT/NAME {QUICKLY}",
    "compose": "compose --adapters IN/lora0,IN/lora1 --few-shot IN/train.jsonl --steps 2 "
    "--output OUT/NAME",
    "serve": f"serve IN/{ADAPTER} --prepare OUT/NAME",
    "demo": "demo --output OUT/NAME",
}
"""By verb. IN holds what is made below; OUT and NAME are where the outcome goes."""

ANSWERS = [{"response": "The answer is A."}] * 10
"""One for each question of the invented sample of `usmle`."""

PREPARATIONS: Sequence[str] = (
    f"run --model IN/{BASE} --tasks {TASKS} --sample --limit 3 --output IN/runs --name base",
    f"run --model IN/{ADAPTER} --tasks {TASKS} --sample --limit 3 --output IN/runs --name adapter",
    f"run --model IN/damaged --tasks {TASKS} --sample --limit 3 --output IN/runs --name damaged",
    f"run --model IN/{BASE} --tasks usmle --sample --limit 2 --output IN/runs --name usmle",
    "run --model IN/thinker --tasks IN/thoughts.jsonl_cot --max-new-tokens 40 --output IN/runs "
    "--name thinking",
    *(
        f"train --base IN/chat --data IN/train.jsonl --method lora --seed {n} --output IN/lora{n} "
        f"{QUICKLY}"
        for n in range(2)
    ),
)


def fill(folder: Path, call: Callable[[list[str]], None]) -> None:
    """What the commands read; `call` runs a command with IN, in its words, as the folder."""
    from test_blame import damaged
    from test_your_own_tasks import BLOCK, PAGE
    from thinking_models import exam_of, save_thinker
    from tiny_training import rows, save_chat_base, save_rows

    shutil.copytree(checkpoints_dir(), folder, dirs_exist_ok=True)
    words = ("layers.1.", "experts.2.")
    damaged(folder / ADAPTER, folder / "damaged", "non_lora_trainables", *words)
    save_thinker(folder / "thinker")
    exam_of(folder, "ebj")
    save_chat_base(folder / "chat")
    save_rows(folder / "train.jsonl", rows(4))
    save_rows(folder / "answers.jsonl", ANSWERS)
    shutil.copytree(CBLUE, folder / "cblue")
    shutil.copy(HERE / "synthetic" / "records.jsonl", folder / "gold.jsonl")
    predictions = HERE / "synthetic" / "variants" / "mixed_0" / "predictions.jsonl"
    shutil.copy(predictions, folder / "predictions.jsonl")
    for block in BLOCK.finditer(PAGE):
        if "/" in block["kind"]:
            path = folder / block["kind"].split()[1]
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(block["text"])
    for command in PREPARATIONS:
        call(command.split())


def spoken(command: str, kitchen: Path, output: Path, name: str) -> list[str]:
    """The words of a command."""
    places = {"IN": str(kitchen), "OUT": str(output), "NAME": name}
    return [
        "/".join(places.get(part, part) for part in word.split("/"))
        if "," not in word
        else ",".join("/".join(places.get(p, p) for p in one.split("/")) for one in word.split(","))
        for word in command.split()
    ]


def is_whole(path: Path) -> bool:
    """Whether a file is all of what its kind has, as far as that can be seen."""
    try:
        text = path.read_bytes()
        match path.suffix:
            case ".json":
                json.loads(text)
            case ".jsonl":
                list(map(json.loads, filter(None, text.split(b"\n"))))
                return text.endswith(b"\n")
            case ".html":
                return text.rstrip().endswith(b"</html>")
            case ".svg":
                return text.rstrip().endswith(b"</svg>")
            case ".pdf":
                return text.rstrip().endswith(b"%%EOF")
            case ".safetensors":
                from safetensors import safe_open

                with safe_open(path, "np") as tensors:
                    tensors.keys()
    except (ValueError, OSError, Exception):
        return False
    return bool(text)
