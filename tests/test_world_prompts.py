"""What exams in Spanish, French, Korean and Japanese show a model."""

import pytest

from mingmoe_eval.exams import world_prompts as world
from mingmoe_eval.exams.records import Question, docs_of


def doc(**changes):
    facts = {"question": "¿?", "options": {"A": "w", "B": "x", "C": "y"}, "answer": "B"}
    [made] = docs_of([Question(**{"single": True, **facts, **changes})])
    return made


TWO = doc(question="どれか。2つ選べ。", answer="AC", single=False, choose=2)
CASE = doc(question="診断はどれか。", context="84歳の男性。", choose=1)
NUMBER = doc(question="求めよ。", options={}, answer="0.40")

PROMPTS = [
    (
        world.spanish_letter,
        doc(),
        "Responde únicamente con la letra de la opción correcta (A, B o C).\n"
        "Pregunta: ¿?\nA. w\nB. x\nC. y\nRespuesta:",
    ),
    (
        world.korean_letter,
        doc(question="?"),
        "다음 보건의료인 국가시험 문제의 정답을 하나 골라 알파벳(A~C)만 쓰세요. "
        "설명은 쓰지 마세요.\n"
        "?\nA. w\nB. x\nC. y\n정답：",
    ),
    (world.korean_question, doc(question="?"), "?\nA. w\nB. x\nC. y\n정답："),
    (
        world.igakuqa,
        TWO,
        "医師国家試験を解きます。\n\n問題: どれか。2つ選べ。\na: w\nb: x\nc: y\n"
        "必ずa,b,cの中からちょうど2個選んでください。\n答え:",
    ),
    (
        world.igakuqa,
        NUMBER,
        "医師国家試験を解きます。\n\n問題: 求めよ。\n数値だけを答えてください。\n答え:",
    ),
    (
        world.japanese_letters,
        CASE,
        "医師国家試験の問題です。正しい選択肢を1つ選び、記号だけを答えてください。説明は不要です。\n\n"
        "84歳の男性。\n\n診断はどれか。\n\na　w\nb　x\nc　y\n\n答え：",
    ),
    (
        world.japanese_reasoning,
        TWO,
        "あなたは医師国家試験を解く医学の専門家です。\n問題を読み、正解を2つ選んでください。\n\n"
        "最終回答は必ず以下の形式で出力してください:\n【回答】a,c\n\n"
        "どれか。2つ選べ。\n\na　w\nb　x\nc　y",
    ),
    (
        world.japanese_reasoning,
        NUMBER,
        "あなたは医師国家試験を解く医学の専門家です。\n問題を読み、数値で回答してください。\n\n"
        "最終回答は必ず以下の形式で出力してください:\n【回答】3.14\n\n求めよ。",
    ),
]


@pytest.mark.parametrize(("function", "asked", "shown"), PROMPTS)
def test_prompts_word_for_word(function, asked, shown):
    assert function(asked) == shown


@pytest.mark.parametrize(
    ("function", "asked", "shown"),
    [
        (world.japanese_answer, TWO, "a,c"),
        (world.japanese_answer, NUMBER, "0.40"),
        (world.japanese_conclusion, TWO, "【回答】a,c"),
        (world.french_answer, doc(answer="AC", single=False), "A, C"),
        (world.french_conclusion, doc(answer="AC", single=False), "Réponse : A, C"),
        (world.spanish_conclusion, doc(), "La respuesta correcta es B."),
        (world.korean_conclusion, doc(), "정답: B"),
    ],
)
def test_how_worked_examples_answer(function, asked, shown):
    assert function(asked) == shown


@pytest.mark.parametrize("function", [world.french_letters, world.french_reasoning])
def test_the_french_exam_says_that_several_may_be_right_and_not_how_many(function):
    one, several = doc(single=False), doc(answer="AC", single=False)
    assert function(one) == function(several)
    assert "Une ou plusieurs propositions" in function(one)
