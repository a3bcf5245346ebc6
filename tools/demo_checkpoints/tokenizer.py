"""A small tokenizer of Qwen2's kind: byte-level pairs, so that any text can be spelled."""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

END_OF_TEXT = "<|endoftext|>"

# How text is cut for learning, finer than Qwen2 cuts it later: Chinese into characters, or whole
# sentences of the templates would become tokens; a capital that stands alone, as letters of options
# do, stays alone.
_PIECES = Regex(r" ?[A-Za-z][a-z']+| ?[A-Za-z]|\p{N}|\n| ?[^\p{L}\p{N}\s]|\s|\p{Han}|.")


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """A tokenizer learned from texts, with at most `vocabulary` tokens.

    Qwen2's class and not one of our own: transformers takes that class for every checkpoint of
    Qwen2's shape, whatever its tokenizer_config.json says.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, "isolated"),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    )
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        unk_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )
