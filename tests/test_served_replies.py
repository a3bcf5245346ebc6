"""Replies of OpenAI-compatible servers: what is read from them, and what is refused."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import listed, text

from mingmoe_eval.engine.served_protocol import (
    MalformedReply,
    echoed_tokens,
    first_tokens,
    text_reply,
)
from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts


def echo(tokens, values, prompt_tokens=None, tops=None):
    reply = text("".join(tokens), chat=False, finish="length")
    reply["usage"] = {"prompt_tokens": prompt_tokens} if prompt_tokens else None
    logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}
    reply["choices"][0]["logprobs"] = logprobs
    return reply


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chat", [False, True])
def test_a_text_comes_with_its_end_and_its_cost(chat):
    read = text_reply(text("答案是B", chat=chat, finish="length"), chat=chat)
    assert (read.text, read.finish) == ("答案是B", "length")
    assert (read.prompt_tokens, read.generated_tokens) == (11, 3)


@pytest.mark.parametrize("reason", ["stop", "eos_token", "stop_sequence", None])
def test_every_servers_word_for_an_own_end_is_a_stop(reason):
    assert text_reply(text("A", chat=False, finish=reason), chat=False).finish == "stop"


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("<think>A or B?</think>\n\nC", "C"),
        ("A or B?</think>C", "C"),  # the template has begun the thought
        ("<think>A or B", None),  # cut off: a letter in a thought is no answer
        (" C", " C"),
    ],
)
def test_a_thought_is_kept_and_is_no_part_of_the_answer(content, answer):
    read = text_reply(text(content, chat=True), chat=True).text
    assert read == content
    assert split_thoughts(read)[1] == answer


def test_a_thought_that_the_server_keeps_apart_and_cuts_off_leaves_an_empty_answer():
    reply = text(None, chat=True, finish="length")
    assert text_reply(reply, chat=True).text == ""


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize(
    ("content", "finish", "whole", "answer"),
    [
        ("C", "stop", "<think>A or B?</think>\n\nC", "C"),
        (None, "length", "<think>A or B?", None),
        ("", "length", "<think>A or B?", None),
    ],
)
def test_a_thought_that_the_server_keeps_apart_is_put_in_front(
    field, content, finish, whole, answer
):
    reply = text(content, chat=True, finish=finish)
    reply["choices"][0]["message"][field] = "A or B?"
    read = text_reply(reply, chat=True).text
    assert read == whole
    assert split_thoughts(read)[1] == answer


@pytest.mark.parametrize("finish", ["stop", "eos_token", "tool_calls", None])
@pytest.mark.parametrize("said", [{"content": None}, {"content": ""}, {}])
@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning_content": "A or B?"},
        {"reasoning": "A or B?"},
        {"reasoning_content": None, "reasoning": "A or B?"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "A or "}, {"summary": "B?"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "A or B?"}]}]},
        {"content": [{"type": "thinking", "thinking": "A or B?"}]},
    ],
)
def test_a_thought_that_ends_in_no_answer_is_an_empty_answer(thought, said, finish):
    reply = text(None, chat=True, finish=finish)
    reply["choices"][0]["message"] = {"role": "assistant", **said, **thought}
    read = text_reply(reply, chat=True)
    assert split_thoughts(read.text) == ("<think>A or B?</think>\n\n", "")
    assert read.finish == "stop"


def test_a_thought_that_is_counted_but_not_shown_may_end_in_no_answer_too():
    reply = text(None, chat=True)
    reply["usage"] = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
    read = text_reply(reply, chat=True)
    assert (read.text, read.finish, read.thought_tokens) == ("", "stop", 7)


@pytest.mark.parametrize(
    ("finish", "parts", "whole"),
    [
        ("stop", ["A or B?", "C", "D"], "<think>A or B?</think>\n\nCD"),
        ("length", ["A or B?"], "<think>A or B?"),
        ("stop", ["", "C"], "C"),
    ],
)
def test_content_in_parts_is_read_as_one_text(finish, parts, whole):
    thought, *answer = parts
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
    content += [{"type": "text", "text": one} for one in answer]
    assert text_reply(text(content, chat=True, finish=finish), chat=True).text == whole


@pytest.mark.parametrize("content", [[], [7], [{"type": "image_url", "image_url": {}}], {}])
def test_content_in_parts_that_say_nothing_is_no_answer(content):
    with pytest.raises(MalformedReply, match="no content"):
        text_reply(text(content, chat=True), chat=True)


def test_a_refusal_is_a_reply():
    reply = text(None, chat=True)
    reply["choices"][0]["message"]["refusal"] = "I cannot say."
    assert text_reply(reply, chat=True).text == "I cannot say."


def test_reordered_choices_are_told_by_their_index_and_equal_duplicates_are_one():
    reply = text("A", chat=False)
    first = reply["choices"][0]
    reply["choices"] = [{**first, "index": 1, "text": "B"}, first, dict(first)]
    assert text_reply(reply, chat=False).text == "A"


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        "A",
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"index": 0, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "text": "A", "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "text": "A"}, {"index": 0, "text": "B"}]},
        {"choices": [{"index": 0, "text": 7}]},
        {"error": {"message": "busy"}, "choices": [{"index": 0, "text": "A"}]},
        text("A", chat=False, finish="content_filter"),
        text(None, chat=False),
    ],
)
def test_a_reply_in_doubt_is_no_answer(reply):
    with pytest.raises(MalformedReply):
        text_reply(reply, chat=False)


def test_null_content_of_a_chat_is_no_answer():
    with pytest.raises(MalformedReply, match="no content"):
        text_reply(text(None, chat=True), chat=True)


def test_usage_that_is_missing_or_odd_counts_as_nothing():
    odd = [{"prompt_tokens": value} for value in ("11", -1, True, 1.5, 10**400)]
    for usage in (None, {}, *odd):
        assert text_reply(text("A", chat=False) | {"usage": usage}, chat=False).prompt_tokens == 0


# --- the likeliest first tokens ------------------------------------------------------------------


@pytest.mark.parametrize("chat", [False, True])
def test_letters_are_looked_up_among_the_likeliest_tokens(chat):
    tops = {" B": math.log(0.5), " A": math.log(0.25), " The": math.log(0.125)}
    read = first_tokens(listed(tops, chat=chat), chat=chat)
    values = read.log_likelihoods([" A", " B", " C"])
    assert (values[" A"], values[" B"]) == (tops[" A"], tops[" B"])
    # " C" has at most what is left, 1 - 0.875, which is also the least that is listed.
    assert values[" C"] < math.log(0.125)
    assert values[" C"] == pytest.approx(math.log(0.125))
    assert read.likeliest == " B"


def test_what_the_listed_tokens_leave_bounds_a_letter_that_is_not_listed():
    tops = {"A": math.log(0.6), "B": math.log(0.39)}
    values = first_tokens(listed(tops, chat=True), chat=True).log_likelihoods(["A", "B", "C"])
    assert values["C"] == pytest.approx(math.log(0.01))


def test_a_letter_with_and_without_a_blank_is_one_answer_where_neither_is_the_exact_text():
    tops = {" A": math.log(0.3), "A\n": math.log(0.2), "B ": math.log(0.4)}
    values = first_tokens(listed(tops, chat=True), chat=True).log_likelihoods(["A", "B"])
    assert values["A"] == pytest.approx(math.log(0.5))
    assert values["B"] == pytest.approx(math.log(0.4))


def test_no_letter_among_the_likeliest_tokens_says_so():
    read = first_tokens(listed({"The": -0.1, "I": -3.0}, chat=True), chat=True)
    assert read.log_likelihoods(["A", "B"]) == (
        "none of A, B is among the 2 likeliest first tokens"
    )


def test_more_than_a_letter_cannot_be_looked_up():
    read = first_tokens(listed({"yes": -0.1}, chat=True), chat=True)
    assert "only single letters" in read.log_likelihoods(["yes", "no"])


@pytest.mark.parametrize(
    "value",
    [math.nan, None, "x", True, 0.5, math.inf, 10**400, [], {}],
    ids=lambda value: repr(value),
)
def test_what_can_be_no_log_probability_is_refused(value):
    with pytest.raises(MalformedReply):
        first_tokens(listed({"A": value}, chat=True), chat=True)


def test_numbers_beyond_every_bound_are_no_crash():
    tops = {"A ": -(10**400), "B": -9999.0, " B": -0.1, "C\n": -9999}
    values = first_tokens(listed(tops, chat=True), chat=True).log_likelihoods(["A", "C"])
    assert values["C"] == -9999.0
    assert values["A"] < -1e300


def test_impossible_tokens_that_fill_up_the_list_are_passed_over():
    read = first_tokens(listed({"A": -0.1, "B": -math.inf}, chat=False), chat=False)
    assert list(read.listed) == ["A"]


# --- echoed prompts ------------------------------------------------------------------------------


def test_the_tokens_of_the_continuation_are_summed():
    read = echoed_tokens(echo(["Q", ":", " A", "nd", "!"], [None, -1.0, -2.0, -3.0, -9.0], 4))
    assert read.of_continuation(" And") == (-5.0, False)
    assert read.of_continuation("nd") == (-3.0, False)
    assert read.prompt_tokens == 4


def test_a_token_over_the_boundary_belongs_to_the_continuation():
    read = echoed_tokens(echo(["Q", "：A", "x"], [None, -2.0, -9.0], 2))
    assert read.of_continuation("A") == (-2.0, False)


def test_without_usage_the_last_token_is_the_generated_one():
    read = echoed_tokens(echo(["Q", " A", "x"], [None, -2.0, -9.0]))
    assert read.of_continuation(" A")[0] == -2.0


def test_greedy_is_told_from_the_likeliest_tokens():
    tops = [None, {":": -0.5}, {" A": -0.2}, {"x": -1.0}]
    read = echoed_tokens(echo(["Q", ":", " A", "x"], [None, -0.5, -0.2, -1.0], 3, tops))
    assert read.of_continuation(" A") == (-0.2, True)
    other = echoed_tokens(
        echo(
            ["Q", ":", " A", "x"],
            [None, -0.5, -2.0, -1.0],
            3,
            [None, {":": -0.5}, {" B": -0.2}, {}],
        )
    )
    assert other.of_continuation(" A") == (-2.0, False)


def test_nan_comes_through_so_that_its_doc_fails():
    read = echoed_tokens(echo(["Q", " A", "x"], [None, math.nan, -1.0], 2))
    assert math.isnan(read.of_continuation(" A")[0])


@pytest.mark.parametrize(
    ("reply", "continuation"),
    [
        (echo(["Q", " B", "x"], [None, -1.0, -1.0], 2), " A"),  # another request's answer
        (echo([" A", "x"], [None, -1.0], 1), " A"),  # nothing stands before it
        (echo(["Q", " A", "x"], [None, -1.0, -1.0], 2), ""),
    ],
)
def test_an_echo_of_something_else_is_no_answer(reply, continuation):
    with pytest.raises(MalformedReply):
        echoed_tokens(reply).of_continuation(continuation)


@pytest.mark.parametrize(
    "reply",
    [
        text("A", chat=False),
        echo(["x"], [-1.0]),  # the prompt did not come back
        echo(["Q", " A", "x"], [None, -1.0], 2),
        echo(["Q", " A"], [None, -1.0], 7),
        echo([], []),
    ],
)
def test_an_echo_without_the_prompt_is_no_answer(reply):
    with pytest.raises(MalformedReply):
        echoed_tokens(reply)


# --- anything at all -----------------------------------------------------------------------------

KEYS = ["choices", "index", "message", "content", "text", "finish_reason", "error", "usage"]
KEYS += ["reasoning", "reasoning_details", "thinking"]
KEYS += ["logprobs", "tokens", "token_logprobs", "top_logprobs", "prompt_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_any_json_is_read_or_refused(reply, chat):
    for read in (
        lambda: text_reply(reply, chat=chat),
        lambda: first_tokens(reply, chat=chat).log_likelihoods(["A", "B"]),
        lambda: echoed_tokens(reply).of_continuation("A"),
    ):
        with contextlib.suppress(MalformedReply):
            read()
