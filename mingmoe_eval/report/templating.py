"""The page's templates and what they can say: words in both languages, readable numbers."""

import importlib.resources
import json
from collections.abc import Mapping
from typing import Literal

import jinja2
from markupsafe import Markup

from mingmoe_eval.metrics.significance import significance_marks

Language = Literal["en", "zh"]
Words = Mapping[str, Mapping[str, str]]


def template(name: str) -> str:
    """One of the files in `templates/`."""
    folder = importlib.resources.files("mingmoe_eval.report")
    return folder.joinpath("templates", name).read_text("utf-8")


def read_words() -> Words:
    """Every text of the interface: key -> language -> text."""
    pairs = json.loads(template("words.json"))
    return {key: {"en": english, "zh": chinese} for key, (english, chinese) in pairs.items()}


def environment(words: Words, language: Language) -> jinja2.Environment:
    """Templates that escape everything, with `t(key)` for a text that the page can switch."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mingmoe_eval.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )

    def word(key: str) -> str:
        return words[key][language]

    def t(key: str) -> Markup:
        return Markup('<span data-t="{}">{}</span>').format(key, word(key))

    made.globals.update(word=word, t=t)
    made.filters.update(
        percent=lambda fraction: f"{100 * fraction:.1f}",
        points=lambda fraction: f"{100 * fraction:+.1f}".replace("-", "−"),
        p_value=lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        stars=significance_marks,
        quantity=quantity,
        decimals=decimals,
        breakable=breakable,
        level=lambda share: max(0, min(10, round(share * 10))),
    )
    return made


def quantity(value: float | None) -> str:
    """A count, a time or a size with about three digits that matter: 7.70 B, 207.30 M, 12.5."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def breakable(name: str) -> Markup:
    """A task's name that a narrow screen breaks after an underscore, not in the midst of a word."""
    return Markup("_<wbr>").join(name.split("_"))


def decimals(value: float | None, places: int = 3) -> str:
    """A share or a figure near one."""
    return "–" if value is None else f"{value:.{places}f}"
