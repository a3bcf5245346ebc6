import math

import numpy as np
import pytest
import torch
from tiny_language_models import EXAMPLES, exam_pairs, make_model, make_tokenizer, slow_score

from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.memory_budget import MemoryBudget
from mingmoe_eval.engine.prefix_scoring import score_pairs
from mingmoe_eval.engine.tokenisation import EncodedPair, Tokenisation
from mingmoe_eval.errors import UsageError


def encoded(pairs, max_length=512):
    return Tokenisation(make_tokenizer(), max_length=max_length).encode_pairs(pairs)


def scores(model, pairs, most_rows=None, memory=None):
    causal = CausalModel(model)
    budget = MemoryBudget(causal, most_rows, memory)
    found = dict(item for done in score_pairs(causal, pairs, budget) for item in done)
    return [found[index] for index in range(len(pairs))]


def assert_same(model, pairs, got, tolerance=1e-4):
    for pair, one in zip(pairs, got, strict=True):
        value, greedy = slow_score(model, pair.tokens.tolist(), pair.n_targets)
        assert one.value == pytest.approx(value, abs=tolerance)
        assert one.greedy == greedy


@pytest.mark.parametrize(
    "family", ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3_text"]
)
def test_scores_equal_one_full_pass_each(family):
    model, pairs = make_model(family), encoded(exam_pairs())
    assert CausalModel(model).reuses_prefixes(300)
    assert_same(model, pairs, scores(model, pairs))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_maskable_kernels_give_the_same_scores(attention):
    model, pairs = make_model(attn_implementation=attention), encoded(exam_pairs())
    assert CausalModel(model).reuses_prefixes(300)
    assert_same(model, pairs, scores(model, pairs))


def test_batch_size_changes_no_answer():
    model, pairs = make_model(), encoded(exam_pairs())
    runs = [[one.value for one in scores(model, pairs, rows)] for rows in (1, 4, 16, None)]
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], abs=1e-5)


@pytest.mark.parametrize(("window", "shares"), [(16, False), (400, True)])
@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_prefixes_are_shared_only_within_a_sliding_window(family, window, shares):
    model, pairs = make_model(family, sliding_window=window), encoded(exam_pairs())
    assert CausalModel(model).reuses_prefixes(max(len(p.tokens) for p in pairs)) == shares
    assert_same(model, pairs, scores(model, pairs))


class PooledFFN(torch.nn.Module):
    """A feed-forward block whose strength depends on the whole sequence, as a pooled router's."""

    def __init__(self, ffn):
        super().__init__()
        self.ffn = ffn

    def forward(self, x):
        return self.ffn(x) * (1 + x.mean(1, keepdim=True).tanh())


def test_nothing_is_shared_where_a_later_token_reaches_back():
    model = make_model()
    for layer in model.model.layers:
        layer.mlp = PooledFFN(layer.mlp)
    pairs = encoded(exam_pairs())
    assert not CausalModel(model).reuses_prefixes(300)
    # One row a pass: padding would be pooled too, in the slow way as in ours.
    assert_same(model, pairs, scores(model, pairs, most_rows=1))


def halved(output):
    output.logits = output.logits * 0.5
    return output


def test_a_head_that_is_more_than_a_layer_is_left_whole():
    model = make_model()
    model.register_forward_hook(lambda *call: halved(call[-1]))
    pairs = encoded(exam_pairs()[:16])
    assert_same(model, pairs, scores(model, pairs))


class ShortOfMemory(torch.nn.Module):
    """Refuses passes of more than `most` rows, as a full GPU does."""

    def __init__(self, model, most):
        super().__init__()
        self.model, self.most, self.widest = model, most, 0
        self.config, self.dtype = model.config, model.dtype
        self.get_input_embeddings = model.get_input_embeddings
        self.get_output_embeddings = model.get_output_embeddings

    def get_decoder(self):
        return self._decode

    def _decode(self, **inputs):
        rows = len(inputs["input_ids"])
        if rows > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (scripted)")
        self.widest = max(self.widest, rows)
        return self.model.get_decoder()(**inputs)

    def forward(self, **inputs):
        return self.model(**inputs)


def test_running_out_of_memory_halves_the_batch_and_loses_nothing():
    model, pairs = make_model(), encoded([(f"{number} stands alone", "x") for number in range(20)])
    short = ShortOfMemory(model, most=2)
    assert_same(model, pairs, scores(short, pairs, most_rows=16))
    assert short.widest == 2


def test_a_row_that_fits_nowhere_is_named_with_a_way_out():
    short = ShortOfMemory(make_model(), most=2)
    causal = CausalModel(short)
    causal.reuses_prefixes(300)
    short.most = 0
    with pytest.raises(UsageError, match=r"single row of \d+ tokens.*--dtype"):
        list(score_pairs(causal, encoded([("a", "b")]), MemoryBudget(causal)))


def test_a_small_memory_budget_gives_the_same_scores_in_more_passes():
    model, pairs = make_model(), encoded([(f"{number} stands alone", "x") for number in range(20)])
    wide, narrow = ShortOfMemory(model, 99), ShortOfMemory(model, 99)
    few, many = scores(wide, pairs), scores(narrow, pairs, memory=1)
    # The probe of the model takes two rows.
    assert narrow.widest == 2 < wide.widest
    assert [a.value for a in many] == pytest.approx([a.value for a in few], abs=1e-5)


def test_answers_that_wait_for_the_head_all_come():
    # So wide a head waits for thousands of tokens; more than one pass is held for it.
    model = make_model(vocab_size=30_000)
    pairs = encoded([(f"{number} {EXAMPLES[: number * 7]}", "x") for number in range(40)])
    causal = CausalModel(model)
    done = list(score_pairs(causal, pairs, MemoryBudget(causal, most_rows=2)))
    assert sum(map(len, done)) == len(pairs)
    assert sum(map(bool, done)) < len(done) - 1
    assert_same(model, pairs, [one for _, one in sorted(item for part in done for item in part)])


def test_a_pair_without_targets_scores_nan_and_is_not_greedy():
    pair = EncodedPair(np.array([1, 2, 3], np.int32), n_targets=0)
    (value, greedy), second = scores(make_model(), [pair, *encoded([("a", "b")])])
    assert math.isnan(value)
    assert not greedy
    assert math.isfinite(second.value)


def test_a_broken_model_scores_nan_and_not_zero():
    model = make_model()
    model.lm_head.weight.data[:] = float("nan")
    values = [one.value for one in scores(model, encoded(exam_pairs()[:8]))]
    assert all(map(math.isnan, values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_the_slow_way(dtype):
    model, pairs = make_model().to(dtype), encoded(exam_pairs())
    causal = CausalModel(model)
    assert causal.reuses_prefixes(300)
    for pair, one in zip(pairs, scores(model, pairs), strict=True):
        value, _ = slow_score(model, pair.tokens.tolist(), pair.n_targets)
        assert one.value == pytest.approx(value, rel=0.03, abs=0.15)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_a_narrow_head_are_those_of_its_weights_in_double_precision(family, dtype):
    caps = {"final_logit_softcapping": 5.0} if family == "gemma2" else {}
    model = make_model(family, **caps).to(dtype)
    causal = CausalModel(model)
    assert causal.widens_head
    hidden = 8 * torch.randn(40, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = torch.cat([part for _, part in causal.logit_slices(hidden, 100)], 1)
    exact = hidden.double() @ model.lm_head.weight.double().T
    if caps:
        exact = torch.tanh(exact / 5.0) * 5.0
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    # What the head itself gives is coarser: rounding makes equals of what is not.
    coarse = causal.logits(hidden)
    assert distinct(found) > distinct(coarse)


def distinct(logits):
    return sum(len(row.unique()) for row in logits)


def test_a_head_in_fp32_is_asked_as_it_is():
    model = make_model()
    causal = CausalModel(model)
    assert not causal.widens_head
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    [(first, logits)] = causal.logit_slices(hidden, 10_000)
    assert first == 0
    assert torch.equal(logits, causal.logits(hidden))
