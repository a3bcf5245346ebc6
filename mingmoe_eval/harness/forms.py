"""lm-eval's config of a task that no YAML defines: a file of questions, or an entry's own tasks.

Both are asked as our own exams are, from the same YAMLs (`tasks/exams/_direct.yaml` and the like);
an entry's own prompt replaces the wording.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mingmoe_eval.exams import prompts
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.loading import exam_beside, load, load_exam_file
from mingmoe_eval.harness import lm_eval_door
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.suites.conversion import prompt_of
from mingmoe_eval.suites.form import FormName
from mingmoe_eval.suites.templates import rendered
from mingmoe_eval.task_definitions import TaskDefinition

Doc = Mapping[str, Any]

_EXAM_FILES: Mapping[FormName, str] = {
    "direct": "_direct.yaml",
    "letters": "_letters.yaml",
    "cot": "_cot.yaml",
}
_CHINESE: Mapping[FormName, Callable[[Doc], str]] = {
    "direct": prompts.chinese_letter,
    "letters": prompts.chinese_question,
    "cot": prompts.chinese_reasoning,
}
_ENGLISH: Mapping[FormName, Callable[[Doc], str]] = {
    "direct": prompts.english_letters,
    "letters": prompts.question_answer,
    "cot": prompts.english_reasoning,
}
# Room for a reply in the plain form: a number is worked out, tuples are many, a label is short.
_ROOM = {"number": 1024, "labels": 64, "tuples": 1024, "text": 512}
_ROOM_FOR_REASONING = 1024


def config_of(definition: TaskDefinition) -> dict[str, Any]:
    """What lm-eval makes a task of, for a definition that is no YAML of its."""
    form: Any = definition.settings.form or "direct"
    if definition.exam is not None:
        load_docs: Any = functools.partial(load_exam_file, definition.exam)
        config = _exam(form, definition.settings.language, "")
    else:
        entry = definition.benchmark
        assert entry is not None  # else a YAML defines it
        load_docs = functools.partial(load, benchmark=entry, form=form)
        own = entry.prompt_of(form)
        config = (
            _exam(form, _language(entry), own)
            if entry.suite == "choice"
            else _of_records(entry, form, own)
        )
        if entry.max_gen_toks is not None and form == "direct":
            arguments = config["generation_kwargs"]
            config["generation_kwargs"] = {**arguments, "max_gen_toks": entry.max_gen_toks}
        config["num_fewshot"] = entry.num_fewshot
    return {**config, "task": definition.name, "custom_dataset": load_docs, "metadata": {}}


def _language(entry: Benchmark) -> str:
    """The language of an exam's wording: as its entry says, else as its file is written."""
    file = entry.part(None).file
    if entry.language or file is None:
        return entry.language or ""
    return exam_beside(entry, Path(file)).language


def _exam(form: FormName, language: str, own: str) -> dict[str, Any]:
    config = lm_eval_door.read_yaml(tasks_dir() / "exams" / _EXAM_FILES[form])
    chinese = language == "zh"
    config["doc_to_text"] = (
        functools.partial(_exam_prompt, own) if own else (_CHINESE if chinese else _ENGLISH)[form]
    )
    if form == "cot":
        conclusion = prompts.chinese_conclusion if chinese else prompts.english_conclusion
        config["fewshot_config"] = {"sampler": "first_n", "doc_to_target": conclusion}
    elif chinese:
        config["target_delimiter"] = ""  # " A" and "A" are different tokens
    return config


def _exam_prompt(template: str, doc: Doc) -> str:
    """An exam's question in the user's own words."""
    shown = {
        **doc["tags"],
        "question": doc["question"],
        "options": prompts.option_lines(doc),
        "context": doc.get("context") or "",
        "type": doc.get("question_type") or "",
        "letters": ", ".join(prompts.letters(doc)),
    }
    return rendered(template, shown)


def _of_records(entry: Benchmark, form: FormName, own: str) -> dict[str, Any]:
    return {
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "generate_until",
        "doc_to_text": functools.partial(prompt_of, own),
        "doc_to_target": _answer,
        "target_delimiter": "\n",
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "max_gen_toks": _ROOM_FOR_REASONING if form == "cot" else _ROOM[entry.suite],
        },
        # lm-eval wants one; the suite scores.
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _answer(doc: Doc) -> str:
    return str(doc["answer"])
