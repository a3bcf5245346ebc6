"""The plan of what comes when, and padding."""

from collections import Counter

import pytest
import torch

from mingmoe_eval.training.batches import PlannedExamples, mixing_plan, pad_batch
from mingmoe_eval.training.examples import EncodedStream, Example


def test_shares_by_size_and_whole_epochs_give_every_example_equally_often():
    plan = mixing_plan([3, 5], [3, 5], 16, seed=0)
    assert Counter(plan) == {(s, i): 2 for s, size in ((0, 3), (1, 5)) for i in range(size)}


@pytest.mark.parametrize(
    ("shares", "count", "expected"),
    [([1, 3], 8, [2, 6]), ([0.5, 0.25, 0.25], 8, [4, 2, 2]), ([1, 1, 1], 8, [3, 3, 2])],
)
def test_streams_come_in_exact_proportion_to_their_weights(shares, count, expected):
    plan = mixing_plan([4] * len(shares), shares, count, seed=1)
    assert [sum(s == stream for s, _ in plan) for stream in range(len(shares))] == expected


def test_a_stream_is_gone_through_before_any_of_its_examples_comes_again():
    picks = [example for stream, example in mixing_plan([4, 9], [3, 1], 16, seed=2) if stream == 0]
    assert [sorted(picks[i : i + 4]) for i in (0, 4, 8)] == [[0, 1, 2, 3]] * 3


def test_every_stretch_of_a_plan_is_mixed():
    plan = mixing_plan([100, 100], [1, 1], 200, seed=3)
    assert all(4 <= sum(s for s, _ in plan[i : i + 10]) <= 6 for i in range(0, 200, 10))


def test_a_plan_hangs_on_its_seed_alone():
    assert mixing_plan([9], [1], 9, seed=4) == mixing_plan([9], [1], 9, seed=4)
    assert mixing_plan([9], [1], 9, seed=4) != mixing_plan([9], [1], 9, seed=5)


def test_batches_are_padded_at_the_end_unattended_and_unlearned():
    examples = PlannedExamples(
        [EncodedStream("s", (Example((7, 8), (-100, 8)), Example((9, 5, 6), (-100, -100, 6))))],
        [[(0, 1)], [(0, 0)]],
    )
    batch = pad_batch([examples[0], examples[1]])
    assert torch.equal(batch["input_ids"], torch.tensor([[9, 5, 6], [7, 8, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, -100, 6], [-100, 8, -100]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 1, 0]]))
