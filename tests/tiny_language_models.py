"""Tiny causal models and tokenizers for the engine, and the slow, obvious way to score."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from lm_eval.api.instance import Instance
from tiny_checkpoints import config_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)

SPECIAL = ["</s>", "<s>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
TRAINING_TEXT = [
    "患者发热咳嗽三天，查体：体温38.5℃。下列哪项检查最有意义？A 血常规 B 胸片 C 心电图 D 脑电图",
    "Question: which drug is given for angina? answer: nitroglycerin is given under the tongue",
    "the patient has a fever and a cough. what is the most likely diagnosis?",
]
EXAMPLES = "".join(
    f"题目{i}：患者{'发热' * (i % 3 + 1)}咳嗽，which drug is given?\n答案：{'ABCD'[i % 4]}\n\n"
    for i in range(6)
)


@cache
def trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL[:4], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING_TEXT * 20, trainer)
    return tokenizer


def make_tokenizer(*, bos: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE; with `bos`, every encoding begins with <s>, as for Llama."""
    backend = Tokenizer.from_str(trained_tokenizer().to_str())
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        bos_token="<s>" if bos else None,
        chat_template=template,
    )


def make_model(family: str = "qwen2", *, seed: int = 0, **changes: Any) -> Any:
    """A model whose next tokens are far from uniform, in fp32."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 384, "max_position_embeddings": 512, "pad_token_id": None, **changes}
    config = config_of(family, **{**sizes, "bos_token_id": None, "eos_token_id": None})
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(std=1.5 * parameter.shape[1] ** -0.5)
    return model


def instances(kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(kind, {}, given, index, ("task", index, 1))
        for index, given in enumerate(arguments)
    ]


def exam_pairs() -> list[tuple[str, str]]:
    """Letters and option texts, with and without examples, and the odd cases."""
    pairs = []
    for number in range(4):
        for examples in ("", EXAMPLES):
            context = f"{examples}题目{number * 77}：患者{'咳嗽' * number}，最可能？\n答案："
            pairs += [(context, letter) for letter in "ABCD"]
            pairs += [(context, text) for text in ("血常规检查", "血常规", "胸片 and a cough", "x")]
    return [*pairs, ("", "no context at all"), ("blanks  ", "  move"), ("one", " two")]


def slow_score(model: Any, tokens: Sequence[int], n_targets: int) -> tuple[float, bool]:
    """One full pass, one log-softmax, one sum: what every engine must agree with."""
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens[:-1])])).logits[0, -n_targets:]
    targets = torch.tensor(list(tokens[-n_targets:]))
    chosen = torch.log_softmax(logits.double(), -1)[range(n_targets), targets]
    return float(chosen.sum()), bool((logits.argmax(-1) == targets).all())
