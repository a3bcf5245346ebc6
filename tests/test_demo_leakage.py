"""What the demo's models learn from holds no item of any bundled sample."""

import json
import re
import unicodedata
from itertools import islice
from random import Random

import pytest

from mingmoe_eval.locations import tasks_dir
from tools.demo_checkpoints.lessons import lessons
from tools.demo_checkpoints.reading_matter import passages

MOST_SHARED = 0.5  # of the three-character pieces of a sample's stem and a training text's


def folded(text):
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def pieces(text):
    # Ages and days are drawn anew for each item and tell no question from another.
    text = re.sub(r"\d+", "0", folded(text))
    return {text[i : i + 3] for i in range(len(text) - 2)}


STEMS = ("question", "Question", "QUESTION", "qtext", "problem_text", "question_text")


def stem(record):
    """The part of a sample record that is its own: no instruction, no list of options."""
    if "task_dataset" in record:
        # Each prompt quotes the record's text, or gives it a line after a label and a colon.
        return "\n".join(
            line.partition("：")[2] if re.match(r"\w{2,6}：", line) else line
            for line in record["input"].split("\n")
            if not re.match(r"(.{0,4}选项|只写|答|请|下面的)", line)
        )
    return next(record[name] for name in STEMS if name in record)


def sample_stems():
    for path in sorted(tasks_dir().rglob("sample*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            yield f"{path.parent.name}/{path.name}:{number}", stem(json.loads(line))


@pytest.fixture(scope="module")
def training_stems():
    read = islice(passages(Random(100)), 20_000)
    asked = (lesson.stem for lesson in islice(lessons(Random(101)), 30_000))
    return {*read, *asked}


def test_every_bundled_sample_is_looked_at():
    folders = {where.split("/")[0] for where, _ in sample_stems()}
    assert {"promptcblue", "medqa", "medmcqa", "cmexam"} <= folders


def test_no_sample_question_occurs_in_the_training_text(training_stems):
    known = {folded(text) for text in training_stems}
    assert [where for where, text in sample_stems() if folded(text) in known] == []


def test_no_sample_question_is_nearly_a_training_text(training_stems):
    by_piece = {}
    trained = list(training_stems)
    sizes = []
    for index, text in enumerate(trained):
        own = pieces(text)
        sizes.append(len(own))
        for piece in own:
            by_piece.setdefault(piece, []).append(index)
    near = []
    for where, text in sample_stems():
        own = pieces(text)
        shared = {}
        for piece in own:
            for index in by_piece.get(piece, ()):
                shared[index] = shared.get(index, 0) + 1
        near += [
            f"{where}: {text!r} is like {trained[index]!r}"
            for index, both in shared.items()
            if both / (len(own) + sizes[index] - both) >= MOST_SHARED
        ]
    assert near == []
