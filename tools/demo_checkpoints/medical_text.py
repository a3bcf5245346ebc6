"""Reads the made-up medical text in `text/`, from which the demo's models learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

LANGUAGES = ("en", "zh")
_FOLDER = Path(__file__).parent / "text"


@dataclass(frozen=True, slots=True)
class Fact:
    """One pair of a relation, in one language."""

    subject: str
    object: str


@dataclass(frozen=True, slots=True)
class Relation:
    """Facts of one kind in one language, with sentences that state them and that ask for them."""

    name: str
    language: str
    facts: tuple[Fact, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def objects(self) -> list[str]:
        """What can be asked for, each once."""
        return list(dict.fromkeys(fact.object for fact in self.facts))


@dataclass(frozen=True, slots=True)
class Queries:
    """What people type into a medical search box, and what a doctor's page answers."""

    subjects: Mapping[str, Sequence[str]]
    templates: Mapping[str, Sequence[str]]
    prose: Mapping[str, str]
    replies: Sequence[str]

    def fill(self, template: str, rng: Random) -> tuple[str, str]:
        """One query, and what it is about: the first thing that the template names."""
        chosen = {kind: rng.choice(names) for kind, names in self.subjects.items()}
        about = min(chosen, key=lambda kind: f"{{{kind}}}" not in template)
        return self.fill_with(template, chosen, rng), chosen[about]

    @staticmethod
    def fill_with(template: str, chosen: Mapping[str, str], rng: Random) -> str:
        """One query about given things."""
        numbers = {"n": rng.randint(2, 400), "age": rng.randint(2, 80)}
        return template.format(**chosen, **numbers)


@cache
def relations() -> tuple[Relation, ...]:
    """All relations, each in both languages."""
    return tuple(
        Relation(
            name=entry["relation"],
            language=language,
            facts=tuple(Fact(*_pair(pair, language)) for pair in entry["pairs"]),
            statements=tuple(entry[language]["statements"]),
            questions=tuple(entry[language]["questions"]),
        )
        for entry in _read("facts.yaml")
        for language in LANGUAGES
    )


@cache
def queries() -> Queries:
    """The search queries."""
    data = _read("queries.yaml")
    intents = data["intents"]
    return Queries(
        subjects=data["subjects"],
        templates={intent: entry["queries"] for intent, entry in intents.items()},
        prose={intent: entry["prose"] for intent, entry in intents.items()},
        replies=data["replies"],
    )


@cache
def criteria() -> dict[str, list[str]]:
    """Sentence templates that choose patients for a clinical trial, by class."""
    return dict(_read("criteria.yaml"))


def criterion(template: str, rng: Random) -> str:
    """One such sentence."""
    subjects = queries().subjects
    return template.format(
        d=rng.choice(subjects["d"]),
        m=rng.choice(subjects["m"]),
        n=rng.randint(1, 12),
        a=rng.choice(range(15, 130, 5)),
    )


def _pair(pair: Sequence[str], language: str) -> Sequence[str]:
    subject, subject_zh, thing, thing_zh = map(str, pair)
    return (subject, thing) if language == "en" else (subject_zh, thing_zh)


def _read(name: str) -> Any:
    return yaml.safe_load((_FOLDER / name).read_text("utf-8"))
