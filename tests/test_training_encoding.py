"""Only what the assistant says is learned, read off the tokenizer's own chat template."""

import pytest
from tiny_language_models import make_tokenizer
from tiny_training import TEMPLATE, save_chat_base

from mingmoe_eval.errors import CheckpointError, DataError, UsageError
from mingmoe_eval.training.conversations import Conversation, Message
from mingmoe_eval.training.examples import (
    NOT_LEARNED,
    encode,
    encode_stream,
    load_chat_tokenizer,
)

# As Qwen's: a newline after each turn's end. Only the last turn shows its empty reasoning.
REASONING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def talk(*contents):
    roles = ("user", "assistant")
    turns = [Message(roles[i % 2], content) for i, content in enumerate(contents)]
    return Conversation(tuple(turns), "here")


def learned(tokenizer, example):
    return tokenizer.decode([label for label in example.labels if label != NOT_LEARNED])


def test_labels_by_hand():
    tokenizer = make_tokenizer(template=TEMPLATE)
    [example] = encode(talk("发热", "胸片"), tokenizer)
    prompt = tokenizer("<|user|>发热</s><|assistant|>")["input_ids"]
    answer = tokenizer("胸片</s>")["input_ids"]
    assert list(example.ids) == prompt + answer
    assert list(example.labels) == [NOT_LEARNED] * len(prompt) + answer


def test_every_response_of_a_conversation_is_learned_with_its_end_of_turn():
    tokenizer = make_tokenizer(template=TEMPLATE)
    [example] = encode(talk("a?", "one", "b?", "two"), tokenizer)
    assert learned(tokenizer, example) == "one</s>two</s>"


def test_the_newline_after_an_end_of_turn_is_not_learned():
    tokenizer = make_tokenizer(template=REASONING)
    [example] = encode(talk("a?", "one"), tokenizer)
    assert learned(tokenizer, example) == "<think></think>one</s>"
    assert tokenizer.decode(example.ids).endswith("one</s>\n")


def test_a_template_that_rewrites_earlier_turns_gives_one_example_a_response():
    tokenizer = make_tokenizer(template=REASONING)
    first, second = encode(talk("a?", "one", "b?", "two"), tokenizer)
    assert learned(tokenizer, first) == "<think></think>one</s>"
    assert learned(tokenizer, second) == "<think></think>two</s>"
    # The earlier turn stands in the prompt as it will at inference: without its reasoning.
    assert "<|assistant|>one</s>" in tokenizer.decode(second.ids)


def test_without_an_end_of_turn_in_the_template_the_end_of_text_is_added_and_learned():
    tokenizer = make_tokenizer(template=PLAIN)
    [example] = encode(talk("a?", "one"), tokenizer)
    assert learned(tokenizer, example) == " one\n</s>"


def test_overlong_examples_are_cut_and_counted_and_refused_when_nothing_is_left_to_learn():
    tokenizer = make_tokenizer(template=TEMPLATE)
    [whole] = encode(talk("发热", "胸片 and more"), tokenizer)
    prompt = whole.labels.count(NOT_LEARNED)
    stream = encode_stream("s", [talk("发热", "胸片 and more")], tokenizer, prompt + 1)
    assert (stream.cut, len(stream.examples[0].ids)) == (1, prompt + 1)
    with pytest.raises(DataError, match=f"here: no response within {prompt} tokens"):
        encode_stream("s", [talk("发热", "胸片 and more")], tokenizer, prompt)


def test_conversations_without_a_response_in_reach_are_skipped_and_counted_if_asked():
    tokenizer = make_tokenizer(template=TEMPLATE)
    [short] = encode(talk("a", "b"), tokenizer)
    talks = [talk("a", "b"), talk("a " * 60, "b"), talk("a", "b")]
    stream = encode_stream("s", talks, tokenizer, len(short.ids), skip_too_long=True)
    assert (len(stream.examples), stream.skipped, stream.cut) == (2, 1, 0)
    with pytest.raises(DataError, match="no conversation has a response within"):
        encode_stream("s", talks[1:2], tokenizer, len(short.ids), skip_too_long=True)


def test_what_a_template_refuses_is_listed():
    raising = "{% if messages|length > 2 %}{{ raise_exception('two turns at most') }}{% endif %}"
    tokenizer = make_tokenizer(template=raising + TEMPLATE)
    with pytest.raises(DataError, match="here: the chat template refuses it: two turns at most"):
        encode_stream("s", [talk("a", "b", "c", "d"), talk("a", "b")], tokenizer, 99)


def test_a_template_whose_prompt_is_no_beginning_of_the_conversation_is_refused():
    odd = "{{ messages|length }}" + TEMPLATE
    with pytest.raises(DataError, match="where the response begins cannot be told"):
        encode_stream("s", [talk("a", "b")], make_tokenizer(template=odd), 99)


def test_a_base_without_a_chat_template_is_refused_unless_one_is_given(tmp_path):
    base = str(save_chat_base(tmp_path / "base", template=None))
    with pytest.raises(CheckpointError, match="no chat template: take the chat variant"):
        load_chat_tokenizer(base)
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    assert load_chat_tokenizer(base, tmp_path / "t.jinja").chat_template == TEMPLATE
    with pytest.raises(UsageError, match="cannot be read"):
        load_chat_tokenizer(base, tmp_path / "absent.jinja")
