"""A reply as the reader wants it: one width of letters, nothing invisible, no thinking blocks."""

import re
import unicodedata
from dataclasses import dataclass

# Folded by table and not by unicodedata.normalize: normalising a long run of combining marks
# takes quadratic time, and a hostile or broken reply must not stall a run.
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_ENCLOSED_LETTERS = (range(0x249C, 0x24EA), range(0x1F110, 0x1F12A), range(0x1F130, 0x1F14A))
_MATHEMATICAL_LETTERS = range(0x1D400, 0x1D6A4)
_NEGATIVE_ENCLOSED = (0x1F150, 0x1F170)  # white on black: no compatibility mapping exists
_INVISIBLE = (
    *range(0x09),
    *range(0x0E, 0x20),
    *range(0x7F, 0xA0),
    0xAD,
    0x061C,
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    0xFEFF,
)


def _fold_table() -> dict[int, str | None]:
    table: dict[int, str | None] = dict.fromkeys(_INVISIBLE)
    for block in (_FULL_WIDTH, *_ENCLOSED_LETTERS, _MATHEMATICAL_LETTERS):
        table |= {code: unicodedata.normalize("NFKC", chr(code)) for code in block}
    for first in _NEGATIVE_ENCLOSED:
        table |= {first + i: chr(ord("A") + i) for i in range(26)}
    return table | {0x3000: " ", 0xA0: " ", 0x0B: "\n", 0x0C: "\n", 0x0D: "\n", 0x2028: "\n"}


_FOLD = _fold_table()

# The names of reasoning tags in use: Qwen and DeepSeek <think>, Magistral [THINK], Kimi ◁think▷,
# OpenThoughts <|begin_of_thought|>, Seed <seed:think>, MedGemma <unused94> ... <unused95>.
_THINKING_TAG = re.compile(
    r"(?P<opens>[<\[◁](?:seed:)?(?:think|thinking|thought|thoughts|reasoning)[>\]▷]"
    r"|<\|begin_of_thought\|>|<unused94>|<\|channel\|>analysis<\|message\|>)"
    r"|(?P<closes>[<\[◁]/(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)[>\]▷]"
    r"|<\|end_of_thought\|>|<unused95>|<\|channel\|>final<\|message\|>)",
    re.IGNORECASE,
)
_SOLUTION_TAG = re.compile(
    r"</?answer>|<\|(?:begin|end)_of_solution\|>|<\|(?:im_end|end|return|eot_id|endoftext)\|>|</s>",
    re.IGNORECASE,
)
# HuatuoGPT-o1 separates its reasoning from its answer with two headings.
_THINKING_HEADING = "## Thinking"
_FINAL_HEADING = "## Final Response"

_END = 100_000  # characters; an answer stands at the start of a reply or at its end


@dataclass(frozen=True, slots=True)
class VisibleReply:
    """What a reply says outside its reasoning; `cut_off` when the reasoning never ended."""

    text: str
    cut_off: bool


def fold(text: str) -> str:
    """One width of letters, digits and punctuation; control, format and bidi marks dropped."""
    return text.translate(_FOLD)


def visible_reply(reply: str) -> VisibleReply:
    """The reply folded and without its thinking blocks; takes any string, in linear time.

    A closing tag without an opening one ends reasoning that the prompt's template had opened.
    Reasoning that never ends leaves only what stood before it. Of more than 200,000 characters
    the middle is left out.
    """
    kept: list[str] = []
    thinking = False
    position = 0
    text = fold(reply)
    for tag in _THINKING_TAG.finditer(text):
        if tag["closes"]:
            if not thinking:
                kept.clear()
            thinking = False
        elif not thinking:
            kept.append(text[position : tag.start()])
            thinking = True
        position = tag.end()
    if not thinking:
        kept.append(text[position:])
    return _after_heading("\n".join(kept), thinking)


def _after_heading(text: str, cut_off: bool) -> VisibleReply:
    _, heading, final = text.rpartition(_FINAL_HEADING)
    if not heading and text.lstrip().startswith(_THINKING_HEADING):
        return VisibleReply("", cut_off=True)
    return VisibleReply(_without_middle(_SOLUTION_TAG.sub("\n", final).strip()), cut_off)


def _without_middle(text: str) -> str:
    """The two ends of a text that is longer than any answer: a reply that ran away."""
    return text if len(text) <= 2 * _END else f"{text[:_END]}\n{text[-_END:]}"
