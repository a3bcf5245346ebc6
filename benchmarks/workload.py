"""What the engine's benchmarks run on: a model, a mixture on top of it, a tokenizer, requests.

The model has the shape of a small Qwen 2 (hidden 896, intermediate 4,864, 14 heads of which 2 hold
keys and values, vocabulary 151,936, head tied to the embeddings) with 4 layers and random weights.
Words are tokens, so that every length is exactly what it says; prompts have lines, as real ones do.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from mingmoe_eval.molora.layers import LinearExperts, MoLoraFFN, RoutedExperts

WORDS = 20_000
QUESTION_TOKENS = (94, 134)
PREFIX_TOKENS = 560
OPTION_TOKENS = (10, 30)

Pair = tuple[str, str]


def base_model(*, layers: int = 4, vocabulary: int = 151_936) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def add_experts(model: Any, *, experts: int = 8, chosen: int = 2, rank: int = 16) -> None:
    """Put random routed experts beside every feed-forward layer, as a MING checkpoint has them."""
    generator = torch.Generator().manual_seed(1)

    def record(linear: Any) -> LinearExperts:
        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator) * 0.02

        return LinearExperts(
            a=draw(experts, rank, linear.in_features),
            b=draw(experts, linear.out_features, rank),
            router_weight=draw(experts, linear.in_features),
            router_bias=draw(experts),
            top_k=chosen,
            scaling=2.0,
        )

    for number, layer in enumerate(model.model.layers):
        ffn, home = layer.mlp, f"model.layers.{number}.mlp"
        into = [record(ffn.gate_proj), record(ffn.up_proj)]
        layer.mlp = MoLoraFFN(
            ffn,
            RoutedExperts([f"{home}.gate_proj", f"{home}.up_proj"], into, dtype=torch.float32),
            RoutedExperts([f"{home}.down_proj"], [record(ffn.down_proj)], dtype=torch.float32),
        )
    model.eval().requires_grad_(False)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"[end]": 0, "[unknown]": 1, "A": 2, "B": 3, "C": 4, "D": 5, "answer": 6}
    first = len(vocabulary)
    vocabulary.update((f"w{i}", first + i) for i in range(WORDS))
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[unknown]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[end]")


class Texts:
    """Random texts of exact lengths, the same for the same seed."""

    def __init__(self, seed: int = 2) -> None:
        self._random = random.Random(seed)

    def words(self, least: int, most: int | None = None) -> str:
        """So many words, or a number of them from least to most."""
        count = self._random.randint(least, most or least)
        return " ".join(f"w{self._random.randrange(WORDS)}" for _ in range(count))

    def lines(self, least: int, most: int | None = None) -> str:
        """As many words, a dozen a line."""
        words = self.words(least, most).split()
        return "\n".join(" ".join(words[i : i + 12]) for i in range(0, len(words), 12))

    def questions(self, count: int, *, prefix: str = "") -> list[str]:
        """Contexts that a letter or an option text continues."""
        return [f"{prefix}{self.lines(*QUESTION_TOKENS)}\nanswer" for _ in range(count)]


def letters(docs: int, *, shots: bool) -> list[Pair]:
    """Four letters a question, on one block of examples for all questions or on none."""
    texts = Texts()
    prefix = texts.lines(PREFIX_TOKENS) + "\n\n" if shots else ""
    return [(q, f" {x}") for q in texts.questions(docs, prefix=prefix) for x in "ABCD"]


def option_texts(docs: int) -> list[Pair]:
    """Four options of 10 to 30 tokens a question."""
    texts = Texts()
    return [(q, f" {texts.words(*OPTION_TOKENS)}") for q in texts.questions(docs) for _ in range(4)]


def instances(kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(kind, {}, given, index, ("benchmark", index, 1))
        for index, given in enumerate(arguments)
    ]


def common_arguments(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="one thread, and its own time: for a machine that is busy with other things",
    )
    return parser


def choose_clock(*, cpu_seconds: bool) -> Callable[[], float]:
    """The clock to measure with: the wall's, or this process's time on one thread."""
    if not cpu_seconds:
        return perf_counter
    torch.set_num_threads(1)
    return process_time


def paired_seconds(
    rounds: int, clock: Callable[[], float], **sides: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each side in each round; sides alternate, and their order turns every round.

    A busy machine then slows all sides of a round alike, and their ratio stays.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        order = list(sides.items())
        for name, run in order if turn % 2 == 0 else reversed(order):
            begin = clock()
            run()
            seconds[name].append(clock() - begin)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """The median of a round's ratios, with the least and the most."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
