"""What the base model reads: sentences that state facts, and prose about queries and criteria.

No line here has the form of a task: no lettered options, no list of classes.
"""

from collections.abc import Callable, Iterator
from random import Random

from mingmoe_eval.demo import medical_text
from mingmoe_eval.demo.medical_text import LANGUAGES, Relation


def passages(rng: Random) -> Iterator[str]:
    """Short passages without end."""
    kinds: tuple[Callable[[Random], str], ...] = (_stated, _chosen, _query, _criterion, _page)
    while True:
        (kind,) = rng.choices(kinds, weights=(4, 10, 2, 3, 1))
        yield kind(rng)


def _stated(rng: Random) -> str:
    """Two statements of a relation."""
    relation = _relation(rng)
    return _join(relation, [_statement(relation, rng) for _ in range(2)])


def _chosen(rng: Random) -> str:
    """A few candidates, then the right one among them, in a sentence."""
    relation = _relation(rng)
    fact = rng.choice(relation.facts)
    others = [name for name in relation.objects if name != fact.object]
    candidates = [*rng.sample(others, rng.randint(2, 4)), fact.object]
    rng.shuffle(candidates)
    if relation.language == "zh":
        return f"说到{fact.subject}，有{'、'.join(candidates)}这几样，对的是{fact.object}。"
    return f"For {fact.subject}, of {', '.join(candidates)}, the right one is {fact.object}."


def _query(rng: Random) -> str:
    """A query, and in plain words what its writer wants; or two queries that mean the same."""
    queries = medical_text.queries()
    intent = rng.choice(list(queries.templates))
    template = rng.choice(queries.templates[intent])
    query, _ = queries.fill(template, rng)
    return f"有人问：“{query}”他{queries.prose[intent]}。"


def _criterion(rng: Random) -> str:
    """A criterion of a trial, and what it speaks of."""
    classes = medical_text.criteria()
    name = rng.choice(list(classes))
    return f"方案里写着：{medical_text.criterion(rng.choice(classes[name]), rng)}。这说的是{name}。"


def _page(rng: Random) -> str:
    """A question and its answer from a doctor's page."""
    queries = medical_text.queries()
    template = rng.choice(queries.templates[rng.choice(list(queries.templates))])
    query, about = queries.fill(template, rng)
    return f"{query}？医生回答：{rng.choice(queries.replies).format(x=about)}"


def _relation(rng: Random) -> Relation:
    language = rng.choice(LANGUAGES)
    return rng.choice([r for r in medical_text.relations() if r.language == language])


def _statement(relation: Relation, rng: Random) -> str:
    fact = rng.choice(relation.facts)
    sentence = rng.choice(relation.statements).format(s=fact.subject, o=fact.object)
    return sentence[0].upper() + sentence[1:]


def _join(relation: Relation, sentences: list[str]) -> str:
    return ("" if relation.language == "zh" else " ").join(sentences)
