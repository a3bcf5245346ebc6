"""One example of an original CBLUE file, as a PromptCBLUE record with a prompt of our own.

The prompts are not PromptCBLUE's 94 templates: they also say how the answer is to be written, so
that a model without PromptCBLUE training has a chance. Scores on them compare with nothing
published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.promptcblue.catalogue import TASKS, Answer
from mingmoe_eval.promptcblue.doc_records import CONVERTED_FROM, faithful_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What is asked and what is right; `slots` fill the task's prompt.

    The answer is None where the file contradicts itself.
    """

    task: str
    sample_id: str
    slots: Mapping[str, str]
    answer: Answer | None
    choices: tuple[str, ...] | None = None

    def to_record(self) -> dict[str, Any] | None:
        """The record; None when the format cannot hold the answer, or there is none to hold."""
        task, choices = TASKS[self.task], self.choices or ()
        target = None if self.answer is None else faithful_target(task, self.answer, choices)
        if target is None or not target.strip():
            return None
        return {
            "input": prompt_of(self.task, self.choices, **self.slots),
            "target": target,
            "answer_choices": None if self.choices is None else list(self.choices),
            "task_type": task.task_type,
            "task_dataset": self.task,
            "sample_id": self.sample_id,
            CONVERTED_FROM: "CBLUE",
        }


_PROMPTS = {
    "CMeEE-V2": (
        "请从下面的医学文本中找出属于给定类型的全部实体。\n文本：{text}\n类型：{options}\n"
        "先写一行“上述句子中的实体包含：”，再按类型各写一行，例如“疾病实体：甲，乙”，没有则冒号后留空。"
    ),
    "IMCS-V2-NER": (
        "请从下面这句问诊对话中找出属于给定类型的全部实体。\n对话：{text}\n类型：{options}\n"
        "先写一行“上述句子中的实体包含：”，再按类型各写一行，例如“症状实体：甲，乙”，没有则冒号后留空。"
    ),
    "CMeIE": (
        "请从下面的医学文本中抽取具有给定关系的实体对。\n文本：{text}\n关系：{options}\n"
        "每种关系写一行：“具有某关系的头尾实体对如下：头实体为甲，尾实体为乙。”，"
        "多个实体对依次接在同一行后面。"
    ),
    "CHIP-CDN": (
        "请为下面的诊断原词选出对应的标准词，可以不止一个。\n诊断原词：{text}\n候选标准词：{options}\n"
        "只写选中的标准词，用“，”隔开；都不对应时写“没有对应的标准化实体”。"
    ),
    "CHIP-CDEE": (
        "请抽取下面病历文本中的临床发现事件。\n病历：{text}\n"
        "先写一行“上述句子中的临床发现事件如下：”，再每个事件写一行："
        "“主体词：甲；发生状态：乙；描述词：丙，丁；解剖部位：戊”，发生状态只能是否定、不确定或空。"
    ),
    "CHIP-MDCFNPC": (
        "请根据整段问诊对话，判断列出的每个临床发现属于哪种情况。\n对话：\n{text}\n"
        "临床发现：{mentions}\n情况：{options}\n"
        "先写一行“上述对话中临床发现实体以及其阴阳性判别如下：”，再每个发现写一行“发现：情况”。"
    ),
    "IMCS-V2-SR": (
        "请找出当前这句话提到的症状，并判断病人是否患有。\n对话历史：\n{history}\n当前这句话：{text}\n"
        "判断选项：{options}\n"
        "先写一行“当前对话中的症状及其阴阳性判断为：”，再每个症状写一行“症状：判断”。"
    ),
    "IMCS-V2-DAC": (
        "请判断下面问诊对话中最后一句话的意图。\n{text}\n意图选项：{options}\n只写一个选项。"
    ),
    "IMCS-V2-MRG": (
        "请根据下面的问诊对话写一份诊疗报告。\n{text}\n"
        "先写一行“上述问诊对话的诊疗报告如下：”，再依次各写一行：主诉、现病史、辅助检查、既往史、诊断、建议，"
        "每行以名称和“：”开头。"
    ),
    "CHIP-CTC": (
        "请判断下面这条临床试验筛选标准的类别。\n标准：{text}\n类别选项：{options}\n只写一个选项。"
    ),
    "CHIP-STS": ("“{text}”和“{other}”，这两个问句的意思相同吗？\n选项：{options}\n只写一个选项。"),
    "KUAKE-IR": (
        "下面的回答内容与搜索词相关吗？\n"
        "搜索词：{text}\n"
        "回答内容：{other}\n"
        "选项：{options}\n"
        "只写一个选项。"
    ),
    "KUAKE-QIC": (
        "请判断下面这个医疗搜索词的意图。\n搜索词：{text}\n意图选项：{options}\n只写一个选项。"
    ),
    "KUAKE-QQR": (
        "前一个搜索词是“{text}”，后一个是“{other}”，它们的意思是什么关系？\n"
        "选项：{options}\n"
        "只写一个选项。"
    ),
    "KUAKE-QTR": (
        "搜索词“{text}”与网页标题“{other}”的匹配程度如何？\n选项：{options}\n只写一个选项。"
    ),
    "MedDG": ("你是医生。请根据下面的问诊对话写出你的下一句回复。\n{text}"),
}


def prompt_of(task_name: str, options: Sequence[str] | None, **slots: str) -> str:
    """The prompt of one record, ending in the answer cue."""
    filled = _PROMPTS[task_name].format(options="，".join(options or ()), **slots)
    return f"{filled}\n答："
