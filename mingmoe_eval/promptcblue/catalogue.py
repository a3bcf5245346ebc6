"""The 16 PromptCBLUE tasks: names, families, labels, main metrics, and what an answer looks like.

Facts from the PromptCBLUE repository (data v0.2, CCKS-2023) and from MING's copy of its evaluator.
The evaluator of August 2023 knows two tasks more, Text2DT and CMedCausal (`BEYOND_THE_16`); neither
MING-MOE nor the v0.2 data has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mingmoe_eval.errors import UnknownTaskError
from mingmoe_eval.promptcblue.label_sets import (
    CMEEE_TYPES,
    CMEIE_RELATIONS,
    CTC_CRITERIA,
    DAC_INTENTS,
    IMCS_NER_TYPES,
    MDCFNPC_STATUSES,
    NO_SUCH_CLASS,
    QIC_INTENTS,
    QQR_RELATIONS,
    QTR_GRADES,
    SR_STATUSES,
)
from mingmoe_eval.records import AnyDoc

Family = Literal[
    "ner",
    "relations",
    "events",
    "normalisation",
    "status",
    "classification",
    "matching",
    "generation",
]
MainMetric = Literal["micro_f1", "macro_f1", "weighted_f1", "rouge_l"]

Item = dict[str, Any]
"""One entity, triple, event or finding: official key -> text, or list of texts (CHIP-CDEE)."""

Answer = list[Item] | dict[str, str] | str
"""Items of a structured task, sections of a report (IMCS-V2-MRG), or a label or reply.

Gold and prediction alike, as the official structured files have them.
"""

Choices = Sequence[str]
"""The options shown in the prompt; none for CHIP-CDEE, IMCS-V2-MRG and MedDG."""

BEYOND_THE_16 = ("Text2DT", "CMedCausal")
NO_STANDARD_TERM = "没有对应的标准化实体"
MRG_SECTIONS = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")
EVENT_KEYS = ("主体词", "发生状态", "描述词", "解剖部位")
STS_SYNONYMS = {"相同": "是的", "不同": "不是"}
"""One CHIP-STS template offers 相同/不同; the evaluator counts in 是的/不是."""


class Doc(AnyDoc):
    """What the `promptcblue` suite reads of a doc: a PromptCBLUE record."""

    input: str
    target: str
    answer_choices: list[str] | None
    task_dataset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CblueTask:
    """One of the 16 tasks.

    `default_label` replaces an empty class answer; `fallback_status` replaces a status that is not
    among the options; `legacy_*` are what the evaluator of May 2023 took, where it was another.
    `max_gen_toks` is room for all but one in 500 targets at two tokens a character.
    """

    name: str
    family: Family
    task_type: str
    metric: MainMetric
    max_gen_toks: int
    header: str = ""
    labels: tuple[str, ...] = ()
    default_label: str = ""
    fallback_status: str = ""
    legacy_default_label: str = ""
    legacy_fallback_status: str = ""

    @property
    def lm_eval_name(self) -> str:
        """The task's name for lm-eval and the command line."""
        return "promptcblue_" + self.name.lower().replace("-", "_")

    @property
    def score_key(self) -> str:
        """The key of the main metric in the official report.

        The four tasks scored by support-weighted F1 are reported under the name Micro-F1.
        """
        kind = {"rouge_l": "RougeL", "macro_f1": "Macro-F1"}.get(self.metric, "Micro-F1")
        return f"{self.name}-{kind}"


_ENTITY_HEADER = "上述句子中的实体包含："

TASKS: Mapping[str, CblueTask] = {
    task.name: task
    for task in (
        CblueTask(
            name="CMeEE-V2",
            family="ner",
            task_type="ner",
            metric="micro_f1",
            max_gen_toks=1024,
            header=_ENTITY_HEADER,
            labels=CMEEE_TYPES,
        ),
        CblueTask(
            name="CMeIE",
            family="relations",
            task_type="spo_generation",
            metric="micro_f1",
            max_gen_toks=1536,
            labels=CMEIE_RELATIONS,
        ),
        CblueTask(
            name="CHIP-CDN",
            family="normalisation",
            task_type="normalization",
            metric="micro_f1",
            max_gen_toks=256,
        ),
        CblueTask(
            name="CHIP-CDEE",
            family="events",
            task_type="event_extraction",
            metric="micro_f1",
            max_gen_toks=2048,
            header="上述句子中的临床发现事件如下：",
            labels=("", "否定", "不确定"),
        ),
        CblueTask(
            name="IMCS-V2-NER",
            family="ner",
            task_type="ner",
            metric="micro_f1",
            max_gen_toks=384,
            header=_ENTITY_HEADER,
            labels=IMCS_NER_TYPES,
        ),
        CblueTask(
            name="CHIP-MDCFNPC",
            family="status",
            task_type="attr_cls",
            metric="micro_f1",
            max_gen_toks=2048,
            header="上述对话中临床发现实体以及其阴阳性判别如下：",
            labels=MDCFNPC_STATUSES,
            # Never a label of the v0.2 data: a bad status is always a miss and a false positive.
            fallback_status="不标注",
            legacy_fallback_status=MDCFNPC_STATUSES[3],
        ),
        CblueTask(
            name="IMCS-V2-SR",
            family="status",
            task_type="attr_cls",
            metric="micro_f1",
            max_gen_toks=384,
            header="当前对话中的症状及其阴阳性判断为：",
            labels=SR_STATUSES,
            fallback_status=SR_STATUSES[2],
        ),
        CblueTask(
            name="IMCS-V2-DAC",
            family="classification",
            task_type="cls",
            metric="macro_f1",
            max_gen_toks=64,
            labels=DAC_INTENTS,
            default_label=NO_SUCH_CLASS,
        ),
        CblueTask(
            name="IMCS-V2-MRG",
            family="generation",
            task_type="report_generation",
            metric="rouge_l",
            max_gen_toks=1024,
            header="上述问诊对话的诊疗报告如下：",
        ),
        CblueTask(
            name="CHIP-CTC",
            family="classification",
            task_type="cls",
            metric="macro_f1",
            max_gen_toks=64,
            labels=CTC_CRITERIA,
            default_label=NO_SUCH_CLASS,
        ),
        CblueTask(
            name="CHIP-STS",
            family="classification",
            task_type="cls",
            metric="weighted_f1",
            max_gen_toks=64,
            labels=("是的", "不是"),
            default_label="是的",
        ),
        CblueTask(
            name="KUAKE-IR",
            family="matching",
            task_type="matching",
            metric="weighted_f1",
            max_gen_toks=64,
            labels=("相关", "不相关"),
            default_label="相关",
        ),
        CblueTask(
            name="KUAKE-QIC",
            family="classification",
            task_type="cls",
            metric="macro_f1",
            max_gen_toks=64,
            labels=QIC_INTENTS,
            default_label=NO_SUCH_CLASS,
        ),
        CblueTask(
            name="KUAKE-QQR",
            family="matching",
            task_type="matching",
            metric="weighted_f1",
            max_gen_toks=64,
            labels=QQR_RELATIONS,
            default_label="完全一致",
        ),
        CblueTask(
            name="KUAKE-QTR",
            family="matching",
            task_type="matching",
            metric="weighted_f1",
            max_gen_toks=64,
            labels=QTR_GRADES,
            default_label=QTR_GRADES[0],
            # Never a label of the data: there an empty answer is always wrong.
            legacy_default_label="完全不匹配",
        ),
        CblueTask(
            name="MedDG",
            family="generation",
            task_type="response_generation",
            metric="rouge_l",
            max_gen_toks=256,
        ),
    )
}
"""All 16 by official name, in the order of the official report."""

_ALIASES = {"CMeIE-V2": "CMeIE"}
"""The evaluator of August 2023 renamed the task; all v0.2 data keep the first name."""


def task_named(name: str) -> CblueTask:
    """The task of an official name or alias; UnknownTaskError for any other."""
    try:
        return TASKS[_ALIASES.get(name, name)]
    except KeyError:
        raise UnknownTaskError(name, TASKS) from None


def is_named(task: CblueTask, name: object) -> bool:
    """Whether a record's `task_dataset`, whatever it holds, is this task's name or alias."""
    return isinstance(name, str) and _ALIASES.get(name, name) == task.name
