import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mingmoe_eval.exams.fields import (
    RowFault,
    options_from,
    options_in_order,
    texts_are_lettered,
)

ABC = {"A": "肝", "B": "心", "C": "脾"}


@pytest.mark.parametrize(
    "value",
    [
        {"A": "肝", "B": "心", "C": "脾"},
        {"C": "脾", "A": "肝", "B": "心"},
        {"(A)": "肝", "b": " 心 ", "C.": "脾"},
        [{"key": "A", "value": "肝"}, {"key": "B", "value": "心"}, {"key": "C", "value": "脾"}],
        {"key": ["A", "B", "C"], "value": ["肝", "心", "脾"]},
        ["肝", "心", "脾"],
        ("肝", "心", "脾"),
        "A 肝\nB 心\nC 脾",
        "A 肝\\nB 心\\nC 脾",
        "A 肝\r\nB 心\r\nC 脾\r\n",
        "(A) 肝\n(B) 心\n(C) 脾",
        "A. 肝\nB. 心\nC. 脾",
        "A．肝\nB、心\nC：脾",
        "\nA 肝\n\nB 心\nC 脾\n",
    ],
)
def test_options_in_every_form_are_texts_by_letter(value):
    options = options_from(value)
    assert options == ABC
    assert list(options) == ["A", "B", "C"]


@pytest.mark.parametrize(
    "value",
    [
        {"A": "肝", "B": "", "C": "脾", "D": None, "E": "  ", "F": math.nan},
        [{"key": "A", "value": "肝"}, {"key": "B", "value": None}, {"key": "C", "value": "脾"}],
        ["肝", "", "脾", None],
        "A 肝\nB \nC 脾\nD",
        "A 肝\nC 脾",
    ],
)
def test_blank_options_are_dropped_and_the_others_keep_their_letters(value):
    assert options_from(value) == {"A": "肝", "C": "脾"}


def test_an_option_may_run_over_two_lines():
    assert options_from("A 肝\n和心\nB 脾") == {"A": "肝\n和心", "B": "脾"}


def test_an_option_may_be_a_single_letter_or_a_number():
    assert options_from({"A": "A", "B": "O", "C": 5}) == {"A": "A", "B": "O", "C": "5"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no options"),
        (3, "no options"),
        ("", "no options"),
        ({}, "no options"),
        ([], "no options"),
        ({"A": "肝"}, "1 option"),
        ({"A": "", "B": "心"}, "1 option"),
        ({"A": "肝", "A ": "心"}, "two options are called A"),
        ({"1": "肝", "2": "心"}, "which is no letter"),
        ({"A": ["肝"], "B": "心"}, "where a text should be"),
        ({"A": True, "B": "心"}, "where a text should be"),
        ({"A": 0.5, "B": "心"}, "where a text should be"),
        ([{"key": "A", "value": "肝"}, {"key": "B"}], "without `key` or `value`"),
        ("肝\n心", "the options begin with '肝'"),
        ("A 肝\nB 心\nA 脾\nB 肺", "second block of them: ABA"),
        ("(A) 肝\n(C) 脾\n(B) 心", "out of order"),
    ],
)
def test_options_that_cannot_be_told_apart_are_a_fault_of_the_row(value, reason):
    with pytest.raises(RowFault, match=reason):
        options_from(value)


def test_columns_without_letters_are_lettered_in_order():
    assert options_in_order(["x", "y"]) == {"A": "x", "B": "y"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(json_values)
def test_any_value_gives_options_or_a_fault(value):
    try:
        options = options_from(value)
    except RowFault:
        return
    assert len(options) >= 2
    assert all(text.strip() for text in options.values())


LETTERED = ["A.金银花", "C.桑叶", "D.菊花"]


@pytest.mark.parametrize(
    "texts",
    [
        LETTERED,
        ["(A) 金银花", "(C) 桑叶", "(D) 菊花"],
        ["A、金银花", "C、桑叶", "D、菊花"],
        ["Ａ．金银花", "Ｃ．桑叶", "Ｄ．菊花"],
        ["A：金银花", " C: 桑叶", "D）菊花"],
        ["A.金银花", "", "C.桑叶", "D.菊花"],
    ],
)
def test_texts_that_bring_their_letters_keep_them(texts):
    assert texts_are_lettered([texts] * 3)
    assert options_from(texts, lettered=True) == {"A": "金银花", "C": "桑叶", "D": "菊花"}


def test_a_text_without_its_letter_among_lettered_ones_is_a_fault_of_the_row():
    with pytest.raises(RowFault, match="without the letter that the file's other options bring"):
        options_from(["A.金银花", "桑叶"], lettered=True)


def test_letters_that_contradict_the_places_are_refused_in_a_file_without_letters():
    assert not texts_are_lettered([LETTERED, *[["心", "肝"]] * 10])
    with pytest.raises(RowFault, match="call themselves A, C, D, their places say otherwise"):
        options_from(LETTERED)


@pytest.mark.parametrize(
    "texts",
    [
        ["A. baumannii", "B. fragilis", "C. difficile", "E. coli"],
        ["E. coli", "K. pneumoniae", "P. aeruginosa", "S. aureus"],
        ["A fistula", "C section"],
        ["B cells", "A band"],
    ],
)
def test_names_that_begin_with_a_letter_are_texts(texts):
    assert list(options_from(texts).values()) == texts
    assert list(options_from(texts)) == list("ABCD"[: len(texts)])


def test_a_full_stop_where_a_set_ends_every_option_with_one_is_a_blank_option():
    assert options_from("(A) 心.\n(B) 肝.\n(C) .") == {"A": "心.", "B": "肝."}


def test_options_that_are_places_in_a_picture_are_called_by_their_letters():
    assert options_from("A\\nB\\nC") == {"A": "A", "B": "B", "C": "C"}
