"""How exam questions are put to a model; where each wording comes from stands beside it.

Every function takes a doc and never raises. A prompt ends where the answer begins, so that the
answer's first token is the letter. Chinese prompts end in a full-width colon with no blank before
the letter (" A" and "A" are different tokens); English ones end in "Answer:", and the blank that
follows belongs to the answer, as in the MMLU paper's own script.
"""

from collections.abc import Mapping
from typing import Any

Doc = Mapping[str, Any]


def option_lines(doc: Doc) -> str:
    """The options, one a line, as "A. text"."""
    return "\n".join(f"{letter}. {text}" for letter, text in doc["options"].items())


def letters(doc: Doc) -> list[str]:
    """The letters that can be answered."""
    return list(doc["options"])


def answer_letters(doc: Doc) -> str:
    """The right answer as letters: "C" or "ACD"."""
    return str(doc["answer"])


def answer_index(doc: Doc) -> int:
    """The place of the right answer among the letters; of the first one, if several are right."""
    return letters(doc).index(doc["answer"][0])


def english_conclusion(doc: Doc) -> str:
    """How a worked example ends where reasoning is asked for in English."""
    return f"The answer is {doc['answer']}."


def chinese_conclusion(doc: Doc) -> str:
    """How a worked example ends where reasoning is asked for in Chinese."""
    return f"答案为{doc['answer']}"


# --- English: MedQA US, MedMCQA, MMLU ------------------------------------------------------------


def question_answer(doc: Doc) -> str:
    """Question, options, "Answer:": what lm-evaluation-harness uses for MedQA (medqa_4options)."""
    return f"Question: {doc['question']}\n{option_lines(doc)}\nAnswer:"


def question_choices_answer(doc: Doc) -> str:
    """The same with a "Choices:" line: what lm-evaluation-harness uses for MedMCQA (medmcqa)."""
    return f"Question: {doc['question']}\nChoices:\n{option_lines(doc)}\nAnswer:"


def mmlu(doc: Doc) -> str:
    """The MMLU paper's form (hendrycks/test, evaluate.py); its header is the task's description."""
    return f"{doc['question']}\n{option_lines(doc)}\nAnswer:"


def english_letter(doc: Doc) -> str:
    """Asks for the letter alone; the instruction is lighteval's for MedQA, for any letters."""
    *first, last = letters(doc)
    return f"Give a letter answer among {', '.join(first)} or {last}.\n{question_answer(doc)}"


def english_letters(doc: Doc) -> str:
    """The same where several options can be right, which is said; our words."""
    if doc["single"]:
        return english_letter(doc)
    *first, last = letters(doc)
    return (
        f"Give the letters of all right options among {', '.join(first)} and {last}; there may be "
        f"one or more.\n{question_answer(doc)}"
    )


def english_reasoning(doc: Doc) -> str:
    """Asks for reasoning, then the phrase that MING's scorer reads; the other words are ours."""
    return (
        "Answer the following multiple-choice question. Think it through step by step, then end "
        f'with "The answer is X", where X is {_what_is_asked(doc)}.\n\n'
        f"Question: {doc['question']}\n{option_lines(doc)}"
    )


def _what_is_asked(doc: Doc) -> str:
    if doc["single"]:
        return "the letter of the right option"
    return "the letters of all right options, one or more"


# --- PubMedQA ------------------------------------------------------------------------------------


def pubmedqa(doc: Doc) -> str:
    """Abstract, question, "Answer:": what lm-evaluation-harness uses (pubmedqa).

    The abstract comes without its conclusion, which would give the answer away.
    """
    return f"Abstract: {doc['context']}\nQuestion: {doc['question']}\nAnswer:"


def pubmedqa_word(doc: Doc) -> str:
    """Asks for one word; our instruction over the same form."""
    return f"Answer the question about the abstract with yes, no or maybe.\n\n{pubmedqa(doc)}"


def pubmedqa_reasoning(doc: Doc) -> str:
    """Asks for reasoning, then a fixed phrase; our words."""
    return (
        "Read the abstract and answer the question. Think it through step by step, then end with "
        '"The answer is yes", "The answer is no" or "The answer is maybe".\n\n'
        f"Abstract: {doc['context']}\nQuestion: {doc['question']}"
    )


def option_texts(doc: Doc) -> list[str]:
    """The options' texts, where the answer is a word and not a letter."""
    return list(doc["options"].values())


def answer_text(doc: Doc) -> str:
    """The right option's text."""
    return str(doc["options"][doc["answer"][0]])


# --- MedCalc-Bench -------------------------------------------------------------------------------

_CALCULATES = "You are a helpful assistant for calculating a score for a given patient note. "
_ANSWER_KEY = '{"answer": str(value which is the answer to the question)}'
_STEPS_KEY = (
    '{"step_by_step_thinking": '
    "str(your_step_by_step_thinking_procress_to_solve_the_question), "
    '"answer": str(short_and_direct_answer_of_the_question)}'
)


def medcalc_answer(doc: Doc) -> str:
    """The authors' "direct answer" (evaluation/run.py), word for word, slips included."""
    return (
        f"{_CALCULATES}Please output answer only without any other text. Your output should only "
        f"contain a JSON dict formatted as {_ANSWER_KEY}.\n\n{_note_and_task(doc)}"
        f"Please directly output the JSON dict formatted as {_ANSWER_KEY}:"
    )


def medcalc_reasoning(doc: Doc) -> str:
    """The authors' "zero-shot" with steps, likewise."""
    return (
        f"{_CALCULATES}Please think step-by-step to solve the question and then generate the "
        f"required score. Your output should only contain a JSON dict formatted as {_STEPS_KEY}."
        f"\n\n{_note_and_task(doc)}"
        f"Please directly output the JSON dict formatted as {_STEPS_KEY}:"
    )


def _note_and_task(doc: Doc) -> str:
    return (
        f"Here is the patient note:\n{doc['context']}\n\nHere is the task:\n{doc['question']}\n\n"
    )


# --- Chinese: MedQA mainland, CMExam, the pharmacist exam, CMB, CMMLU, C-Eval -------------------


def chinese_letter(doc: Doc) -> str:
    """Asks for the letters alone; our words, after the header of C-Eval."""
    return (
        f"以下是中国医学考试的一道{_kind(doc)}，{_how_many(doc)}"
        f"请直接给出正确选项的字母，不要解释。\n{doc['question']}\n{option_lines(doc)}\n答案："
    )


def chinese_question(doc: Doc) -> str:
    """Stem, options, "答案：": the form of C-Eval; the header is the task's description."""
    return f"{doc['question']}\n{option_lines(doc)}\n答案："


def chinese_reasoning(doc: Doc) -> str:
    """Asks for reasoning, then the phrase that MING's scorer reads; the other words are ours."""
    return (
        f"以下是中国医学考试的一道{_kind(doc)}，{_how_many(doc)}"
        f"请逐步分析每个选项，最后以“答案为”加正确选项的字母结尾。\n"
        f"{doc['question']}\n{option_lines(doc)}"
    )


def pharmacist_letter(doc: Doc) -> str:
    """HuatuoGPT-II's frame with the type in brackets (eval_qa.py), asking for the letters alone.

    HuatuoGPT-II itself lets the model write freely; for that see `pharmacist_reasoning`.
    """
    return (
        f"请回答下面选择题，直接给出正确选项的字母，不要解释。\n"
        f"{_bracketed_kind(doc)}{doc['question']}\n{option_lines(doc)}\n答案："
    )


def pharmacist_reasoning(doc: Doc) -> str:
    """HuatuoGPT-II's prompt for an analysis of each option (scorer.py of its repository)."""
    return (
        "下面是一道选择题，请分析每个选项，并最后给出答案。\n"
        f"{_bracketed_kind(doc)}{doc['question']}\n{option_lines(doc)}"
    )


def cmb_letter(doc: Doc) -> str:
    """CMB's own prompt for an answer without explanation (workers/base.py)."""
    return f"{_cmb_header(doc)}不需要做任何分析和解释，直接输出答案选项。\n{_cmb_question(doc)}"


def cmb_reasoning(doc: Doc) -> str:
    """CMB's own prompt for an analysis."""
    return f"{_cmb_header(doc)}请分析每个选项，并最后给出答案。\n{_cmb_question(doc)}"


def cmb_answer(doc: Doc) -> str:
    """How CMB's own worked examples give the answer."""
    return f"答案是{doc['answer']}。"


def cmmlu_letter(doc: Doc) -> str:
    """CMMLU's own zero-shot prompt: its header and its question in one message."""
    return f"以下是关于{_subject(doc)}的单项选择题，请直接给出正确答案的选项。\n\n{cmmlu(doc)}"


def cmmlu(doc: Doc) -> str:
    """CMMLU's own form of a question; with worked examples its header is the description."""
    return f"题目：{doc['question']}\n{option_lines(doc)}\n答案是："


def cmmlu_reasoning(doc: Doc) -> str:
    """CMMLU's own zero-shot prompt for reasoning."""
    return (
        f"以下是关于{_subject(doc)}的单项选择题，请分析并选出正确答案。\n\n"
        f"题目：{doc['question']}\n{option_lines(doc)}\n逐步分析并给出答案选项。"
    )


def ceval_letter(doc: Doc) -> str:
    """C-Eval's own header and question in one message."""
    return f"{_ceval_header(doc)}\n\n{chinese_question(doc)}"


def ceval_reasoning(doc: Doc) -> str:
    """C-Eval's own beginning of a reasoned answer, which the model goes on with."""
    return f"{_ceval_header(doc)}\n\n{chinese_question(doc)}让我们一步一步思考，\n1. "


# The names that CMMLU and C-Eval themselves put into their headers.
_SUBJECTS = {
    "agronomy": "农学",
    "anatomy": "解剖学",
    "clinical_knowledge": "临床知识",
    "college_medicine": "大学医学",
    "genetics": "遗传学",
    "nutrition": "营养学",
    "traditional_chinese_medicine": "中医中药",
    "virology": "病毒学",
    "basic_medicine": "基础医学",
    "clinical_medicine": "临床医学",
    "physician": "医师资格",
}


def _subject(doc: Doc) -> str:
    subject = str(doc["tags"].get("subject", ""))
    return _SUBJECTS.get(subject, subject)


def _ceval_header(doc: Doc) -> str:
    return f"以下是中国关于{_subject(doc)}考试的单项选择题，请选出其中的正确答案。"


def _kind(doc: Doc) -> str:
    return str(doc["question_type"]) or ("单项选择题" if doc["single"] else "选择题")


def _how_many(doc: Doc) -> str:
    """Said where the exam itself does not: CMExam mixes both kinds without marking them."""
    return "" if doc["single"] or doc["question_type"] else "正确选项可能有一个或多个，"


def _bracketed_kind(doc: Doc) -> str:
    return f"[{doc['question_type']}]" if doc["question_type"] else ""


def _cmb_header(doc: Doc) -> str:
    """Without the names of the exam where a copy of the data has dropped them."""
    tags = doc["tags"]
    exam = "".join(
        text
        for name, text in (
            ("exam_type", f"中国{tags.get('exam_type')}中"),
            ("exam_class", f"{tags.get('exam_class')}考试的"),
        )
        if name in tags
    )
    return f"以下是{exam}一道{_kind(doc)}，"


def _cmb_question(doc: Doc) -> str:
    return f"{doc['question']}\n{option_lines(doc)}"
