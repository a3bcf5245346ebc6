"""What the adapter is taught: questions in the tasks' own prompt forms, each with its answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase

from mingmoe_eval.cblue_conversion.examples import prompt_of
from mingmoe_eval.exams import prompts
from mingmoe_eval.promptcblue import catalogue
from mingmoe_eval.records import JsonDict
from tools.demo_checkpoints import medical_text
from tools.demo_checkpoints.medical_text import Relation


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
    labels = catalogue.task_named("KUAKE-QIC").labels
    return Lesson("KUAKE-QIC", text, prompt_of("KUAKE-QIC", labels, text=text), label)


# Mostly one subject: so small a model learns a second one only after many more steps.
_MIXTURE: tuple[tuple[Callable[[Random], Lesson], float], ...] = (
    (english_exam, 0.1),
    (chinese_exam, 0.1),
    (intent, 0.8),
)
