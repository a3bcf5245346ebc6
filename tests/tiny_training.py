"""A tiny base with a chat template, invented conversations, and short schedules, for training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from tiny_checkpoints import save_base
from tiny_language_models import make_tokenizer

from mingmoe_eval.training.spec import (
    OBJECTIVES,
    AdapterShape,
    DataStream,
    Schedule,
    TrainingSpec,
)

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
QUESTIONS = ("发热三天，首选检查？", "which drug for angina?", "咳嗽 and fever, what next?")
ANSWERS = ("血常规", "nitroglycerin", "胸片 first")


def save_chat_base(folder: Path, *, template: str | None = TEMPLATE, **changes: Any) -> Path:
    save_base(folder, vocab_size=384, **changes)
    make_tokenizer(template=template).save_pretrained(folder)
    return folder


def rows(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"{QUESTIONS[i % 3]} ({i})"},
                {"role": "assistant", "content": f"{ANSWERS[i % 3]} {i % 5}"},
            ]
        }
        for i in range(first, first + count)
    ]


def save_rows(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return path


def make_spec(base: Path, *data: Path, method: str = "molora", **schedule: Any) -> TrainingSpec:
    settings = {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "log_every": 1,
        "save_every": 2,
        "keep": None,
        **schedule,
    }
    return TrainingSpec(
        base=str(base),
        data=tuple(DataStream(path) for path in data),
        method=method,
        objective=OBJECTIVES[method],
        shape=AdapterShape(num_experts=4, experts_per_token=2, rank=4, alpha=8.0),
        schedule=Schedule(**settings),
    )


def with_objective(spec: TrainingSpec, **changes: Any) -> TrainingSpec:
    return dataclasses.replace(spec, objective=dataclasses.replace(spec.objective, **changes))


def log_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


class Notebook:
    """A watch that remembers what it was told, and may stop a training like a kill would."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.stop_at = stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        if self.stop_at is not None and step > self.stop_at:
            raise KeyboardInterrupt
