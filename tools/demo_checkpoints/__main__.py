"""Makes the demo's two checkpoints: `python -m tools.demo_checkpoints OUT`.

Ten minutes or so on two cores. Everything is drawn from fixed seeds, so that the same versions of
torch and Python on the same kind of machine make the same files.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from random import Random

import torch
from transformers import (
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mingmoe_eval.demo import ADAPTER, BASE
from mingmoe_eval.molora import load_model, load_tokenizer
from mingmoe_eval.molora.config import MoLoraConfig
from tools.demo_checkpoints.lessons import lessons
from tools.demo_checkpoints.reading_matter import passages
from tools.demo_checkpoints.tiny_adapter import attach_fresh_adapter, write_adapter
from tools.demo_checkpoints.tiny_training import lesson_batches, reading_batches, train
from tools.demo_checkpoints.tokenizer import build_tokenizer

SEED = 20240521
VOCABULARY = 2304
ADAPTER_SETTINGS = MoLoraConfig(
    num_experts=4,
    experts_per_token=2,
    rank=6,
    alpha=12,
    base=f"../{BASE}",
    target_modules=("k_proj", "o_proj", "q_proj", "v_proj"),
)


def make_base(folder: Path, *, steps: int) -> None:
    """A tokenizer and a Qwen2-shaped model that has read the made-up text, in half precision."""
    torch.manual_seed(SEED)
    tokenizer = make_tokenizer()
    model = Qwen2ForCausalLM(model_shape(len(tokenizer), tokenizer.eos_token_id))
    batches = reading_batches(passages(Random(SEED + 1)), tokenizer, rows=8, tokens=256)
    train(model, list(model.parameters()), batches, steps=steps, learning_rate=3e-3, tell=_say)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _without_blanks(folder / "tokenizer.json")


def make_adapter(base: Path, folder: Path, *, steps: int) -> None:
    """An adapter that was taught the lessons beside the base as it is stored."""
    torch.manual_seed(SEED)
    tokenizer = load_tokenizer(base)
    model = load_model(base, dtype="float32")
    trained = attach_fresh_adapter(model, ADAPTER_SETTINGS)
    batches = lesson_batches(lessons(Random(SEED + 2)), tokenizer, rows=24)
    train(model, trained, batches, steps=steps, learning_rate=5e-3, tell=_say)
    write_adapter(model, ADAPTER_SETTINGS, folder)


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Learned from a part of all text that either model will see."""
    taught = islice(lessons(Random(SEED + 3)), 12_000)
    texts = [lesson.prompt + lesson.answer for lesson in taught]
    return build_tokenizer([*texts, *islice(passages(Random(SEED + 4)), 12_000)], VOCABULARY)


def model_shape(vocabulary: int, end: int) -> PretrainedConfig:
    """About 0.6 million parameters, a third of them the embedding."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def main() -> None:
    """Make both, or only the adapter beside a base that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for base/ and molora-adapter/")
    parser.add_argument("--base-steps", type=int, default=900)
    parser.add_argument("--adapter-steps", type=int, default=600)
    parser.add_argument("--keep-base", action="store_true", help="use the base that is there")
    options = parser.parse_args()
    torch.set_num_threads(2)
    if not options.keep_base:
        make_base(options.out / BASE, steps=options.base_steps)
    make_adapter(options.out / BASE, options.out / ADAPTER, steps=options.adapter_steps)


def _without_blanks(file: Path) -> None:
    """Half the size for the same JSON."""
    data = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
