r"""A reply as the reader wants it: what the model says as its answer, in one plain spelling.

Replies are stored raw. Everything that is stripped is stripped here, and only for reading: thinking
blocks, end-of-turn tokens, a question that the model goes on to ask itself, Markdown and LaTeX
marks. Containers of an answer (`\boxed{B}`, `{"answer": "B"}`, `<answer>B</answer>`) become the
words "final answer: B", so that the grammar behind has one form to know.
"""

import re
import unicodedata
from dataclasses import dataclass

# Folded by table and not by unicodedata.normalize: normalising a long run of combining marks
# takes quadratic time, and a hostile or broken reply must not stall a run.
_COMPATIBILITY_BLOCKS = (
    range(0xFF01, 0xFF5F),  # full-width forms
    range(0x249C, 0x24EA),  # letters in brackets and circles
    range(0x1F110, 0x1F12A),
    range(0x1F130, 0x1F14A),
    range(0x1D400, 0x1D6A4),  # mathematical letters
    range(0x2F00, 0x2FD6),  # Kangxi radicals, which text taken out of a PDF has for characters
    range(0x2070, 0x209D),  # superscripts and subscripts
    (0xB2, 0xB3, 0xB9),
)
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
    *range(0xE000, 0xF900),  # private use: `mentions` marks options with these
)
# Radicals of the supplement block that have no compatibility mapping, as PDF texts hold them.
_RADICALS = dict(
    zip(
        "⺟⺠⻁⻄⻅⻆⻋⻓⻔⻘⻚⻛⻜⻢⻣⻤⻥⻦⻩⻬⻮⻰",
        "母民虎西见角车长门青页风飞马骨鬼鱼鸟黄齐齿龙",
        strict=True,
    )
)
# Traditional forms of the characters that the cues are made of.
_SIMPLIFIED = dict(
    zip(
        "選擇項應為對錯確診斷題綜這個說與無誤適當佳屬該時據後論結總療術後發現",
        "选择项应为对错确诊断题综这个说与无误适当佳属该时据后论结总疗术后发现",
        strict=True,
    )
)
_MARKS = {
    **dict.fromkeys("‘’‛′`´", "'"),
    **dict.fromkeys("“”„″", '"'),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    **dict.fromkeys("\u3000\u00a0\u2009\u202f\t", " "),
    **dict.fromkeys("\x0b\x0c\r\u2028\u2029", "\n"),
    **dict.fromkeys("✓✔✅☑", "√"),
    **dict.fromkeys("✗✘❌✕", "×"),
}


def _fold_table() -> dict[int, str | None]:
    table: dict[int, str | None] = dict.fromkeys(_INVISIBLE)
    for block in _COMPATIBILITY_BLOCKS:
        table |= {code: unicodedata.normalize("NFKC", chr(code)) for code in block}
    for first in _NEGATIVE_ENCLOSED:
        table |= {first + i: chr(ord("A") + i) for i in range(26)}
    return table | {ord(k): v for k, v in (_RADICALS | _SIMPLIFIED | _MARKS).items()}


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
_LONGEST_TAG = 40
_TAGS_BEGIN_WITH = "<[◁"
# HuatuoGPT-o1 separates its reasoning from its answer with two headings. They are no tags: they
# mean that at a reply's very beginning alone, for anybody may head a section so.
THINKING_HEADING = "## Thinking"
_FINAL_HEADING = "## Final Response"

_END_OF_TURN = re.compile(
    r"<\|(?:begin|end)_of_solution\|>|<\|(?:im_end|end|return|eot_id|endoftext)\|>|</s>"
    r"|<end_of_turn>|</answer>"
)
# A base model goes on with a question of its own, or with the other side of the conversation.
_NEXT_QUESTION = re.compile(
    r"\n[\s*#]{0,6}(?:(?:题目|问题|下一题|question|q)\s?\d{0,4}\s?[.:]|Q\d{1,4}\b"
    r"|(?:user|human|用户|question)\s?:|<\|im_start\|>|\[INST\]|###\s?(?:Instruction|Question)"
    # ... or sums up other questions' answers
    r"|[^\n]{0,24}(?:总结(?:以上|所有|上述)|summari[sz]e (?:all )?(?:the |your )?(?:answers"
    r"|above questions)))",
    re.IGNORECASE,
)

_END = 100_000  # characters; an answer stands at the start of a reply or at its end

FINAL = "\nfinal answer: "

# The keys under which models put an answer when asked for JSON, or of their own accord. A plural
# key without a word such as "correct" before it holds the options themselves.
_JSON_KEY = re.compile(
    r"[\"'](?:(?:(?:final|correct|best|predicted|selected|chosen|model|the|my|your)[ _-]?)"
    r"(?:answers?|options?|choices?|letters?)|answers?|option|choice|prediction)"
    r"(?:[ _-]?(?:choices?|idx|index|letters?|options?|keys?|labels?|text))?[\"']\s?:\s?"
    r"|[\"'](?:最终|最后|正确)?的?(?:答案|选项|选择|回答)(?:选项|字母)?[\"']\s?:\s?",
    re.IGNORECASE,
)
_ANSWER_TAG = re.compile(r"<(?:final_?)?answer>", re.IGNORECASE)
_BOXED = re.compile(r"\\{1,2}(?:f?boxed|framebox)\s?\{")
_LATEX_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf)?|math(?:bf|rm|sf|it)|bf)\s?\{([^{}\n]{0,200})\}"
)
_LATEX_MARK = re.compile(r"\$|\\[()\[\]]|\\[,;! ]|\\quad")
# "Ans. B", "Ans- (c)", "Ans. is 'd'", "Answer - B"
_ABBREVIATED_ANSWER = re.compile(
    r"\b(?:(?:[Aa]ns\b|ANS\b(?=[.:]))\.?(?: is\b)?\s?[-:=.]{0,3}\s?|(?:Answer|answer"
    r"|ANSWER)\s?[-=]{1,3}\s?)"
    r"(?=\W{0,3}[A-Za-z](?![a-z]))"
)
_EMPHASIS = re.compile(r"\*+|(?<![A-Za-z0-9])_{1,3}(?=\S)|(?<=\S)_{1,3}(?![A-Za-z0-9])")
_LINE_MARK = re.compile(r"^[ >#|•·▪●-]{1,12}(?=\S)|^[ >#|•·▪●-]{1,12}$", re.MULTILINE)
_LINE_MARKS = frozenset(">#|•·▪●-")
_BLANKS = re.compile(r" {2,}")
_BLANK_BEFORE_LINE_END = re.compile(r" +(?=\n)|(?<=\n) +")


@dataclass(frozen=True, slots=True)
class VisibleReply:
    """What a reply says outside its reasoning; `cut_off` when the reasoning never ended."""

    text: str
    cut_off: bool


def fold(text: str) -> str:
    """One width, one script and one kind of quotes; control, format and bidi marks dropped."""
    return text.translate(_FOLD)


def plain(text: str) -> str:
    """A folded text without Markdown and LaTeX marks; taken from options as from replies.

    Most texts hold few of the marks, and looking for a character is far cheaper than a pattern.
    """
    if "\\" in text:
        text = _LATEX_WRAPPER.sub(r"\1", text)
    if "$" in text or "\\" in text:
        text = _LATEX_MARK.sub("", text)
    if "*" in text or "_" in text or "`" in text:
        text = _EMPHASIS.sub("", text)
    if _LINE_MARKS.intersection(text):
        text = _LINE_MARK.sub("", text)
    if "  " in text:
        text = _BLANKS.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = _BLANK_BEFORE_LINE_END.sub("", text)
    return text.strip()


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


def split_thoughts(reply: str) -> tuple[str, str | None]:
    """A raw reply in two: its thoughts with the blanks behind them, and the answer; nothing folded.

    Together they are the reply. None: the thought never ends, so that there is no answer: a letter
    inside of it is none. For whoever reads answers otherwise than letter by letter, and for what
    must not look into a thought, such as a stop string.
    """
    headed = is_headed(reply)
    if headed:
        before, heading, _ = reply.rpartition(_FINAL_HEADING)
        end = len(before) + len(heading)
    else:
        end = max((tag.end() for tag in _THINKING_TAG.finditer(reply) if tag["closes"]), default=0)
    if not end and (headed or _THINKING_TAG.match(reply.lstrip())):
        return reply, None
    if end:
        end = len(reply) - len(reply[end:].lstrip())
    return reply[:end], reply[end:]


def begins_thought(reply: str) -> bool | None:
    """Whether the beginning of a growing reply opens a thought; None: too short to tell."""
    text = reply.lstrip()
    tag = _THINKING_TAG.match(text)
    if tag is not None:
        return bool(tag["opens"])
    if is_headed(text):
        return True
    may_become_one = (
        not text
        or THINKING_HEADING.startswith(text)
        or (text[0] in _TAGS_BEGIN_WITH and len(text) < _LONGEST_TAG)
    )
    return None if may_become_one else False


def closes_thought(tail: str, *, headed: bool = False) -> bool:
    """Whether a text of a thought's last tokens holds the tag, or the heading, that closes it."""
    if headed:
        return _FINAL_HEADING in tail
    return any(tag["closes"] for tag in _THINKING_TAG.finditer(tail))


def closing_tag(text: str) -> str:
    """The first tag in a text that closes a thought; "" if there is none."""
    return next((tag[0] for tag in _THINKING_TAG.finditer(text) if tag["closes"]), "")


def heading_behind(reply: str) -> str:
    """What closes the thought of a reply that begins with a heading; "" for any other reply."""
    return f"\n\n{_FINAL_HEADING}\n\n" if is_headed(reply) else ""


def unclosed(thoughts: str) -> str:
    """Thoughts without what closes the last of them, and without the blanks behind that."""
    body = thoughts.rstrip()
    if is_headed(body):
        return body.removesuffix(_FINAL_HEADING)
    tags = [tag[0] for tag in _THINKING_TAG.finditer(body) if tag["closes"]]
    return body.removesuffix(tags[-1]) if tags else body


def is_headed(reply: str) -> bool:
    """Whether a reply begins with the heading of a thought, as HuatuoGPT-o1's do."""
    return reply.lstrip().startswith(THINKING_HEADING)


def opened_thought(prompt: str) -> str:
    """The tag with which a prompt opens the thought that its reply goes on with; "" if it does not.

    Only the very end is looked at: a question may speak of such tags.
    """
    end = prompt.rstrip()
    # No opening tag is longer; to search all of a long prompt would take as long as to read it.
    for tag in _THINKING_TAG.finditer(end, max(0, len(end) - _LONGEST_TAG)):
        if tag["opens"] and tag.end() == len(end):
            return tag[0]
    return ""


def is_thinking_tag(token: str) -> bool:
    """Whether a token begins or ends a thought, by whichever name its model has for it."""
    return _THINKING_TAG.fullmatch(token) is not None


def statement_text(visible: str) -> tuple[str, str]:
    """The plain text of a visible reply up to a next question, and the text with all that follows.

    Where something is answered before the model runs on, the first of the two is what counts.
    """
    text = _ANSWER_TAG.sub(FINAL, visible) if "<" in visible else visible
    text = _JSON_KEY.sub(FINAL, text) if '":' in text or "'" in text or '" :' in text else text
    text = _BOXED.sub(FINAL, text) if "boxed" in text else text
    if "ns" in text or "NS" in text:
        text = _ABBREVIATED_ANSWER.sub("Answer: ", text)
    run_on = _NEXT_QUESTION.search(text)
    whole = plain(text)
    return (plain(text[: run_on.start()]) if run_on else whole), whole


def _after_heading(text: str, cut_off: bool) -> VisibleReply:
    _, heading, final = text.rpartition(_FINAL_HEADING)
    if not heading and is_headed(text):
        return VisibleReply("", cut_off=True)
    return VisibleReply(_without_middle(_END_OF_TURN.sub("\n", final).strip()), cut_off)


def _without_middle(text: str) -> str:
    """The two ends of a text that is longer than any answer: a reply that ran away."""
    return text if len(text) <= 2 * _END else f"{text[:_END]}\n{text[-_END:]}"
