import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mingmoe_eval.engine.prefix_plan import PrefixPlan, Span, common_length


def ids(*tokens):
    return np.array(tokens, np.int32)


def walk(plan, trunk=None, below=()):
    """(span, tokens of its trunks) of every row of a plan."""
    trunk = trunk or plan.root
    prefix = (*below, *plan.tokens(trunk.low)[trunk.start : trunk.stop].tolist())
    for span in trunk.rows:
        yield span, prefix
    for inner in trunk.trunks:
        yield from walk(plan, inner, prefix)


def computed_tokens(plan, trunk=None):
    trunk = trunk or plan.root
    own = trunk.stop - trunk.start + sum(plan.width(span) for span in trunk.rows)
    return own + sum(computed_tokens(plan, inner) for inner in trunk.trunks)


def distinct_prefixes(sequences):
    return len({tuple(s[: i + 1]) for s in map(tuple, sequences) for i in range(len(s))})


def test_options_of_one_question_become_one_row_that_holds_the_question_once():
    question = list(range(10, 40))
    plan = PrefixPlan([ids(*question, 1, 2), ids(*question, 1, 3), ids(*question, 4)], share=True)
    (span,) = plan.root.rows
    row = plan.row(span)
    assert row.tokens.tolist() == [*question, 1, 2, 3, 4]
    assert row.positions.tolist() == [*range(30), 30, 31, 31, 30]
    assert [columns.tolist()[30:] for columns in row.columns] == [[30, 31], [30, 32], [33]]
    assert row.visibility()[32].nonzero()[0].tolist() == [*range(30), 30, 32]
    assert row.visibility()[33].nonzero()[0].tolist() == [*range(30), 33]


def test_a_long_beginning_of_many_becomes_a_trunk():
    examples = list(range(600))
    sequences = [ids(*examples, 1000 + i, *range(2000, 2100)) for i in range(20)]
    plan = PrefixPlan(sequences, share=True)
    (trunk,) = plan.root.trunks
    assert (trunk.start, trunk.stop, len(trunk.rows)) == (0, 600, 20)
    assert computed_tokens(plan) == 600 + 20 * 101


def test_trunks_grow_on_trunks():
    instruction, blocks = list(range(100)), [list(range(k, k + 700)) for k in (1000, 3000)]
    sequences = [
        ids(*instruction, *block, 9000 + i, *range(50)) for block in blocks for i in range(12)
    ]
    plan = PrefixPlan(sequences, share=True)
    (trunk,) = plan.root.trunks
    assert [(t.start, t.stop, len(t.rows)) for t in trunk.trunks] == [(100, 800, 12)] * 2
    assert computed_tokens(plan) == 100 + 2 * 700 + 24 * 51


def test_two_words_in_common_are_no_reason_for_a_trunk():
    sequences = [ids(1, 2, 100 + i, *range(200)) for i in range(50)]
    plan = PrefixPlan(sequences, share=True)
    assert not plan.root.trunks
    assert len(plan.root.rows) == 50


def test_without_sharing_each_sequence_is_a_row():
    sequences = [ids(1, 2, 3), ids(1, 2), ids(1, 2, 4)]
    plan = PrefixPlan(sequences, share=False)
    rows = [plan.row(span).tokens.tolist() for span in plan.root.rows]
    assert rows == [[1, 2], [1, 2, 3], [1, 2, 4]]


def test_a_sequence_that_ends_inside_its_trunk_has_no_tokens_of_its_own():
    block = list(range(1100))
    plan = PrefixPlan([ids(*block), ids(*block, 7), ids(*block, 8)], share=True)
    (trunk,) = plan.root.trunks
    assert trunk.stop == 1100
    assert sorted(plan.width(span) for span in trunk.rows) == [0, 1, 1]


def test_no_sequences_make_an_empty_plan():
    plan = PrefixPlan([], share=True)
    assert (plan.root.rows, plan.root.trunks) == ([], [])


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [((1, 2, 3), (1, 2, 4), 2), ((1, 2), (1, 2, 3), 2), ((), (1,), 0), ((2,), (1,), 0)],
)
def test_common_length_counts_equal_tokens_from_the_start(one, other, length):
    assert common_length(ids(*one), ids(*other)) == length


token_lists = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=12,
    unique=True,
)  # fmt: skip


@given(token_lists, st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_every_sequence_is_laid_out_once_and_whole(lists, repeats):
    # Each token is stretched so that trunks and rows both occur.
    sequences = [ids(*np.repeat(tokens, repeats)) for tokens in lists]
    plan = PrefixPlan(sequences, share=True)
    seen = []
    for span, prefix in walk(plan):
        row = plan.row(span)
        visible = row.visibility()
        for place, columns in zip(range(span.low, span.high), row.columns, strict=True):
            whole = [*prefix, *row.tokens[columns].tolist()]
            assert whole == sequences[plan.order[place]].tolist()
            assert row.positions[columns].tolist() == list(range(len(prefix), len(whole)))
            if len(columns):
                assert visible[columns[-1]].nonzero()[0].tolist() == columns.tolist()
            seen.append(plan.order[place])
    assert sorted(seen) == list(range(len(sequences)))
    assert distinct_prefixes(sequences) <= computed_tokens(plan) <= sum(map(len, sequences))
    assert plan.width(Span(0, len(sequences), 0)) == distinct_prefixes(sequences)
