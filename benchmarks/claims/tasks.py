"""Six tasks in two languages to be trained on, and two related ones that nobody is trained on.

| task | language | answers | what it takes |
|---|---|---|---|
| drug_class | English | 4 classes | a fact, learned from other wordings of the question |
| treatment | English | 4 drugs | a fact with an answer of its own |
| dose | English | 4 numbers in words | a product, learned with other drugs |
| triage | Chinese | 3 departments | a fact about a name of three characters |
| intent | Chinese | 4 intents | what a query asks for, whatever the illness |
| status | Chinese | present, absent, unclear | what a cue says, whatever the sign |
| status_mixed | both | as status | held out: Chinese cues, English signs |
| desk | Chinese | 7, of intent and status | held out: queries and findings in a new frame |

No question of a test part occurs in the training part, nor twice anywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from random import Random

from benchmarks.claims.world import CLASSES, DEPARTMENTS, World

INTENTS = {
    "治疗": ("{}怎么治", "得了{}用什么方法好", "治{}的办法", "{}如何缓解"),
    "病因": ("{}是什么引起的", "为什么会得{}", "{}的原因", "{}从哪里来"),
    "费用": ("治{}要花多少钱", "看{}贵吗", "{}的费用", "{}医保能报吗"),
    "检查": ("{}要查什么", "怎么知道是不是{}", "查{}做哪些化验", "{}如何确诊"),
}
"""Ways to ask about an illness, by what is asked."""

CUES = {
    "阳性": ("有{}", "出现{}", "伴{}", "并非没有{}"),
    "阴性": ("没有{}", "否认{}", "未见{}", "已排除{}"),
    "不明": ("可能有{}", "疑似{}", "不排除{}", "待查{}"),
}
"""Ways to speak of a sign, by what they say of it. The words of some are in those of others."""

NUMBERS = {
    1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 9: "nine",
    10: "ten", 12: "twelve", 15: "fifteen", 16: "sixteen", 20: "twenty", 25: "twentyfive",
}  # fmt: skip

TRAINED = ("drug_class", "treatment", "dose", "triage", "intent", "status")
HELD_OUT = ("status_mixed", "desk")


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its answer, which is one of `choices`.

    English answers begin with a blank: so a name is the same token as within a sentence.
    """

    question: str
    answer: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskData:
    """What is learned from and what is asked; no question is in both."""

    train: tuple[Item, ...]
    test: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Items of a task whose items are drawn, and not given by the world's facts."""

    train: int = 150
    test: int = 50


def make_tasks(world: World, seed: int, sizes: Sizes) -> dict[str, TaskData]:
    """All eight tasks."""
    facts: dict[str, Iterator[list[Item]]] = {
        "drug_class": _drug_questions(world),
        "treatment": _treatment_questions(world, Random(f"candidates {seed}")),
        "triage": _triage_questions(world),
    }
    draws: dict[str, tuple[Iterable[str], Draw]] = {
        "dose": (_PRODUCTS, _dose),
        "intent": (INTENTS, _intent),
        "status": (CUES, _status),
        "status_mixed": (CUES, _status_mixed),
        "desk": ((*INTENTS, *CUES), _desk),
    }
    tasks = {
        name: _asked_in_other_words(asked, Random(f"{name} {seed}"))
        for name, asked in facts.items()
    }
    for name, (labels, draw) in draws.items():
        tasks[name] = _drawn(world, tuple(labels), draw, Random(f"{name} {seed}"), sizes)
    return {name: tasks[name] for name in (*TRAINED, *HELD_OUT)}


# --- facts: every fact is learned, in all wordings but the one that it is asked in ----------------

_DRUG_WORDINGS = (
    "Which class does {drug} belong to?",
    "The drug {drug} is of which class?",
    "Name the class of {drug}.",
    "What kind of drug is {drug}?",
)
_TREATMENT_WORDINGS = (
    "What is given for {illness}?",
    "Which drug helps against {illness}?",
    "A patient with {illness} should take",
    "Name the treatment of {illness}.",
)
_TRIAGE_WORDINGS = (
    "{illness}挂哪科？",
    "得了{illness}去哪里看？",
    "{illness}归谁管？",
    "请问{illness}属于",
)


def _drug_questions(world: World) -> Iterator[list[Item]]:
    for drug in world.drugs:
        yield [
            Item(wording.format(drug=drug.en), world.drug_class[drug], CLASSES)
            for wording in _DRUG_WORDINGS
        ]


def _treatment_questions(world: World, rng: Random) -> Iterator[list[Item]]:
    """Wrong choices are drugs that treat other illnesses."""
    drugs = [f" {drug.en}" for drug in world.treatment.values()]
    for illness, drug in world.treatment.items():
        answer = f" {drug.en}"
        choices = [answer, *rng.sample([other for other in drugs if other != answer], 3)]
        rng.shuffle(choices)
        yield [
            Item(wording.format(illness=illness.en), answer, tuple(choices))
            for wording in _TREATMENT_WORDINGS
        ]


def _triage_questions(world: World) -> Iterator[list[Item]]:
    for illness, department in world.department.items():
        yield [
            Item(wording.format(illness=illness.zh), department, DEPARTMENTS)
            for wording in _TRIAGE_WORDINGS
        ]


def _asked_in_other_words(facts: Iterator[list[Item]], rng: Random) -> TaskData:
    train: list[Item] = []
    test: list[Item] = []
    for wordings in facts:
        test.append(wordings.pop(rng.randrange(len(wordings))))
        train += wordings
    return TaskData(tuple(train), tuple(test))


# --- rules: any number of items, drawn -----------------------------------------------------------

Draw = Callable[[World, str, Random], Item]
"""An item of a given label."""

_PRODUCTS = tuple(f"{a} {b}" for a, b in product(range(1, 6), repeat=2))


def _drawn(world: World, labels: Sequence[str], draw: Draw, rng: Random, sizes: Sizes) -> TaskData:
    """Distinct items, every label equally often in both parts, give or take one."""
    seen: set[str] = set()

    def fresh(label: str) -> Item:
        while True:
            item = draw(world, label, rng)
            if item.question not in seen:
                seen.add(item.question)
                return item

    def part(size: int) -> tuple[Item, ...]:
        return tuple(fresh(label) for label in islice(cycle(labels), size))

    return TaskData(train=part(sizes.train), test=part(sizes.test))


def _dose(world: World, label: str, rng: Random) -> Item:
    tablets, times = map(int, label.split())
    right = NUMBERS[tablets * times]
    words = [right, *rng.sample([word for word in NUMBERS.values() if word != right], 3)]
    rng.shuffle(words)
    drug = rng.choice(world.drugs).en
    question = f"Of {drug} take {NUMBERS[tablets]} , {NUMBERS[times]} times a day. In all:"
    return Item(question, f" {right}", tuple(f" {word}" for word in words))


def _intent(world: World, label: str, rng: Random) -> Item:
    query = rng.choice(INTENTS[label]).format(rng.choice(world.illnesses).zh)
    return Item(f"{query}？想问的是", label, tuple(INTENTS))


def _status(world: World, label: str, rng: Random) -> Item:
    finding = rng.choice(CUES[label]).format(rng.choice(world.signs).zh)
    return Item(f"{rng.choice(('患者', '该病人'))}{finding}。此体征", label, tuple(CUES))


def _status_mixed(world: World, label: str, rng: Random) -> Item:
    finding = rng.choice(CUES[label]).format(f" {rng.choice(world.signs).en} ")
    return Item(f"{rng.choice(('患者', '该病人'))}{finding}。此体征", label, tuple(CUES))


def _desk(world: World, label: str, rng: Random) -> Item:
    if label in INTENTS:
        text = rng.choice(INTENTS[label]).format(rng.choice(world.illnesses).zh)
    else:
        text = rng.choice(CUES[label]).format(rng.choice(world.signs).zh)
    return Item(f"记录：{text}。归类", label, (*INTENTS, *CUES))
