"""What the adapter is taught: questions in the tasks' own prompt forms, each with its answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase

from mingmoe_eval.demo import medical_text
from mingmoe_eval.demo.medical_text import Relation
from mingmoe_eval.exams import prompts
from mingmoe_eval.promptcblue import catalogue
from mingmoe_eval.promptcblue.conversion.prompts import prompt_of
from mingmoe_eval.promptcblue.label_sets import NO_SUCH_CLASS
from mingmoe_eval.records import JsonDict


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt with its answer; `stem` is the part that is not common to many lessons."""

    subject: str
    stem: str
    prompt: str
    answer: str


def lessons(rng: Random) -> Iterator[Lesson]:
    """Lessons without end, a fixed mixture of subjects."""
    kinds: tuple[Callable[[Random], Lesson], ...] = tuple(kind for kind, _ in _MIXTURE)
    weights = [weight for _, weight in _MIXTURE]
    while True:
        (kind,) = rng.choices(kinds, weights=weights)
        yield kind(rng)


# --- exams ---------------------------------------------------------------------------------------

# Headers of CMMLU, drawn at random: the questions are not sorted by subject.
_SUBJECTS = ("anatomy", "genetics", "nutrition", "traditional_chinese_medicine", "virology")


def english_exam(rng: Random) -> Lesson:
    """An English question with lettered options."""
    doc = _question(rng, "en")
    form = rng.choice((prompts.english_letter, prompts.question_answer))
    return Lesson("english exam", doc["question"], form(doc), f" {doc['answer']}")


def chinese_exam(rng: Random) -> Lesson:
    """A Chinese question with lettered options."""
    doc = _question(rng, "zh")
    form = rng.choice((prompts.chinese_letter, prompts.cmmlu_letter))
    return Lesson("chinese exam", doc["question"], form(doc), doc["answer"])


def _question(rng: Random, language: str) -> JsonDict:
    """A doc as the exam tasks have it: one right option, the others from the same relation."""
    relation = rng.choice([r for r in medical_text.relations() if r.language == language])
    fact = rng.choice(relation.facts)
    others = [name for name in relation.objects if name != fact.object]
    options = [fact.object, *rng.sample(others, rng.choice((3, 3, 4)))]
    rng.shuffle(options)
    letters = ascii_uppercase[: len(options)]
    return {
        "question": _ask(relation, fact.subject, rng),
        "options": dict(zip(letters, options, strict=True)),
        "answer": letters[options.index(fact.object)],
        "single": rng.random() < 0.7,
        "question_type": "",
        "tags": {"subject": rng.choice(_SUBJECTS)},
    }


def _ask(relation: Relation, subject: str, rng: Random) -> str:
    text = rng.choice(relation.questions).format(
        s=subject,
        age=rng.randint(18, 80),
        days=rng.randint(2, 20),
        sex=rng.choice("男女"),
        person=rng.choice(("man", "woman")),
    )
    return text[0].upper() + text[1:]


# --- PromptCBLUE ---------------------------------------------------------------------------------


def intent(rng: Random) -> Lesson:
    """A search query and its intent (KUAKE-QIC)."""
    queries = medical_text.queries()
    label = rng.choice(list(queries.templates))
    text, _ = queries.fill(rng.choice(queries.templates[label]), rng)
    return _classified("KUAKE-QIC", text, label, rng)


def trial_criterion(rng: Random) -> Lesson:
    """A sentence of a trial's criteria and its class (CHIP-CTC)."""
    classes = medical_text.criteria()
    label = rng.choice(list(classes))
    text = medical_text.criterion(rng.choice(classes[label]), rng)
    return _classified("CHIP-CTC", text, label, rng)


def relevance(rng: Random) -> Lesson:
    """A search query and a page that is about the same thing, or is not (KUAKE-IR)."""
    queries = medical_text.queries()
    templates = queries.templates[rng.choice(list(queries.templates))]
    query, about = queries.fill(rng.choice(templates), rng)
    related = rng.random() < 0.5
    others = [name for names in queries.subjects.values() for name in names if name not in query]
    reply = rng.choice(queries.replies).format(x=about if related else rng.choice(others))
    prompt = prompt_of("KUAKE-IR", ["相关", "不相关"], text=query, other=reply)
    return Lesson("KUAKE-IR", f"{query}\n{reply}", prompt, "相关" if related else "不相关")


def _classified(task: str, text: str, label: str, rng: Random) -> Lesson:
    """A text with all classes to choose from, or some; when its own is not there: none of them."""
    labels = catalogue.task_named(task).labels
    if rng.random() < 0.5:
        return Lesson(task, text, prompt_of(task, labels, text=text), label)
    chosen = rng.sample([name for name in labels if name != NO_SUCH_CLASS], rng.randint(4, 10))
    if label not in (*chosen, NO_SUCH_CLASS) and rng.random() < 0.9:
        chosen[rng.randrange(len(chosen))] = label
    answer = label if label in chosen else NO_SUCH_CLASS
    return Lesson(task, text, prompt_of(task, chosen, text=text), answer)


_MIXTURE: tuple[tuple[Callable[[Random], Lesson], float], ...] = (
    (english_exam, 0.25),
    (chinese_exam, 0.3),
    (intent, 0.17),
    (trial_criterion, 0.14),
    (relevance, 0.14),
)
