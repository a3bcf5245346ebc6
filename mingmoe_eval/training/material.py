"""What a training learns from and is judged by: files read, divided, encoded and put in order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mingmoe_eval.molora.accelerate_door import processes
from mingmoe_eval.training.batches import PlannedExamples, plan_rows
from mingmoe_eval.training.conversations import Conversation, read_conversations
from mingmoe_eval.training.examples import (
    EncodedStream,
    Example,
    encode_stream,
    load_chat_tokenizer,
)
from mingmoe_eval.training.held_out import split_off
from mingmoe_eval.training.spec import TrainingSpec, TrainingWatch


@dataclass(frozen=True, slots=True)
class Material:
    """The rows of all steps in the order in which they come, and what is held out."""

    examples: PlannedExamples
    steps: int
    held_out: tuple[Example, ...] = ()


def tokenizer_of(spec: TrainingSpec) -> PreTrainedTokenizerBase:
    """The one that a training writes its texts with: an adapter that goes on may have its own.

    Raises:
        CheckpointError: there is none, or none with a chat template.
    """
    if spec.start is None:
        return load_chat_tokenizer(spec.base, spec.chat_template)
    return load_chat_tokenizer(spec.start, spec.chat_template, base=spec.base)


def prepare(spec: TrainingSpec, watch: TrainingWatch) -> Material:
    """Reads, divides and encodes all data, and lays down which example comes when.

    Raises:
        DataError: bad records, or nothing to learn, or to hold out; CheckpointError: no template.
    """
    tokenizer = tokenizer_of(spec)

    def encoded(path: Path, conversations: Sequence[Conversation]) -> EncodedStream:
        stream = encode_stream(
            str(path),
            conversations,
            tokenizer,
            spec.max_tokens,
            skip_too_long=spec.skip_too_long,
        )
        if stream.cut:
            watch.note(f"{path}: {stream.cut} of them cut at {spec.max_tokens} tokens")
        if stream.skipped:
            watch.note(
                f"{path}: {stream.skipped} conversations skipped, of which no response lies "
                f"within {spec.max_tokens} tokens"
            )
        return stream

    streams: list[EncodedStream] = []
    held: list[Example] = []
    learned_from: set[object] = set()
    for source in spec.data:
        conversations = read_conversations(source.path)
        if spec.held_out.split:
            conversations, apart = split_off(
                conversations, spec.held_out.split, seed=spec.schedule.seed, name=str(source.path)
            )
            watch.note(f"{source.path}: {len(apart)} conversations held out")
            held += encoded(source.path, apart).examples
        learned_from |= {one.messages for one in conversations}
        streams.append(encoded(source.path, conversations))
        watch.note(f"{source.path}: {len(streams[-1].examples)} examples")
    for path in spec.held_out.files:
        conversations = read_conversations(path)
        if known := sum(one.messages in learned_from for one in conversations):
            watch.note(
                f"{path}: {known} of {len(conversations)} held-out conversations are learned from "
                "too: their loss says nothing about new ones"
            )
        held += encoded(path, conversations).examples
    sizes = [len(stream.examples) for stream in streams]
    schedule = spec.schedule
    a_step = schedule.batch_size * schedule.accumulation * processes().num_processes
    rows = plan_rows(
        streams,
        [
            float(size) if source.weight is None else source.weight
            for source, size in zip(spec.data, sizes, strict=True)
        ],
        epochs=schedule.epochs,
        steps=schedule.steps,
        a_step=a_step,
        room=spec.max_tokens if spec.packing else None,
        seed=schedule.seed,
    )
    return Material(PlannedExamples(streams, rows), math.ceil(len(rows) / a_step), tuple(held))
