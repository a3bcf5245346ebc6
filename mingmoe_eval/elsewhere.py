"""A run from answers that were made elsewhere: scored, saved and compared like one of ours."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mingmoe_eval import scoring
from mingmoe_eval.data_sources import Docs
from mingmoe_eval.errors import DataError, UsageError, offence_list
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.exams.fields import letter_of_text
from mingmoe_eval.exams.foreign_answers import (
    ForeignAnswer,
    answer_files,
    names_letters,
    read_answers,
    refuse_doubles,
)
from mingmoe_eval.exams.japanese_exams import number_asked_for, same_number
from mingmoe_eval.exams.loading import load
from mingmoe_eval.exams.records import folded_stem
from mingmoe_eval.metrics.choice_accuracy import exact_match, overlaps
from mingmoe_eval.provenance import environment, task_provenance
from mingmoe_eval.records import (
    JsonDict,
    RequestUsage,
    Response,
    Run,
    RunSpec,
    Sample,
    TaskSettings,
    fingerprint,
)
from mingmoe_eval.repeats import repeats_of
from mingmoe_eval.task_catalog import TaskCatalog, definition_facts, open_catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Which answers to score, and on what.

    Attributes:
        task: The task whose questions were asked; without data, any name will do.
        answers: The file.
        name: The run's name, and the model's.
        data_dir: Where the questions are; None and no `sample`: the file itself has the key.
        sample: The questions are those of the invented sample.
        split: Another part than the official one.
        partial: Questions without an answer are left out, and the run is marked.
        by: What is scored: the `reply`, as we read it, or the `letters` that were read elsewhere;
            None takes replies where the file has them.
        columns: By field, the file's column for it, where its name does not tell.
        include_path: Folders of tasks beside the bundled ones.
    """

    task: str
    answers: Path
    name: str
    data_dir: str | None = None
    sample: bool = False
    split: str | None = None
    partial: bool = False
    by: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    include_path: tuple[str, ...] = ()

    @property
    def plain_task(self) -> str:
        """The task's name without its form."""
        return self.task.removesuffix("_cot")


def score_elsewhere(wanted: Elsewhere) -> tuple[Run, tuple[str, ...]]:
    """A whole run from a file of answers, and what a user should know of how it was read.

    Raises:
        DataError: the answers are not those of the task's questions: by their text, their key, or
            how many there are. Every offence is named.
        UsageError: an option does not fit the file or the task.
    """
    catalog = open_catalog(wanted.include_path)
    wanted = replace(wanted, task=catalog.found(wanted.task) or wanted.task)
    exam = _exam_of(wanted, catalog)
    answers = read_answers(wanted.answers, wanted.columns)
    refuse_doubles(answers, wanted.answers)
    at_hand = exam is not None and exam.part(wanted.split).file is not None
    with_data = wanted.data_dir is not None or wanted.sample or at_hand
    by = _what_is_scored(wanted, answers, with_data=with_data)
    settings = _settings(wanted.task, catalog)
    docs = _docs(wanted, exam, catalog) if with_data else _docs_of_file(wanted, exam, answers)
    paired = _pair(docs, answers, wanted) if with_data else list(zip(docs, answers, strict=True))
    samples = scoring.distinct_ids(
        [
            _sample(wanted.task, position, doc, draw, settings, by, repeat)
            for position, (doc, answer) in enumerate(paired)
            for repeat, draw in enumerate(_draws(answer, by))
        ]
    )
    unread = _unread(samples, [answer for _, answer in paired]) if by == "letters" else []
    if unread and not any(sample.answered for sample in samples):
        raise DataError(
            offence_list(
                f"{wanted.answers}: no answer is made of letters, or the text of an option; "
                "--columns letters=NAME names another column",
                unread,
            )
        )
    definition = catalog.definitions.get(wanted.task)
    known = definition_facts(definition) if definition else {}
    run = _run(wanted, settings, docs, samples, answers, known, missing=len(docs) - len(paired))
    notes = list(_notes(samples, [answer for _, answer in paired], by))
    if unread:
        notes.append(
            f"{len(unread):,} answers are neither letters nor the text of an option ({unread[0]}"
            f"{', ...' if unread[1:] else ''}): they count as unanswered"
        )
    return run, tuple(notes)


def _draws(answer: ForeignAnswer, by: str) -> list[ForeignAnswer]:
    """An answer once for each of its replies; what they cost together stands with the first."""
    more = answer.more_replies if by == "reply" else ()
    plain = replace(answer, more_replies=(), prompt_tokens=0, generated_tokens=0)
    return [answer, *(replace(plain, reply=reply) for reply in more)]


def _what_is_scored(
    wanted: Elsewhere, answers: Sequence[ForeignAnswer], *, with_data: bool
) -> Literal["reply", "letters"]:
    """A reply is read with the options before one's eyes: without data there are letters alone."""
    has_replies = any(answer.reply is not None for answer in answers)
    has_letters = any(answer.letters is not None for answer in answers)
    if wanted.by not in (None, "reply", "letters"):
        raise UsageError(f"--by {wanted.by!r} is neither reply nor letters")
    if wanted.by == "letters" or (wanted.by is None and not (with_data and has_replies)):
        if not has_letters:
            raise UsageError(
                f"{wanted.answers} holds replies, and no letters that were read from them: name "
                "the data with --data-dir, so that they can be read here"
            )
        return "letters"
    if not (with_data and has_replies):
        lacks = "no --data-dir is given" if has_replies else "the file has no replies"
        raise UsageError(f"--by reply reads replies beside the question's options, and {lacks}")
    return "reply"


def _exam_of(wanted: Elsewhere, catalog: TaskCatalog) -> Benchmark | None:
    """The facts of the exam, of ours or of an entry that makes its tasks; None: nobody knows it."""
    definition = catalog.definitions.get(wanted.task)
    made = definition.benchmark if definition else None
    return made or benchmarks().get(wanted.plain_task)


def _settings(task: str, catalog: TaskCatalog) -> TaskSettings:
    definition = catalog.definitions.get(task)
    if definition is None:
        return TaskSettings(suite="choice", form="direct")
    if definition.is_group or definition.settings.suite != "choice":
        raise UsageError(f"--task {task}: name one exam, not a group (`mingmoe-eval tasks`)")
    if definition.settings.form == "letters":
        plain = task.removesuffix("_ll")
        raise UsageError(f"--task {task} compares log-likelihoods; answers belong to {plain}")
    return definition.settings


def _docs(wanted: Elsewhere, exam: Benchmark | None, catalog: TaskCatalog) -> Docs:
    if exam is None:
        if catalog.meant_by(wanted.task):
            raise catalog.unknown(wanted.task)
        raise UsageError(
            f"--task {wanted.task}: not an exam of ours, so there are no questions to look up; "
            "leave --data-dir and --sample out and let the file bring its key"
        )
    place: dict[str, Any] = {"data_dir": wanted.data_dir, "sample": wanted.sample}
    return load(benchmark=exam, split=wanted.split, **place)["test"]


def _docs_of_file(
    wanted: Elsewhere, exam: Benchmark | None, answers: Sequence[ForeignAnswer]
) -> Docs:
    """Docs that hold what the file says of its questions: no options, so no reply can be read."""
    if keyless := [f"record {a.number}" for a in answers if not a.key]:
        raise DataError(
            offence_list(
                f"{wanted.answers} has no key for each question; name the data with --data-dir, "
                "or the key's column with --columns key=NAME",
                keyless,
            )
        )
    docs: list[dict[str, Any]] = [
        {
            "id": fingerprint([answer.id, answer.question]),
            "question": answer.question or "",
            "options": {},
            "answer": answer.key,
            "single": len(answer.key or "") == 1 or not names_letters(answer.key or ""),
            "question_type": "",
            "context": "",
            "tags": {},
            "cluster": None,
            **({"question_id": answer.id} if answer.id else {}),
        }
        for answer in answers
    ]
    rows = exam.part(wanted.split).rows if exam else None
    differs = rows is not None and rows != len(docs)
    mark = f"{len(docs):,} rows, where the official part has {rows:,}" if differs else ""
    return Docs(
        docs,
        notes=["questions and keys are the answer file's own: nobody compared them with the exam"],
        marks=[mark] if mark else [],
    )


def _pair(
    docs: Docs, answers: Sequence[ForeignAnswer], wanted: Elsewhere
) -> list[tuple[dict[str, Any], ForeignAnswer]]:
    """Each question with its answer.

    By the question's own id where both sides have one, else by its text where the file has it, else
    by order: only where there are as many answers as questions, none of which was left out.
    """
    if _share_ids(docs, answers):
        pairs = _pair_by_id(docs, answers, wanted)
    elif all(answer.question for answer in answers):
        pairs = _pair_by_text(docs, answers, wanted)
    elif len(docs) == len(answers) and not docs.unusable:
        pairs = list(zip(docs, answers, strict=True))
    else:
        raise DataError(
            f"{wanted.answers} holds {len(answers):,} answers without the questions' text, and "
            f"there are {len(docs):,} questions: they cannot be told to belong together. Name "
            "the column of the text with --columns question=NAME"
        )
    contradicted = [
        f"record {answer.number}: the key is {answer.key} there and {doc['answer']} here"
        for doc, answer in pairs
        if answer.key and not _is_key(doc, answer.key)
    ]
    if contradicted:
        raise DataError(
            offence_list(f"{wanted.answers} has other keys than {wanted.task}", contradicted)
        )
    return pairs


def _is_key(doc: Mapping[str, Any], key: str) -> bool:
    """Whether a file's key is a question's; that of a calculation may be its digits alone."""
    if doc["options"]:
        return bool(_in_letters(doc, key) == doc["answer"])
    number = number_asked_for(doc["question"], key)
    return number is not None and same_number(number, doc["answer"])


def _in_letters(doc: Mapping[str, Any], answer: str) -> str | None:
    """An answer as letters, for which the text of an option may stand; None where it is neither."""
    if not doc["options"]:
        return answer or None
    letters = answer if names_letters(answer) else None
    if letters and set(letters) <= doc["options"].keys():
        return letters
    return letter_of_text(answer, doc["options"]) or letters


def _share_ids(docs: Docs, answers: Sequence[ForeignAnswer]) -> bool:
    """Whether both sides say of every question what the exam itself calls it."""
    names = [doc.get("question_id") for doc in docs]
    told = {answer.id for answer in answers}
    return None not in {*names, *told} and len(set(names)) == len(names) and bool(told & {*names})


def _pair_by_id(
    docs: Docs, answers: Sequence[ForeignAnswer], wanted: Elsewhere
) -> list[tuple[dict[str, Any], ForeignAnswer]]:
    by_id = {str(answer.id): answer for answer in answers}
    pairs = [(doc, by_id[doc["question_id"]]) for doc in docs if doc["question_id"] in by_id]
    here = {doc["question_id"] for doc in docs}
    missing = [doc["question_id"] for doc in docs if doc["question_id"] not in by_id]
    strangers = [name for name in by_id if name not in here]
    _refuse_others(missing, strangers, docs, wanted)
    return pairs


def _pair_by_text(
    docs: Docs, answers: Sequence[ForeignAnswer], wanted: Elsewhere
) -> list[tuple[dict[str, Any], ForeignAnswer]]:
    """Files often hold only the beginning of a question, or a prompt around it."""
    stems = [folded_stem(doc["question"]) for doc in docs]
    places = _places_of(stems, [folded_stem(answer.question or "") for answer in answers])
    pairs = [(docs[n], answers[at]) for n, at in enumerate(places) if at is not None]
    missing = [docs[n]["question"][:60] for n, at in enumerate(places) if at is None]
    taken = set(places)
    strangers = [f"record {one.number}" for at, one in enumerate(answers) if at not in taken]
    _refuse_others(missing, strangers, docs, wanted)
    if not pairs:
        raise DataError(f"{wanted.answers} answers none of the questions of {wanted.task}")
    return pairs


def _places_of(stems: Sequence[str], texts: Sequence[str]) -> list[int | None]:
    """The place of each stem's text, each text once; None where it has none.

    One question may begin as another does, or have it within: equal texts find each other first,
    then prompts the longest question that they hold, then beginnings the first question of theirs.
    """
    found: list[int | None] = [None] * len(stems)
    free = dict.fromkeys(range(len(texts)))
    equal: dict[str, deque[int]] = {}
    for at, text in enumerate(texts):
        equal.setdefault(text, deque()).append(at)
    for place, stem in enumerate(stems):
        if stem and equal.get(stem):
            found[place] = at = equal[stem].popleft()
            del free[at]

    def take(places: Iterable[int], fits: Callable[[str, str], bool]) -> None:
        for place in places:
            if found[place] is None:
                # Most files are in the order of the questions.
                first = [place] if place in free else []
                at = next((at for at in (*first, *free) if fits(texts[at], stems[place])), None)
                if at is not None:
                    found[place] = at
                    del free[at]

    take(sorted(range(len(stems)), key=lambda place: -len(stems[place])), _holds)
    take(range(len(stems)), _begins)
    return found


def _begins(text: str, stem: str) -> bool:
    return bool(text) and stem.startswith(text)


def _holds(text: str, stem: str) -> bool:
    # A stem of a few words ("Which of these?") stands in many prompts.
    return len(stem) >= 12 and stem in text


def _refuse_others(
    missing: Sequence[str], strangers: Sequence[str], docs: Docs, wanted: Elsewhere
) -> None:
    """Refuse answers to other questions, and questions without an answer; --partial takes both."""
    if wanted.partial:
        return
    if missing:
        raise DataError(
            offence_list(
                f"{wanted.answers} has no answer to {len(missing)} of {len(docs)} questions; "
                "--partial scores the others, and marks the run",
                missing,
            )
        )
    if strangers:
        raise DataError(
            offence_list(
                f"{wanted.answers} answers questions that are not here; --partial passes over them",
                strangers,
            )
        )


def _sample(
    task: str,
    position: int,
    doc: Mapping[str, Any],
    answer: ForeignAnswer,
    settings: TaskSettings,
    by: str,
    repeat: int,
) -> Sample:
    usage = RequestUsage(
        prompt_tokens=answer.prompt_tokens, generated_tokens=answer.generated_tokens
    )
    response = Response(text=answer.reply, usage=(usage,))
    if by == "reply":
        return scoring.make_sample(task, position, doc, "", response, settings, repeat)
    letters = _in_letters(doc, answer.letters or "")
    right = _is_right(letters, str(doc["answer"]))
    return Sample(
        task=task,
        doc_id=fingerprint(doc),
        position=position,
        doc=doc,
        prompt="",
        expected=str(doc["answer"]),
        response=answer.reply,
        answered=letters,
        reading="as read elsewhere",
        score=float(right),
        status="unanswered" if letters is None else "scored",
        counts={"overlap": float(overlaps(letters, str(doc["answer"])))},
        tags=doc["tags"],
        cluster=doc["cluster"],
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
    )


def _is_right(answered: str | None, key: str) -> bool:
    """The same set of letters; a number or another text is right as it stands alone."""
    if names_letters(key):
        return exact_match(answered, key)
    return answered is not None and answered.casefold() == key.casefold()


def _run(
    wanted: Elsewhere,
    settings: TaskSettings,
    docs: Docs,
    samples: Sequence[Sample],
    answers: Sequence[ForeignAnswer],
    known: JsonDict,
    *,
    missing: int,
) -> Run:
    left_out = [f"{missing} of {len(docs)} questions have no answer"] if missing else []
    result = scoring.fold_task(
        wanted.task,
        samples,
        settings,
        unusable=len(docs.unusable),
        notes=docs.notes,
        marks=(*docs.marks, *left_out),
        seconds=sum(answer.seconds for answer in answers),
    )
    spec = RunSpec(
        model=wanted.name,
        tasks=(wanted.task,),
        data_dir=wanted.data_dir,
        sample=wanted.sample,
        split=wanted.split,
        include_path=wanted.include_path,
        repeats=repeats_of(samples),
    )
    data = b"".join(file.read_bytes() for file in answer_files(wanted.answers))
    model = {
        "kind": "answers made elsewhere",
        "file": wanted.answers.name,
        "fingerprint": hashlib.sha256(data).hexdigest(),
    }
    return Run(
        name=wanted.name,
        spec=spec,
        provenance={
            **environment(),
            "model": model,
            "tasks": {wanted.task: {**task_provenance(docs, samples, settings), **known}},
        },
        results={wanted.task: result},
        samples={wanted.task: samples},
        timing={
            "seconds": sum(answer.seconds for answer in answers),
            "requests": len(answers),
            "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
            "generated_tokens": sum(answer.generated_tokens for answer in answers),
        },
    )


def _unread(samples: Sequence[Sample], paired: Sequence[ForeignAnswer]) -> list[str]:
    """Answers that the file has and that name no option."""
    return [
        f"record {answer.number}: {answer.letters!r}"
        for sample, answer in zip(samples, paired, strict=True)
        if answer.letters and sample.answered is None
    ]


def _notes(samples: Sequence[Sample], paired: Sequence[ForeignAnswer], by: str) -> Iterator[str]:
    yield f"{sum(s.score == 1.0 for s in samples):,} of {len(samples):,} right, by their {by}"
    if by == "reply" and any(answer.letters is not None for answer in paired):
        others = sum(
            sample.answered != _in_letters(sample.doc, answer.letters or "")
            for sample, answer in zip((s for s in samples if not s.repeat), paired, strict=True)
        )
        yield f"{others:,} replies are read otherwise here than in the file"
