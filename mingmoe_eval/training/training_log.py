"""The curves of a training: one JSON line a log step, beside the checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mingmoe_eval.errors import UsageError
from mingmoe_eval.training.watching import TrainingWatch
from mingmoe_eval.training.whole_folders import telling

LOG_FILE = "training_log.jsonl"


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Writes `training_log.jsonl` and tells a watch how far training is.

    After a resume the file is written anew from the training state's own history, so that it holds
    each step once. Stops a training whose loss is no number: nothing can be learned from there on.
    """

    def __init__(self, folder: Path, watch: TrainingWatch) -> None:
        self.path = folder / LOG_FILE
        self.watch = watch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins the file."""
        self.watch.step_done(state.global_step, state.max_steps, None)
        if state.is_world_process_zero:
            lines = [_line(entry) for entry in state.log_history if "loss" in entry]
            with telling(self.path):
                self.path.write_text("".join(lines), "utf-8")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Moves the progress on."""
        self.watch.step_done(state.global_step, state.max_steps, None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        """Adds a line.

        Raises:
            UsageError: the loss, or its gradient, is no number.
        """
        if "loss" not in logs:
            return
        if state.is_world_process_zero:
            with telling(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))
        self.watch.step_done(state.global_step, state.max_steps, logs["loss"])
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise UsageError(
                    f"training came apart: at step {state.global_step} the {name} is {logs[name]}; "
                    "lower --learning-rate, or leave --bf16 out"
                )


def _line(entry: dict[str, Any]) -> str:
    # Sorted, as training states keep their history: a resumed log is the same byte for byte.
    return json.dumps(entry, sort_keys=True) + "\n"
