"""Invented records of four of the 16 PromptCBLUE tasks, for a base model that knows Chinese.

| task | choices | what decides |
|---|---|---|
| KUAKE-QIC | 5 intents | what a query asks for, whatever the illness |
| CHIP-STS | 2 | whether two questions ask the same of the same illness |
| KUAKE-QQR | 4 relations | whether the second query is the same, narrower, wider or another one |
| KUAKE-IR | 2 | whether an answer speaks of what the query asks for, and of its illness |

No test question is about an illness of a training question. Of the two wordings that it may have
one was trained on; answers to judge are worded anew. Every text is our own, after the prompts of
`tasks/promptcblue`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from benchmarks.claims.tasks import Item, Sizes, TaskData

ILLNESSES = (
    *("感冒", "糖尿病", "高血压", "胃炎", "肺炎", "哮喘", "痛风", "贫血", "湿疹", "中耳炎"),
    *("鼻炎", "结膜炎", "甲亢", "肾结石", "胆囊炎", "颈椎病", "骨质疏松", "脂肪肝", "荨麻疹"),
    *("偏头痛", "失眠", "便秘", "痔疮", "咽炎", "腱鞘炎", "牙周炎", "白内障", "带状疱疹"),
    *("尿路感染", "肠炎", "支气管炎", "扁桃体炎"),
)


@dataclass(frozen=True, slots=True)
class Intent:
    """Ways to ask for one thing, and answers that speak of it; the last of each is for the test."""

    asked: tuple[str, ...]
    told: tuple[str, ...]


INTENTS = {
    "病情诊断": Intent(
        ("怎么判断是不是{}", "这些症状是{}吗", "如何确诊{}", "怎样知道自己得了{}"),
        ("确诊{}要结合症状和化验。", "医生查体后才能判断是否为{}。", "诊断{}需做相应检查。"),
    ),
    "病因分析": Intent(
        ("{}是什么引起的", "为什么会得{}", "{}的原因有哪些", "{}是怎么得的"),
        ("{}多与劳累和饮食有关。", "引起{}的因素有遗传和环境。", "{}常因受凉而起。"),
    ),
    "治疗方案": Intent(
        ("{}怎么治", "得了{}吃什么药", "{}如何治疗", "治{}用什么办法好"),
        ("{}可先用药物治疗。", "治疗{}以对症用药为主。", "{}服药两周多能好转。"),
    ),
    "注意事项": Intent(
        ("得了{}要注意什么", "{}患者不能吃什么", "{}平时怎么护理", "{}有哪些禁忌"),
        ("{}患者应忌辛辣，多休息。", "得了{}要避免熬夜。", "{}期间注意清淡饮食。"),
    ),
    "医疗费用": Intent(
        ("治{}要花多少钱", "看{}贵吗", "{}手术费用是多少", "{}住院大概要多少钱"),
        ("治疗{}约需几千元。", "{}的费用因医院而异。", "{}花费不高，医保可报。"),
    ),
}
GROUPS = ("儿童", "老人", "孕妇", "男性")
RELATIONS = ("完全一致", "后者是前者的语义子集", "后者是前者的语义父集", "语义无直接关联")


@dataclass(frozen=True, slots=True)
class _Words:
    """The illnesses and wordings of one part."""

    illnesses: tuple[str, ...]
    asked: dict[str, tuple[str, ...]]
    told: dict[str, tuple[str, ...]]


def make_clinic_tasks(seed: int, sizes: Sizes) -> dict[str, TaskData]:
    """The four tasks; labels are equally frequent in each part, give or take one."""
    rng = Random(f"clinic {seed}")
    illnesses = rng.sample(ILLNESSES, len(ILLNESSES))
    held_out = len(illnesses) // 4
    train = _Words(
        tuple(illnesses[held_out:]),
        {name: intent.asked[:-1] for name, intent in INTENTS.items()},
        {name: intent.told[:-1] for name, intent in INTENTS.items()},
    )
    test = _Words(
        tuple(illnesses[:held_out]),
        # The known wordings too: a pair of questions needs two.
        {name: intent.asked[-2:] for name, intent in INTENTS.items()},
        {name: intent.told[-1:] for name, intent in INTENTS.items()},
    )
    return {
        name: TaskData(
            _draw_items(name, train, rng, sizes.train), _draw_items(name, test, rng, sizes.test)
        )
        for name in _DRAWS
    }


def _draw_items(task: str, words: _Words, rng: Random, count: int) -> tuple[Item, ...]:
    labels, draw = _DRAWS[task]
    seen: set[str] = set()
    items: list[Item] = []
    for label in islice(cycle(labels), count):
        item = draw(words, label, rng)
        while item.question in seen:
            item = draw(words, label, rng)
        seen.add(item.question)
        items.append(item)
    return tuple(items)


def _other(rng: Random, values: Sequence[str], than: str) -> str:
    return rng.choice([value for value in values if value != than])


def _intent(words: _Words, label: str, rng: Random) -> Item:
    query = rng.choice(words.asked[label]).format(rng.choice(words.illnesses))
    choices = "，".join(INTENTS)
    return Item(f"判断搜索词的意图。\n搜索词：{query}\n意图选项：{choices}", label, tuple(INTENTS))


def _same_question(words: _Words, label: str, rng: Random) -> Item:
    intent, illness = rng.choice(list(INTENTS)), rng.choice(words.illnesses)
    one, other = rng.sample(words.asked[intent], 2)
    first, second = one.format(illness), other.format(illness)
    if label == "不是":
        if rng.random() < 0.5:
            second = other.format(_other(rng, words.illnesses, illness))
        else:
            second = rng.choice(words.asked[_other(rng, list(INTENTS), intent)]).format(illness)
    question = f"“{first}”和“{second}”，这两个问句的意思相同吗？\n选项：是的，不是"
    return Item(question, label, ("是的", "不是"))


def _relation(words: _Words, label: str, rng: Random) -> Item:
    intent, illness = rng.choice(list(INTENTS)), rng.choice(words.illnesses)
    one, other = rng.sample(words.asked[intent], 2)
    narrow = f"{rng.choice(GROUPS)}{illness}"
    first, second = {
        RELATIONS[0]: (one.format(illness), other.format(illness)),
        RELATIONS[1]: (one.format(illness), other.format(narrow)),
        RELATIONS[2]: (one.format(narrow), other.format(illness)),
        RELATIONS[3]: (
            one.format(illness),
            rng.choice(words.asked[_other(rng, list(INTENTS), intent)]).format(
                _other(rng, words.illnesses, illness)
            ),
        ),
    }[label]
    question = (
        f"前一个搜索词是“{first}”，后一个是“{second}”，它们是什么关系？\n"
        f"选项：{'，'.join(RELATIONS)}"
    )
    return Item(question, label, RELATIONS)


def _relevance(words: _Words, label: str, rng: Random) -> Item:
    intent, illness = rng.choice(list(INTENTS)), rng.choice(words.illnesses)
    query = rng.choice(words.asked[intent]).format(illness)
    about, of = intent, illness
    if label == "不相关":
        if rng.random() < 0.5:
            about = _other(rng, list(INTENTS), intent)
        else:
            of = _other(rng, words.illnesses, illness)
    told = rng.choice(words.told[about]).format(of)
    question = f"搜索词：{query}\n回答：{told}\n回答与搜索词相关吗？\n选项：相关，不相关"
    return Item(question, label, ("相关", "不相关"))


_DRAWS = {
    "KUAKE-QIC": (tuple(INTENTS), _intent),
    "CHIP-STS": (("是的", "不是"), _same_question),
    "KUAKE-QQR": (RELATIONS, _relation),
    "KUAKE-IR": (("相关", "不相关"), _relevance),
}
"""The labels of each task, and how an item of one is drawn."""
