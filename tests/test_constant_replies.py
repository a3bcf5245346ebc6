"""A model that says the same to every question earns no more than chance, on every exam.

The samples that come with the project are always read; the real records of `../shared/data/exams`
where they are.
"""

import functools
import itertools
from pathlib import Path

import pytest

from mingmoe_eval.errors import MissingDataError, UsageError
from mingmoe_eval.exams import loading
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.exams.scoring import score_doc
from mingmoe_eval.metrics.choice_accuracy import guessing_level
from mingmoe_eval.records import Response, TaskSettings

REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "exams"
SETTINGS = TaskSettings(suite="choice", form="direct")

# Nobody who says one of these has answered anything, unless an option says the same.
SAY_NOTHING = [
    "",
    "\n",
    "...",
    "Unknown",
    "unknown.",
    "None of the above",
    "none of the above.",
    "The answer is none of the above.",
    "None of the options A, B, C or D are correct.",
    "Therefore, none of the options A, B, C, D, or E are correct.",
    "No correct option.",
    "I cannot answer this question.",
    "I don't know.",
    "I'm sorry, but I can't help with that.",
    "It cannot be determined.",
    "A or B",
    "A or B or C or D",
    "Either A or B.",
    "The answer is A or B.",
    "The answer is either A or D.",
    "The correct answer is one of A, B, C, D.",
    "The answer is",
    "Answer:",
    "A, B, C or D",
    "Answer with A, B, C or D.",
    "以上都不对",
    "以上选项都不正确。",
    "没有正确答案。",
    "无法确定",
    "无法回答该问题。",
    "抱歉，我不知道。",
    "不知道",
    "A或B",
    "答案是A或B。",
    "答案是A或者C。",
    "答案",
    "答案是",
    "A、B、C、D都有可能。",
    "可能是A，也可能是B。",
    "<think>The answer is A",
    "<think>\n答案是A",
    "No lo sé.",
    "La respuesta correcta es A o B.",
    "Ninguna de las anteriores.",
    "Respuesta:",
    "Je ne sais pas.",
    "La réponse est A ou B.",
    "Aucune de ces réponses.",
    "Réponse :",
    "모르겠습니다.",
    "정답은 A 또는 B입니다.",
    "정답은 1번 또는 2번입니다.",
    "정답 없음",
    "정답:",
    "分かりません。",
    "正解はaまたはbです。",
    "正解なし。",
    "【回答】",
]
# Of an exam with one right letter a question; where several can be right, they are guesses.
NAME_SEVERAL = [
    "A/B/C/D",
    "The answer is A/B/C/D.",
    "A and B",
    "A、B",
    "答案是A和C。",
    "Both A and D",
]
# A guess is an answer: it earns what its letters are worth in the keys.
GUESSES = ["A", "B", "C", "D", "E", "AB", "ABC", "ABCD", "ABCDE", "ACDE"]
FRAMES = ["{}", "The answer is {}.", "答案是{}。", "故选{}"]
FRAMES += ["La respuesta correcta es {}.", "Réponse : {}", "정답은 {}입니다.", "正解は{}です。"]


def _exams():
    for name in (name for name, one in benchmarks().items() if one.suite == "choice"):
        yield pytest.param(name, {"sample": True}, id=f"{name}-sample")
        yield pytest.param(name, {"data_dir": str(REAL)}, id=f"{name}-real")
    for name in ("cmexam", "cmb_exam"):
        yield pytest.param(name, {"data_dir": str(REAL), "split": "val"}, id=f"{name}-val")


# Thousands of questions of every data set that is there.
pytestmark = pytest.mark.slow


@pytest.fixture
def docs(request):
    name, place = request.param
    if "data_dir" in place and not REAL.is_dir():
        pytest.skip("../shared/data/exams, the real records, is not here")
    try:
        return _loaded(name, tuple(place.items()))
    except (MissingDataError, UsageError) as error:
        pytest.skip(f"no records of {name} here: {error}")


@functools.cache
def _loaded(name, place):
    return list(loading.load(benchmark=name, **dict(place))["test"])


EXAMS = [pytest.param(each.values, id=each.id) for each in _exams()]
over_all_exams = pytest.mark.parametrize("docs", EXAMS, indirect=True)


def answered(doc, reply):
    return score_doc(doc, Response(text=reply), SETTINGS)


@over_all_exams
def test_a_reply_that_says_nothing_is_read_as_nothing(docs):
    read = [
        (reply, doc["options"], score.answered, score.reading)
        for reply in SAY_NOTHING
        for doc in docs
        for score in [answered(doc, reply)]
        if score.answered is not None and not _some_option_says(doc, reply)
    ]
    assert read == []


@over_all_exams
def test_several_letters_answer_no_question_that_has_one(docs):
    read = [
        (reply, doc["options"], score.answered, score.reading)
        for reply in NAME_SEVERAL
        for doc in docs
        for score in [answered(doc, reply)]
        if doc["single"] and score.answered is not None and not _some_option_says(doc, reply)
    ]
    assert read == []


def _some_option_says(doc, reply):
    said = reply.lower().strip(" .。")
    return any(
        text.lower().strip(" .。") and text.lower().strip(" .。") in said
        for text in doc["options"].values()
    )


@over_all_exams
def test_a_constant_guess_is_right_exactly_where_the_key_is_that_guess(docs):
    for guess, frame in itertools.product(GUESSES, FRAMES):
        # On blood groups, "AB" is an option's text as well as two letters.
        for doc in (doc for doc in docs if not (guess[1:] and _some_option_says(doc, guess))):
            score = answered(doc, frame.format(guess))
            assert score.value == float(doc["answer"] == guess), (guess, doc, score)
            if doc["single"] and len(guess) > 1:
                assert score.answered is None, (guess, doc, score)


REPEATS = {
    "lines": lambda doc: _lines(doc),
    "brackets": lambda doc: "\n".join(f"({k}) {text}" for k, text in doc["options"].items()),
    "one line": lambda doc: "; ".join(f"{k}: {text}" for k, text in doc["options"].items()),
    "question": lambda doc: f"{doc['question']}\n{_lines(doc)}",
    "prompt": lambda doc: f"Question: {doc['question']}\n{_lines(doc)}\nAnswer:",
    "Chinese prompt": lambda doc: f"问题：{doc['question']}\n{_lines(doc)}\n答案：",
    "walk": lambda doc: f"Let's go through the options.\n{_lines(doc)}",
    "Chinese walk": lambda doc: f"下面逐项分析：\n{_lines(doc)}",
}


@over_all_exams
def test_the_options_repeated_are_no_answer_to_a_question_that_has_one(docs):
    read = [
        (name, doc["options"], score.answered, score.reading)
        for name, repeat in REPEATS.items()
        for doc in docs
        for score in [answered(doc, repeat(doc))]
        if doc["single"] and score.answered is not None
    ]
    assert read == []


@over_all_exams
def test_the_options_repeated_are_right_only_where_all_of_them_are(docs):
    # Where several letters can be right, a list of them all is an answer as good as "ABCDE".
    for repeat, doc in itertools.product(REPEATS.values(), docs):
        right = answered(doc, repeat(doc)).value
        assert doc["single"] or right == 0 or doc["answer"] == "".join(doc["options"]), doc


@over_all_exams
def test_the_question_repeated_earns_no_more_than_chance(docs):
    right = sum(answered(doc, doc["question"]).value for doc in docs)
    assert right <= guessing_level(docs) * len(docs)


def _lines(doc):
    return "\n".join(f"{letter}. {text}" for letter, text in doc["options"].items())
