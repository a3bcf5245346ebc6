"""The options that a reply refers to, each marked in its text by one character.

References are settled before anything is read out of them: "Option C, heavier bleeding,",
"(C)", "C. Heavier bleeding" and "应选出血加重（C）" all become one mark for C. The grammar behind
then meets marks and words of judgement alone, and no word inside an option's text (`False vocal
cords`, `A+B+C`, `对乙酰氨基酚`) can be mistaken for a letter or for a judgement.

The hard part is what is no reference: the article in "A patient", the B of "B cells", the C of
"C反应蛋白", the E of "E. coli", the run ACE in "ACE抑制剂", 手术治疗 in 非手术治疗.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from mingmoe_eval.metrics.answer_reading.reply_text import fold, plain

# Marks are characters of a private-use block, which `reply_text.fold` takes out of every reply.
# A letter is marked as such when it is set off as an option ("option B", "(B)", "B. its text"), or
# bare when it merely stands in a sentence.
_SET_OFF, _BARE, _BY_TEXT, _FIRST = 0xE000, 0xE020, 0xE100, ord("A")
OR = "\ue300"
MARK = "[\ue000-\ue119]"
LETTER_MARK = "[\ue000-\ue039]"
SET_OFF_MARK = "[\ue000-\ue019]"
BARE_MARK = "[\ue020-\ue039]"
GROUP = "[\ue000-\ue119\ue300]+"

_BETWEEN_LETTERS = re.compile(r"[\s,+&、和]|and")

# A reply stuck in a loop can hold 100,000 letters; the last ones decide.
_MOST_MENTIONS = 600


@dataclass(frozen=True, slots=True)
class Item:
    """The options of one question in the spelling that replies are read in."""

    texts: Mapping[str, str]
    folded: Mapping[str, str]
    single: bool

    @classmethod
    def of(cls, options: Mapping[str, str], *, single: bool) -> Self:
        """Folded like the reply; the full stop of an option's text is no part of it."""
        texts = {letter: plain(fold(words)).strip(" .。;,") for letter, words in options.items()}
        return cls(texts, {letter: words.casefold() for letter, words in texts.items()}, single)

    def letter_like(self, words: str) -> bool:
        """Whether an option's text is made of option letters itself: `ac`, `A+B`, a blood group."""
        if len(words) > 2 * len(self.texts) + 6:
            return False
        letters = _BETWEEN_LETTERS.sub("", words).upper()
        return 0 < len(letters) <= len(self.texts) and self.texts.keys() >= set(letters)

    def with_text(self, words: str) -> list[str]:
        """The letters of the options with exactly this text."""
        wanted = words.casefold()
        return [letter for letter, text in self.folded.items() if text == wanted]


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    marks: str

    @property
    def by_letter(self) -> bool:
        return ord(self.marks[0]) < _BY_TEXT

    @property
    def letter(self) -> str:
        return letters_of(self.marks)[0]


def letters_of(marks: str) -> list[str]:
    """The option letters that a group of marks stands for, in its order."""
    return [chr(_FIRST + (ord(mark) & 0x1F)) for mark in marks if mark != OR]


def by_text(marks: str) -> bool:
    """Whether a group names options by their texts alone."""
    return all(mark >= chr(_BY_TEXT) for mark in marks)


def spelled(marked: str) -> str:
    """A marked text with letters in place of its marks, for people to read."""
    return re.sub(
        f"[\ue000-\ue119{OR}]", lambda m: "/" if m[0] == OR else letters_of(m[0])[0], marked
    )


def small(text: str) -> str:
    """The text in small letters, character by character."""
    lowered = text.lower()
    if len(lowered) != len(text):  # some capitals have two small characters
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lowered


def mark(text: str, item: Item) -> str:
    """The text with a mark for each option that it refers to; lists of them side by side.

    `A、C`, "A, C and D" and "应选甲（A）、乙（C）" become neighbouring marks, "A or C" marks with
    `OR` between them.
    """
    lowered = small(text)
    found = _merged(text, lowered, item, _found(text, lowered, item))
    written = _written(text, item, found)
    if not _MARK_AT_LINE_START.search(written):
        return written
    written = _LABEL_SIGN.sub(r"\g<1>: ", written)
    return _CUE_AT_LINE_END.sub(r"\g<1>: ", written)


_MARK_AT_LINE_START = re.compile(rf"(?:\n|\A)\s{{0,3}}(?:\d{{1,2}}[.)] ?)?{MARK}")
# A label's full stop ends no sentence, and a cue reaches over the end of its line.
_LABEL_SIGN = re.compile(rf"^(\s?(?:\d{{1,2}}[.)] ?)?{MARK}) ?[.:、)] ?", re.MULTILINE)
_CUE_AT_LINE_END = re.compile(
    r"((?:\banswers?\b|\bchoice\b|答案|正解|正答|回答|解答)(?: ?(?:is|are|would be"
    r"|[是为は]))?(?=\W)"
    r"|(?:\b(?:is|are|be)|[是为])(?= ?:))"
    # A line of its own for each option is the list of options repeated, and no answer.
    rf"[\"'】 ]{{0,2}}:?\s?[\[(\"'{{]?\n\s{{0,3}}[\"'(]?(?:\d[.)] ?)?"
    rf"(?={MARK})(?!{MARK}[^\n]*\n\s{{0,2}}{MARK})",
    re.IGNORECASE,
)


# --- finding mentions ---------------------------------------------------------------------------

_CAPITALS = re.compile(
    r"(?<![A-Za-z0-9\u0370-\u03ff°º])(?<![A-Za-z0-9]['-])(?<![a-z]/)[A-Z]{1,26}"
    r"(?!['&-]?[A-Za-z0-9\u0370-\u03ff])"
)
# A lower-case letter is an answer only after a word that announces one, and when it stands alone:
# "answer: b", "option (c)", "Ans. is 'd'".
_LOWER_CASE = re.compile(
    r"(?:answers?|options?|choices?|答案|选项?|正解|正答|回答|解答|答え)"
    r"[^\nA-Za-z\u4e00-\u9fff]{0,8}(?:(?:(?:is|are|be)\b|[はが是为])[^\nA-Za-z\u4e00-\u9fff]{0,6})?"
    r"(?P<letters>[a-z](?:(?: ?[,、/と&+] ?| and | )\(?[a-z](?![a-z])){0,6})"
    r"(?=[\])}\"'.,:;]|\s*$|\s*\n|。|で|と|、|\s[a-z]+\b)"
)
# Words that make the letter behind them a part of a term: "vitamin C", "hepatitis B", "Figure A".
_TERM_BEFORE = (
    *(
        "维生素",
        "维",
        "肝",
        "肝炎",
        "抗原",
        "因子",
        "蛋白",
        "补体",
        "甲型",
        "血型",
        "亚型",
        "型",
        "组",
        "图",
        "表",
    ),
    *(
        "vitamin",
        "vitamins",
        "hepatitis",
        "type",
        "types",
        "group",
        "class",
        "grade",
        "stage",
        "factor",
        "protein",
    ),
    *(
        "complement",
        "influenza",
        "streptococcus",
        "streptococci",
        "strep",
        "blood",
        "phase",
        "hemoglobin",
    ),
    *(
        "haemoglobin",
        "immunoglobulin",
        "amphotericin",
        "polymyxin",
        "cytochrome",
        "coenzyme",
        "plan",
        "figure",
    ),
    *(
        "illustration",
        "table",
        "part",
        "section",
        "study",
        "phospholipase",
        "patient",
        "person",
        "child",
        "drug",
    ),
    *(
        "species",
        "strain",
        "allele",
        "gene",
        "point",
        "schedule",
        "category",
        "lipid",
        "enzyme",
        "region",
        "site",
    ),
    *("zone", "chamber", "peak", "curve", "line", "graph", "image", "label"),
)
_TERM_AFTER_CHINESE = re.compile(
    r"-?(?:型|细胞|超|淋巴|族|类|链球菌|组链|反应蛋白|级|期|波|肽|受体|抗原|环|链|臂|線"
    r"|线|胶|群|股)"
)
_TERM_AFTER_ENGLISH = re.compile(
    r"[ -](?:cells?|lymphocytes?|virus|waves?|antigens?|fib(?:er|re)s?|strep\w*|peptide|chain"
    r"|reactive"
    r"|allele|receptors?|blood|agar|type|band|bands)\b"
    r"|\.? ?(?:vitamins?|coli|difficile|diff|cereus|aureus|pylori|fragilis|perfringens|botulinum"
    r"|tetani"
    r"|albicans|trachomatis|diphtheriae|immitis|burgdorferi)\b"
)
# "A" or "I" before a lower-case word or a number is an article or a pronoun, but for these words.
_ARTICLE_OR_PRONOUN = re.compile(
    r" (?!(?:because|since|as|is|are|was|and|or|for|with|which|due|based|but|would|in|that|alone"
    r"|only|over|not|rather|instead|fits|matches|explains|also"
    r"|describes?|states?|correctly|seems?|appears?|can|may|does|has|suggests?|refers?|represents?"
    r"|i\.e|most|being|will|should|could|cannot|makes?|the|to)\b)[a-z0-9]"
)
# "S. aureus": the initial of a genus, and not a letter with its label's full stop.
_ANSWER_CUE_BEFORE = re.compile(
    r"(?:answers?(?: is| are)?|[案选:是为])[\s\"'(]{0,3}$", re.IGNORECASE
)
_DEGREES = re.compile(r"\d\s?['o]?\s?$")
_GENUS = re.compile(r"\. [a-z]{4,}\b")
_CUE_BEFORE = re.compile(
    r"(?:answer|option|choice|选项?|答案|[:(]|\b(?:is|be|are)|是|为|^|\n)[\s(\"']{0,3}$", re.I
)
_NAMED_BEFORE = re.compile(
    r"(?:\boptions?|\bchoices?|\banswer|选项|答案)[ :(\"']{1,2}$", re.IGNORECASE
)
_RUN_MAY_FOLLOW = re.compile(
    r"(?:answers?|options?|choices?|选项?|选择|答案|[:(\[\"'>=]|\b(?:is|be|are|and|or)"
    r"|[是为有和与及或、,】]|^|\n)\s{0,2}[(\[\"']{0,2}$",
    re.IGNORECASE,
)
_RUN_MAY_PRECEDE = re.compile(
    r"[)\]\"']{0,2} ?(?:选项|[两三四五]?项|正确|对|错|均|都|是正确|are\b|is\b|[.,;:)。、]|$|\n"
    r"|[<\[{(【])"
)
_NOT_A_RUN = re.compile(
    r" (?!(?:and|or|are|is|both|because|since|as|for|with|only|were|all)\b)[a-z]|[\u4e00-\u9fff]"
)
_PREDICATE_CHINESE = re.compile(r"选?项|[和与及或都均正对错是为两三四五不,符这全应即]")


def _found(text: str, lowered: str, item: Item) -> list[_Mention]:
    """Mentions by text and by letter, in order and without overlap; the longest text wins."""
    taken = _texts(text, lowered, item)
    covered = bytearray(len(text) + 1)
    for mention in taken:
        covered[mention.start : mention.end] = b"\x01" * (mention.end - mention.start)
    letters = [
        m
        for m in (*_capitals(text, item), *_lower_case(text, lowered, item))
        if not covered[m.start]
    ]
    return sorted((*taken, *letters), key=lambda m: (m.start, m.end))


def _texts(text: str, lowered: str, item: Item) -> list[_Mention]:
    taken: list[_Mention] = []
    covered = bytearray(len(text) + 1)
    for letter, words in sorted(item.texts.items(), key=lambda pair: -len(pair[1])):
        if not words or item.letter_like(words) or len(item.with_text(words)) > 1:
            continue
        short, exact = _is_short(words), _is_acronym(words)
        wanted, where = (words, text) if exact else (words.lower(), lowered)
        mark = chr(_BY_TEXT + ord(letter) - _FIRST)
        start, hits = where.find(wanted), 0
        while start >= 0 and hits < _MOST_MENTIONS:
            end, hits = start + len(wanted), hits + 1
            if not covered[start] and not covered[end - 1] and _stands(text, start, end, short):
                covered[start:end] = b"\x01" * (end - start)
                taken.append(_Mention(start, end, mark))
            start = where.find(wanted, end)
    return taken


def _is_acronym(words: str) -> bool:
    return (
        words.isascii()
        and 2 <= len(words) <= 6
        and any(c.isupper() for c in words)
        and " " not in words
    )


def _is_short(words: str) -> bool:
    """Texts that turn up in any prose ("no", "20", 肝): they count only where an answer stands."""
    if words.isascii():
        return words.isdigit() or len(words) < (2 if _is_acronym(words) else 4)
    return len(words) < 2


_PREFIX_THAT_CHANGES = "非无不未抗假亚副伪类"
_ANSWER_BEFORE = re.compile(r"(?:^|\n|answer|\b(?:is|be)|[:是为选])[\s\"'(]{0,3}$", re.IGNORECASE)
_ENDS_THERE = re.compile(r"[\"')\]}]{0,2}\s{0,2}(?:[.,;:!。(]|$|\n|because\b|since\b|因为)")


def _stands(text: str, start: int, end: int, short: bool) -> bool:
    """Whether an option's text at this place is that text, and not a part of longer words."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if (_is_word(before) and _is_word(text[start])) or (
        _is_word(after) and _is_word(text[end - 1])
    ):
        return False
    if before in "- " and text[max(0, start - 4) : start - 1].lower().endswith("non"):
        return False
    if before and before in _PREFIX_THAT_CHANGES:
        return False
    if not short:
        return True
    return bool(
        _ANSWER_BEFORE.search(text[max(0, start - 10) : start]) and _ENDS_THERE.match(text, end)
    )


def _is_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _capitals(text: str, item: Item) -> Iterator[_Mention]:
    matches = list(_CAPITALS.finditer(text))
    if len(matches) > 2 * _MOST_MENTIONS:
        matches = matches[:_MOST_MENTIONS] + matches[-_MOST_MENTIONS:]
    for match in matches:
        run, start, end = match.group(), match.start(), match.end()
        before = text[max(0, start - 16) : start]
        if len(run) == 1:
            stands = _letter_stands(text, run, before, end)
        else:
            stands = _run_stands(text, run, before, end, item)
        if stands:
            yield _Mention(start, end, _marks(run))


def _letter_stands(text: str, letter: str, before: str, end: int) -> bool:
    if before.rstrip(" -").lower().endswith(_TERM_BEFORE) or _TERM_AFTER_CHINESE.match(text, end):
        return False
    if _TERM_AFTER_ENGLISH.match(text, end):
        return False
    if letter in "CF" and _DEGREES.search(before):
        return False
    if letter in "AI" and _ARTICLE_OR_PRONOUN.match(text, end) and not _NAMED_BEFORE.search(before):
        return False
    return not (_GENUS.match(text, end) and not _CUE_BEFORE.search(before))


def _run_stands(text: str, run: str, before: str, end: int, item: Item) -> bool:
    """Whether letters side by side are a list of options and not a word such as ACTH or ADA."""
    if _NOT_A_RUN.match(text, end) and not _PREDICATE_CHINESE.match(text, end):
        return False
    announced = _RUN_MAY_FOLLOW.search(before)
    if not (announced or _RUN_MAY_PRECEDE.match(text, end)):
        return False
    if list(run) == sorted(set(run)):
        # "答案是AF" names a letter that is no option; in prose AF is a term.
        return set(run) <= set(item.texts) or bool(_ANSWER_CUE_BEFORE.search(before))
    return bool(announced) and set(run) <= set(item.texts) and "(" not in before[-2:]


def _lower_case(text: str, lowered: str, item: Item) -> Iterator[_Mention]:
    for match in _LOWER_CASE.finditer(lowered):
        if match.start() and _is_word(text[match.start() - 1]) and _is_word(text[match.start()]):
            continue
        given = text[match.start("letters") : match.end("letters")]
        letters = re.findall(r"[a-z]", given.replace(" and ", ","))
        if not letters or given != match["letters"]:
            continue
        if letters == ["a"] and text[match.end() : match.end() + 1] == " ":
            continue  # "the answer is a drug"
        upper = "".join(letters).upper()
        if set(upper) <= set(item.texts):
            yield _Mention(match.start("letters"), match.end("letters"), _marks(upper))


def _marks(letters: str) -> str:
    return "".join(chr(_BARE + ord(letter) - _FIRST) for letter in letters)


def _set_off(marks: str) -> str:
    return "".join(chr(_SET_OFF + (ord(mark) & 0x1F)) for mark in marks)


# --- merging mentions ---------------------------------------------------------------------------

_LETTER_THEN_TEXT = re.compile(
    r"[)\]\"']{0,2} ?(?:选项|项)?[ .:、,)\]\"'(\[「『《-]{0,6}(?:the |an? |即|为|是|也就是)?[\"'(]?"
)
_TEXT_THEN_LETTER = re.compile(
    r"[\"'」』》]{0,2} ?[(\[,] ?(?:选项|即|options? ?|choices? ?|answer |that is,? ){0,2}[(\[\"']?",
    re.IGNORECASE,
)


def _merged(text: str, lowered: str, item: Item, found: list[_Mention]) -> list[_Mention]:
    """A letter and its own option's text side by side are one mention, by letter."""
    merged: list[_Mention] = []
    for mention in found:
        last = merged[-1] if merged else None
        if last is not None and mention.start < last.end:
            continue
        if (
            last is not None
            and len(last.marks) == len(mention.marks) == 1
            and last.letter == mention.letter
        ):
            between = text[last.end : mention.start]
            own_text = (
                last.by_letter
                and not mention.by_letter
                and not ("." in between and _PREDICATE_ENGLISH.match(text, mention.end))
            )
            if own_text and _LETTER_THEN_TEXT.fullmatch(between):
                merged[-1] = _Mention(last.start, mention.end, _set_off(last.marks))
                continue
            if mention.by_letter and not last.by_letter and _TEXT_THEN_LETTER.fullmatch(between):
                merged[-1] = _Mention(last.start, mention.end, _set_off(mention.marks))
                continue
        if mention.by_letter and len(mention.marks) == 1 and mention.letter in item.texts:
            mention = _with_own_text(text, lowered, item, mention)
        merged.append(mention)
    return merged


_PREDICATE_ENGLISH = re.compile(
    r" (?:is|are|was|were|can|does|do|has|have|will|may|acts?|causes?|would)\b"
)


def _with_own_text(text: str, lowered: str, item: Item, mention: _Mention) -> _Mention:
    """The mention drawn out over its option's text, or over most of it, where that follows."""
    words = item.texts[mention.letter].lower()
    gap = _LETTER_THEN_TEXT.match(text, mention.end)
    start = gap.end() if gap else mention.end
    while (
        start > mention.end
        and text[start - 1] in "([\"'「『《"
        and lowered[start : start + 1] != words[:1]
    ):
        start -= 1
    shared = _shared_prefix(lowered, start, words)
    enough = max(4 if not words.isascii() else 8, (len(words) * 3 + 4) // 5)
    if shared == 0 or shared < min(enough, len(words)):
        return mention
    end = start + shared
    if "." in text[mention.end : start] and _PREDICATE_ENGLISH.match(text, end):
        return (
            mention  # "The answer is B. Aspirin is an old drug": the text opens the next sentence
        )
    while end < len(text) and _is_word(text[end]) and _is_word(text[end - 1]):
        end += 1
    return _Mention(mention.start, end, _set_off(mention.marks))


def _shared_prefix(text: str, start: int, words: str) -> int:
    if text.startswith(words, start):
        return len(words)
    count = 0
    for one, other in zip(text[start : start + len(words)], words, strict=False):
        if one != other:
            break
        count += 1
    return count


# --- writing the marked text --------------------------------------------------------------------

_JOIN = re.compile(
    r"[)\]\"'」』】》]{0,3}(?:选项|项)?[\"']? ?(?P<mark>[、,;/&+|と]?) ?"
    r"(?P<word>(?:and|or|以及|还有|和|与|及|或者?|nor) ?)?(?:both |also )?(?:(?:the )?(?:options?"
    r"|choices?) |选项)?"
    r"[(\[\"'「『【《]{0,3}",
    re.IGNORECASE,
)
_JOIN_OVER_LINES = re.compile(r"[ )\].,;、\"']{0,4}\n{1,2}(?:\d{1,2}[.)] ?)?[(\[\"']{0,3}")
_OWN_CLAUSE = re.compile(
    r"[)\]\"']{0,2} {0,2}(?:选项|项)? {0,2}(?:is\b|was\b|should\b|would\b|can\b|是|为|错|不|则|虽"
    r"|也)"
)
_OPENING = re.compile(
    r"(?:(?:\b(?:the )?(?:options?|choices?|letters?|alternatives?)"
    r"|(?<![确佳误适的优终])选项) ?[#:]? ?)?"
    r"[(\[\"'「『【《<{]{0,3}\Z|[(\[](?:(?:options?|choices?|选项) ?)\Z",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"[)\]\"'」』】》>}]{0,3}(?:选项|项(?!目))?[\"']?")


def _written(text: str, item: Item, mentions: list[_Mention]) -> str:
    parts: list[str] = []
    position = 0
    for index, mention in enumerate(mentions):
        between = text[position : mention.start]
        both = index > 0 and mention.by_letter and mentions[index - 1].by_letter
        joint = _joint(text, between, mention.end, item, both) if index else None
        if joint is None:
            if index:
                closing = _CLOSING.match(between)
                between = between[closing.end() if closing else 0 :]
            opening = _OPENING.search(between[-24:])
            keep = len(between) - len(opening.group() if opening else "")
            # A blank keeps apart what brackets kept apart: 甲（E错） is no list of two.
            parts.append(between[:keep] or (" " if index else ""))
            closed = _CLOSING.match(text, mention.end)
            stands_out = mention.by_letter and (keep < len(between) or (closed and closed.group()))
            parts.append(_set_off(mention.marks) if stands_out else mention.marks)
        else:
            parts += (joint, mention.marks)
        position = mention.end
    rest = text[position:]
    closing = _CLOSING.match(rest) if mentions else None
    parts.append(rest[closing.end() if closing else 0 :])
    return "".join(parts)


def _joint(text: str, between: str, end: int, item: Item, both_letters: bool) -> str | None:
    """What joins a mention to the one before it: nothing, `OR`, or None where it stands apart."""
    if len(between) > 40:
        return None
    if joined := _JOIN.fullmatch(between):
        word = (joined["word"] or "").strip().lower()
        # "The answer is A, B is wrong": the second letter opens a clause of its own.
        if not word and joined["mark"] in ("", ",", ";") and _OWN_CLAUSE.match(text, end):
            return None
        # 预防为主（E错）: a letter in brackets behind another option's text speaks for itself.
        if not word and not joined["mark"] and not both_letters:
            return None
        return OR if word in ("or", "或", "或者") else ""
    if not item.single and _JOIN_OVER_LINES.fullmatch(between):
        return ""
    return None
