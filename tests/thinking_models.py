"""A model whose thoughts and answers are known by heart: each token has one successor.

The chat template opens a thought and ends in a blank of its own for each case that a question may
speak of. From there the model counts down the alphabet, a letter a token: `case e` is thought about
in d, c, b, a; then the thought is closed, and the answer is A. A thought that is closed for it ends
in a line feed instead, behind which it answers B.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tiny_language_models import SPECIAL, make_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CLOSED, RIGHT, WRONG = "</think>", "A", "B"
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content }}\n"
    "</think>\n\n{{ m.content }}{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>{% for letter, blank in "
    "{'b': '\t', 'e': '\x0b', 'j': '\x0c', 'p': '\x1c', 'z': ' '}.items() %}"
    "{% if 'case ' + letter in messages[-1].content %}{{ blank }}{% endif %}{% endfor %}"
    "{% endif %}{% endif %}"
)
BLANKS = {"b": "\t", "e": "\x0b", "j": "\x0c", "p": "\x1c", "z": " "}
HEADINGS = ("## Thinking\n\n", "## Final Response")
HEADED_TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\t{% endif %}"
)
"""HuatuoGPT-o1 knows of thoughts by its replies alone, whose headings are tokens here."""
THOUGHT_TOKENS = {"b": 2, "e": 5, "j": 10, "p": 16, "z": 26}
"""By a question's case: how long its thought is, the tag that closes it included."""


def thinking_tokenizer(*, headed: bool = False) -> Any:
    # Bytes alone: whatever is cut out of a text has the tokens that it had there.
    letters = [*SPECIAL[:4], *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        chat_template=HEADED_TEMPLATE if headed else TEMPLATE,
    )
    words = HEADINGS if headed else ("<think>", CLOSED)
    tokenizer.add_tokens([AddedToken(word, special=False) for word in words])
    return tokenizer


def thinking_model(tokenizer: Any) -> Any:
    """Every layer adds nothing, so that what comes out is the newest token's own embedding."""
    # Wide enough for random embeddings to be nearly at right angles.
    model = make_model(tie_word_embeddings=False, max_position_embeddings=2048, hidden_size=256)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    torch.manual_seed(3)
    embedding = model.get_input_embeddings().weight.data.normal_()
    head = model.get_output_embeddings().weight.data.zero_()
    for token, successor in _successors(tokenizer).items():
        head[successor] += embedding[token]
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def _successors(tokenizer: Any) -> dict[int, int]:
    def one(text: str) -> int:
        [token] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return token

    letters = [one(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    chain = {later: before for before, later in pairwise(letters)}
    chain |= {one(blank): chain[one(letter)] for letter, blank in BLANKS.items()}
    closed = CLOSED if CLOSED in tokenizer.get_added_vocab() else HEADINGS[1]
    if closed != CLOSED:
        chain |= {one("\t"): one(HEADINGS[0]), one(HEADINGS[0]): one("e")}
    chain[letters[0]] = one(closed)
    chain[one(closed)] = one(RIGHT)
    chain[one("\n")] = one(WRONG)
    for answer in (RIGHT, WRONG):
        chain[one(answer)] = tokenizer.eos_token_id
    return chain


def end_after(model: Any, tokenizer: Any, letter: str) -> None:
    """Has the model end its reply behind a letter of its thought, instead of going on."""
    [token] = tokenizer(letter)["input_ids"]
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    head.data[tokenizer.eos_token_id] += 1.3 * embedding.data[token]


def save_thinker(folder: Path, *, headed: bool = False, ends_after: str = "") -> Path:
    tokenizer = thinking_tokenizer(headed=headed)
    model = thinking_model(tokenizer)
    if ends_after:
        end_after(model, tokenizer, ends_after)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def exam_of(folder: Path, letters: str) -> Path:
    """A file of questions; question i is thought about in as many tokens as its letter counts."""
    rows = [
        {
            "question": f"case {letter}, number {number}?",
            "options": {"A": "one", "B": "two", "C": "three"},
            "answer": RIGHT,
        }
        for number, letter in enumerate(letters)
    ]
    path = folder / "thoughts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
