"""Fine-tunes an adapter: everything checked first, then trained, then written whole."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.library_noise import quiet_libraries
from mingmoe_eval.molora import load_model
from mingmoe_eval.molora.accelerate_door import processes
from mingmoe_eval.molora.config import MoLoraConfig
from mingmoe_eval.molora.sources import transformers_config
from mingmoe_eval.training.adapters import (
    Adapter,
    LoraAdapter,
    MoLoraAdapter,
    fresh_lora,
    fresh_molora,
)
from mingmoe_eval.training.conversations import read_conversations
from mingmoe_eval.training.examples import (
    EncodedStream,
    PlannedExamples,
    encode_stream,
    load_chat_tokenizer,
    mixing_plan,
)
from mingmoe_eval.training.output_folder import (
    RECORD_FILE,
    claim_output,
    make_record,
    move_files,
    refuse_small_disk,
    staging_folder,
    state_to_resume,
    telling,
    write_record,
)
from mingmoe_eval.training.spec import AdapterShape, Schedule, Silence, TrainingSpec, TrainingWatch
from mingmoe_eval.training.trainer import AdapterTrainer, trainer_arguments


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on: the streams, and the order in which their examples come."""

    streams: tuple[EncodedStream, ...]
    steps: int
    plan: list[tuple[int, int]]


@quiet_libraries()
def train_adapter(
    spec: TrainingSpec,
    output: Path,
    *,
    resume: str | None = None,
    watch: TrainingWatch | None = None,
) -> Path:
    """Trains as the spec says and writes the checkpoint, which `load_model` reads.

    Args:
        spec: what to train.
        output: a folder that is empty or not there yet; also takes the log, the spec and the
            training states.
        resume: "last" or a step, to go on from a training state in `output`.
        watch: told of progress.

    Raises:
        MingMoeError: before the first step, for anything that can be known by then; later, a disk
            that fills or a loss that is no number. What is on disk then is whole.
    """
    watch = watch or Silence()
    spec.check()
    record = make_record(spec)
    state = None if resume is None else state_to_resume(output, resume, record)
    if resume is None:
        claim_output(output)
    material = prepare(spec, watch)
    base = load_base(spec.base, spec.schedule)
    adapter = attach_fresh(base, spec)
    refuse_small_disk(output, bytes_needed(adapter, spec.schedule, material.steps))
    # Everyone has looked at the folder before anyone writes to it.
    processes().wait_for_everyone()
    if processes().is_main_process:
        write_record(output / RECORD_FILE, record)
    run_training(adapter, material, spec, output, state=state, watch=watch)
    return output


def prepare(spec: TrainingSpec, watch: TrainingWatch) -> Material:
    """Reads and encodes all data, and lays down which example comes when.

    Raises:
        DataError: bad records, or nothing to learn; CheckpointError: no chat template.
    """
    tokenizer = load_chat_tokenizer(spec.base, spec.chat_template)
    streams = []
    for source in spec.data:
        conversations = read_conversations(source.path)
        stream = encode_stream(
            str(source.path),
            conversations,
            tokenizer,
            spec.max_tokens,
            skip_too_long=spec.skip_too_long,
        )
        watch.note(f"{source.path}: {len(stream.examples)} examples")
        if stream.cut:
            watch.note(f"{source.path}: {stream.cut} of them cut at {spec.max_tokens} tokens")
        if stream.skipped:
            watch.note(
                f"{source.path}: {stream.skipped} conversations skipped, of which no response lies "
                f"within {spec.max_tokens} tokens"
            )
        streams.append(stream)
    sizes = [len(stream.examples) for stream in streams]
    shares = [
        float(size) if source.weight is None else source.weight
        for source, size in zip(spec.data, sizes, strict=True)
    ]
    a_step = spec.schedule.batch_size * spec.schedule.accumulation * processes().num_processes
    steps = spec.schedule.steps or math.ceil(spec.schedule.epochs * sum(sizes) / a_step)
    plan = mixing_plan(sizes, shares, steps * a_step, seed=spec.schedule.seed)
    return Material(tuple(streams), steps, plan)


def load_base(name: str, schedule: Schedule) -> PreTrainedModel:
    """The frozen base model, in fp32 or bfloat16, on the CPU: the Trainer moves it.

    Raises:
        CheckpointError: no model, or one that is an adapter itself.
    """
    dtype = torch.bfloat16 if schedule.bf16 else torch.float32
    base = load_model(name, dtype=dtype, device="cpu")
    if base.loaded.description.kind != "full":
        raise CheckpointError(f"{name} is an adapter: the base must be a full model")
    if schedule.gradient_checkpointing:
        _checkpoint_gradients(base)
    return base


def run_training(
    adapter: Adapter,
    material: Material,
    spec: TrainingSpec,
    output: Path,
    *,
    state: Path | None,
    watch: TrainingWatch,
) -> None:
    """Trains an adapter and writes it into `output`, whole or not at all."""
    trainer = AdapterTrainer(
        adapter,
        PlannedExamples(material.streams, material.plan),
        trainer_arguments(output, spec.schedule, material.steps),
        objective=spec.objective,
        keep=spec.schedule.keep,
        watch=watch,
    )
    trainer.train(resume_from_checkpoint=None if state is None else str(state))
    if processes().is_main_process:
        staging = staging_folder(output)
        with telling(output):
            adapter.write(staging)
            if spec.chat_template is not None:
                # The base's tokenizer would come without the template that was trained with.
                load_chat_tokenizer(spec.base, spec.chat_template).save_pretrained(staging)
        move_files(staging, output)
    processes().wait_for_everyone()


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
    # A new state is written before the oldest one goes.
    states = min(states, schedule.keep + 1) if schedule.keep else states
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
