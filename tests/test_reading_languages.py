"""Replies in Spanish, French, Korean and Japanese, each with what a careful reader would mark."""

import pytest

from mingmoe_eval.metrics.answer_reading import read_answer

SPANISH = {"A": "Glucagón", "B": "Insulina", "C": "Cortisol", "D": "Adrenalina"}
FRENCH = {"A": "Glucagon", "B": "Insuline", "C": "Cortisol", "D": "Adrénaline", "E": "Thyroxine"}
KOREAN = {"A": "비타민 K", "B": "프로타민", "C": "날록손", "D": "플루마제닐", "E": "아트로핀"}
JAPANESE = {"A": "ビタミンA", "B": "プロタミン", "C": "ナロキソン", "D": "アトロピン", "E": "骨髄"}

ONE = [
    (SPANISH, "La respuesta correcta es la B", "B"),
    (SPANISH, "La respuesta correcta es B.", "B"),
    (SPANISH, "La respuesta correcta es la opción B: Insulina.", "B"),
    (SPANISH, "**Respuesta: B**", "B"),
    (SPANISH, "Respuesta: b", "B"),
    (SPANISH, "Respuesta correcta: b) Insulina", "B"),
    (SPANISH, "La opción correcta es la (C).", "C"),
    (SPANISH, "La opción 2 es la correcta.", "B"),
    (SPANISH, "Por lo tanto, la respuesta final es C.", "C"),
    (SPANISH, "La opción B es la correcta, porque la insulina baja la glucemia.", "B"),
    (SPANISH, "La respuesta correcta no es la A, sino la B.", "B"),
    (SPANISH, "A primera vista parece la A, pero la respuesta correcta es la D.", "D"),
    (SPANISH, "La respuesta correcta es Insulina.", "B"),
    (SPANISH, "La respuesta correcta es la B o la C.", None),
    (SPANISH, "La respuesta correcta no es la A.", None),
    (SPANISH, "La respuesta es a la vez sencilla y difícil.", None),
    (SPANISH, "Lo siento, no puedo responder a esta pregunta.", None),
    (SPANISH, "Respuesta: A continuación se analizan las opciones.", None),
    (FRENCH, "La bonne réponse est la B.", "B"),
    (FRENCH, "Réponse : B", "B"),
    (FRENCH, "La réponse est donc B.", "B"),
    (FRENCH, "La proposition B est exacte.", "B"),
    (FRENCH, "La réponse correcte est : Insuline.", "B"),
    (FRENCH, "La réponse n'est pas A mais C.", "C"),
    (FRENCH, "La réponse est B ou C.", None),
    (FRENCH, "Je ne sais pas.", None),
    (KOREAN, "정답은 3번", "C"),
    (KOREAN, "정답은 3번입니다.", "C"),
    (KOREAN, "정답: ③", "C"),
    (KOREAN, "정답은 B입니다.", "B"),
    (KOREAN, "정답: B", "B"),
    (KOREAN, "정답：Ｂ", "B"),
    (KOREAN, "답은 (B)이다.", "B"),
    (KOREAN, "B가 정답입니다.", "B"),
    (KOREAN, "따라서 B를 선택합니다.", "B"),
    (KOREAN, "B. 프로타민", "B"),
    (KOREAN, "정답은 B. 프로타민입니다.", "B"),
    (KOREAN, "정답은 A가 아니라 B입니다.", "B"),
    (KOREAN, "헤파린의 해독제는 프로타민이다.\n\n최종 정답: B", "B"),
    (KOREAN, "정답은 A 또는 B입니다.", None),
    (KOREAN, "정답은 A가 아닙니다.", None),
    (KOREAN, "죄송하지만 답할 수 없습니다.", None),
    (JAPANESE, "【回答】b", "B"),
    (JAPANESE, "\n\n【回答】ｂ", "B"),
    (JAPANESE, "正解はbです。", "B"),
    (JAPANESE, "正解：Ｂ", "B"),
    (JAPANESE, "答えは B です。", "B"),
    (JAPANESE, "答え: b", "B"),
    (JAPANESE, "bが正解です。", "B"),
    (JAPANESE, "正しいのはbである。", "B"),
    (JAPANESE, "正解は選択肢2です。", "B"),
    (JAPANESE, "正解はaではなくbです。", "B"),
    (JAPANESE, "正解はaまたはbです。", None),
    (JAPANESE, "正解はaではない。", None),
    (JAPANESE, "分かりません。", None),
]

SEVERAL = [
    (SPANISH, "Las respuestas correctas son B y D.", "BD"),
    (SPANISH, "Son correctas la A, la C y la D.", "ACD"),
    (SPANISH, "A, B y C son correctas.", "ABC"),
    (FRENCH, "Les réponses correctes sont A, C et D.", "ACD"),
    (FRENCH, "Réponse : A, C", "AC"),
    (FRENCH, "Réponses : A, C, E", "ACE"),
    (FRENCH, "Les propositions exactes sont A et C.", "AC"),
    (FRENCH, "Les bonnes réponses sont les propositions A, B, D et E.", "ABDE"),
    (FRENCH, "A, C et D sont exactes.", "ACD"),
    (FRENCH, "A, C", "AC"),
    (FRENCH, "ACE", "ACE"),
    (FRENCH, "Réponse : B", "B"),
    (KOREAN, "정답은 A와 C입니다.", "AC"),
    (KOREAN, "정답: 1번, 3번", "AC"),
    (JAPANESE, "正解はaとd", "AD"),
    (JAPANESE, "【回答】a,c", "AC"),
    (JAPANESE, "【回答】a、c、e", "ACE"),
    (JAPANESE, "正解はaとdです。", "AD"),
    (JAPANESE, "aとdが正解です。", "AD"),
    (JAPANESE, "a,d", "AD"),
    (JAPANESE, "答え：ａ、ｄ", "AD"),
    (JAPANESE, "正解はADです。", "AD"),
    (KOREAN, "정답은 ACE입니다.", "ACE"),
    (SPANISH, "La respuesta correcta es AB.", "AB"),
    (FRENCH, "Réponse : ABD", "ABD"),
    (JAPANESE, "正解はaまたはbです。", None),
    (KOREAN, "정답은 A 또는 B입니다.", None),
    (SPANISH, "Las respuestas correctas son A o B.", None),
    (FRENCH, "La réponse est A ou B.", None),
]


@pytest.mark.parametrize(("options", "reply", "letters"), ONE, ids=[case[1] for case in ONE])
def test_an_answer_in_another_language_is_read(options, reply, letters):
    reading = read_answer(reply, options, single=True)
    assert reading.answered == letters, reading


@pytest.mark.parametrize(
    ("options", "reply", "letters"), SEVERAL, ids=[case[1] for case in SEVERAL]
)
def test_several_letters_in_another_language_are_read(options, reply, letters):
    reading = read_answer(reply, options, single=False)
    assert reading.answered == letters, reading


def test_a_number_that_is_an_option_s_text_is_that_text():
    digits = {"A": "2", "B": "3", "C": "4"}
    assert read_answer("정답은 3번", digits, single=True).answered != "C"
