import pytest
import torch
from tiny_language_models import make_model

from mingmoe_eval.engine.causal_model import CausalModel, ModelShape
from mingmoe_eval.engine.memory_budget import MemoryBudget, is_out_of_memory, row_bytes

SHAPE = ModelShape(
    hidden=8, intermediate=16, heads=2, head_dim=4, vocabulary=100, layers=3, key_value_heads=1,
    item_bytes=4,
)  # fmt: skip


def budget(rows=None, memory=None):
    return MemoryBudget(CausalModel(make_model()), rows, memory)


def test_a_row_s_bytes_by_hand():
    # 5 new tokens: 5 * (4 * 16 + 6 * 8) activations, 3 * 7 * 8 keys and values, 5 * 7 of mask.
    assert row_bytes(SHAPE, 5, 2) == (560 + 168 + 35) * 4 + 35


def test_a_cached_token_s_bytes_by_hand():
    # Keys and values, 3 layers, 1 head of 4 numbers of 4 bytes.
    assert SHAPE.cached_token_bytes == 2 * 3 * 1 * 4 * 4


def test_the_body_s_weights_by_hand():
    # Queries and outputs, keys and values, three feed-forward matrices; 3 layers, 8 wide.
    assert SHAPE.body_weights == 3 * 8 * (2 * 2 * 4 + 2 * 1 * 4 + 3 * 16)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_no_batch_has_more_rows_than_were_asked_for(rows):
    batches = list(budget(rows).batches([(5, n) for n in range(20)], 0))
    assert max(map(len, batches)) == rows
    assert sorted(item for batch in batches for item in batch) == list(range(20))


@pytest.mark.parametrize("memory", [1, 100_000, 400_000, 10**9])
def test_no_batch_takes_more_memory_than_was_allowed(memory):
    limit = budget(memory=memory)
    shape = CausalModel(make_model()).shape
    widths = [3, 90, 40, 41, 7, 12, 88, 2]
    for batch in limit.batches([(width, width) for width in widths], 30):
        taken = len(batch) * row_bytes(shape, max(batch), 30)
        assert len(batch) == 1 or taken <= memory
        assert batch == sorted(batch, reverse=True)


def test_after_running_out_of_memory_half_is_asked_for():
    limit = budget(memory=400_000)
    before = limit.bytes
    limit.halve()
    assert limit.bytes == before // 2


def test_texts_generated_side_by_side_fit_their_keys_and_values():
    each = 100 * CausalModel(make_model()).shape.cached_token_bytes
    assert budget(memory=int(each * 4 / 0.75) + 1).slots(100) == 4
    assert budget(memory=1).slots(100) == 1
    assert budget(rows=3).slots(100) == 3


def test_a_wide_head_waits_for_more_tokens_than_a_narrow_one():
    wide, narrow = (
        MemoryBudget(CausalModel(make_model(vocab_size=size, intermediate_size=512)))
        for size in (20_000, 200)
    )
    assert narrow.head_is_due(100)
    assert not wide.head_is_due(1000)
    assert wide.head_is_due(4096)


def test_logits_at_a_time_fit_their_share():
    # A quarter of the memory; the vocabulary has 384 ids, fewer than are worth slicing.
    assert budget(memory=4 * 384 * 4 * 10).head_block(100) == (10, 384)
    assert budget(memory=1).head_block(100) == (1, 384)
    wide = MemoryBudget(CausalModel(make_model(vocab_size=5000)), None, 4 * 4 * 1024 * 30)
    assert wide.head_block(100) == (30, 1024)
    assert wide.head_block(10) == (10, 3072)
    assert wide.head_block(1) == (1, 5000)


def test_a_head_that_is_widened_slice_by_slice_counts_the_slice():
    model = make_model(vocab_size=5000).bfloat16()
    hidden, rows, columns = model.config.hidden_size, 30, 1500
    needed = 4 * rows * columns + 4 * hidden * columns
    budget = MemoryBudget(CausalModel(model), None, 4 * needed)
    assert budget.head_block(rows) == (rows, columns)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("allocate memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, memory):
    assert is_out_of_memory(error) == memory
