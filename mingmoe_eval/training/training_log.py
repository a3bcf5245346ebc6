"""What a training tells while it runs: lines of a file, TensorBoard, and whoever watches."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mingmoe_eval.errors import UsageError
from mingmoe_eval.training.held_out import EVAL_LOSS
from mingmoe_eval.training.output_folder import telling
from mingmoe_eval.training.spec import TrainingWatch
from mingmoe_eval.whole_files import write_whole

LOG_FILE = "training_log.jsonl"
TENSORBOARD = "tensorboard"
"""The package, and the folder for its files."""


def refuse_absent_tensorboard() -> None:
    """Refuses to log where nothing could.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    if importlib.util.find_spec(TENSORBOARD) is None:
        raise UsageError(
            f"--tensorboard needs it installed: pip install {TENSORBOARD}; without, all figures "
            f"are in {LOG_FILE}"
        )


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Writes `training_log.jsonl` and tells a watch how far training is.

    After a resume the file is written anew from the training state's own history, so that it holds
    each step once. Stops a training whose loss is no number: nothing can be learned from there on.
    """

    def __init__(
        self, folder: Path, watch: TrainingWatch, passes: float, *, tensorboard: bool
    ) -> None:
        self.path = folder / LOG_FILE
        self.watch = watch
        self.passes = passes
        self._board: Any = None
        self._wants_board = tensorboard

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins the file where there is anything to tell; an empty one looks half-written."""
        self.watch.step_done(state.global_step, state.max_steps, None)
        if not state.is_world_process_zero:
            return
        known = [entry for entry in state.log_history if _is_told(entry)]
        with telling(self.path):
            if known:
                write_whole(self.path, (self._line(entry, state.max_steps) for entry in known))
            else:
                self.path.unlink(missing_ok=True)
            if self._wants_board:
                from torch.utils.tensorboard import SummaryWriter

                # What an interrupted training told of later steps is told again.
                self._board = SummaryWriter(
                    str(self.path.with_name(TENSORBOARD)), purge_step=state.global_step + 1
                )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Moves the progress on; the last step is told, whether or not a line is due."""
        self.watch.step_done(state.global_step, state.max_steps, None)
        if state.global_step >= state.max_steps:
            control.should_log = True

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
        if not _is_told(logs):
            return
        entry = state.log_history[-1]
        if state.is_world_process_zero:
            with telling(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(self._line(entry, state.max_steps))
        if self._board is not None:
            with telling(self.path.with_name(TENSORBOARD)):
                for name, value in entry.items():
                    if isinstance(value, int | float) and name != "step":
                        self._board.add_scalar(f"train/{name}", value, entry["step"])
                self._board.flush()
        if "loss" in logs:
            self.watch.step_done(state.global_step, state.max_steps, logs["loss"])
        else:
            self.watch.note(f"step {state.global_step}: held-out loss {logs[EVAL_LOSS]:.4f}")
        for name in ("loss", "grad_norm", EVAL_LOSS):
            if not math.isfinite(logs.get(name, 0.0)):
                raise UsageError(
                    f"training came apart: at step {state.global_step} the {name} is {logs[name]}; "
                    "lower --learning-rate, or leave --bf16 out"
                )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Closes TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _line(self, entry: dict[str, Any], steps: int) -> str:
        # The Trainer takes the whole plan for one epoch, however often it goes through the data.
        entry = {**entry, "epoch": round(entry["step"] / steps * self.passes, 6)}
        # Sorted, as training states keep their history: a resumed log is the same byte for byte.
        return json.dumps(entry, sort_keys=True) + "\n"


def _is_told(entry: dict[str, Any]) -> bool:
    return "loss" in entry or EVAL_LOSS in entry
