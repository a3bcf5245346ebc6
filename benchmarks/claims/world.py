"""An invented world for each seed: names in two languages, and facts about them."""

from dataclasses import dataclass
from random import Random

CLASSES = (" alpha", " beta", " gamma", " delta")
DEPARTMENTS = ("内科", "外科", "皮科")

# Names mean nothing: no fact about them can be known from elsewhere.
_SYLLABLES = ("zor", "vin", "mel", "tak", "bru", "lon", "pix", "dur", "fen", "gal", "hes", "kyr")
_ENDINGS = {"drug": "ol", "illness": "ia", "sign": "ush"}
_CHARACTERS = "云山石木水火金竹梅兰松鹤鹿龙虎马羊星月日风雨雪霜江河湖海田林"
_MARKS = {"drug": "片", "illness": "病", "sign": "感"}


@dataclass(frozen=True, slots=True)
class Name:
    """One thing, as it is called in English and in Chinese."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class World:
    """Names of things, the class of each drug, what treats an illness, and who sees it."""

    drugs: tuple[Name, ...]
    illnesses: tuple[Name, ...]
    signs: tuple[Name, ...]
    drug_class: dict[Name, str]
    treatment: dict[Name, Name]
    department: dict[Name, str]


def draw_world(seed: int, *, drugs: int = 48, illnesses: int = 36, signs: int = 12) -> World:
    """A world in which classes and departments are equally frequent and follow no rule."""
    rng = Random(f"world {seed}")
    named = {
        kind: _draw_names(kind, count, rng)
        for kind, count in (("drug", drugs), ("illness", illnesses), ("sign", signs))
    }
    return World(
        drugs=named["drug"],
        illnesses=named["illness"],
        signs=named["sign"],
        drug_class=dict(zip(named["drug"], _dealt(CLASSES, drugs, rng), strict=True)),
        treatment=dict(zip(named["illness"], rng.sample(named["drug"], illnesses), strict=True)),
        department=dict(zip(named["illness"], _dealt(DEPARTMENTS, illnesses, rng), strict=True)),
    )


def _draw_names(kind: str, count: int, rng: Random) -> tuple[Name, ...]:
    english = rng.sample([a + b for a in _SYLLABLES for b in _SYLLABLES if a != b], count)
    chinese = rng.sample([a + b for a in _CHARACTERS for b in _CHARACTERS if a != b], count)
    return tuple(
        Name(en + _ENDINGS[kind], zh + _MARKS[kind])
        for en, zh in zip(english, chinese, strict=True)
    )


def _dealt(labels: tuple[str, ...], count: int, rng: Random) -> list[str]:
    """Each label equally often, in random order."""
    dealt = [labels[i % len(labels)] for i in range(count)]
    rng.shuffle(dealt)
    return dealt
