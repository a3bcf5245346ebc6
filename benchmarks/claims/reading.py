"""What a base model reads before anyone adapts it: notes and talk, no questions with answers."""

from collections.abc import Callable, Iterator
from random import Random

from benchmarks.claims.tasks import CUES, INTENTS, NUMBERS
from benchmarks.claims.world import World


def passages(world: World, rng: Random) -> Iterator[str]:
    """Short passages without end. The world's facts, and labels of any text, are in none."""
    kinds: tuple[Callable[[World, Random], str], ...] = (
        _findings,
        _asked_again,
        _story_zh,
        _story_en,
        _counted,
        _translation,
    )
    while True:
        yield rng.choice(kinds)(world, rng)


def _findings(world: World, rng: Random) -> str:
    """Two ways to say the same of one sign."""
    sign = rng.choice(world.signs)
    one, another = rng.sample(rng.choice(list(CUES.values())), 2)
    named = rng.choice((sign.zh, f" {sign.en} "))
    return f"患者{one.format(named)}，就是说{another.format(named)}。"


def _asked_again(world: World, rng: Random) -> str:
    """Two ways to ask the same about one illness."""
    one, another = rng.sample(rng.choice(list(INTENTS.values())), 2)
    illness = rng.choice(world.illnesses).zh
    return f"有人问{one.format(illness)}，也就是问{another.format(illness)}。"


def _story_zh(world: World, rng: Random) -> str:
    drug, illness = rng.choice(world.drugs).zh, rng.choice(world.illnesses).zh
    first, second = (sign.zh for sign in rng.sample(world.signs, 2))
    return f"病人说起{first}和{second}，听人谈到{illness}和{drug}，记录在案。"


def _story_en(world: World, rng: Random) -> str:
    drug, illness = rng.choice(world.drugs).en, rng.choice(world.illnesses).en
    return rng.choice(
        (
            f"People talk of {drug} and of {illness} while they wait.",
            f"A patient with {illness} heard of the drug {drug} once.",
        )
    )


def _counted(world: World, rng: Random) -> str:
    one, other = rng.sample(list(NUMBERS.values()), 2)
    return f"She counted {one} , then {other} , and took {rng.choice(world.drugs).en} home."


def _translation(world: World, rng: Random) -> str:
    name = rng.choice(rng.choice((world.drugs, world.illnesses, world.signs)))
    return rng.choice((f"英文的 {name.en} 就是{name.zh}。", f"{name.zh}就是 {name.en} 。"))
