"""Budgets of thought over an endpoint, on a server whose every word is a token."""

import dataclasses

import pytest
from openai_server import HASTE, serving
from tiny_language_models import instances

from mingmoe_eval.engine.prompts import GenerationSettings
from mingmoe_eval.engine.served_lm import ServedLM
from mingmoe_eval.engine.served_thoughts import begun_without_thought
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec

WORDS = 6


def thinker(path, payload):
    """Thinks in six words and answers A; asked to answer earlier, it answers B.

    What is begun goes on where it stands: the prompt's end, or the last message's.
    """
    chat = path.startswith("/chat")
    if not chat:
        so_far = payload["prompt"].partition("Q: ")[2].partition("\n")[2]
    elif payload.get("continue_final_message"):
        assert payload["add_generation_prompt"] is False
        assert payload["messages"][-1]["role"] == "assistant"
        so_far = payload["messages"][-1]["content"]
    else:
        so_far = ""
    if "</think>" in so_far:
        right = so_far.count("w") == WORDS
        left = [] if so_far.rstrip().endswith("A") else ["A" if right else "B"]
    else:
        said = so_far.removeprefix("<think>").split()
        left = [*(["<think>"] if not so_far else []), *["w"] * (WORDS - len(said)), "</think>", "A"]
    given = left[: payload["max_tokens"]]
    finish = "stop" if len(given) == len(left) else "length"
    content = " ".join(given)
    message = {"message": {"content": content}} if chat else {"text": content}
    return {
        "choices": [{"index": 0, "finish_reason": finish, **message}],
        "usage": {"prompt_tokens": 11, "completion_tokens": len(given)},
    }


def ask(think, *, chat, limit=4, answer=thinker):
    with serving(answer) as (model, seen):
        lm = ServedLM(model, patience=HASTE)
        prompt = "Q: 1\n"
        if chat:
            prompt = lm.apply_chat_template([{"role": "user", "content": prompt}])
        asked = {"until": ["\n\nnever"], "max_gen_toks": limit, "think": think}
        texts = lm.generate_until(instances("generate_until", [(prompt, asked)]))
        [usage] = lm.take_usage().values()
    return texts[0], usage, seen


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(
    ("think", "reply", "forced", "requests"),
    [
        (0, "<think>\n\n</think>\n\nB", True, 1),
        (3, "<think> w w\n</think>\n\nB", True, 2),
        (7, "<think> w w w w w w\n</think>\n\nA", True, 2),
        (8, "<think> w w w w w w </think>A", False, 2),
        (9, "<think> w w w w w w </think> A", False, 1),
        (99, "<think> w w w w w w </think> A", False, 1),
    ],
)
def test_a_thought_is_closed_and_its_reply_gone_on_with(chat, think, reply, forced, requests):
    text, usage, seen = ask(think, chat=chat)
    assert (text, usage.forced, usage.finish) == (reply, forced, "stop")
    assert len(seen.payloads) == requests
    if think == 3:
        assert usage.generated_tokens == 3 + 1
        assert usage.thought_tokens == 3
        assert "stop" not in seen.payloads[0]
        assert seen.payloads[1]["max_tokens"] == 4


@pytest.mark.parametrize("chat", [True, False])
def test_a_reply_that_ends_inside_its_thought_is_closed_and_gone_on_with(chat):
    def gives_up(path, payload):
        reply = thinker(path, payload)
        if reply["usage"]["completion_tokens"] > 4:  # more than an answer: it thinks
            said = {"content": "<think> w"} if chat else {"text": "<think> w"}
            said = {"message": said} if chat else said
            return {**reply, "choices": [{"index": 0, "finish_reason": "stop", **said}]}
        return reply

    text, usage, seen = ask(99, chat=chat, answer=gives_up)
    assert (text, usage.forced, usage.finish) == ("<think> w\n</think>\n\nB", True, "stop")
    assert len(seen.payloads) == 2


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", [None, ""])
def test_a_run_counts_a_thought_without_an_answer_as_unanswered_and_empty(field, content):
    def silent(path, payload):
        message = {"content": content, field: "A or B?"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 5}}

    spec = RunSpec(model="", tasks="usmle_cot", sample=True, limit=3)
    with serving(silent) as (model, _):
        run = evaluate(dataclasses.replace(spec, model=model))
    counts = run.results["usmle_cot"].counts
    assert (counts.failed, counts.unanswered, counts.empty, counts.truncated) == (0, 3, 3, 0)
    assert run.results["usmle_cot"].metrics["score"].value == 0.0
    assert run.results["usmle_cot"].metrics["score"].n == 3


def test_a_server_that_begins_a_new_reply_is_found_out():
    def anew(path, payload):
        return thinker(path, {**payload, "continue_final_message": False})

    text, usage, _ = ask(3, chat=True, answer=anew)
    assert text == ""
    assert "began a new reply" in usage.failure


def test_what_closes_a_thought_is_of_the_family_of_what_opened_it():
    settings = GenerationSettings(max_new_tokens=5, think=0)
    assert begun_without_thought("Q<think>\n", settings).text == "</think>\n\n"
    assert begun_without_thought("Q[THINK]", settings).text == "[/THINK]\n\n"
    assert begun_without_thought("Q", settings).text == "<think>\n\n</think>\n\n"


def test_a_run_on_a_budget_counts_its_forced_replies():
    spec = RunSpec(model="", tasks="usmle", sample=True, limit=2, think=3)
    with serving(thinker) as (model, _):
        run = evaluate(dataclasses.replace(spec, model=model))
    assert run.results["usmle"].counts.forced == 2
    assert {sample.answered for sample in run.samples["usmle"]} == {"B"}
    assert run.provenance["tasks"]["usmle"]["generation"]["think"] == 3
