import random

import pytest
from tiny_language_models import make_tokenizer

from mingmoe_eval.engine.growing_text import GeneratedText
from mingmoe_eval.metrics.answer_reading.reply_text import (
    begins_thought,
    closes_thought,
    split_thoughts,
    unclosed,
)

HEADINGS = ("## Thinking", "## Final Response")


def read(text, stop=(), *, opened="", special=False):
    """Feed a text token by token; gives (tokens before it stopped, the final answer)."""
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    reader = GeneratedText(tokenizer, stop, opened=opened)
    for count in range(1, len(ids) + 1):
        if reader.stops(ids[:count]):
            return tokenizer.decode(ids[:count]), reader.final(ids[:count])
    return tokenizer.decode(ids), reader.final(ids)


@pytest.mark.parametrize(
    ("text", "stop", "final"),
    [
        ("答案是A\n\n题目2", ["\n\n"], "答案是A"),
        ("答案是A。因为", ["。", "因为"], "答案是A"),
        ("no stop here", ["Q:"], "no stop here"),
        ("A", [], "A"),
        ("answer</s>", [], "answer"),
        ("A<|user|>more", ["<|user|>"], "A"),
        ("cut ofQuestion: x", ["Question:"], "cut of"),
        ("患者发热", ["发"], "患者"),
    ],
)
def test_the_answer_ends_before_the_first_stop_string(text, stop, final):
    stopped_at, answer = read(text, stop)
    assert answer == final
    assert not stop or len(stopped_at) <= len(text)


def test_generation_stops_with_the_token_that_completes_the_stop_string():
    stopped_at, _ = read("one two STOP three four five six", ["STOP"])
    assert "STOP" in stopped_at
    assert "four" not in stopped_at


def test_a_stop_string_inside_a_thought_does_not_stop():
    thought = "<think>first\n\nA is wrong\n\n</think>\n\nB\n\nnext"
    stopped_at, answer = read(thought, ["\n\nnext"])
    assert stopped_at == thought
    assert answer == thought.removesuffix("\n\nnext")
    assert split_thoughts(answer)[1] == "B"


def test_a_prompt_that_opens_a_thought_is_as_good_as_a_text_that_does():
    stopped_at, answer = read("hm\n\nC?</think>D.\n\nmore", ["\n\n"], opened="<think>")
    assert "more" not in stopped_at
    assert answer == "<think>hm\n\nC?</think>D."
    assert split_thoughts(answer)[1] == "D."


class CountingTokenizer:
    """A tokenizer that counts the tokens it is asked to decode."""

    def __init__(self, tokenizer):
        self.tokenizer, self.decoded = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def decode(self, ids, **options):
        self.decoded += len(ids)
        return self.tokenizer.decode(ids, **options)


@pytest.mark.parametrize(("opening", "closing"), [("<think>", "</think>"), HEADINGS])
def test_a_long_thought_full_of_stop_strings_takes_linear_time(opening, closing):
    def decoded_a_token(lines):
        tokenizer = CountingTokenizer(make_tokenizer())
        thought = f"{opening}\n" + "患者发热。\n\n" * lines + f"{closing}\n\nB\n\n"
        ids = make_tokenizer()(thought, add_special_tokens=False)["input_ids"]
        reader = GeneratedText(tokenizer, ["\n\n"])
        stopped = [n for n in range(1, len(ids) + 1) if reader.stops(ids[:n])]
        assert stopped[0] >= len(ids) - 1
        assert reader.final(ids) == thought.rstrip()
        return tokenizer.decoded / len(ids)

    assert decoded_a_token(160) < 1.1 * decoded_a_token(40)


@pytest.mark.parametrize("seed", range(40))
def test_stop_strings_are_found_where_the_whole_text_decoded_anew_has_them(seed):
    rng = random.Random(seed)
    pieces = ["。", "患者", "发热", "\n", "\n\n", " A", "😷", "<think>", "</think>", "龘", "</s>"]
    pieces += HEADINGS
    opened = rng.choice(["", "", "<think>"])
    text = rng.choice(["", "<think>", "\n<think>\n", HEADINGS[0]])
    text += "".join(rng.choices(pieces, k=60))
    # A cut character, a stop string over several tokens, one that begins inside a token.
    stop = rng.sample(["\n\n", "热。", "发", "A\n", "😷", "龘患", "</s>", "者发热\n"], 2)
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    reader = GeneratedText(tokenizer, stop, opened=opened)
    for count in range(1, len(ids) + 1):
        _, answer = split_thoughts(opened + tokenizer.decode(ids[:count]))
        expected = answer is not None and any(one in answer for one in stop)
        assert reader.stops(ids[:count]) is expected
        if expected:
            break


def test_a_thought_that_never_ends_leaves_no_answer():
    reply = read("<think>it may be A or B")[1]
    assert reply == "<think>it may be A or B"
    assert split_thoughts(reply)[1] is None


def test_special_tokens_behind_a_thought_are_no_part_of_the_answer():
    assert read("<think>x</s></think>A</s>")[1] == "<think>x</think>A"


@pytest.mark.parametrize("tags", ["<think>*</think>", "[THINK]*[/THINK]", "◁think▷*◁/think▷"])
def test_thoughts_are_kept_whatever_their_tags_and_whichever_are_special_tokens(tags):
    begins, ends = tags.split("*")
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [begins, ends]})
    reply = f"{begins}A or B?{ends}\n\nC"
    ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
    assert GeneratedText(tokenizer, ()).final([*ids, tokenizer.eos_token_id]) == reply
    assert split_thoughts(reply) == (f"{begins}A or B?{ends}\n\n", "C")


@pytest.mark.parametrize(
    ("reply", "thoughts", "answer"),
    [
        ("B", "", "B"),
        (" B", "", " B"),
        ("", "", ""),
        ("<think>a</think>b<think>c</think> d", "<think>a</think>b<think>c</think> ", "d"),
        ("A or B?</think>C", "A or B?</think>", "C"),  # the template has begun the thought
        ("\n<think>A", "\n<think>A", None),
        ("A <think>?", "", "A <think>?"),
        # HuatuoGPT-o1 has headings: they mean that at a reply's beginning alone.
        (
            "## Thinking\n\nA?\n\n## Final Response\n\nB",
            "## Thinking\n\nA?\n\n## Final Response\n\n",
            "B",
        ),
        ("\n## Thinking\nA? </think>", "\n## Thinking\nA? </think>", None),
        ("## Findings\nA\n## Final Response\nB", "", "## Findings\nA\n## Final Response\nB"),
        ("## Thinker\nB", "", "## Thinker\nB"),
    ],
)
def test_a_reply_is_its_thoughts_and_what_stands_behind_them(reply, thoughts, answer):
    assert split_thoughts(reply) == (thoughts, answer)
    assert thoughts + (answer or "") == reply


@pytest.mark.parametrize(
    ("reply", "begins"),
    [
        *(("", None), ("#", None), ("## Thin", None), ("\n## Thinkin", None)),
        *(("## Thinking", True), ("## Thinking\n\nSo", True), ("## Thinker", False)),
        *(("# Thinking\n", False), ("<th", None), ("<think>", True), ("Th", False)),
    ],
)
def test_a_reply_that_grows_tells_of_a_thought_as_soon_as_it_can(reply, begins):
    assert begins_thought(reply) is begins


def test_a_heading_closes_what_a_heading_opened_and_a_tag_what_a_tag_did():
    assert closes_thought("so\n\n## Final Response\n", headed=True)
    assert not closes_thought("so </think>", headed=True)
    assert not closes_thought("my draft: ## Final Response\n")
    assert unclosed("## Thinking\n\nA\n\n## Final Response\n\n") == "## Thinking\n\nA\n\n"
    assert unclosed("<think>a</think>b</think>\n\n") == "<think>a</think>b"
