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
        (kind,) = rng.choices(kinds, weights=(4, 9, 3, 4, 3))
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
    """A query, some sentences between, and in plain words what its writer wants."""
    queries = medical_text.queries()
    intent = rng.choice(list(queries.templates))
    query, _ = queries.fill(rng.choice(queries.templates[intent]), rng)
    others = rng.sample(list(queries.prose.values()), rng.randint(0, 9))
    between = f"别人有的{'，有的'.join(others)}。" if others else ""
    return f"有人问：“{query}”{between}这个人{queries.prose[intent]}。"


def _criterion(rng: Random) -> str:
    """A criterion of a trial, some classes that there are, and its own."""
    classes = medical_text.criteria()
    name = rng.choice(list(classes))
    sentence = medical_text.criterion(rng.choice(classes[name]), rng)
    others = rng.sample(list(classes), rng.choice((0, 4, 8, 16, 32)))
    between = f"方案谈到的还有{'、'.join(others)}。" if others else ""
    return f"方案里写着：{sentence}。{between}那一条说的是{name}。"


def _page(rng: Random) -> str:
    """A question, a page that answers it or another one, and whether it does."""
    queries = medical_text.queries()
    template = rng.choice(queries.templates[rng.choice(list(queries.templates))])
    query, about = queries.fill(template, rng)
    names = [name for kind in queries.subjects.values() for name in kind if name not in query]
    fits = rng.random() < 0.5
    reply = rng.choice(queries.replies).format(x=about if fits else rng.choice(names))
    return f"问：{query}？医生说：{reply}{'答得对题。' if fits else '答非所问。'}"


def _relation(rng: Random) -> Relation:
    language = rng.choice(LANGUAGES)
    return rng.choice([r for r in medical_text.relations() if r.language == language])


def _statement(relation: Relation, rng: Random) -> str:
    fact = rng.choice(relation.facts)
    sentence = rng.choice(relation.statements).format(s=fact.subject, o=fact.object)
    return sentence[0].upper() + sentence[1:]


def _join(relation: Relation, sentences: list[str]) -> str:
    return ("" if relation.language == "zh" else " ").join(sentences)
