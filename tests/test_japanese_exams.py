"""Calculations and options as Japan's medical exams print them."""

import pytest

from mingmoe_eval.exams.japanese_exams import (
    number_asked_for,
    read_number,
    same_number,
    with_options_apart,
)
from mingmoe_eval.exams.scoring import score_doc
from mingmoe_eval.records import RequestUsage, Response, TaskSettings


@pytest.mark.parametrize(
    ("sheet", "key", "number"),
    [
        ("解答：①．②③ g/gCr", "0.40", "0.40"),  # JMLE 2026, with the point
        ("解答：①②③ mOsm/kgH₂O", "315", "315"),
        ("解答：①.②", "04", "0.4"),  # IgakuQA 2022, the digits alone
        ("解答：①.②g/日", "21", "2.1"),
        ("解答：1, ①②③ kcal", "130", "1130"),  # the sheet has the thousand already
        ("解答：①②.③/人口1,000対", "100", "10.0"),
        ("解答：①.②③", "7.20", "7.20"),
        ("この値を求めよ。", "12", "12"),
    ],
)
def test_a_key_is_read_with_the_answer_sheet_before_one_s_eyes(sheet, key, number):
    assert number_asked_for(f"次の値を計算せよ。{sheet}\n\n①　②\n0　0", key) == number


@pytest.mark.parametrize("key", ["", "a", "1 or 2", "①"])
def test_what_is_no_number_is_no_key_of_a_calculation(key):
    assert number_asked_for("解答：①②", key) is None


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("【回答】0.40", "0.40"),
        ("\n\n【回答】３１５ mOsm", "315"),
        ("BMI = 84 / 1.73^2 = 28.07\n答えは28です。", "28"),
        ("28", "28"),
        ("28 kg/m2", "28"),
        ("1,130 kcal", "1130"),
        ("$\\boxed{1130}$", "1130"),
        ("体表面積は1.5である。\nしたがって、投与量は 120 mL となる。", "120"),
        ("最終回答：-3", "-3"),
        ("−3", "-3"),
        ("84を1.73の二乗で割る。", None),
        ("解答：①．②③ g/gCr\n\n①　②　③\n9　9　9", None),  # the question repeated
        ("", None),
        ("わかりません。", None),
    ],
)
def test_the_number_that_a_reply_answers_with(reply, number):
    assert read_number(reply) == number


def test_zeros_at_the_end_change_no_number():
    assert same_number("0.4", "0.40")
    assert same_number("1,130", "1130")
    assert not same_number("4", "0.4")
    assert not same_number(None, "0.4")


OPTIONS = {"a": "緊急手術", "b": "薬物療法 の継続", "c": "経過観察"}


@pytest.mark.parametrize("blank", ["\u3000", " ", "\n\u3000"])
def test_options_in_the_question_s_text_are_taken_apart(blank):
    lines = "\n\n".join(f"{letter}\u3000{text}" for letter, text in OPTIONS.items())
    record = {"question_text": f"12\u3000適切なのはどれか。\n{blank.strip(chr(32))}\n{lines}"}
    apart = with_options_apart(record)
    assert (apart["question_text"], apart["options"]) == ("適切なのはどれか。", OPTIONS)


def test_options_that_are_rows_of_a_table_leave_the_table_in_the_question():
    table = "|  | Na | K |\n|--|--|--|\n| a | 220 | 0 |\n| b | 130 | 4 |"
    apart = with_options_apart({"question_text": f"71\u3000どれか。\n\n{table}"})
    assert apart["options"] == {"a": "220 | 0", "b": "130 | 4"}
    assert apart["question_text"] == f"どれか。\n\n{table}"


def test_a_calculation_has_no_options():
    apart = with_options_apart({"question_text": "75\u3000求めよ。\n\n解答：①②\n\n0\u30000"})
    assert apart["options"] is None


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("答えは 12", None),  # 12.5?
        ("12", None),
        ("したがって、投与量は 120 mL となる。", None),
        ("答えは 12 です。理由は、まず", "12"),
        ("【回答】0.40\n解説", "0.40"),
    ],
)
def test_of_a_reply_that_was_cut_off_only_an_answer_before_the_cut_counts(reply, number):
    assert read_number(reply, cut_off=True) == number
    doc = {"options": {}, "answer": number or "12", "single": True, "question": "?"}
    usage = RequestUsage(prompt_tokens=1, generated_tokens=9, finish="length")
    score = score_doc(doc, Response(text=reply, usage=(usage,)), TaskSettings(suite="choice"))
    assert (score.answered, score.value) == (number, float(number is not None))
