"""transformers' Trainer with the routers' losses, and with training states that hold the routers.

The Trainer does the rest: devices, `accelerate launch`, autocast, accumulation, optimiser and
schedule. A training state (`checkpoint-N`) is the adapter in its own format, which `load_model`
reads, and what the Trainer needs to go on: optimiser, schedule, random states, the expert memory of
each process.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora.attaching import routed_experts
from mingmoe_eval.training.adapters import Adapter
from mingmoe_eval.training.batches import PlannedExamples, keep_apart, pad_batch
from mingmoe_eval.training.examples import NOT_LEARNED, Example
from mingmoe_eval.training.held_out import EVAL_LOSS, HeldOutWatch, best_step, summed_loss
from mingmoe_eval.training.output_folder import (
    STAGING,
    drop_state,
    move_folder,
    staging_folder,
    telling,
    training_states,
)
from mingmoe_eval.training.router_supervision import RouterSupervision, RoutingWatch
from mingmoe_eval.training.spec import HeldOut, RouterObjective, Schedule
from mingmoe_eval.training.training_log import TrainingLog

OVERRIDES = (
    "_get_output_dir",
    "_get_train_sampler",
    "_load_from_checkpoint",
    "_save",
    "_save_checkpoint",
    "compute_loss",
    "evaluate",
    "log",
)
"""Methods of transformers' Trainer that are ours: renamed there, they would never be called."""

RELIES_ON = (
    "Trainer.is_deepspeed_enabled",
    "Trainer.is_fsdp_enabled",
    "Trainer.model_accepts_loss_kwargs",
    "Trainer.current_gradient_accumulation_steps",
    "TrainingArguments._n_gpu",
)
"""What else is used of transformers' training that its documentation does not promise."""


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """Trains the adapter that is live in a model.

    Args:
        adapter: what is trained.
        examples: the rows of all steps, in their order.
        arguments: see `trainer_arguments`.
        held_out: examples whose loss is taken now and then; none: it never is.
        objective: the routers'.
        keep: so many newest training states stay, and the best one.
        packed: rows hold several examples.
        log: told of all that is to be written.
        patience: see `HeldOut`.
    """

    def __init__(
        self,
        adapter: Adapter,
        examples: PlannedExamples,
        arguments: TrainingArguments,
        *,
        held_out: Sequence[Example],
        objective: RouterObjective,
        keep: int | None,
        packed: bool,
        log: TrainingLog,
        patience: int | None,
    ) -> None:
        super().__init__(
            model=adapter.model,
            args=arguments,
            train_dataset=examples,
            eval_dataset=held_out or None,
            data_collator=pad_batch,
            callbacks=[log, HeldOutWatch(patience)],
        )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UsageError(
                "adapters cannot be trained under FSDP or DeepSpeed: use plain data parallelism, "
                "`accelerate launch` without either"
            )
        # Both print to stdout, which is for results.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.adapter = adapter
        self.keep = keep
        self.packed = packed
        self.held_out = held_out
        self.supervision = RouterSupervision(objective)
        routed = bool(routed_experts(adapter.model))
        self.routing = RoutingWatch(adapter.model, objective) if routed else None
        self._staged = False

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean loss of learned tokens over the whole step, plus the routers' own."""
        segments = inputs["attention_mask"]
        if self.packed:
            inputs = {**inputs, **keep_apart(segments, next(model.parameters()).dtype)}
        if self.routing is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        responses_only = self.supervision.objective.responses_only
        counted = inputs["labels"] != NOT_LEARNED if responses_only else segments
        with self.routing.forward(counted) as seen:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        extra = self.supervision.loss(seen)
        # The token loss comes divided by all of the step's tokens, so that the batches of a step
        # add up; the routers' loss is a mean of its batch. (Without a count, the Trainer divides.)
        summed = self.model_accepts_loss_kwargs and num_items_in_batch is not None
        loss = loss + (extra / self.current_gradient_accumulation_steps if summed else extra)
        return (loss, outputs) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The mean loss of the held-out conversations' learned tokens, however they are batched."""
        model = self.model.eval()
        # Each process takes its part: every so many-th example.
        mine = self.held_out[self.args.process_index :: self.args.world_size]
        with self.compute_loss_context_manager():
            total = summed_loss(model, mine, self.args.eval_batch_size)
        model.train()
        loss, tokens = self.accelerator.reduce(total, "sum").tolist()
        metrics = {EVAL_LOSS: loss / tokens}
        self.log(dict(metrics))
        # It sets what is to be done in `control`, and gives the same one back.
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Adds the routers' losses and loads to what is logged."""
        if "loss" in logs:
            logs |= self.supervision.take_scores()
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # The plan is the order.
        return SequentialSampler(self.train_dataset)

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(self.args.output_dir) / STAGING if self._staged else self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            staging_folder(output)
        self.accelerator.wait_for_everyone()
        with telling(output / name), self._writing_aside():
            super()._save_checkpoint(model, trial)
            save_file(self.supervision.memory.state(), self._memory_file(output / STAGING / name))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            move_folder(output / STAGING / name, output / name)
            (output / STAGING).rmdir()
            self._drop_old_states(output)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save and output_dir is not None:
            self.adapter.write(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.adapter.restore(folder)
        memory = self._memory_file(folder)
        if not memory.is_file():
            raise CheckpointError(f"{folder} is not whole: {memory.name} is not there")
        self.supervision.memory.restore(load_file(memory), self.args.device)

    @contextlib.contextmanager
    def _writing_aside(self) -> Any:
        self._staged = True
        try:
            yield
        finally:
            self._staged = False

    def _memory_file(self, folder: Path) -> Path:
        return folder / f"expert_memory_{self.args.process_index}.safetensors"

    def _drop_old_states(self, output: Path) -> None:
        states = training_states(output)
        best = best_step(self.state.log_history)
        old = [step for step in sorted(states)[: -self.keep] if step != best] if self.keep else []
        for step in old:
            drop_state(states[step], like=states[max(states)])


# The Trainer's "constant" takes no notice of a warm-up.
_LR_SCHEDULERS = {"constant": "constant_with_warmup"}


def trainer_arguments(
    output: Path, schedule: Schedule, steps: int, held_out: HeldOut, *, resumed: bool
) -> TrainingArguments:
    """What the Trainer is told."""
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=schedule.batch_size,
        gradient_accumulation_steps=schedule.accumulation,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type=_LR_SCHEDULERS.get(schedule.lr_scheduler, schedule.lr_scheduler),
        warmup_steps=round(schedule.warmup * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        seed=schedule.seed,
        bf16=schedule.bf16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        # Every trained tensor takes part in every pass: experts that are not chosen are cleared,
        # not left out.
        ddp_find_unused_parameters=False,
        logging_steps=schedule.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=schedule.save_every,
        per_device_eval_batch_size=schedule.batch_size,
        eval_strategy="steps" if held_out else "no",
        eval_steps=held_out.every or schedule.save_every,
        # A look before the first step, which a resume has in its history.
        eval_on_start=bool(held_out) and not resumed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    # A single process on a host with several GPUs would be spread over them by nn.DataParallel,
    # whose copies of the model have no observers: one GPU a process, as under `accelerate launch`.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
