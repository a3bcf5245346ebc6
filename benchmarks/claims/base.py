"""The base model of a trial: a tokenizer and a small Qwen2 that is taught to read, from scratch."""

from itertools import islice
from pathlib import Path
from random import Random

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from benchmarks.claims.reading import passages
from benchmarks.claims.tasks import TaskData
from benchmarks.claims.world import World
from tools.demo_checkpoints.tiny_training import reading_batches, train
from tools.demo_checkpoints.tokenizer import build_tokenizer

VOCABULARY = 1024
# A question, and its answer on a line of its own, in every task alike: what comes before the answer
# is the same token everywhere.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{{ '\n' if m.role == 'user' else eos_token }}"
    "{% endfor %}"
)


def make_base(
    folder: Path, world: World, tasks: dict[str, TaskData], *, seed: int, steps: int
) -> None:
    """Trains it and saves it with its tokenizer, which knows all words of all tasks."""
    torch.manual_seed(seed)
    tokenizer = _make_tokenizer(world, tasks, seed)
    model = Qwen2ForCausalLM(_shape(len(tokenizer), tokenizer.eos_token_id))
    batches = reading_batches(
        passages(world, Random(f"reading {seed}")), tokenizer, rows=16, tokens=48
    )
    train(
        model,
        list(model.parameters()),
        batches,
        steps=steps,
        learning_rate=3e-3,
        tell=lambda _: None,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_tokenizer(world: World, tasks: dict[str, TaskData], seed: int) -> PreTrainedTokenizerBase:
    texts = list(islice(passages(world, Random(f"words {seed}")), 4000))
    for data in tasks.values():
        texts += ["\n".join((i.question, *i.choices)) for i in (*data.train, *data.test)]
    tokenizer = build_tokenizer(texts, VOCABULARY)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _shape(vocabulary: int, end: int) -> PretrainedConfig:
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
