"""ROUGE against rouge-score, BERT's own tokenizer, and a slow common subsequence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from mingmoe_eval.metrics.rouge import common_subsequence_length, rouge, tokenize

TEXTS = st.text(alphabet="咳嗽发热无。，a1B²é \n", max_size=30) | st.text(max_size=30)


class OfficialTokens:
    def tokenize(self, text):
        return tokenize(text)


@settings(deadline=None)
@given(prediction=TEXTS, reference=TEXTS)
def test_precision_and_recall_of_rouge_l_are_those_of_rouge_score(prediction, reference):
    scorer = RougeScorer(["rougeL"], tokenizer=OfficialTokens())
    theirs = scorer.score(reference, prediction)["rougeL"]
    ours = rouge(prediction, reference)
    assert ours.rouge_l_precision == pytest.approx(theirs.precision, abs=1e-12)
    assert ours.rouge_l_recall == pytest.approx(theirs.recall, abs=1e-12)
    assert ours.rouge_l == pytest.approx(theirs.fmeasure, abs=2e-8)


@settings(deadline=None)
@given(text=TEXTS)
def test_tokens_are_those_of_berts_basic_tokenizer(text):
    bert = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    assert tokenize(text) == (bert.BasicTokenizer().tokenize(text) or ["无", "。"])


def slow_length(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            same = table[i][j] + 1
            table[i + 1][j + 1] = same if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(first=st.text(alphabet="abc", max_size=12), second=st.text(alphabet="abcd", max_size=12))
def test_the_common_subsequence_is_as_long_as_the_slow_formula_says(first, second):
    assert common_subsequence_length(first, second) == slow_length(first, second)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("体温38.5℃，Hb↑", ["体", "温", "38", ".", "5℃", "，", "hb↑"]),
        ("Café\t21-羟", ["cafe", "21", "-", "羟"]),
        ("\u200b\ufeff\x00\ud800\ufffd", ["无", "。"]),
        ("", ["无", "。"]),
        ("a\u3000b\u00a0c\u2028d", ["a", "b", "c", "d"]),
        ("がん", ["かん"]),
    ],
)
def test_tokens_by_hand(text, tokens):
    assert tokenize(text) == tokens


def test_a_perfect_match_is_a_hair_below_one():
    assert rouge("多喝水", "多喝水").rouge_l == pytest.approx(0.999999995, abs=1e-12)
    assert rouge("", "").rouge_l == pytest.approx(0.999999995, abs=1e-12)


def test_n_grams_are_sets():
    # 咳咳咳 has one distinct unigram, found in the reference; counted, it would be 1 of 3.
    assert rouge("咳咳咳", "咳嗽").rouge1 == pytest.approx(2 * 0.5 / 1.5, abs=1e-7)


def test_a_hundred_kilobytes_against_a_sentence_take_no_time():
    assert rouge("咳嗽" * 25_000, "咳嗽三天。").rouge_l_recall == pytest.approx(2 / 5)
