"""How questions are cut into shards, kept account of, and packed: pure functions of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mingmoe_eval.engine.prefix_plan import common_length
from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.workers.ledger import Ledger, cut_into_shards
from mingmoe_eval.workers.packing import PackedQuestions, Piece

# Few ids, so that sequences share much.
SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(lambda row: np.array(row, np.int32)),
    max_size=60,
)


@given(SEQUENCES, st.integers(1, 9), st.integers(1, 40))
def test_each_question_is_in_one_shard_and_shards_follow_the_sorted_order(rows, workers, least):
    shards = cut_into_shards(rows, workers, least_tokens=least)
    flat = [index for shard in shards for index in shard]
    assert sorted(flat) == list(range(len(rows)))
    assert all(shards)
    sorted_rows = [rows[index].tolist() for index in flat]
    assert sorted_rows == sorted(sorted_rows)


def exam(questions, options=4, *, shots=300, seed=0):
    """Questions behind the same examples, each with its options."""
    draw = np.random.default_rng(seed)
    examples = draw.integers(0, 999, shots)
    rows = []
    for _ in range(questions):
        question = np.concatenate([examples, draw.integers(0, 999, draw.integers(20, 60))])
        rows += [np.append(question, option).astype(np.int32) for option in range(options)]
    return rows


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_the_options_of_a_question_stay_together(workers):
    rows = exam(200)
    shards = cut_into_shards(rows, workers, least_tokens=200)
    assert len(shards) >= workers
    homes = {index: number for number, shard in enumerate(shards) for index in shard}
    for first in range(0, len(rows), 4):
        assert len({homes[index] for index in range(first, first + 4)}) == 1


def test_shards_get_smaller_so_that_workers_end_together():
    rows = exam(400, shots=0)
    costs = [sum(len(rows[i]) for i in shard) for shard in cut_into_shards(rows, 4)]
    # A half of the work of each worker first, within the slack for a good place to end.
    assert costs[0] == pytest.approx(sum(costs) / 8, rel=0.5)
    assert costs[-1] < costs[0] / 2


def test_tokens_to_be_generated_count_as_cost():
    rows = [np.array([n, n + 1], np.int32) for n in range(64)]
    short = cut_into_shards(rows, 2, new_tokens=[1] * 64, least_tokens=64)
    long = cut_into_shards(rows, 2, new_tokens=[100] * 64, least_tokens=64)
    assert len(short) < len(long)


def test_nothing_to_cut_is_no_shard():
    assert cut_into_shards([], 3) == []


@given(SEQUENCES, st.data())
def test_packed_pairs_come_back_as_they_were(rows, data):
    pairs = [EncodedPair(row, data.draw(st.integers(0, len(row)))) for row in rows]
    back = PackedQuestions.of_pairs(pairs).pairs()
    assert [pair.tokens.tolist() for pair in back] == [pair.tokens.tolist() for pair in pairs]
    assert [pair.n_targets for pair in back] == [pair.n_targets for pair in pairs]
    assert all(pair.tokens.dtype == np.int32 for pair in back)


def test_packed_prompts_come_back_as_they_were():
    settings = [GenerationSettings(max_new_tokens=n, stop=("x",), sample=True) for n in (3, 5)]
    prompts = [
        Prompt(
            np.array([1, 2, n], np.int32), settings[n % 2], opened="<think>" * (n == 2), repeat=n
        )
        for n in range(5)
    ]
    packed = PackedQuestions.of_prompts(prompts)
    assert len(packed.settings) == 2
    for one, other in zip(packed.prompts(), prompts, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert (one.settings, one.opened, one.repeat) == (
            other.settings,
            other.opened,
            other.repeat,
        )


def test_what_neighbours_share_is_packed_once():
    rows = sorted(exam(50), key=lambda row: row.tolist())
    packed = PackedQuestions.of_pairs([EncodedPair(row, 1) for row in rows]).tokens
    expected = len(rows[0]) + sum(
        len(other) - common_length(one, other) for one, other in itertools.pairwise(rows)
    )
    assert len(packed.tokens) == expected < sum(map(len, rows)) / 20


@pytest.mark.parametrize(
    "answers",
    [
        [StoredAnswer(log_likelihood=-0.1, greedy=True), StoredAnswer(log_likelihood=float("inf"))],
        [
            StoredAnswer(text="血常规", generated_tokens=3, finish="stop"),
            StoredAnswer(text="", finish="length", failure="logits not finite"),
        ],
    ],
    ids=["scores", "texts"],
)
@pytest.mark.parametrize("routing", [(None, None), (b"counts", None)])
def test_packed_answers_come_back_bit_for_bit(answers, routing):
    told = list(zip((7, 3), answers, routing, strict=True))
    assert Piece.of(told).answers() == told


def questions(count):
    return [list(range(first, min(first + 5, count))) for first in range(0, count, 5)]


def test_an_answer_counts_once():
    ledger = Ledger([[0, 1]])
    assert ledger.give(0) == [0, 1]
    assert ledger.give(1) == []
    assert ledger.give(1, late=True) == [1]
    assert ledger.answered([1]) == {1}
    assert ledger.answered([1, 0]) == {0}
    assert ledger.done
    assert (ledger.counts.copied, ledger.counts.answered_twice) == (1, 1)


def test_a_dead_worker_s_answers_stay_and_what_it_owed_waits_behind_the_rest():
    ledger = Ledger([[0, 1, 2], [3]])
    assert ledger.give(0) == [0, 1, 2]
    ledger.answered([1])
    ledger.lost(0)
    assert [ledger.give(worker) for worker in (1, 2, 3)] == [[3], [0], [2]]
    assert ledger.counts.returned == 2


def test_what_another_holds_too_does_not_wait_again_when_one_of_them_dies():
    ledger = Ledger([[0, 1]])
    ledger.give(0)
    assert ledger.give(1, late=True) == [1]
    ledger.lost(0)
    assert ledger.give(2) == [0]
    assert ledger.counts.returned == 1


def test_at_most_three_workers_hold_a_question():
    ledger = Ledger([[0]])
    ledger.give(0)
    assert [ledger.give(worker, late=True) for worker in (1, 2, 3)] == [[0], [0], []]


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from(["give", "answer", "die"]), st.integers(0, 3)), max_size=80),
)
def test_whatever_happens_every_question_is_answered_once(count, history):
    ledger, held, answered = Ledger(questions(count)), {}, []
    # In the end all workers are well, and answer whatever they are given.
    calm = [(what, worker) for _ in range(count) for worker in range(4) for what in ("give", "end")]
    for what, worker in [*history, *calm]:
        if what == "give" and worker not in held:
            if given_now := ledger.give(worker, late=True):
                held[worker] = list(given_now)
        elif what == "die":
            held.pop(worker, None)
            ledger.lost(worker)
        elif what in ("answer", "end"):
            for index in (
                [held[worker].pop()]
                if what == "answer" and held.get(worker)
                else (held.get(worker, []) if what == "end" else [])
            ):
                answered += ledger.answered([index])
            if what == "end" or not held.get(worker, [1]):
                held.pop(worker, None)
                ledger.finished(worker)
    assert ledger.done
    assert sorted(answered) == list(range(count))
