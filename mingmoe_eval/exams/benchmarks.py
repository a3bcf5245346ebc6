"""The exam data sets: where each lives, how big its official parts are, what it tells a candidate.

Folders, file names and counts after the data sets' own repositories and hub pages; each folder of
`tasks/` has a README with the sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mingmoe_eval.errors import UsageError
from mingmoe_eval.exams.fields import Declares
from mingmoe_eval.hub import HubSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One split: its file names without suffix, official number of rows, and place on the hub."""

    stems: tuple[str, ...]
    rows: int | None = None
    hub: HubSet | None = None
    sample: str | None = None
    """The invented records that stand in with --sample, below `tasks/`."""
    key_stems: tuple[str, ...] = ()
    """Files that hold the key apart from the questions, joined by `id`."""
    key_field: str = "answer"
    key_selects: bool = False
    """The part is made of the questions that its key names; the file holds others too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One exam as a leaf task sees it.

    Attributes:
        name: The leaf task's name.
        folders: Its folder below --data-dir, then what third parties call it.
        parts: Its splits by name; the first is the one that is tested by default.
        shots: Where worked examples come from.
        declares: What the exam says about the number of right options.
        most_options: More options than this mean that a file is another data set's.
        tags: Tags of every question.
        tag_fields: Tag by field of the record.
        subject: Rows that name another subject are left out.
        sources: What files that hold several exams call this one, in a row's `source`.
        needs_context: A question without its text is not this benchmark's question.
        transcribed: The papers were copied by hand: look for the faults that this brings.
        header: Column names of CSV files that come without any.
        keyless: What to do about records without a key.
    """

    name: str
    folders: tuple[str, ...]
    parts: Mapping[str, Part]
    shots: Part | None = None
    declares: Declares = "one right option"
    most_options: int | None = 4
    tags: Mapping[str, str] = field(default_factory=dict)
    tag_fields: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None
    sources: tuple[str, ...] = ()
    needs_context: bool = False
    transcribed: bool = False
    header: tuple[str, ...] = ()
    keyless: str = "Use a part whose key is public, or add the key to the records"

    def part(self, split: str | None) -> Part:
        """The split that is asked for, or the one that is tested by default.

        Raises:
            UsageError: there is no such split; the message lists those there are.
        """
        if split is None:
            return next(iter(self.parts.values()))
        if split not in self.parts:
            raise UsageError(f"{self.name} has no split {split!r}; it has {', '.join(self.parts)}")
        return self.parts[split]


def _medqa() -> list[Benchmark]:
    usmle = {"step": "meta_info"}
    return [
        Benchmark(
            name="usmle",
            sources=("medqa-usmle", "usmle"),
            folders=("medqa_usmle_4opt", "GBaker/MedQA-USMLE-4-options", "MedQA-USMLE-4-options"),
            parts={
                "test": Part(
                    stems=("test", "phrases_no_exclude_test"),
                    rows=1273,
                    hub=HubSet(id="GBaker/MedQA-USMLE-4-options", split="test"),
                    sample="medqa/sample_usmle.jsonl",
                ),
                **_validation(Part(stems=("dev", "val", "phrases_no_exclude_dev"), rows=1272)),
            },
            shots=Part(stems=("dev", "val", "phrases_no_exclude_dev")),
            tag_fields=usmle,
        ),
        Benchmark(
            name="usmle_5opt",
            sources=("medqa-usmle", "usmle"),
            folders=("medqa_usmle_5opt", "data_clean/questions/US"),
            parts={
                "test": Part(
                    stems=("test",),
                    rows=1273,
                    hub=HubSet(id="fzkuji/MedQA", config="med_qa_en_source", split="test"),
                    sample="medqa/sample_usmle_5opt.jsonl",
                ),
                **_validation(Part(stems=("dev", "val"), rows=1272)),
            },
            shots=Part(stems=("dev", "val")),
            most_options=5,
            tag_fields=usmle,
        ),
        Benchmark(
            name="mcmle",
            sources=("medqa-mcmle", "mcmle"),
            folders=("medqa_mcmle", "data_clean/questions/Mainland/4_options"),
            parts={
                "test": Part(
                    stems=("test",),
                    rows=3426,
                    hub=HubSet(id="fzkuji/MedQA", config="med_qa_zh_4options_source", split="test"),
                    sample="medqa/sample_mcmle.jsonl",
                ),
                **_validation(Part(stems=("dev", "val"), rows=3425)),
            },
            shots=Part(stems=("dev", "val")),
        ),
    ]


def _validation(part: Part) -> dict[str, Part]:
    """Data sets call it validation, val or dev; all of them are understood."""
    return {"val": part, "validation": part, "dev": part}


def _medmcqa() -> Benchmark:
    part = Part(
        stems=("dev", "validation", "data/validation-*", "validation-*"),
        rows=4183,
        hub=HubSet(id="openlifescienceai/medmcqa", split="validation"),
        sample="medmcqa/sample.jsonl",
    )
    return Benchmark(
        name="medmcqa_val",
        sources=("medmcqa",),
        folders=("medmcqa", "openlifescienceai/medmcqa"),
        parts=_validation(part),
        # choice_type "multi" does not mean several right options: every question has one.
        tag_fields={"subject": "subject_name"},
        keyless="The labels of MedMCQA's test part are withheld; use its validation part",
    )


def _pubmedqa() -> Benchmark:
    part = Part(
        stems=(
            "test",
            "pqal_test",
            "test_set",
            "data/test_set",
            "ori_pqal",
            "data/ori_pqal",
            "pqa_labeled/train-*",
        ),
        rows=500,
        sample="pubmedqa/sample.jsonl",
        key_stems=("test_ground_truth", "data/test_ground_truth"),
        key_field="final_decision",
        key_selects=True,
    )
    return Benchmark(
        name="pubmedqa_test",
        sources=("pubmedqa",),
        folders=("pubmedqa", "qiaojin/PubMedQA", "PubMedQA"),
        parts={"test": part},
        most_options=3,
        needs_context=True,
    )


_MMLU_ROWS = {
    "anatomy": 135,
    "clinical_knowledge": 265,
    "college_biology": 144,
    "college_medicine": 173,
    "medical_genetics": 100,
    "professional_medicine": 272,
}
# Authors choose their medical subjects: Apollo's seven have anatomy (1,333 questions), those of the
# MING and HuatuoGPT families agronomy in its place (1,354). Groups in tasks/ put either together.
_CMMLU_ROWS = {
    "agronomy": 169,
    "anatomy": 148,
    "clinical_knowledge": 237,
    "college_medicine": 273,
    "genetics": 176,
    "nutrition": 145,
    "traditional_chinese_medicine": 185,
    "virology": 169,
}
_CEVAL_ROWS = {"basic_medicine": 19, "clinical_medicine": 22, "physician": 49}


def _mmlu(subject: str, rows: int) -> Benchmark:
    return Benchmark(
        name=f"mmlu_med_{subject}",
        sources=("mmlu-medical", "mmlu"),
        folders=("mmlu_med", "mmlu", "cais/mmlu"),
        parts={"test": _subject_part("mmlu_med", "cais/mmlu", subject, "test", rows)},
        shots=_subject_part("mmlu_med", "cais/mmlu", subject, "dev", 5),
        subject=subject,
        tags={"subject": subject},
        # The original archive's CSV files have no header.
        header=("question", "A", "B", "C", "D", "answer"),
    )


def _cmmlu(subject: str, rows: int) -> Benchmark:
    return Benchmark(
        name=f"cmmlu_med_{subject}",
        sources=("cmmlu-medical", "cmmlu"),
        folders=("cmmlu_med", "cmmlu", "haonan-li/cmmlu", "CMMLU", "haonan-li/CMMLU"),
        parts={"test": _subject_part("cmmlu_med", "haonan-li/cmmlu", subject, "test", rows)},
        shots=_subject_part("cmmlu_med", "haonan-li/cmmlu", subject, "dev", 5),
        subject=subject,
        tags={"subject": subject},
    )


def _ceval(subject: str, rows: int) -> Benchmark:
    return Benchmark(
        name=f"ceval_med_{subject}",
        sources=("ceval-medical", "ceval"),
        folders=("ceval_med", "ceval", "ceval/ceval-exam"),
        parts={
            "val": _subject_part("ceval_med", "ceval/ceval-exam", subject, "val", rows),
            "test": _subject_part("ceval_med", "ceval/ceval-exam", subject, "test", None),
        },
        shots=_subject_part("ceval_med", "ceval/ceval-exam", subject, "dev", 5),
        subject=subject,
        tags={"subject": subject},
        keyless="The labels of C-Eval's test part are withheld; use its val part",
    )


def _subject_part(folder: str, hub: str, subject: str, split: str, rows: int | None) -> Part:
    stems = (f"{subject}.{split}", f"{subject}_{split}", f"{split}/{subject}_{split}")
    return Part(
        stems=(
            *stems,
            f"{split}/{subject}",
            f"data/{split}/{subject}_{split}",
            f"data/{split}/{subject}",
            f"{subject}/{split}-*",
        ),
        rows=rows,
        hub=HubSet(id=hub, config=subject, split=split),
        sample=f"{folder}/sample_dev.jsonl" if split == "dev" else f"{folder}/sample.jsonl",
    )


def _cmexam() -> Benchmark:
    validation = Part(stems=("val", "data/val", "valid"), rows=6811)
    return Benchmark(
        name="cmexam",
        sources=("cmexam",),
        folders=("cmexam", "CMExam", "fzkuji/CMExam"),
        parts={
            "test": Part(
                stems=("test_with_annotations", "data/test_with_annotations", "test"),
                rows=6811,
                hub=HubSet(id="fzkuji/CMExam", split="test"),
                sample="cmexam/sample.jsonl",
            ),
            **_validation(validation),
        },
        shots=Part(stems=validation.stems, sample="cmexam/sample_dev.jsonl"),
        declares="nothing",
        most_options=None,
        tag_fields={
            "department": "Clinical Department",
            "discipline": "Medical Discipline",
            "competency": "Area of Competency",
            "disease_group": "Disease Group",
            "difficulty": "Difficulty level",
        },
    )


def _cmb_exam() -> Benchmark:
    validation = Part(
        stems=("CMB-val-merge", "val", "val_reshaped", "CMB-Exam/CMB-val/CMB-val-merge"),
        rows=280,
        hub=HubSet(
            id="FreedomIntelligence/CMB", split="train", files="CMB-Exam/CMB-val/CMB-val-merge.json"
        ),
        sample="cmb_exam/sample_dev.jsonl",
    )
    return Benchmark(
        name="cmb_exam",
        sources=("cmb", "cmb-single", "cmb-multiple", "cmb-exam"),
        folders=("cmb_exam", "CMB", "FreedomIntelligence/CMB"),
        parts={
            "test": Part(
                stems=(
                    "CMB-test-choice-question-merge",
                    "test",
                    "CMB-Exam/CMB-test/CMB-test-choice-question-merge",
                ),
                rows=11200,
                sample="cmb_exam/sample.jsonl",
                key_stems=(
                    "test_answer_key",
                    "CMB-test-choice-answer",
                    "data/CMB-test-choice-answer",
                ),
            ),
            **_validation(validation),
        },
        shots=validation,
        declares="by question type",
        most_options=None,
        tag_fields={"exam_type": "exam_type", "exam_class": "exam_class"},
        keyless=(
            "CMB's test questions come without their key: put CMB-test-choice-answer.json, from "
            "the data folder of its GitHub repository, beside them, or use --split val"
        ),
    )


def _pharmacist(track: str, hub_name: str) -> Benchmark:
    paper = f"2023_Pharmacist_Licensure_Examination-{hub_name}_track"
    return Benchmark(
        name=f"pharmacist2023_{track}",
        folders=("pharmacist2023", f"FreedomIntelligence/{paper}", paper),
        parts={
            "test": Part(
                stems=(
                    track,
                    f"2023_Pharmacist_Licensure_Examination_({hub_name}_track)",
                    f"2023_Pharmacist_Licensure_Examination_%28{hub_name}_track%29",
                    paper,
                ),
                rows=480,
                hub=HubSet(id=f"FreedomIntelligence/{paper}", split="train"),
                sample=f"pharmacist2023/sample_{track}.jsonl",
            )
        },
        declares="by question type",
        most_options=5,
        tags={"track": track},
        transcribed=True,
    )


_ALL = (
    *_medqa(),
    _medmcqa(),
    _pubmedqa(),
    *(_mmlu(*item) for item in _MMLU_ROWS.items()),
    *(_cmmlu(*item) for item in _CMMLU_ROWS.items()),
    *(_ceval(*item) for item in _CEVAL_ROWS.items()),
    _cmexam(),
    _cmb_exam(),
    _pharmacist("pharmacy", "Pharmacy"),
    _pharmacist("tcm", "TCM"),
)

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({b.name: b for b in _ALL})
"""Every exam benchmark by name."""
