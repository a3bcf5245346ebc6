"""How exams in Spanish, French, Korean and Japanese are put to a model, in their own language.

As in `prompts`: every function takes a doc and never raises, a prompt ends where the answer begins,
and where a wording comes from stands beside it.
"""

from collections.abc import Mapping
from typing import Any

from mingmoe_eval.exams.prompts import option_lines

Doc = Mapping[str, Any]


# --- Spanish: CareQA, HEAD-QA -------------------------------------------------------------------


def spanish_letter(doc: Doc) -> str:
    """Asks for the letter alone; our words."""
    *first, last = doc["options"]
    return (
        f"Responde únicamente con la letra de la opción correcta ({', '.join(first)} o {last}).\n"
        f"{spanish_question(doc)}"
    )


def spanish_question(doc: Doc) -> str:
    """Stem, options, "Respuesta:"; our words."""
    return f"Pregunta: {doc['question']}\n{option_lines(doc)}\nRespuesta:"


def spanish_reasoning(doc: Doc) -> str:
    """Asks for reasoning, then a fixed phrase; our words."""
    return (
        "Responde a la siguiente pregunta de opción múltiple. Razona paso a paso y termina con "
        '"La respuesta correcta es X", donde X es la letra de la opción correcta.\n\n'
        f"Pregunta: {doc['question']}\n{option_lines(doc)}"
    )


def spanish_conclusion(doc: Doc) -> str:
    """How a worked example ends."""
    return f"La respuesta correcta es {doc['answer']}."


# --- French: FrenchMedMCQA ----------------------------------------------------------------------


def french_letters(doc: Doc) -> str:
    """Asks for the letters alone; our words: the exam says in its stems how many are right, if."""
    return (
        "Répondez à la question à choix multiples suivante. Une ou plusieurs propositions peuvent "
        "répondre à la question. Donnez uniquement les lettres des bonnes réponses, sans "
        f"explication.\nQuestion : {doc['question']}\n{option_lines(doc)}\nRéponse :"
    )


def french_reasoning(doc: Doc) -> str:
    """Asks for reasoning, then a fixed phrase; our words."""
    return (
        "Répondez à la question à choix multiples suivante. Une ou plusieurs propositions peuvent "
        "répondre à la question. Raisonnez étape par étape, puis terminez par « Réponse : » suivi "
        "des lettres de toutes les bonnes réponses.\n\n"
        f"Question : {doc['question']}\n{option_lines(doc)}"
    )


def french_answer(doc: Doc) -> str:
    """The letters as a person writes them: "A, C"."""
    return ", ".join(doc["answer"])


def french_conclusion(doc: Doc) -> str:
    """How a worked example ends."""
    return f"Réponse : {french_answer(doc)}"


# --- Korean: KorMedMCQA -------------------------------------------------------------------------


def korean_letter(doc: Doc) -> str:
    """Asks for the letter alone; our instruction over the authors' form."""
    first, *_, last = doc["options"]
    return (
        f"다음 보건의료인 국가시험 문제의 정답을 하나 골라 알파벳({first}~{last})만 쓰세요. "
        f"설명은 쓰지 마세요.\n{korean_question(doc)}"
    )


def korean_question(doc: Doc) -> str:
    """Stem, options, "정답：": the authors' own form (lm-evaluation-harness, kormedmcqa)."""
    return f"{doc['question']}\n{option_lines(doc)}\n정답："


def korean_reasoning(doc: Doc) -> str:
    """Asks for reasoning, then a fixed phrase; our words."""
    return (
        "다음 보건의료인 국가시험 문제를 단계별로 풀고, 마지막 줄에 “정답: ”과 정답의 알파벳을 "
        f"쓰세요.\n\n{doc['question']}\n{option_lines(doc)}"
    )


def korean_conclusion(doc: Doc) -> str:
    """How a worked example ends."""
    return f"정답: {doc['answer']}"


# --- Japanese: JMLE, IgakuQA --------------------------------------------------------------------


def japanese_letters(doc: Doc) -> str:
    """Asks for the letters alone, as many as the exam says; our words."""
    asked = (
        f"正しい選択肢を{_number(doc)}つ選び、記号だけを答えてください。"
        if doc["options"]
        else "数値だけを答えてください。"
    )
    return f"医師国家試験の問題です。{asked}説明は不要です。\n\n{_japanese(doc)}\n\n答え："


def japanese_reasoning(doc: Doc) -> str:
    """JMLE2026-Bench's own words (benchmark.py), there as a system prompt."""
    example = ",".join("ace"[: _number(doc)]) if doc["options"] else "3.14"
    asked = (
        f"正解を{_number(doc)}つ選んでください。" if doc["options"] else "数値で回答してください。"
    )
    return (
        f"あなたは医師国家試験を解く医学の専門家です。\n問題を読み、{asked}\n\n"
        f"最終回答は必ず以下の形式で出力してください:\n【回答】{example}\n\n{_japanese(doc)}"
    )


def igakuqa(doc: Doc) -> str:
    """IgakuQA's own prompt (scripts/generation/chatgpt.py), its system prompt as a first line.

    The authors put no more than the question where a number is asked for; we add what is asked.
    """
    header = "医師国家試験を解きます。\n\n"
    if not doc["options"]:
        return f"{header}問題: {doc['question']}\n数値だけを答えてください。\n答え:"
    lines = "\n".join(f"{letter.lower()}: {text}" for letter, text in doc["options"].items())
    letters = ",".join(doc["options"]).lower()
    return (
        f"{header}問題: {doc['question']}\n{lines}\n"
        f"必ず{letters}の中からちょうど{_number(doc)}個選んでください。\n答え:"
    )


def japanese_answer(doc: Doc) -> str:
    """Small letters by comma, as IgakuQA's worked examples give them; or the number."""
    return ",".join(doc["answer"]).lower() if doc["options"] else str(doc["answer"])


def japanese_conclusion(doc: Doc) -> str:
    """How a worked example ends, in the frame that `japanese_reasoning` asks for."""
    return f"【回答】{japanese_answer(doc)}"


def _number(doc: Doc) -> int:
    """How many options the exam tells the candidate to choose."""
    return int(doc.get("choose") or 1)


def _japanese(doc: Doc) -> str:
    """A case, the question, the options under small letters, as the exam prints them."""
    lines = (f"{letter.lower()}　{text}" for letter, text in doc["options"].items())
    options = "\n".join(lines)
    return "\n\n".join(filter(None, (doc["context"], doc["question"], options)))
