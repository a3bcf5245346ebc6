"""Texts of a page in two languages: the one it opens in, and the one that it can be switched to.

What a page says by itself stands in `words.json`. What runs say (`phrases`) and what tasks are
called (`labels`) is English in the run; a page shows it in its language, carries the English beside
it, and holds the Chinese of all that it shows, each text once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from mingmoe_eval.labels import Label, Labels
from mingmoe_eval.report.phrases import in_chinese

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Wording:
    """What a page says, in its language.

    Attributes:
        language: The language in which the page opens.
        labels: What the user calls tasks and models.
        chinese: English -> Chinese of all that was said so far and differs.
    """

    language: Language
    labels: Labels = field(default_factory=Labels)
    chinese: dict[str, str] = field(default_factory=dict)

    def task(self, name: str) -> Markup:
        """A task's name, with that by which it is asked for as its tooltip."""
        label = self.labels.task(name)
        title = Markup(' title="{}"').format(name) if name not in label else Markup()
        if label.en == label.zh:
            return Markup("<span{}>{}</span>").format(title, _breakable(label.en))
        return self._switched(label, title)

    def task_option(self, name: str) -> Markup:
        """The rest of an `<option` whose text is a task's name."""
        label = self.labels.task(name)
        return Markup(' data-p="{}">{}').format(label.en, self.chosen(*label))

    def task_in_words(self, name: str) -> str:
        """A task's name as plain text, in the page's language."""
        return self.chosen(*self.labels.task(name))

    def said(self, text: str) -> Markup:
        """A text that a run holds; marked as English where nobody knows its Chinese."""
        chinese = in_chinese(text)
        if chinese is None:
            return Markup('<span lang="en">{}</span>').format(text)
        return self._switched(Label(text, chinese))

    def said_in_words(self, text: str) -> str:
        """The same as plain text, in the page's language."""
        return self.chosen(text, in_chinese(text) or text)

    def titled(self, text: str) -> Markup:
        """The attribute of a tooltip; nothing for no text."""
        if not text:
            return Markup()
        return Markup(' title="{}"').format(self.said_in_words(text))

    def listed(self, texts: Sequence[str]) -> str:
        """Several of them by comma."""
        return ", ".join(map(self.said_in_words, texts))

    def chosen(self, english: str, chinese: str) -> str:
        """The one of two texts that is in the page's language; the page keeps both."""
        if english != chinese:
            self.chinese[english] = chinese
        return chinese if self.language == "zh" else english

    def _switched(self, label: Label, attributes: Markup | str = "") -> Markup:
        shown = self.chosen(label.en, label.zh)
        return Markup('<span data-p="{}"{}>{}</span>').format(label.en, attributes, shown)


def _breakable(name: str) -> Markup:
    """A name that a narrow screen breaks after an underscore, not in the midst of a word."""
    return Markup("_<wbr>").join(name.split("_"))
