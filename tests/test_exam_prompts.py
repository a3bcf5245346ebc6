import pytest

from mingmoe_eval.exams import prompts
from mingmoe_eval.exams.records import Question, docs_of


def doc(**changes):
    facts = {"question": "何脏藏血？", "options": {"A": "肝", "C": "脾"}, "answer": "C"}
    [made] = docs_of([Question(**{"single": True, **facts, **changes})])
    return made


ENGLISH = doc(question="Which organ?", options={"A": "Liver", "B": "Heart"}, answer="A")

PROMPTS = [
    (prompts.question_answer, ENGLISH, "Question: Which organ?\nA. Liver\nB. Heart\nAnswer:"),
    (
        prompts.question_choices_answer,
        ENGLISH,
        "Question: Which organ?\nChoices:\nA. Liver\nB. Heart\nAnswer:",
    ),
    (prompts.mmlu, ENGLISH, "Which organ?\nA. Liver\nB. Heart\nAnswer:"),
    (
        prompts.english_letter,
        ENGLISH,
        "Give a letter answer among A or B.\nQuestion: Which organ?\nA. Liver\nB. Heart\nAnswer:",
    ),
    (prompts.chinese_question, doc(), "何脏藏血？\nA. 肝\nC. 脾\n答案："),
    (
        prompts.chinese_letter,
        doc(single=False),
        "以下是中国医学考试的一道选择题，正确选项可能有一个或多个，请直接给出正确选项的字母，"
        "不要解释。\n何脏藏血？\nA. 肝\nC. 脾\n答案：",
    ),
    (
        prompts.chinese_letter,
        doc(),
        "以下是中国医学考试的一道单项选择题，请直接给出正确选项的字母，不要解释。\n"
        "何脏藏血？\nA. 肝\nC. 脾\n答案：",
    ),
    (
        prompts.pharmacist_reasoning,
        doc(question_type="配伍选择题"),
        "下面是一道选择题，请分析每个选项，并最后给出答案。\n[配伍选择题]何脏藏血？\nA. 肝\nC. 脾",
    ),
    (
        prompts.cmb_letter,
        doc(
            question_type="单项选择题",
            tags={"exam_type": "医师考试", "exam_class": "执业医师"},
        ),
        "以下是中国医师考试中执业医师考试的一道单项选择题，不需要做任何分析和解释，"
        "直接输出答案选项。\n何脏藏血？\nA. 肝\nC. 脾",
    ),
    (
        prompts.cmb_reasoning,
        doc(question_type="多项选择题", single=False),
        "以下是一道多项选择题，请分析每个选项，并最后给出答案。\n何脏藏血？\nA. 肝\nC. 脾",
    ),
    (
        prompts.cmmlu_letter,
        doc(tags={"subject": "anatomy"}),
        "以下是关于解剖学的单项选择题，请直接给出正确答案的选项。\n\n"
        "题目：何脏藏血？\nA. 肝\nC. 脾\n答案是：",
    ),
    (
        prompts.ceval_reasoning,
        doc(tags={"subject": "physician"}),
        "以下是中国关于医师资格考试的单项选择题，请选出其中的正确答案。\n\n"
        "何脏藏血？\nA. 肝\nC. 脾\n答案：让我们一步一步思考，\n1. ",
    ),
    (
        prompts.pubmedqa,
        doc(context="One.\nTwo.", question="Does it?"),
        "Abstract: One.\nTwo.\nQuestion: Does it?\nAnswer:",
    ),
]


@pytest.mark.parametrize(
    ("prompt", "asked", "text"), PROMPTS, ids=[prompt.__name__ for prompt, _, _ in PROMPTS]
)
def test_the_wording_of_each_prompt(prompt, asked, text):
    assert prompt(asked) == text


def test_options_keep_their_letters_when_a_middle_one_is_blank():
    assert prompts.letters(doc()) == ["A", "C"]
    assert prompts.answer_index(doc()) == 1
    assert prompts.option_lines(doc()) == "A. 肝\nC. 脾"


def test_several_right_letters_are_answered_together():
    several = doc(answer="AC", single=False)
    assert prompts.answer_letters(several) == "AC"
    assert prompts.cmb_answer(several) == "答案是AC。"
    assert prompts.chinese_conclusion(several) == "答案为AC"


ALL = [
    prompt
    for name, prompt in vars(prompts).items()
    if callable(prompt) and getattr(prompt, "__module__", "") == prompts.__name__
]


@pytest.mark.parametrize("prompt", ALL, ids=lambda prompt: prompt.__name__)
@pytest.mark.parametrize(
    "bare",
    [
        doc(),
        doc(single=False, answer="AC"),
        doc(question="\ud800{{ x }} %s", tags={"exam_class": "x"}),
        doc(tags={"subject": "unheard of"}),
    ],
)
def test_no_prompt_raises(prompt, bare):
    prompt(bare)


CHINESE_LETTER = [
    prompts.chinese_letter,
    prompts.chinese_question,
    prompts.pharmacist_letter,
    prompts.cmmlu,
    prompts.cmmlu_letter,
    prompts.ceval_letter,
]


@pytest.mark.parametrize("prompt", CHINESE_LETTER, ids=lambda prompt: prompt.__name__)
def test_no_blank_stands_before_a_chinese_letter(prompt):
    assert prompt(doc()).endswith("：")


def test_the_explanation_of_a_record_has_no_place_in_a_doc():
    assert set(doc()) == {
        "id",
        "question",
        "options",
        "answer",
        "single",
        "question_type",
        "context",
        "tags",
        "cluster",
    }
