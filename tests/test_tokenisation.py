import numpy as np
import pytest
from tiny_language_models import EXAMPLES, exam_pairs, instances, make_model, make_tokenizer

from mingmoe_eval.engine.tokenisation import Tokenisation, longest_input

PAIRS = [
    *exam_pairs(),
    ("</s>already marked", " yes"),
    ("<s>already marked", " yes"),
    ("", "<s>begins with the prefix token"),
    ("", "</s>begins with the prefix token"),
    ("ends in\n", "x"),
]


class RecordingHFLM:
    """lm-eval's own engine, stopped where it would hand tokens to the model."""

    def __init__(self, tokenizer, **options):
        from lm_eval.models.huggingface import HFLM

        class Recorder(HFLM):
            def _loglikelihood_tokens(self, requests, **_):
                return requests

        self.lm = Recorder(make_model(), tokenizer=tokenizer, **options)

    def pairs(self, pairs):
        requests = instances("loglikelihood", pairs)
        return [(c, t) for _, c, t in self.lm.loglikelihood(requests, disable_tqdm=True)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("add_bos_token", [None, False, True])
def test_pairs_are_split_as_lm_eval_splits_them(bos, add_bos_token):
    tokenizer = make_tokenizer(bos=bos)
    stock = RecordingHFLM(tokenizer, add_bos_token=add_bos_token).pairs(PAIRS)
    ours = Tokenisation(tokenizer, max_length=512, add_bos_token=add_bos_token).encode_pairs(PAIRS)
    for (context, continuation), pair in zip(stock, ours, strict=True):
        assert pair.tokens.tolist() == [*context, *continuation]
        assert pair.n_targets == len(continuation)


@pytest.mark.filterwarnings("ignore")
def test_a_token_that_spans_the_end_of_the_context_is_fed_as_lm_eval_feeds_it():
    pairs = [
        ("def quicksort(arr):", "\n    return"),
        ("头痛怎么办？", "\n休息"),
        ("a", "bc"),
        ("是", "的"),
    ]
    tokenizer = joining_tokenizer()
    whole = [tokenizer(context + rest)["input_ids"] for context, rest in pairs]
    alone = [tokenizer(context)["input_ids"] for context, _ in pairs]
    assert any(w[: len(a)] != a for w, a in zip(whole, alone, strict=True))  # it does span
    stock = RecordingHFLM(tokenizer).pairs(pairs)
    ours = Tokenisation(tokenizer, max_length=512).encode_pairs(pairs)
    for (context, continuation), pair in zip(stock, ours, strict=True):
        assert pair.tokens.tolist() == [*context, *continuation]
        assert pair.n_targets == len(continuation)


def joining_tokenizer():
    """A byte-level BPE that knows "):" with a line feed, and no piece ends before that."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    from tokenizers.trainers import BpeTrainer

    texts = ["x):\n", "y):\n    r", "办？\n", "休？\n", "ab", "bab", "是的"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["</s>"])
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")


def test_a_long_context_loses_its_beginning_and_says_so():
    tokenisation = Tokenisation(make_tokenizer(), max_length=20)
    whole = Tokenisation(make_tokenizer(), max_length=512).encode_pairs([(EXAMPLES.strip(), "A")])[
        0
    ]
    (pair,) = tokenisation.encode_pairs([(EXAMPLES.strip(), "A")])
    assert pair.truncated
    assert not whole.truncated
    # 20 inputs and the last target, which is no input.
    assert pair.tokens.tolist() == whole.tokens[-21:].tolist()
    assert (pair.n_targets, pair.prompt_tokens) == (1, 20)


def test_a_continuation_that_does_not_fit_has_no_targets():
    (pair,) = Tokenisation(make_tokenizer(), max_length=4).encode_pairs([("a", EXAMPLES)])
    assert pair.n_targets == 0


def test_an_empty_continuation_has_no_targets():
    (pair,) = Tokenisation(make_tokenizer(), max_length=40).encode_pairs([("context", "")])
    assert pair.n_targets == 0


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 30])
def test_rolling_windows_are_those_of_lm_eval(length):
    from lm_eval.utils import get_rolling_token_windows

    tokenisation = Tokenisation(make_tokenizer(), max_length=8)
    document = np.arange(100, 100 + length, dtype=np.int32)
    ours = tokenisation.rolling_windows(document)
    stock = get_rolling_token_windows(document.tolist(), tokenisation.prefix_token_id, 8, 1)
    expected = [(inputs, targets) for inputs, targets in stock]
    assert [w.tokens[:-1].tolist() for w in ours] == [inputs for inputs, _ in expected]
    assert [w.tokens[-w.n_targets :].tolist() for w in ours] == [targets for _, targets in expected]


def test_an_empty_document_has_no_window():
    tokenisation = Tokenisation(make_tokenizer(), max_length=8)
    assert tokenisation.rolling_windows(np.empty(0, np.int32)) == []


class Config:
    def __init__(self, **values):
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("config", "limit", "expected"),
    [
        (Config(max_position_embeddings=4096), 99, 4096),
        (Config(n_positions=1024, max_position_embeddings=4096), 99, 1024),
        (Config(max_position_embeddings=1, text_config=Config(n_ctx=7)), 99, 7),
        (Config(), 512, 512),
        (Config(), int(1e30), 2048),
    ],
)
def test_the_longest_input_is_found_where_lm_eval_finds_it(config, limit, expected):
    from lm_eval.models.utils import resolve_max_length

    tokenizer = Config(model_max_length=limit)
    assert longest_input(config, tokenizer) == resolve_max_length(config, tokenizer) == expected
