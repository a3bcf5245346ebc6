"""Option letters stated at a place in a reply: `B`, `A、C`, `(A) and (C)`, `A. text, C. text`.

The hard part is what is not an option letter: the article in "A patient", the B of "B cells",
the C of "C反应蛋白", the E of "E. coli", the run ACE in "ACE抑制剂".
"""

import re
from dataclasses import dataclass, replace

from mingmoe_eval.metrics.answer_reading.case import Case
from mingmoe_eval.metrics.answer_reading.option_text import option_at

# Every repetition is bounded, so that a reply of nothing but fillers is still read in linear time.
_FILLER = re.compile(
    r"(?:[\s*_`\"'“”‘’()\[\]{}【】「」『』《》<>$:=~#,→•-]"
    r"|\\(?:text|textbf|mathrm|mathbf|boxed)\b"
    r"|(?:the|options?|choices?|letters?|answer|therefore|thus|most|likely|probably|clearly"
    r"|definitely|indeed|both|either|indicated|by)\b"
    r"|\d{1,2}[.)]\s|选项|答案|应该|应当|应|就是|是|为|第){0,24}",
    re.IGNORECASE,
)
_RUN = re.compile(r"[A-Z]{1,26}(?![A-Za-z0-9])")
# A lower-case letter is an answer only when it stands quite alone: "answer: b", "(c)", "d.".
_LOWER_CASE = re.compile(r"[a-z](?=[\])}\"'*]|[.:]?\s*(?:$|\n|。))")
_SEPARATOR = re.compile(
    r"(?P<marks>[ \t、,;/&+|\"'“”‘’()\[\]*_`$]{0,8})(?:(?<=,)\s{1,20})?"
    r"(?P<word>(?:and|or|以及|还有|和|与|及|或)[ \t]{0,4})?"
    r"(?:options?\s|选项)?[ \t\"'(*]{0,4}",
    re.IGNORECASE,
)
# A list with a letter a line, with or without bullets.
_NEXT_LINE = re.compile(
    r"[ \t)*_`.,;、]{0,4}\n[ \t>*_•-]{0,8}(?:\d{1,2}[.)]\s?)?[(*_`]{0,3}"
    r"(?=[A-Z][)*_`.,;、 ]{0,4}(?:\n|$))"
)
_OWN_CLAUSE = re.compile(r"\s{0,3}(?:选项|项)?\s{0,3}(?:is\b|was\b|是|为|错|不)")

_MEDICAL_TERM_CHINESE = re.compile(
    r"-?(?:型|细胞|超|淋巴|族|类|链球菌|组链|反应蛋白|级|期|波|肽|受体|抗原|环|链|臂)"
)
_MEDICAL_TERM_ENGLISH = re.compile(
    r"[ -](?:cells?|lymphocytes?|virus|waves?|antigens?|fibers?|strep\w*|peptide|chain|reactive)\b"
    r"|\.? ?(?:coli|difficile|diff|cereus|aureus|pylori|fragilis|perfringens|botulinum|tetani"
    r"|albicans|trachomatis|diphtheriae|immitis|burgdorferi)\b"
)
_PART_OF_WORD = re.compile(r"['’-][A-Za-z0-9]")
# "A" or "I" before a lower-case word or a number is an article or a pronoun, but for these words.
_LOWER_CASE_WORD = re.compile(
    r"[ \t]+(?!(?:because|since|as|is|are|and|or|for|with|which|due|based|but|would|in)\b)[a-z0-9]"
)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_AFTER_RUN_CHINESE = re.compile(r"[选项和与及或都均正对是为两三四五中符这全]")
_AFTER_RUN_ENGLISH = re.compile(
    r"[ \t]+(?!(?:and|or|are|is|both|because|since|as|for|with|which|only|would|were|all)\b)[a-z]"
)
_SENTENCE_END = re.compile(r"[\s*_)\]}\"'”’」』】$]{0,8}(?:[。.!,;]|$|\n)")

_LETTERED_TEXT = re.compile(r"[ \t*]{0,4}[.:、)(][ \t*]{0,4}\S")
_BLOCK_END = re.compile(
    r"。|\n\s{0,20}\n|\n(?![\s*_>-]{0,8}(?:\d{1,2}[.)]\s\*{0,2})?(?:选项|option )?\(?[A-Z][.:、)])"
)
_BLOCK_MARK = re.compile(
    r"(?:[、,;\n]|和|与|及|\band\b|&|(?<=[\u4e00-\u9fff]) )[\s*_>(-]{0,6}"
    r"(?:\d{1,2}[.)]\s\*{0,2})?([A-Z])\*{0,2}[.:、)(]"
)
_LONGEST_BLOCK = 4000
_MOST_LETTERS = 64


@dataclass(frozen=True, slots=True)
class Statement:
    """Letters in the order in which they were stated, and where the statement ends.

    `hedged` when they are joined by "or": such a statement answers no single-answer item.
    """

    letters: tuple[str, ...]
    end: int
    by_text: bool = False
    hedged: bool = False

    def ends_sentence(self, text: str) -> bool:
        """Whether nothing but closing marks follows before the sentence is over."""
        return bool(_SENTENCE_END.match(text, self.end))


def statement_at(case: Case, position: int) -> Statement | None:
    """The letters, or the option texts, that stand at `position` after any fillers; else None.

    An option's text goes before a letter: where C is "B超", the reply "答案是B超" means C.
    """
    start = _end(_FILLER, case.text, position)
    by_text = option_at(case, start)
    if by_text is not None:
        return _texts_from(case, *by_text)
    first = _token_at(case, start)
    return None if first is None else _letters_from(case, first)


def option_mark_at(case: Case, position: int) -> Statement | None:
    """The letter or run of letters exactly at `position`, if it can be meant as options."""
    token = _RUN.match(case.text, position)
    if token is None:
        return None
    run, end = token.group(), token.end()
    plausible = (
        _single_letter_stands(case.text, run, end) if len(run) == 1 else _run_stands(case, run, end)
    )
    return Statement(tuple(run), end) if plausible else None


def _token_at(case: Case, position: int) -> Statement | None:
    if mark := option_mark_at(case, position):
        return mark
    lower = _LOWER_CASE.match(case.text, position)
    return Statement((lower.group().upper(),), lower.end()) if lower else None


def _single_letter_stands(text: str, letter: str, end: int) -> bool:
    if _PART_OF_WORD.match(text, end) or _MEDICAL_TERM_CHINESE.match(text, end):
        return False
    if _MEDICAL_TERM_ENGLISH.match(text, end):
        return False
    return letter not in "AI" or not _LOWER_CASE_WORD.match(text, end)


def _run_stands(case: Case, run: str, end: int) -> bool:
    """Whether several letters side by side are a list of options and not a word such as ACTH."""
    if _PART_OF_WORD.match(case.text, end):
        return False
    if _CHINESE.match(case.text, end) and not _AFTER_RUN_CHINESE.match(case.text, end):
        return False
    if _AFTER_RUN_ENGLISH.match(case.text, end):
        return False
    ordered = list(run) == sorted(set(run))
    return ordered or all(letter in case.options for letter in run)


def _letters_from(case: Case, first: Statement) -> Statement:
    letters, end, hedged = list(first.letters), first.end, False
    while len(letters) < _MOST_LETTERS and (more := _next_token(case, end)):
        letters += more.letters
        end = more.end
        hedged |= more.hedged
    if not case.single and _LETTERED_TEXT.match(case.text, end):
        letters += _marks_in_block(case.text, end)
    return Statement(tuple(letters), end, hedged=hedged)


def _next_token(case: Case, position: int) -> Statement | None:
    if not case.single and (next_line := _NEXT_LINE.match(case.text, position)):
        return option_mark_at(case, next_line.end())
    separator = _SEPARATOR.match(case.text, position)
    if separator is None or separator.end() == position:
        return None
    token = option_mark_at(case, separator.end())
    if token is None:
        return None
    loosely_joined = not separator["word"] and separator["marks"].strip() in ("", ",")
    # "The answer is A, B is wrong": the second letter opens a clause of its own.
    if loosely_joined and _OWN_CLAUSE.match(case.text, token.end):
        return None
    return replace(token, hedged=_is_or(separator))


def _marks_in_block(text: str, position: int) -> list[str]:
    """Further letters of a list whose letters carry texts: `A. x, C. y` or one a line."""
    block_end = _BLOCK_END.search(text, position, position + _LONGEST_BLOCK)
    end = block_end.start() if block_end else position + _LONGEST_BLOCK
    return _BLOCK_MARK.findall(text, position, end)


def _texts_from(case: Case, letter: str, end: int) -> Statement:
    letters, hedged = [letter], False
    while len(letters) < _MOST_LETTERS:
        separator = _SEPARATOR.match(case.text, end)
        found = option_at(case, separator.end()) if separator else None
        if found is None or separator is None or separator.end() == end:
            break
        letters.append(found[0])
        hedged |= _is_or(separator)
        end = found[1]
    return Statement(tuple(letters), end, by_text=True, hedged=hedged)


def _is_or(separator: re.Match[str]) -> bool:
    return (separator["word"] or "").strip().lower() in ("or", "或")


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
