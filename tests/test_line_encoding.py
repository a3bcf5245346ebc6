from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import EXAMPLES, TRAINING_TEXT
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from mingmoe_eval.engine.tokenisation import PATTERNS, LineEncoder

LINE_FEEDS = "a\n\nb\n\n\nc\r\n\r\n题目:\n\n  d \n \n e。\n\n「\n" * 3


def backend(pattern="Qwen 2, 2.5, 3", *, bos=False):
    made = Tokenizer.from_str(trained(pattern))
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return made


@cache
def trained(pattern):
    """Byte-level BPE that has learnt merges over blanks, line feeds, words and marks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TRAINING_TEXT, EXAMPLES, LINE_FEEDS] * 20, trainer)
    return tokenizer.to_str()


PIECES = st.sampled_from(
    [
        *("\n", "\r\n", "\r", "\t", " ", "  ", "\u3000", "\u0085", "\u2028", "\x1c", "\u200b"),
        *("a", "answer", "题目", "答案：", "1", "2023", "'s", "'", "/", ".", "。", "…", "\u0301"),
        *("é", "e", "\u1100", "\u1161", "한", "<s>", "<|user|>", "<|", "\u20ac", "😀", "\x00"),
    ]
)
TEXTS = st.lists(st.lists(PIECES, max_size=25).map("".join) | st.text(), min_size=1, max_size=4)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=300)
@given(texts=TEXTS, special=st.booleans())
def test_lines_have_the_ids_of_the_whole_text(pattern, bos, texts, special):
    whole = backend(pattern, bos=bos)
    lines = LineEncoder.of(whole)
    # Every text also behind the first one, as prompts stand behind one block of examples.
    texts = [*texts, *(texts[0] + "\n" + text for text in texts)]
    for text, ids in zip(texts, lines.encode(texts, add_special_tokens=special), strict=True):
        assert ids.tolist() == whole.encode(text, add_special_tokens=special).ids


def test_words_between_blanks_have_the_ids_of_the_whole_text():
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (ids,) = LineEncoder.of(words).encode(["a b\nb\n\n a c"], add_special_tokens=True)
    assert ids.tolist() == [0, 1, 1, 0, 2]


def test_the_pattern_that_leaves_a_line_feed_to_the_next_word_would_give_other_ids():
    # GPT-2: of "\n\nb" the last line feed is a piece by itself; of "\n\n" alone both are one.
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert [piece for piece, _ in gpt2.pre_tokenize_str("a\n\nb")] == ["a", "Ċ", "Ċ", "b"]
    assert [piece for piece, _ in gpt2.pre_tokenize_str("a\n\n")] == ["a", "ĊĊ"]


def without_a_guarantee():
    pieces = backend()
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    yield "GPT-2", pieces
    prefixed = backend()
    prefixed.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS["Llama 3"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    yield "a blank before each line", prefixed
    for kind in ({"lstrip": True}, {"rstrip": True}, {"single_word": True}):
        stripping = backend()
        stripping.add_tokens([AddedToken("<mask>", **kind)])
        yield f"added token with {kind}", stripping
    spanning = backend()
    spanning.add_tokens(["end\nof"])
    yield "added token over two lines", spanning
    stripped = backend()
    stripped.normalizer = normalizers.Strip()
    yield "another normaliser", stripped
    yield "no pieces", Tokenizer(models.BPE())
    yield "blanks as marks", metaspace()


def metaspace():
    sentences = Tokenizer(models.BPE())
    sentences.pre_tokenizer = pre_tokenizers.Metaspace()
    return sentences


@pytest.mark.parametrize(
    "tokenizer",
    [pytest.param(made, id=name) for name, made in without_a_guarantee()],
)
def test_a_tokenizer_without_that_guarantee_gets_whole_texts(tokenizer):
    assert LineEncoder.of(tokenizer) is None
