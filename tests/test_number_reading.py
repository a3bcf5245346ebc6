"""Invented replies and the number that a careful reader would take from them, set by judgement."""

import random
from datetime import date

import pytest

from mingmoe_eval.metrics.number_reading import read_number

NUMBERS = [
    # how a number is written
    ("75.3", 75.3),
    ("-3.2", -3.2),
    ("- 3.2", 3.2),  # a bullet
    ("1,234.5", 1234.5),
    ("1.234,5", 1234.5),
    ("1.234.567", 1234567),
    ("12 345", 12345),
    ("12,5", 12.5),
    ("0,125", 0.125),
    (".5", 0.5),
    ("１２．５", 12.5),
    ("٣", 3),
    ("1.2e-3 mol", 0.0012),
    ("1.2×10⁻³", 0.0012),
    ("$1.2 \\times 10^{-3}$", 0.0012),
    ("10^5", 1e5),
    ("2.5 million", 2.5e6),
    ("1.5万", 15000),
    ("3/4", 0.75),
    ("1 1/2", 1.5),
    ("½ tablet", 0.5),
    ("\\frac{3}{4}", 0.75),
    ("百分之45", 45),
    ("The FENa is 1.2%", 1.2),
    ("5 ± 0.3", 5),
    ("The score is zero.", 0),
    ("总分：三分", 3),
    ("十二分", 12),
    # which of several numbers is the answer
    ("The answer is 12.5 mL/min.", 12.5),
    ("答案为12.5毫升", 12.5),
    ("final answer: 1,234.5", 1234.5),
    ("\\boxed{-3.2}", -3.2),
    ('{"step_by_step_thinking": "a 3 b 4", "answer": "24.5"}', 24.5),
    ("<answer>24.5</answer>", 24.5),
    ("**Answer:** 22.86 kg/m²", 22.86),
    ("Step 1: age = 34\nStep 2: CrCl = (140-34)*70/(72*1.2) = 85.9 mL/min", 85.9),
    ("BMI = 70 / 1.75^2 = 22.86 kg/m^2", 22.86),
    ("1. Age 34\n2. Weight 70\nTherefore, the dose is 140 mg.", 140),
    ("He is 34 years old and weighs 70 kg, so the dose is 140 mg", 140),
    ("因此，肌酐清除率约为 85.9 mL/min。", 85.9),
    ("85.9 mL/min\n\nExplanation: age = 34, weight = 70", 85.9),
    ("75. Because the patient is 34.", 75),
    ("The dose is 50 mg. Take it for 7 days.", 50),
    ("The corrected QT interval is 450 ms, i.e. 0.45 s", 450),
    ("the answer is not 5 but 6", 6),
    ("The answer is 4. Wait, the correct answer is 5.", 5),
    ("<think>the answer is 9</think>The answer is 7", 7),
    ("The MELD score is 22.\n\nThis corresponds to a 3-month mortality of 19.6%.", 22),
    ("The HEART score is 4 (moderate risk, 12-16.6% risk of MACE).", 4),
    ("The anion gap is 12, which is normal (8–16).", 12),
    ("Given age 45, weight 70kg: 1500 mL/day", 1500),
    ("22.9 (rounded from 22.857)", 22.9),
    ("I think it's 7. Actually no, recalculating, it's 8.", 8),
    ("该患者评分为4分：心衰1分，高血压1分，年龄2分。", 4),
    ("所以该患者的BMI为22.86kg/m²，属于正常范围（18.5-23.9）。", 22.86),
    ("LDL = TC - HDL - TG/5\n= 200 - 50 - 30\n= 120 mg/dL", 120),
    ("Thus the risk is 0.125, or 12.5%.", 0.125),
    ("Her Glasgow Coma Score is E3V4M5 = 12.", 12),
    ("the answer is 2 to 3 tablets", None),
    ("BMI = 84 / 1.73^2 = 28.07\n答えは28です。", 28),
    ("【回答】1.200 g/日", 1.2),
    ("体表面積は1.5である。\nしたがって、投与量は 120 mL となる。", 120),
    # what belongs to a unit or a name is no answer
    ("eGFR is 85 mL/min/1.73 m²", 85),
    ("The CHA2DS2-VASc score is 3.", 3),
    ("The score is 5 out of 9.", 5),
    ("Score: 5/9 points", 5),
    ("the 12th day: 5 mg", 5),
    # no number is stated
    ("", None),
    ("I cannot compute it.", None),
    ("What is 5?", None),
    ("<think>the answer is 9", None),
    ("The answer is between 4 and 5.", None),
    ("4-5", None),
    ("about 4 or 5", None),
    ("> 5", None),
    ("The answer is at least 5.", None),
    ("\\boxed{140 - 34}", None),
    ("age 34, weight 70", None),
    ("1e999", None),
    ("9" * 5000, None),
]


@pytest.mark.parametrize(("reply", "number"), NUMBERS, ids=lambda value: str(value)[:40])
def test_the_number_that_is_stated_is_read(reply, number):
    reading = read_number(reply)
    if number is None:
        assert (reading.values, reading.answered) == ((), None)
    else:
        assert reading.values[0] == pytest.approx(number, rel=1e-12)
        assert reading.answered is not None


@pytest.mark.parametrize(
    ("reply", "unit", "value"),
    [
        ("1200 mg", "g", 1.2),
        ("1.2 g", "mg", 1200),
        ("2 weeks", "days", 14),
        ("0.5 mg/L", "µg/mL", 0.5),
        ("5 mg/dL", "mg/L", 50),
        ("1.5 升", "mL", 1500),
        ("99 mg/dL", "mmol/L", 99),  # no multiple of it: not looked at
        ("98.6 degrees", "F", 98.6),
        ("45%", "%", 45),
    ],
)
def test_a_multiple_of_the_unit_that_is_asked_for_is_converted(reply, unit, value):
    assert read_number(reply, unit=unit).values == pytest.approx((value,))


def test_a_percentage_may_be_meant_as_a_share_where_no_unit_is_asked_for():
    assert read_number("1.2%").values == pytest.approx((1.2, 0.012))
    assert read_number("1.2%").within(0.0114, 0.0126)
    assert read_number("1.2%").within(1.14, 1.26)
    assert not read_number("1.2%", unit="%").within(0.0114, 0.0126)


def test_a_score_out_of_what_it_can_reach_may_be_meant_by_a_fraction():
    assert read_number("GCS = 12/15").within(12, 12)
    assert read_number("GCS = 12/15").within(0.8, 0.8)
    assert not read_number("3/4 of a tablet").within(3, 3)


def test_limits_count_themselves_but_for_rounding():
    assert read_number("0.3").within(0.1 + 0.2, 0.4)  # 0.1 + 0.2 is a little above 0.3
    assert not read_number("0.2999").within(0.1 + 0.2, 0.4)


DATES = [
    ("03/14/2024", date(2024, 3, 14)),
    ("14.03.2024", date(2024, 3, 14)),  # there is no fourteenth month
    ("2024-03-14", date(2024, 3, 14)),
    ("2024年3月14日", date(2024, 3, 14)),
    ("March 14, 2024", date(2024, 3, 14)),
    ("The due date is 14th of March 2024.", date(2024, 3, 14)),
    ("LMP was 06/07/2023. The answer is 03/13/2024.", date(2024, 3, 13)),
    ("LMP: 06/07/2023 -> due date = 03/13/2024", date(2024, 3, 13)),
    ('"answer": "03/14/2024"}', date(2024, 3, 14)),
    ("02/30/2024", None),
    ("between 03/13/2024 and 03/15/2024, so 03/13/2024 or 03/15/2024", None),
]


@pytest.mark.parametrize(("reply", "day"), DATES)
def test_a_date_is_read(reply, day):
    reading = read_number(reply, "date")
    assert reading.values == ((day.toordinal(),) if day else ())
    assert reading.answered == (day.isoformat() if day else None)


def test_which_of_day_and_month_comes_first_is_told():
    assert read_number("3/4/2024", "date").answered == "2024-03-04"
    assert read_number("3/4/2024", "date", day_first=True).answered == "2024-04-03"


@pytest.mark.parametrize(
    ("reply", "days"),
    [
        ("33 weeks, 5 days", 236),
        ("('33 weeks', '5 days')", 236),
        ("(33, 5)", 236),
        ("33+5", 236),
        ("33w5d", 236),
        ("33 5/7 weeks", 236),
        ("33周5天", 236),
        ("33 weeks", 231),
        ("The answer is 33 weeks and 0 days.", 231),
        ("236 days", 236),
        ("From 03/01/2023 on there are 236 days.\n236 / 7 = 33 weeks and 5 days", 236),
    ],
)
def test_weeks_and_days_are_read(reply, days):
    assert read_number(reply, "weeks").values == (days,)


def test_a_reply_cut_off_counts_only_if_its_answer_was_out():
    assert read_number("age = 34, weight = 70", cut_off=True).values == ()
    assert read_number("The answer is 12", cut_off=True).values == ()  # of 12.5, perhaps
    assert read_number("The answer is 12.\nAs a check,", cut_off=True).values == (12,)


def test_any_text_is_read_without_an_error_and_in_linear_time():
    signs = "0123456789.,/-+*=<>%()[]{}\\$ \n eEabcxs±×^²½分为是答案万一二三十 weeks days answer:"
    rng = random.Random(0)
    texts = ["".join(rng.choices(signs, k=rng.randint(0, 60))) for _ in range(2000)]
    long = ["1" * 50_000, "1/" * 25_000, "1,111" * 10_000, "5 = " * 10_000, "(" * 50_000]
    for text in [*texts, *long]:
        for kind in ("number", "date", "weeks"):
            reading = read_number(text, kind, unit=rng.choice(["", "g", "%", "mg/dL"]))
            assert (reading.answered is None) == (reading.values == ())
