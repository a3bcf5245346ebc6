"""How replies in Spanish, French, Korean and Japanese announce an answer, in the reader's English.

Only the words that announce or judge are put into English, and the list of letters behind them:
"Les réponses correctes sont A, C et D" becomes "the answer is: A, C and D". Everything else stays,
so that the grammar of `statements` weighs one form. A reply in English or Chinese passes unchanged:
each language is looked for by marks that those two do not have.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mingmoe_eval.metrics.answer_reading.reply_text import fold

# Letters side by side are a list where nothing but a particle follows; "ACE 억제제" is a drug.
_RUN = r"[A-J]{2,10}(?=\s?(?:[.,;:!)\]。、]|$|\n|입니|이다|이고|です|で|が|と|와|과))"
# A letter may be followed by a particle (A입니다, aです), but not by more letters of its script.
_PLAIN = rf"(?:{_RUN}|(?:[A-Z]|[a-h])(?![A-Za-zÀ-ÿ0-9]))"
# In Spanish and French "a", "e", "A" and "E" are words too ("a la vez", "A continuación"): a small
# letter must end something, and a capital of these two may not open a clause.
_ROMANCE = (
    rf"(?:{_RUN}|[B-DF-Z](?![A-Za-zÀ-ÿ0-9])"
    r"|[AE](?![A-Za-zÀ-ÿ0-9])(?! (?!(?:es|son|est|sont|porque|ya|pues|debido|car|puisque|parce|y|e"
    r"|o|u|et|ou)\b)[a-zà-ÿ]{2,})"
    r"|[a-h](?=\s?[)\].,;\"'»]|\s*(?:\n|$)|\s(?:y|e|o|u|et|ou)\s(?:la\s)?[a-h]\b))"
)
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_NUMBER = rf"(?:\d{{1,2}}|[{_CIRCLED}])"


def _enclosed(letter: str) -> str:
    return rf"[\"'(\[«<]{{0,2}}\s?{letter}\s?[\"')\]»>]{{0,2}}"


@dataclass(frozen=True, slots=True)
class _Language:
    """How one language announces.

    Attributes:
        marks: What shows that a reply is in it.
        cue: What stands before an answer; the group `final` is filled by a last answer's words.
        numbered: An option called by its place, with the number in the group `n`.
        both: What joins letters that are all meant.
        either: What joins letters of which one is meant.
        behind: What behind a letter says that it is the answer.
        denied: What behind a letter says that it is not.
        but: What sets a letter against one that was denied.
        letter: How a letter of an option looks.
    """

    marks: re.Pattern[str]
    cue: re.Pattern[str]
    numbered: re.Pattern[str]
    both: str
    either: str
    behind: re.Pattern[str]
    denied: re.Pattern[str]
    but: str
    letter: str


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_SPANISH = _Language(
    marks=_compiled(r"\b(?:respuestas?|opci[oó]n(?:es)?|correctas?|alternativas?)\b"),
    cue=_compiled(
        r"(?<!no )(?:\b(?:por (?:lo )?tanto|as[ií] que|entonces),? )?(?:\b(?:la|las) )?"
        r"\b(?:(?:respuestas?|opci[oó]n(?:es)?|alternativas?|soluci[oó]n)"
        r"(?:\s(?:(?P<final>final)|correctas?|m[aá]s \w+|adecuadas?|verdaderas?|es decir)){0,2}"
        r"|(?<=la )correcta|(?<=las )correctas)"
        r"(?<!no)\s?(?:es|ser[ií]a|son|ser[ií]an|debe ser|:)\s?:?\s?(?!no\b|incorrect|fals)"
        r"(?:(?:la|las|el)\s)?(?:(?:opci[oó]n(?:es)?|letras?|respuestas?|alternativas?)\s)?"
        r"|(?<!no )\b(?:es|son) correctas?\s(?:las?|:)\s(?:(?:opci[oó]n(?:es)?)\s)?"
    ),
    numbered=_compiled(
        rf"(?:opci[oó]n|respuesta|n[uú]mero|alternativa)\s(?P<n>{_NUMBER})\b|(?P<circled>[{_CIRCLED}])"
    ),
    both=r"y|e",
    either=r"o|u",
    behind=_compiled(
        r"\s(?:es|son)\s(?:las?\s)?(?:(?:respuestas?|opci[oó]n(?:es)?)\s)?"
        r"(?:correctas?|verdaderas?|la adecuada)\b"
    ),
    denied=_compiled(r"\sno\s(?:es|son|ser)"),
    but=r"\bsino (?:que (?:es|son) )?(?:(?:la|las) )?(?:opci[oó]n(?:es)? )?",
    letter=_ROMANCE,
)
_FRENCH = _Language(
    marks=_compiled(r"\b(?:r[ée]ponses?|exactes?|correctes?|bonnes?|vraies?)\b"),
    cue=_compiled(
        r"(?:\bdonc,? )?(?:\b(?:la|les) )?"
        r"(?:\b(?:bonnes? r[ée]ponses?|bonnes? propositions?|r[ée]ponses?"
        r"|(?:propositions?|options?|affirmations?)(?= (?:exacte|correcte|vraie|juste)))"
        r"(?:\s(?:(?P<final>finales?)|correctes?|exactes?|vraies?|justes?)){0,2})"
        r"\s?(?:est|sont|serait|seraient|:)\s?(?:donc\s|:)?\s?(?!pas\b|inexact|incorrect|fauss)"
        r"(?:(?:la|les|le)\s)?(?:(?:r[ée]ponses?|propositions?|lettres?|options?)\s)?"
    ),
    numbered=_compiled(
        rf"(?:r[ée]ponse|proposition|option)\s(?:n[°o]|num[ée]ro)?\s?(?P<n>{_NUMBER})\b"
        rf"|(?P<circled>[{_CIRCLED}])"
    ),
    both=r"et",
    either=r"ou",
    behind=_compiled(
        r"\s(?:est|sont)\s(?:(?:la|les)\s)?(?:bonnes?\sr[ée]ponses?|correctes?|exactes?|vraies?"
        r"|justes?)\b"
    ),
    denied=_compiled(r"\s(?:n'|ne )?(?:est|sont)\spas\b"),
    but=r"\bmais (?:plut[ôo]t )?(?:(?:la|les) )?(?:r[ée]ponses? |propositions? )?",
    letter=_ROMANCE,
)
_KOREAN = _Language(
    marks=re.compile("[가-힣]"),
    cue=_compiled(
        r"(?:(?P<final>최종)\s?(?:적인\s)?)?(?:정답|답안|답)(?:지)?\s?(?:은|는|이|:)?\s?:?\s?"
        r"(?:바로\s)?(?:(?:선택지|보기)\s)?"
        rf"(?={_enclosed(_PLAIN)}|{_NUMBER}\s?번|[{_CIRCLED}])"
    ),
    numbered=re.compile(rf"(?P<n>{_NUMBER})\s?번|(?P<circled>[{_CIRCLED}])"),
    both=r"와|과|및|그리고",
    either=r"또는|혹은|이나|나",
    behind=re.compile(
        r"\s?(?:이|가)\s?(?:가장\s)?(?:정답|답|적절|적합|옳|맞)|(?:을|를)\s?"
        r"(?:선택|고르|골)"
    ),
    denied=re.compile(r"\s?(?:이|가|은|는)?\s?(?:아니|아닌|아닙|틀|옳지\s?않|맞지\s?않)"),
    but=r"아니라\s",
    letter=_PLAIN,
)
# Replies come folded, with simplified forms of some characters; so are the patterns.
_JAPANESE = _Language(
    marks=re.compile(fold("[ぁ-ゖァ-ヺ]|【(?:最終)?(?:回答|解答|正解)】")),
    cue=re.compile(
        fold(
            r"【\s?(?P<final>最終|)\s?(?:回答|解答|正解|正答|答え)\s?】\s?:?\s?"
            r"|(?P<last>最終(?:的な)?)?(?:正解|正答|答え|解答|回答)(?:の選択肢)?\s?(?:は|が|:)\s?:?\s?"
            r"(?:選択肢\s?)?"
            r"|(?:正しい|適切な|最も[^。\n]{1,16}な|適切でない|誤っている)(?:選択肢|もの|の)\s?は\s?,?"
            r"(?:選択肢\s?)?"
        )
    ),
    numbered=re.compile(fold(rf"選択肢\s?(?P<n>{_NUMBER})|(?P<circled>[{_CIRCLED}])")),
    both=r"と|および|及び|ならびに",
    either=r"または|か|もしくは",
    behind=re.compile(
        fold(
            r"\s?(?:が|を)\s?(?:最も)?(?:正解|正答|答え|正しい|適切(?!で(?:は)?な)|選択|選ぶ|選び)"
        )
    ),
    denied=re.compile(fold(r"\s?(?:では|じゃ)\s?な(?:い|く)|\s?(?:は|が)\s?(?:誤|不適切|間違)")),
    but=r"(?:では|じゃ)なく(?:て)?、?,?\s?",
    letter=_PLAIN,
)
_LANGUAGES = (_SPANISH, _FRENCH, _KOREAN, _JAPANESE)


def in_english(text: str, options: Mapping[str, str]) -> str:
    """The reply with its announcements in English; of other languages it is left as it is.

    Args:
        text: A visible reply, folded.
        options: Texts by letter; an option that is called by its place gets its letter.
    """
    for language in _LANGUAGES:
        if language.marks.search(text):
            text = _translated(text, language, list(options), set(options.values()))
    return text


def _translated(text: str, language: _Language, letters: Sequence[str], texts: set[str]) -> str:
    text = language.numbered.sub(_by_place(letters, texts), text)
    listed = _list_of(language)
    parts: list[str] = []
    position = 0
    for cue in language.cue.finditer(text):
        if cue.start() < position:
            continue
        found = listed.match(text, cue.end())
        if found and language.denied.match(text, found.end()):
            continue
        words = "\nfinal answer: " if _is_final(cue.groupdict()) else "\nthe answer is: "
        parts += [text[position : cue.start()], words]
        position = cue.end()
        if found:
            parts += [_english_list(found.group(), language), " . "]
            position = found.end()
    text = "".join([*parts, text[position:]])
    told = (
        rf"(?P<list>{listed.pattern})(?i:{language.behind.pattern})"
        rf"|(?i:{language.but})(?P<but>{listed.pattern})"
    )

    def english(match: re.Match[str]) -> str:
        return f"\nthe answer is: {_english_list(match['list'] or match['but'], language)} . "

    return re.sub(told, english, text)


def _is_final(said: Mapping[str, str | None]) -> bool:
    # The frame 【回答】 is what the prompt asks for, with or without a word for "last".
    return said.get("final") is not None or said.get("last") is not None


def _list_of(language: _Language) -> re.Pattern[str]:
    one = _enclosed(language.letter)
    joint = rf"(?:\s?[,、・/&+;]\s?|\s?(?:{language.both}|{language.either})\s?|\s)"
    word = r"(?:(?:la|les|le|las|opción|opcion|réponse|reponse|proposition|option|選択肢)\s?){0,2}"
    return re.compile(rf"(?<![A-Za-zÀ-ÿ]){one}(?:{joint}{{1,2}}{word}{one}){{0,9}}")


def _english_list(said: str, language: _Language) -> str:
    # "aまたはb" has no blanks around the word; the "o" of Spanish must stand alone.
    alone = (r"(?<![A-Za-zÀ-ÿ])", r"(?![A-Za-zÀ-ÿ])") if language.letter == _ROMANCE else ("", "")
    either = re.search(rf"{alone[0]}(?:{language.either}){alone[1]}", said)
    joints = {*language.both.split("|"), *language.either.split("|")}
    words = re.findall(r"[A-Za-zÀ-ÿ]+", said)
    named = [
        letter.upper()
        for word in words
        if word not in joints and (len(word) == 1 or word.isupper())
        for letter in word
    ]
    return (" or " if either else ", ").join(named)


def _by_place(letters: Sequence[str], texts: set[str]) -> Callable[[re.Match[str]], str]:
    def letter(match: re.Match[str]) -> str:
        said = match["n"] or match["circled"]
        number = _CIRCLED.index(said) + 1 if said in _CIRCLED else int(said)
        # Where an option's text is that very number, a number may be the text.
        if said in texts or not 1 <= number <= len(letters):
            return match[0]
        words = match[0][: match.start("n") - match.start()] if match["n"] else ""
        return words + letters[number - 1]

    return letter
