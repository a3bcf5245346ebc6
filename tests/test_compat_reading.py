"""Each mode against replies worked through its official script by hand."""

import random

import pytest

from mingmoe_eval.metrics.answer_reading import MODES, compat_mode

OPTIONS = {"A": "青霉素 G", "B": "多巴胺", "C": "肾上腺素", "D": "阿托品", "E": "肝"}


def read(name, reply, single=True, options=OPTIONS):
    return compat_mode(name).read(reply, options, single)


@pytest.mark.parametrize(
    ("reply", "single", "expected"),
    [
        ("答案是AC。因为B错", False, "AC"),  # up to the full stop
        ("答案是CA。", False, "C"),  # A stands before C in the alphabet and is dropped
        ("答案为A、A、C", False, "AC"),
        ("答案是AC", True, "A"),  # single-answer items keep the first letter
        ("答案：C。", True, "C"),  # no 是/为: the first well-formed run
        ("应为多巴胺和阿托品", False, "BD"),  # texts, in the order in which they occur
        ("阿托品和多巴胺。选AC", False, "AC"),  # texts out of order: the first run instead
        ("阿托品和多巴胺", False, "DB"),  # and without a run the texts after all
        ("CA或BD", False, "BD"),  # CA is not well formed
        ("ACE抑制剂", False, "ACE"),
        ("不知道", True, "B"),  # nothing matches: B
        ("", False, "B"),
        ("答案是无。", True, "B"),
    ],
)
def test_huatuo2(reply, single, expected):
    assert read("huatuo2", reply, single) == expected


def test_huatuo2_compares_only_the_first_letter_with_a_key_of_one():
    assert compat_mode("huatuo2").correct("AC", "A")
    assert not compat_mode("huatuo2").correct("AC", "ABC")


@pytest.mark.parametrize(
    ("reply", "single", "expected"),
    [
        ("答案是BA。C", False, "BA"),  # neither sorted
        ("正确选项为AAB", False, "AAB"),  # nor made unique
        ("答案：C.D", False, "C"),  # an ASCII full stop ends it too
        ("答案应该是AC", False, "AC"),
        ("答案:C", False, "C"),  # a half-width colon is no cue: every capital A-G
        ("A不对，选CD，H不算", False, "ACD"),
        ("我选CD", True, "C"),
        ("答案是无。C", False, None),  # a cue without letters does not fall back
        ("不知道", True, None),
    ],
)
def test_cmb(reply, single, expected):
    assert read("cmb", reply, single) == expected


def test_cmb_compares_raw_strings():
    assert not compat_mode("cmb").correct("BA", "AB")
    assert not compat_mode("cmb").correct(None, "A")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("C A", "AC"),  # option order
        ("应选多巴胺", "B"),
        ("青霉素钠", "A"),  # the text up to its first blank
        ("维生素C缺乏", "C"),  # any capital letter fires
        ("B\n解释：A是抗生素", "B"),  # the first line, if there is an explanation
        ("B\nA是抗生素", "AB"),
        ("不知道", None),
    ],
)
def test_cmexam(reply, expected):
    assert read("cmexam", reply, single=False) == expected


@pytest.mark.parametrize(
    ("reply", "expected"), [("答案是CA", "C"), ("F, then B", "B"), ("无", None)]
)
def test_ming_reads_the_first_capital(reply, expected):
    assert read("ming", reply, single=False) == expected


@pytest.mark.parametrize(
    ("reply", "key", "right"),
    [
        ("分析……\n答案为AC", "AC", True),
        ("分析……\n答案为CA", "AC", True),  # a set
        ("分析……\n答案为AC", "A", False),
        ("答案为A\n后文", "A", False),  # the cue must stand on the last line
        ("答案为A\n\n\n问题：B对", "A", True),  # cut at the last two blank lines
        ("A对，B错，C对", "AC", True),
        ("A对，B错，C对", "A", False),
        ("A对，B错，为本题正确答案", "B", True),
        ("不知道", "A", False),
    ],
)
def test_ming_with_reasoning_in_chinese(reply, key, right):
    mode = compat_mode("ming-cot")
    assert mode.correct(mode.read(reply, OPTIONS, len(key) == 1), key) is right


@pytest.mark.parametrize(
    ("reply", "key", "right"),
    [
        ("The answer is B.", "B", True),
        ("The answer is B. Dopamine", "D", True),  # any capital fires for a key of one letter
        ("The answer is A and C.", "AC", True),
        ("The answer is A, C and D.", "AC", False),
        ("the answer is B.", "B", False),  # case matters
        ("B", "B", False),
    ],
)
def test_ming_with_reasoning_in_english(reply, key, right):
    mode = compat_mode("ming-cot-en")
    assert mode.correct(mode.read(reply, OPTIONS, len(key) == 1), key) is right


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Cxyz", "C"),  # the first character
        ("我认为答案是：B，不是A", "B"),
        ("本题选择D", "D"),
        ("因为A错，B 应该正确", "B"),  # the last letter before 正确
        ("答案为下列中的 C 或 D", "C"),  # the first letter on the cue's line
        ("经分析A和C中C当选", "C"),
        ("因A不对。\nB和D之中D正确", "D"),
        ("不过：应当是 B", "B"),  # the only letter
    ],
)
def test_cmmlu(reply, expected):
    assert read("cmmlu-random", reply) == expected


def test_cmmlu_draws_a_letter_for_a_silent_reply_and_the_same_one_each_time():
    rng = random.Random(0)
    options = [{"A": str(rng.random()), "B": "x", "C": "y", "D": "z"} for _ in range(2000)]
    drawn = [read("cmmlu-random", "", options=each) for each in options]
    assert drawn == [read("cmmlu-random", "", options=each) for each in options]
    # Four letters, each about 500 times: binomial standard deviation 19.
    assert all(420 < drawn.count(letter) < 580 for letter in "ABCD")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("The answer is A. No, the answer is C.", "A/C"),
        ("## Thinking\n\nanswer is A\n\n## Final Response\n\nB", "B/B"),
        ("选项B，然后是D。", "B/D"),
        ("阿托品 and then 多巴胺 and 阿托品", "B/D"),  # by first and by last place, the latest
        ("多巴胺胺", "B/B"),
        ("肾上腺皮质", "C/C"),  # nothing matches: the most alike
    ],
)
def test_o1_reads_head_and_tail_and_always_answers(reply, expected):
    assert read("o1-best-of-head-tail", reply) == expected


def test_every_mode_takes_an_empty_reply():
    for name, mode in MODES.items():
        answered = mode.read("", OPTIONS, True)
        assert isinstance(mode.correct(answered, "A"), bool), name
