"""A backend that answers from its questions alone, as slowly as it is told to; also in actors.

Each answer that it gives is a line in a log, so that a test can count what was computed, by whom.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingmoe_eval.engine.backend import Answers, ModelFacts
from mingmoe_eval.engine.prompts import Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.errors import CheckpointError


def value_of(tokens: Any) -> float:
    """What a sequence scores: a number of its own."""
    return -float(int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=6).digest()))


@dataclass(frozen=True)
class Script:
    """How a worker's backend behaves; called in the worker, it opens it.

    `slow_file`: the first worker that makes it is slow; `weights`, `refusal`, `crash`: what it
    says of itself, why it does not load, and on which score it ends its process or raises.
    """

    log: Path
    seconds: float = 0.0
    slow_file: Path | None = None
    slow_seconds: float = 60.0
    weights: str = "weights"
    refusal: str = ""
    raises: bool = False
    dies_on: float | None = None

    def __call__(self) -> tuple["ScriptedBackend", str]:
        if self.refusal:
            raise CheckpointError(self.refusal)
        return ScriptedBackend(self), "tokenizer"


class ScriptedBackend:
    facts = ModelFacts(longest_input=4096)
    settings_fingerprint = "settings"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.weights_fingerprint = script.weights.replace("PID", str(os.getpid()))
        self.seconds = script.seconds
        if script.slow_file is not None and _made(script.slow_file):
            self.seconds = script.slow_seconds

    def score(self, pairs: Sequence[EncodedPair], on_routing: object) -> Answers:
        if self.script.raises:
            raise ZeroDivisionError("a bug in a worker")
        for place, pair in enumerate(pairs):
            time.sleep(self.seconds)
            value = value_of(pair.tokens)
            if value == self.script.dies_on:
                os._exit(1)
            with self.script.log.open("a") as log:
                log.write(f"{os.getpid()} {value}\n")
            yield [(place, StoredAnswer(log_likelihood=value, greedy=len(pair.tokens) % 2 == 0))]

    def generate(self, prompts: Sequence[Prompt], on_routing: object) -> Answers:
        for place, prompt in enumerate(prompts):
            time.sleep(self.seconds)
            text = f"{value_of(prompt.tokens)} {prompt.repeat}"
            yield [(place, StoredAnswer(text=text, generated_tokens=2, finish="stop"))]

    def describe(self) -> dict[str, Any]:
        return {"class": "scripted"}

    def probe(self) -> None:
        return None

    def close(self) -> None:
        pass


def computed(log: Path) -> list[tuple[int, float]]:
    """(process, value) of each answer that any worker gave."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(line.split()[0]), float(line.split()[1])) for line in lines]


def _made(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
