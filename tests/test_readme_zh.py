"""README.zh.md says what README.md says: the same commands, names and tables, in the same order."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md"))


def blocks(text):
    return re.findall(r"^```.*?^```", text, flags=re.MULTILINE | re.DOTALL)


def inline(text):
    """Names and commands within sentences and tables, each once."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", outside))


def test_both_have_the_same_commands_and_programs_in_the_same_order():
    assert blocks(ENGLISH)
    assert blocks(CHINESE) == blocks(ENGLISH)


def test_both_name_the_same_things():
    assert inline(CHINESE) == inline(ENGLISH)


@pytest.mark.parametrize("mark", ["## ", "| ", "- "])
def test_both_have_as_many_sections_rows_and_points(mark):
    counts = [
        sum(line.startswith(mark) for line in text.splitlines()) for text in (ENGLISH, CHINESE)
    ]
    assert counts[0] == counts[1] > 0


def test_each_leads_to_the_other():
    assert "(README.zh.md)" in ENGLISH
    assert "(README.md)" in CHINESE


def test_every_section_that_the_chinese_one_leads_to_is_there():
    headings = set(re.findall(r"^## (.+)$", CHINESE, flags=re.MULTILINE))
    linked = set(re.findall(r"\]\(#([^)]+)\)", CHINESE))
    assert linked
    assert linked <= headings
