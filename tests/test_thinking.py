"""Thoughts on a budget: closed at it, answered behind it, counted, the same however they came."""

import dataclasses
import random

import pytest
from thinking_models import (
    THOUGHT_TOKENS,
    exam_of,
    save_thinker,
    thinking_model,
    thinking_tokenizer,
)
from tiny_language_models import instances, make_model, make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.growing_text import GeneratedText
from mingmoe_eval.engine.prompts import GenerationSettings
from mingmoe_eval.engine.thinking import thought_end
from mingmoe_eval.errors import UsageError
from mingmoe_eval.rescoring import rescore
from mingmoe_eval.run_store import load_run

LETTERS = "bejpz"


@pytest.fixture(scope="module")
def thinker():
    tokenizer = thinking_tokenizer()
    return CheckpointLM.from_loaded(thinking_model(tokenizer), tokenizer)


def ask(lm, cases, **arguments):
    chats = [[{"role": "user", "content": f"case {letter}"}] for letter in cases]
    requests = [(lm.apply_chat_template(chat), {"until": [], **arguments}) for chat in chats]
    texts = lm.generate_until(instances("generate_until", requests))
    usage = [one for _, one in sorted(lm.take_usage().items(), key=lambda item: item[0][1])]
    return texts, usage


@pytest.mark.parametrize("think", [0, 1, 2, 4, 5, 9, 10, 25, 26, 99])
def test_a_thought_is_closed_at_its_budget_and_left_alone_below_it(thinker, think):
    texts, usage = ask(thinker, LETTERS, think=think, max_gen_toks=8)
    for letter, text, cost in zip(LETTERS, texts, usage, strict=True):
        needed = THOUGHT_TOKENS[letter]
        whole = "zyxwvutsrqponmlkjihgfedcba"[27 - needed :]
        if needed <= think:
            assert text == f"<think>{whole}</think>A"
            assert (cost.forced, cost.thought_tokens, cost.generated_tokens) == (
                False,
                needed,
                needed + 1,
            )
        else:
            closing = "\n</think>" if think else "</think>"
            assert text == f"<think>{whole[:think]}{closing}\n\nB"
            closing_tokens = len(thinker.tokenizer(closing)["input_ids"])
            assert (cost.forced, cost.thought_tokens) == (True, think + closing_tokens)
        assert cost.finish == "stop"


def test_a_model_that_would_end_inside_its_thought_is_asked_for_its_answer():
    tokenizer = thinking_tokenizer()
    model = thinking_model(tokenizer)
    # After c it ends instead of going on to b.
    [c] = tokenizer("c")["input_ids"]
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    head.data[tokenizer.eos_token_id] += 1.3 * embedding.data[c]
    lm = CheckpointLM.from_loaded(model, tokenizer)
    assert ask(lm, "e", max_gen_toks=40)[0] == ["<think>dc"]
    texts, [cost] = ask(lm, "e", think=20, max_gen_toks=40)
    assert texts == ["<think>dc\n</think>\n\nB"]
    assert cost.forced


def test_the_budget_of_the_answer_is_its_own(thinker):
    """Behind a thought the limit counts the answer alone, and a cut answer is cut off."""
    texts, [cost] = ask(thinker, "z", think=30, max_gen_toks=1)
    assert texts[0].endswith("</think>A")
    assert cost.finish == "length"
    assert cost.generated_tokens == 27


def test_rows_and_neighbours_change_nothing():
    tokenizer = thinking_tokenizer()
    model = thinking_model(tokenizer)
    questions = random.Random(1).choices(LETTERS, k=17)
    one = CheckpointLM.from_loaded(model, tokenizer, batch_size=1)
    many = CheckpointLM.from_loaded(model, tokenizer, batch_size=8)
    for think in (1, 6, 12):
        asked = {"think": think, "max_gen_toks": 5}
        assert ask(one, questions, **asked) == ask(many, questions, **asked)


def test_a_model_that_does_not_think_answers_as_without_a_budget():
    model, tokenizer = make_model(), thinking_tokenizer()
    lm = CheckpointLM.from_loaded(model, tokenizer)
    for prompt in ("one two", "患者发热", "[1] <b>"):
        for limit in (3, 60):
            plain = instances("generate_until", [(prompt, {"until": [], "max_gen_toks": limit})])
            budget = instances(
                "generate_until", [(prompt, {"until": [], "max_gen_toks": limit, "think": 5})]
            )
            assert lm.generate_until(plain) == lm.generate_until(budget)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (
            "{% for m in messages %}{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}"
            "\n</think>\n\n{% endif %}{{ m.content }}{% endfor %}",
            "\n</think>\n\n",
        ),
        (
            "{% for m in messages %}{% if m.thinking %}<|channel|>analysis<|message|>"
            "{{ m.thinking }}<|end|><|start|>assistant<|channel|>final<|message|>{% endif %}"
            "{{ m.content }}{% endfor %}",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        # One that drops what was thought, and names its tags all the same.
        (
            "{% for m in messages %}{{ m.content.split('[/THINK]')[-1] }}{% endfor %}",
            "\n[/THINK]\n\n",
        ),
    ],
)
def test_what_closes_a_thought_is_read_off_the_template(template, end):
    assert thought_end(make_tokenizer(template=template)) == end


def test_a_model_without_thoughts_is_given_no_budget_for_them():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    with pytest.raises(UsageError, match="closes a thought"):
        lm.generate_until(instances("generate_until", [("x", {"think": 5})]))


def test_thoughts_are_counted_in_tokens_whatever_their_tag():
    tokenizer = make_tokenizer()
    for opened, text, answer in (
        ("", "<think>发热咳嗽</think>\n\nB", "\n\nB"),
        ("[THINK]", "any\n[/THINK]B", "B"),
        ("", "no thought", "no thought"),
    ):
        ids = tokenizer(text)["input_ids"]
        thoughts = GeneratedText(tokenizer, (), opened=opened).thought_tokens(ids)
        assert tokenizer.decode(ids[thoughts:]) == answer
    cut = tokenizer("<think>endless")["input_ids"]
    assert GeneratedText(tokenizer, ()).thought_tokens(cut) == len(cut)


def test_a_short_context_takes_from_the_thought_before_it_takes_from_the_answer():
    settings = GenerationSettings(max_new_tokens=10, think=100, thought_end="12345")
    assert settings.most_new_tokens == 115
    assert settings.within(115) is settings
    assert (settings.within(50).think, settings.within(50).max_new_tokens) == (35, 10)
    assert (settings.within(12).think, settings.within(12).max_new_tokens) == (0, 7)


# --- whole runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_thinker(tmp_path_factory.mktemp("thinker"))


@pytest.fixture
def exam(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return exam_of(tmp_path, "bbejjpzz")


def run_of(exam, checkpoint, name, *options):
    arguments = ["--tasks", str(exam), "--model", str(checkpoint), "--name", name]
    assert main([*arguments, "--output", str(exam.parent), *options]) == 0
    return load_run(exam.parent / name)


@pytest.mark.parametrize(("think", "right"), [(1, 0), (2, 2), (5, 3), (10, 5), (16, 6), (26, 8)])
def test_the_score_at_each_budget_is_that_of_the_thoughts_that_fit(
    exam, checkpoint, capsys, think, right
):
    run = run_of(exam, checkpoint, "r", "--think", str(think))
    result = run.results["thoughts"]
    assert result.main.value == right / 8
    assert result.counts.forced == 8 - right
    assert run.provenance["tasks"]["thoughts"]["generation"]["think"] == think
    told = f"{100 * (8 - right) / 8:.1f} % forced"
    assert (told in capsys.readouterr().out) is (right < 8)
    assert rescore(run).results["thoughts"].counts == result.counts


def test_thoughts_that_are_cut_off_are_counted_as_cut_and_empty(exam, checkpoint, capsys):
    """Without a budget of their own: the task's 32 tokens, then 12."""
    assert run_of(exam, checkpoint, "whole").results["thoughts"].main.value == 1
    run = run_of(exam, checkpoint, "cut", "--max-new-tokens", "12")
    counts = run.results["thoughts"].counts
    assert (counts.truncated, counts.empty, counts.forced) == (3, 3, 0)
    out = capsys.readouterr().out
    assert "3 (37.5 %)" in out
    assert "37.5 % empty" in out


def test_answers_on_a_budget_come_back_from_the_store_with_their_counts(exam, checkpoint):
    first = run_of(exam, checkpoint, "first", "--think", "4")
    again = run_of(exam, checkpoint, "again", "--think", "4")
    assert again.timing["requests_from_store"] == 8
    assert [s.to_json() for s in first.samples["thoughts"]] == [
        s.to_json() for s in again.samples["thoughts"]
    ]
    other = run_of(exam, checkpoint, "other", "--think", "5")
    assert other.timing["requests_from_store"] == 0


def test_switched_off_there_is_no_thought(exam, checkpoint):
    run = run_of(exam, checkpoint, "off", "--thinking", "off")
    assert all(sample.thought_tokens == 0 for sample in run.samples["thoughts"])
    assert all("</think>" in sample.prompt for sample in run.samples["thoughts"])
    assert dataclasses.asdict(run.results["thoughts"].counts)["forced"] == 0
