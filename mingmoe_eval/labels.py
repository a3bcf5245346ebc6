"""What tasks and models are called on pages and in tables: their own names, ours, or the user's.

A user's names come from the run (`--labels`, or `labels:` in its file) or from the page's own
`--labels`; what nobody named is called by the name that its authors gave it, and a task that is
not known here keeps the name by which it is asked for.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mingmoe_eval.errors import UsageError
from mingmoe_eval.json_files import read_object, texts_by_name
from mingmoe_eval.records import Run
from mingmoe_eval.yaml_files import read_yaml


class Label(NamedTuple):
    """A name in English and in Chinese."""

    en: str
    zh: str


# Names are proper nouns, so that most are the same in both languages.
_TASKS: Mapping[str, str | tuple[str, str]] = {
    "exams": ("Licensing exams", "执业考试"),
    "reasoning2026": ("Hard exams", "高难度考试"),
    "usmle": ("MedQA US", "MedQA 美国"),
    "usmle_5opt": ("MedQA US, 5 options", "MedQA 美国，五选项"),
    "mcmle": ("MedQA China", "MedQA 中国"),
    "medmcqa_val": "MedMCQA",
    "pubmedqa_test": "PubMedQA",
    "cmb_exam": "CMB-Exam",
    "cmexam": "CMExam",
    "mmlu_med": ("MMLU medicine", "MMLU 医学"),
    "cmmlu_med": ("CMMLU medicine", "CMMLU 医学"),
    "cmmlu_ming": ("CMMLU medicine (MING's list)", "CMMLU 医学（MING 科目）"),
    "ceval_med": ("C-Eval medicine", "C-Eval 医学"),
    "ceval_ming": ("C-Eval medicine (MING's list)", "C-Eval 医学（MING 科目）"),
    "pharmacist2023": ("Pharmacist exam 2023", "2023 药师考试"),
    "pharmacist2023_pharmacy": ("Pharmacist 2023, pharmacy", "2023 药师，药学"),
    "pharmacist2023_tcm": ("Pharmacist 2023, TCM", "2023 药师，中药学"),
    "careqa_en": ("CareQA English", "CareQA 英语"),
    "careqa_es": ("CareQA Spanish", "CareQA 西班牙语"),
    "headqa_en": ("HeadQA English", "HeadQA 英语"),
    "headqa_es": ("HeadQA Spanish", "HeadQA 西班牙语"),
    "frenchmedmcqa": "FrenchMedMCQA",
    "gpqa_biology": ("GPQA biology", "GPQA 生物"),
    "igakuqa": "IgakuQA",
    **{f"igakuqa_{year}": f"IgakuQA {year}" for year in range(2018, 2023)},
    "jmle2026": "JMLE 2026",
    "jmle2026_text": ("JMLE 2026, without pictures", "JMLE 2026（无图题）"),
    "kormedmcqa": "KorMedMCQA",
    "kormedmcqa_doctor": ("KorMedMCQA doctor", "KorMedMCQA 医师"),
    "kormedmcqa_dentist": ("KorMedMCQA dentist", "KorMedMCQA 牙医"),
    "kormedmcqa_nurse": ("KorMedMCQA nurse", "KorMedMCQA 护士"),
    "kormedmcqa_pharm": ("KorMedMCQA pharmacist", "KorMedMCQA 药师"),
    "medbullets_op4": ("Medbullets, 4 options", "Medbullets，四选项"),
    "medbullets_op5": ("Medbullets, 5 options", "Medbullets，五选项"),
    "medxpertqa": "MedXpertQA",
    "mmlu_pro_health": ("MMLU-Pro health", "MMLU-Pro 健康"),
    "mmlu_pro_biology": ("MMLU-Pro biology", "MMLU-Pro 生物"),
    "supergpqa_medicine": ("SuperGPQA medicine", "SuperGPQA 医学"),
    "promptcblue": "PromptCBLUE",
    "promptcblue_classification": ("PromptCBLUE classification", "PromptCBLUE 分类"),
    "promptcblue_generation": ("PromptCBLUE generation", "PromptCBLUE 生成"),
    "promptcblue_matching": ("PromptCBLUE matching", "PromptCBLUE 匹配"),
    "promptcblue_ner": ("PromptCBLUE entities", "PromptCBLUE 实体"),
    "promptcblue_status": ("PromptCBLUE status", "PromptCBLUE 状态"),
    "promptcblue_cmeee_v2": "CMeEE-V2",
    "promptcblue_cmeie": "CMeIE",
    "promptcblue_meddg": "MedDG",
}
_FAMILIES = {"cmmlu_med_": "CMMLU", "mmlu_med_": "MMLU", "ceval_med_": "C-Eval"}
_SUBJECTS = {
    "agronomy": "农学",
    "anatomy": "解剖学",
    "basic_medicine": "基础医学",
    "clinical_knowledge": "临床知识",
    "clinical_medicine": "临床医学",
    "college_biology": "大学生物",
    "college_medicine": "大学医学",
    "genetics": "遗传学",
    "medical_genetics": "医学遗传学",
    "nutrition": "营养学",
    "physician": "医师资格",
    "professional_medicine": "专业医学",
    "traditional_chinese_medicine": "中医中药",
    "virology": "病毒学",
}
_FORMS = {"_cot": (", reasoning", "（先推理）"), "_ll": (", letters", "（选项概率）")}


@dataclass(frozen=True, slots=True)
class Labels:
    """What the user calls tasks and models, by the name that they have in runs and sources."""

    given: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_runs(cls, runs: Sequence[Run], given: Mapping[str, str] | None = None) -> "Labels":
        """What is given, then what the runs' own specs say, the first run's first."""
        names: dict[str, str] = {}
        for run in reversed(runs):
            names |= run.spec.labels
        return cls({**names, **(given or {})})

    def task(self, name: str) -> Label:
        """A task's name, or a group's."""
        if name in self.given:
            return Label(self.given[name], self.given[name])
        return _task(name)

    def model(self, *names: str) -> str:
        """What the user calls a model that goes by these names; the first of them by default."""
        return next((self.given[name] for name in names if name in self.given), names[0])


def read_labels(words: Iterable[str]) -> dict[str, str]:
    """What `--labels` was given, each time `NAME=TEXT,NAME=TEXT`, a JSON object or a file of one.

    Raises:
        UsageError: neither, or a file that is no mapping of names to texts.
    """
    found: dict[str, str] = {}
    for word in words:
        if word.startswith("{"):
            found |= texts_by_name(word, "--labels")
            continue
        if Path(word).is_file():
            found |= _from_file(Path(word))
            continue
        for pair in re.split(r",(?=[^,=]+=)", word):  # a text may hold a comma
            name, _, text = (part.strip() for part in pair.partition("="))
            if not name or not text:
                raise UsageError(
                    f"--labels {word!r} is neither NAME=TEXT nor a file of names (YAML or JSON)"
                )
            found[name] = text
    return found


def _from_file(path: Path) -> dict[str, str]:
    if path.suffix.lower() == ".json":
        data = read_object(path, UsageError)
    else:
        try:
            data = read_yaml(path)
        except ValueError as error:
            raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(data, Mapping) or not all(
        isinstance(name, str) and isinstance(text, str) for name, text in data.items()
    ):
        raise UsageError(f"{path} must hold lines of `name: what to call it`, and nothing else")
    return dict(data)


def _task(name: str) -> Label:
    for ending, (english, chinese) in _FORMS.items():
        known = _plain_task(name.removesuffix(ending)) if name.endswith(ending) else None
        if known:
            return Label(known.en + english, known.zh + chinese)
    return _plain_task(name) or Label(name, name)


def _plain_task(name: str) -> Label | None:
    """The name of a task in its direct form; None for one that is not known here."""
    if known := _TASKS.get(name):
        return Label(known, known) if isinstance(known, str) else Label(*known)
    for prefix, family in _FAMILIES.items():
        if name.startswith(prefix) and (subject := name.removeprefix(prefix)) in _SUBJECTS:
            return Label(f"{family} {subject.replace('_', ' ')}", f"{family} {_SUBJECTS[subject]}")
    if re.fullmatch(r"promptcblue_(chip|imcs_v2|kuake)_[a-z]+", name):
        official = name.removeprefix("promptcblue_").upper().replace("_", "-")
        return Label(official, official)
    return None
