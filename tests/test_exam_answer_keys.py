import math

import pytest

from mingmoe_eval.exams.fields import RowFault, is_blank_key, key_letters, letter_of_text

OPTIONS = {"A": "Liver", "B": "Heart", "C": "Spleen", "E": "Lung"}


@pytest.mark.parametrize(
    ("key", "letters"),
    [
        ("C", "C"),
        (" c ", "C"),
        ("(C)", "C"),
        ("C.", "C"),
        ("Ｃ", "C"),
        ("AC", "AC"),
        ("CA", "AC"),
        ("C,A", "AC"),
        ("A、C", "AC"),
        ("A，C，E", "ACE"),
        ("(A)(C)", "AC"),
        ("A C", "AC"),
        ("AAC", "AC"),
        (["C", "A"], "AC"),
        (["(A)"], "A"),
    ],
)
def test_letters_in_every_form_are_sorted_and_unique(key, letters):
    assert key_letters(key, OPTIONS) == letters


@pytest.mark.parametrize(("first", "number"), [(0, 2), (1, 3)])
def test_a_number_counts_from_where_its_source_counts(first, number):
    assert key_letters(number, OPTIONS, first_index=first) == "C"


@pytest.mark.parametrize(
    ("key", "first", "reason"),
    [
        ("nan", None, "no key"),
        (math.nan, None, "no key"),
        (None, None, "no key"),
        ("", None, "no key"),
        ([], None, "no key"),
        (-1, 0, "withheld"),
        ("D", None, "the key D is not among the options A, B, C, E"),
        ("AF", None, "the key F is not among"),
        (3, 0, "the key D is not among"),
        (0, 1, "the key 0 is not among"),
        (2, None, "whether 0 or 1 is the first"),
        ("2", None, "not made of option letters"),
        (True, 0, "not made of option letters"),
        (1.5, 0, "not made of option letters"),
        ("Spleen?", None, "not made of option letters"),
    ],
)
def test_a_key_that_cannot_be_used_says_why(key, first, reason):
    with pytest.raises(RowFault, match=reason):
        key_letters(key, OPTIONS, first_index=first)


def test_the_text_of_an_option_is_found_up_to_case_and_blanks():
    assert letter_of_text("  the  LIVER", {"A": "The liver", "B": "Heart"}) == "A"


def test_a_text_that_two_options_share_is_nobody_s():
    assert letter_of_text("HEART", {"A": "heart", "B": "Heart"}) is None
    assert letter_of_text("Heart", {"A": "Heart", "B": "Heart"}) is None


def test_the_same_spelling_counts_before_the_same_letters():
    genotypes = {"A": "AA", "B": "Aa", "C": "aa"}
    assert [letter_of_text(key, genotypes) for key in ("AA", "Aa", "aa")] == ["A", "B", "C"]


def test_radicals_that_a_pdf_brings_are_the_characters_they_look_like():
    assert letter_of_text("\u2f3c\u2f45", {"A": "心方", "B": "肝"}) == "A"


@pytest.mark.parametrize("key", ["无答案", "NULL", "None", " NaN "])
def test_words_for_no_key_are_blank(key):
    assert is_blank_key(key)
