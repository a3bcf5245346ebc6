"""One exam question, whatever its data set called its fields."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NotRequired

from mingmoe_eval.records import AnyDoc, JsonDict, fingerprint


class Doc(AnyDoc):
    """What the `choice` suite reads of a doc; see `Question.to_doc`."""

    options: dict[str, str]
    answer: str
    single: bool
    question: NotRequired[str]
    question_type: NotRequired[str | None]
    context: NotRequired[str]
    id: NotRequired[str]
    choose: NotRequired[int]
    question_id: NotRequired[str]
    variant: NotRequired[str]
    variant_of: NotRequired[str]
    orders: NotRequired[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked and what is right; a data set's explanations are never read.

    Attributes:
        question: The stem.
        options: Text by letter, in the order of the letters; blank ones are left out, the others
            keep their letters. None at all where a number is asked for.
        answer: The letters of the right options, sorted, such as "AC"; or the number.
        single: The exam says that exactly one option is right.
        question_type: What the exam calls this kind of question, or "".
        context: A text that the question is about, shown before it, or "".
        tags: What the results can be split by.
        cluster: What questions that hang together have in common, such as one block of options.
        choose: How many options the exam tells the candidate to choose; 0: it does not say.
        question_id: What the exam itself calls the question, such as "120A-13", or "".
    """

    question: str
    options: Mapping[str, str]
    answer: str
    single: bool
    question_type: str = ""
    context: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    choose: int = 0
    question_id: str = ""

    @property
    def content_id(self) -> str:
        """The same for the same question, options and context, wherever they were read."""
        return fingerprint([self.context, self.question, dict(self.options)])

    def to_doc(self, doc_id: str) -> JsonDict:
        """The plain dict that lm-eval carries and the `choice` suite scores."""
        # Only where an exam has them: a doc's fingerprint pairs it with the same doc of older runs.
        rare = {"choose": self.choose, "question_id": self.question_id}
        return {
            "id": doc_id,
            "question": self.question,
            "options": dict(self.options),
            "answer": self.answer,
            "single": self.single,
            "question_type": self.question_type,
            "context": self.context,
            "tags": dict(self.tags),
            "cluster": self.cluster,
            **{name: value for name, value in rare.items() if value},
        }


def docs_of(questions: Iterable[Question]) -> list[JsonDict]:
    """Docs with ids made from the content; the second of two equal questions has "-2" behind."""
    seen: Counter[str] = Counter()
    docs = []
    for question in questions:
        content_id = question.content_id
        seen[content_id] += 1
        suffix = f"-{seen[content_id]}" if seen[content_id] > 1 else ""
        docs.append(question.to_doc(content_id + suffix))
    return docs


def stem_key(doc: Mapping[str, str]) -> str:
    """Equal for stems that differ only in width, case, blanks and punctuation."""
    return folded_stem(doc["question"])


def folded_stem(text: str) -> str:
    """A question's text without what copies of it change: width, case, blanks, punctuation."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
