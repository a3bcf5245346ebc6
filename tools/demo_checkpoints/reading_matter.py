"""What the base model reads: sentences that state facts, and prose about queries and criteria.

No line here has the form of a task: no lettered options, no list of classes.
"""

from collections.abc import Callable, Iterator
from random import Random

from tools.demo_checkpoints import medical_text
from tools.demo_checkpoints.medical_text import LANGUAGES, Relation


def passages(rng: Random) -> Iterator[str]:
    """Short passages without end."""
    kinds: tuple[Callable[[Random], str], ...] = (_stated, _chosen, _query, _criterion, _page)
    while True:
        (kind,) = rng.choices(kinds, weights=(3, 3, 4, 5, 1))
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
    """A query, and in plain words what its writer wants."""
    queries = medical_text.queries()
    intent = rng.choice(list(queries.templates))
    query, _ = queries.fill(rng.choice(queries.templates[intent]), rng)
    return f"有人问：“{query}”{_pause(rng)}他{queries.prose[intent]}。"


def _criterion(rng: Random) -> str:
    """A criterion of a trial, and what it speaks of."""
    classes = medical_text.criteria()
    name = rng.choice(list(classes))
    sentence = medical_text.criterion(rng.choice(classes[name]), rng)
    return f"方案里写着：{sentence}。{_pause(rng)}这说的是{name}。"


def _page(rng: Random) -> str:
    """A question and its answer from a doctor's page."""
    queries = medical_text.queries()
    template = rng.choice(queries.templates[rng.choice(list(queries.templates))])
    query, about = queries.fill(template, rng)
    return f"{query}？医生回答：{rng.choice(queries.replies).format(x=about)}"


# Said between a text and what is told of it, so that the model learns to look further back.
_SMALL_TALK = (
    "护士走过来看了看，又走开了。",
    "窗外下着小雨，候诊的人不多。",
    "大家安静地坐着，翻看手里的报纸。",
    "过了一会儿，医生放下笔，抬起头来。",
    "桌上的茶已经凉了，谁也没有说话。",
    "墙上的钟响了三下，走廊里又来了几个人。",
)


def _pause(rng: Random) -> str:
    return "".join(_SMALL_TALK[: rng.choice((0, 0, 0, 1, 2, 4, 6))])


def _relation(rng: Random) -> Relation:
    language = rng.choice(LANGUAGES)
    return rng.choice([r for r in medical_text.relations() if r.language == language])


def _statement(relation: Relation, rng: Random) -> str:
    fact = rng.choice(relation.facts)
    sentence = rng.choice(relation.statements).format(s=fact.subject, o=fact.object)
    return sentence[0].upper() + sentence[1:]


def _join(relation: Relation, sentences: list[str]) -> str:
    return ("" if relation.language == "zh" else " ").join(sentences)
