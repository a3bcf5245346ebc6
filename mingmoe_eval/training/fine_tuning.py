"""Fine-tunes an adapter: everything checked first, then trained, then written whole."""

import math
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora import load_model
from mingmoe_eval.molora.accelerate_door import processes
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.sources import sniff, transformers_config
from mingmoe_eval.molora.tokenizer import has_tokenizer
from mingmoe_eval.training.adapters import (
    Adapter,
    LoraAdapter,
    MoLoraAdapter,
    fresh_lora,
    fresh_molora,
)
from mingmoe_eval.training.batches import keep_apart
from mingmoe_eval.training.continuing import adapter_folder
from mingmoe_eval.training.held_out import best_step, is_exhausted
from mingmoe_eval.training.material import Material, prepare, tokenizer_of
from mingmoe_eval.training.output_folder import (
    RECORD_FILE,
    claim_output,
    history_of,
    make_record,
    move_files,
    only_training_in,
    refuse_small_disk,
    staging_folder,
    state_to_resume,
    telling,
    training_states,
    write_record,
)
from mingmoe_eval.training.spec import AdapterShape, Schedule, Silence, TrainingSpec, TrainingWatch
from mingmoe_eval.training.trainer import AdapterTrainer, trainer_arguments
from mingmoe_eval.training.training_log import TrainingLog, refuse_absent_tensorboard


@quiet_libraries()
def train_adapter(
    spec: TrainingSpec,
    output: Path,
    *,
    resume: str | None = None,
    watch: TrainingWatch | None = None,
    tensorboard: bool = False,
) -> Path:
    """Trains as the spec says and writes the checkpoint, which `load_model` reads.

    Args:
        spec: what to train.
        output: a folder that is empty or not there yet; also takes the log, the spec and the
            training states.
        resume: "last" or a step, to go on from a training state in `output`.
        watch: told of progress.
        tensorboard: whether the log goes to TensorBoard's files too, in `output`.

    Raises:
        MingMoeError: before the first step, for anything that can be known by then; later, a disk
            that fills or a loss that is no number. What is on disk then is whole.
    """
    watch = watch or Silence()
    spec.check()
    if tensorboard:
        refuse_absent_tensorboard()
    record = make_record(spec)
    state = None if resume is None else state_to_resume(output, resume, record)
    if resume is None:
        claim_output(output)
    with only_training_in(output):
        material = prepare(spec, watch)
        base = load_base(spec.base, spec.schedule)
        adapter = attach_fresh(base, spec)
        if spec.packing:
            refuse_leaks(base, spec.max_tokens)
        if spec.start is not None and state is None:
            adapter.restore(adapter_folder(spec.start, spec.base))
        refuse_small_disk(output, bytes_needed(adapter, spec.schedule, material.steps))
        # Everyone has looked at the folder before anyone writes to it.
        processes().wait_for_everyone()
        if processes().is_main_process:
            write_record(output / RECORD_FILE, record)
        run_training(
            adapter, material, spec, output, state=state, watch=watch, tensorboard=tensorboard
        )
    return output


def load_base(name: str, schedule: Schedule) -> PreTrainedModel:
    """The frozen base model, in fp32 or bfloat16, on the CPU: the Trainer moves it.

    Raises:
        CheckpointError: no model, one that is an adapter itself, or one with packed weights.
    """
    if sniff(name) == "gguf" or getattr(transformers_config(name), "quantization_config", None):
        raise CheckpointError(
            f"{name} is quantised: an adapter is trained beside full weights; take the model that "
            "this one was made from"
        )
    dtype = torch.bfloat16 if schedule.bf16 else torch.float32
    base = load_model(name, dtype=dtype, device="cpu")
    if base.loaded.description.kind != "full":
        raise CheckpointError(f"{name} is an adapter: the base must be a full model")
    if schedule.gradient_checkpointing:
        _checkpoint_gradients(base)
    return base


def refuse_leaks(base: PreTrainedModel, max_tokens: int) -> None:
    """Refuses to pack for a base in which conversations of one row would see each other.

    Whatever a base makes of the mask and of positions shows in the logits of two short texts, apart
    and in one row; but for a window of attention, which is longer than they are.

    Raises:
        CheckpointError: they would.
    """
    settings = base.config.get_text_config()
    window = getattr(settings, "sliding_window", None)
    slides = any("sliding" in kind for kind in getattr(settings, "layer_types", None) or ())
    if window and slides and window < max_tokens:
        raise CheckpointError(
            f"the attention of this base sees {window} tokens: pack with --max-tokens {window} at "
            "most, or leave --packing out"
        )
    texts = torch.arange(2, 19) % settings.vocab_size
    segments = torch.tensor([[1] * 8 + [2] * 9])
    with torch.no_grad():
        try:
            packed = base(
                input_ids=texts[None], use_cache=False, **keep_apart(segments, base.dtype)
            ).logits[0]
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"this base cannot be packed for: {error}") from error
        alone = torch.cat(
            [base(input_ids=text[None], use_cache=False).logits[0] for text in texts.split([8, 9])]
        )
    # Far above rounding, and far below what a strange token in sight does.
    allowed = 1e-3 if base.dtype == torch.float32 else 0.1
    if not (packed - alone).abs().max() <= allowed * alone.abs().max():
        raise CheckpointError(
            "in this base conversations of one row would see each other: leave --packing out"
        )


def run_training(
    adapter: Adapter,
    material: Material,
    spec: TrainingSpec,
    output: Path,
    *,
    state: Path | None,
    watch: TrainingWatch,
    tensorboard: bool = False,
) -> None:
    """Trains an adapter and writes it into `output`, whole or not at all.

    With held-out conversations what is written is the state in which their loss was least.
    """
    schedule = spec.schedule
    trainer = AdapterTrainer(
        adapter,
        material.examples,
        trainer_arguments(
            output, schedule, material.steps, spec.held_out, resumed=state is not None
        ),
        held_out=material.held_out,
        objective=spec.objective,
        keep=schedule.keep,
        packed=spec.packing,
        log=TrainingLog(output, watch, material.examples.passes, tensorboard=tensorboard),
        patience=spec.held_out.patience,
    )
    history = [] if state is None else history_of(state)
    if not is_exhausted(history, spec.held_out.patience):
        trainer.train(resume_from_checkpoint=None if state is None else str(state))
        history = trainer.state.log_history
    best = best_step(history)
    if best is not None:
        watch.note(f"the held-out loss was least at step {best}: that is the checkpoint")
        states = training_states(output)
        if best not in states:
            raise CheckpointError(f"{output} has lost checkpoint-{best}, the best training state")
        adapter.restore(states[best])
    if processes().is_main_process:
        staging = staging_folder(output)
        with telling(output):
            adapter.write(staging)
            if _has_template_of_its_own(spec):
                # The base's tokenizer would come without the template that was trained with.
                tokenizer_of(spec).save_pretrained(staging)
        move_files(staging, output)
    processes().wait_for_everyone()


def _has_template_of_its_own(spec: TrainingSpec) -> bool:
    if spec.chat_template is not None:
        return True
    return spec.start is not None and has_tokenizer(adapter_folder(spec.start, spec.base))


def base_name(base: str) -> str:
    """How a checkpoint names its base: a hub id as it is, a directory by its whole path."""
    return str(Path(base).resolve()) if Path(base).is_dir() else base


def molora_settings(base: str, shape: AdapterShape) -> MoLoraConfig:
    """The settings that a MoLoRA checkpoint of this shape is written with."""
    return MoLoraConfig(
        num_experts=shape.num_experts,
        experts_per_token=shape.experts_per_token,
        rank=shape.rank,
        alpha=shape.alpha,
        expert_rslora=shape.rslora,
        attention_rslora=shape.rslora,
        base=base_name(base),
    )


def bytes_needed(adapter: Adapter, schedule: Schedule, steps: int) -> int:
    """About what the finished checkpoint and the training states take on disk."""
    trained = sum(p.numel() for p in adapter.model.parameters() if p.requires_grad)
    # fp32: the experts come twice, and a state holds two moments of each parameter besides.
    written = 2 * trained * 4
    states = math.ceil(steps / schedule.save_every)
    # A new state is written before the oldest one goes, and the best one stays.
    states = min(states, schedule.keep + 2) if schedule.keep else states + 1
    return written + states * (written + 2 * trained * 4)


def attach_fresh(base: PreTrainedModel, spec: TrainingSpec) -> Adapter:
    """A fresh adapter of the spec's method and sizes, live on the base."""
    seed = spec.schedule.seed
    if spec.method == "lora":
        return LoraAdapter(fresh_lora(base, spec.shape, seed=seed), base_name(spec.base))
    return MoLoraAdapter(
        fresh_molora(base, spec.shape, seed=seed),
        base,
        settings=molora_settings(spec.base, spec.shape),
        # As it is on disk: a model under training has fields of its own in its config.
        model_config=transformers_config(spec.base).to_dict(),
    )


def _checkpoint_gradients(base: PreTrainedModel) -> None:
    # The first name is the one of transformers from 5.2x on, where the second warns.
    for name in ("activation", "gradient"):
        enable = getattr(base, f"{name}_checkpointing_enable", None)
        if enable is not None:
            enable(**{f"{name}_checkpointing_kwargs": {"use_reentrant": False}})
            return
