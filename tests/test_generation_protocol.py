"""How a run asks for texts: what can be said, what is refused, what is recorded and compared."""

import dataclasses
import json

import pytest
import torch
from gate_runs import make_run, make_samples
from openai_server import serving, text
from tiny_checkpoints import save_base
from tiny_language_models import instances, make_model, make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.comparison.comparability import check_comparable, find_differences
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.growing_text import NextToken, logits_processors
from mingmoe_eval.engine.prompts import GenerationSettings, generation_settings
from mingmoe_eval.engine.thinking import (
    template_args,
    template_facts,
    thinking_state,
    thinking_switch,
)
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.generation_protocol import (
    gen_kwargs_said,
    instruction_said,
    over_task,
    refuse_senseless,
    template_args_said,
)
from mingmoe_eval.model_opening import open_served
from mingmoe_eval.records import GenerationProtocol, RunSpec
from mingmoe_eval.run_store import load_run

CHAT = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>"
QWEN = (
    CHAT + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)
# One line each of how the families switch: what stands in for thinking when it is off.
FAMILIES = {
    "enable_thinking": QWEN,
    "thinking": "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
    + CHAT
    + "{% if thinking %}<think>{% else %}</think>{% endif %}",
    "reasoning": CHAT + "{% if reasoning %}<|START_THINKING|>{% endif %}",
    "thinking_budget": CHAT + "{% if thinking_budget == 0 %}<seed:think></seed:think>{% endif %}",
    "deep_think_mode": CHAT + "{% if deep_think_mode %}<think>{% endif %}",
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, {}),
        ("temperature=0.6, top_p=0.95,top_k=20", {"temperature": 0.6, "top_p": 0.95, "top_k": 20}),
        ('{"min_p": 0, "seed": 7}', {"min_p": 0.0, "seed": 7}),
        ("model", {"model": True}),
        ("do_sample=True", {"do_sample": True}),
        ("temperature=1e-1", {"temperature": 0.1}),
    ],
)
def test_what_is_said_of_sampling_is_read(said, expected):
    assert gen_kwargs_said(said) == expected


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("temprature=1", "temprature: unknown; known are temperature, top_p"),
        ("temperature=-1", "temperature=-1: it takes 0"),
        ("temperature=hot", 'temperature="hot"'),
        ("temperature=nan", "temperature"),
        ("temperature=1e-40", "temperature=1e-40: it takes 0 (greedy) or 0.0001"),
        ("temperature=true", "temperature=true"),
        ("presence_penalty=false,top_k=true", "top_k=true"),
        ("top_p=0", "top_p=0: it takes above 0"),
        ("top_k=2.5", "top_k=2.5: it takes a whole number"),
        ("max_gen_toks=9", "--max-new-tokens"),
        ("until=x", "the task's affair"),
        ("enable_thinking=true", "--thinking"),
        ("temperature", "no name=value"),
        ("top_k=1,top_k=2", "top_k is given twice"),
        ("{", "not JSON"),
    ],
)
def test_what_nobody_knows_of_sampling_is_refused_by_name(said, words):
    with pytest.raises(UsageError) as raised:
        gen_kwargs_said(said)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"gen_kwargs": {"top_p": 0.9}}, "top_p: nothing is drawn in greedy decoding"),
        ({"gen_kwargs": {"temperature": 0, "seed": 3}}, "seed: nothing is drawn"),
        ({"gen_kwargs": {"do_sample": False, "temperature": 1.0}}, "contradicts"),
        ({"gen_kwargs": {"num_beams": 4}}, "num_beams: unknown"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"thinking": "off", "think": 9}, "--thinking off forbids"),
    ],
)
def test_what_contradicts_itself_or_changes_nothing_is_refused_before_anything_is_loaded(
    protocol, words
):
    with pytest.raises(UsageError, match=words):
        refuse_senseless(GenerationProtocol(**protocol))
    with pytest.raises(UsageError, match=words):
        evaluate(RunSpec(model="/nowhere", tasks="usmle", sample=True, **protocol))


GREEDY_TASK = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": 32}


class Recommending:
    """A generation_config.json as reasoning models ship it."""

    do_sample, temperature, top_p, top_k, min_p = True, 0.6, 0.95, 20, None
    repetition_penalty, no_repeat_ngram_size = None, None


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ({}, {"max_new_tokens": 32}),
        ({"max_new_tokens": 8192}, {"max_new_tokens": 8192}),
        ({"gen_kwargs": {"temperature": 0.0}}, {"max_new_tokens": 32}),
        (
            {"gen_kwargs": {"model": True}},
            {"sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "seed": 5},
        ),
        (
            {"gen_kwargs": {"model": True, "temperature": 1.2, "seed": 9}},
            {"sample": True, "temperature": 1.2, "top_p": 0.95, "top_k": 20, "seed": 9},
        ),
        (
            {"gen_kwargs": {"temperature": 0.5, "top_p": 1.0, "top_k": -1}},
            {"sample": True, "temperature": 0.5, "top_p": 1.0, "top_k": 0, "seed": 5},
        ),
        ({"gen_kwargs": {"presence_penalty": 1.5}}, {"presence_penalty": 1.5}),
    ],
)
def test_a_runs_protocol_lies_over_the_tasks_own_arguments(protocol, expected):
    arguments = {**GREEDY_TASK, **over_task(GenerationProtocol(**protocol))}
    got = generation_settings(arguments, Recommending(), end_ids=(), seed=5)
    assert got == GenerationSettings(**{"max_new_tokens": 32, **expected})


def test_answers_from_before_there_were_more_settings_are_still_found():
    """The very JSON that made the keys of stored answers so far."""
    assert GenerationSettings(max_new_tokens=3, end_ids=(2,)).to_json() == {
        "max_new_tokens": 3,
        "stop": (),
        "end_ids": (2,),
        "sample": False,
        "seed": 0,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
    }
    assert GenerationSettings(presence_penalty=1.0).to_json()["presence_penalty"] == 1.0


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
        {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.3},
        {"temperature": 1.0, "top_p": 0.5},
        {"temperature": 0.0001, "top_k": 3},
        {"temperature": 1.5, "min_p": 0.3, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_a_draw_has_the_chances_that_it_has_in_transformers(asked):
    model = make_model()
    prompt = torch.tensor([[5, 9, 5, 9, 7, 5]])
    with torch.inference_mode():
        given = model.generate(
            prompt,
            do_sample=True,
            **{"top_k": 0, **asked},
            max_new_tokens=6,
            eos_token_id=None,
            pad_token_id=0,
            output_scores=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
    settings = generation_settings(asked, None, end_ids=(), seed=1)
    processors = logits_processors(settings, prompt.shape[1])
    for step, (logits, scores) in enumerate(zip(given.logits, given.scores, strict=True)):
        so_far = given.sequences[:, : prompt.shape[1] + step]
        assert torch.equal(processors(so_far, logits.clone()).softmax(-1), scores.softmax(-1))
        assert 0 < (scores > -torch.inf).sum() <= logits.shape[-1]


def test_penalties_of_new_tokens_are_those_of_openais_formula():
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence; the prompt's tokens do not count."""
    settings = GenerationSettings(presence_penalty=0.5, frequency_penalty=0.25)
    logits = torch.tensor([1.0, 1.9, 1.3, 0.0])
    # Token 1 came twice: 1.9 - 2 * 0.25 - 0.5 = 0.9; token 2 once: 1.3 - 0.25 - 0.5 = 0.55.
    for ids, chosen in (([2], 1), ([1, 1, 2], 0)):
        choose = NextToken(settings, torch.tensor([0, 0, 0]).numpy())
        assert [choose(logits, 1, ids[:n]) for n in range(len(ids) + 1)][-1] == chosen


@pytest.mark.parametrize("name", FAMILIES)
def test_a_templates_switch_is_found_whatever_its_family_calls_it(name):
    tokenizer = make_tokenizer(template=FAMILIES[name])
    switch = thinking_switch(tokenizer)
    assert switch is not None
    assert switch.name == name
    for thinking in ("on", "off"):
        args = template_args(tokenizer, GenerationProtocol(thinking=thinking))
        assert thinking_state(tokenizer, args) == thinking
        assert template_facts(tokenizer, args) == {"thinking": thinking, "template": {}}


def test_what_a_template_does_by_itself_is_told():
    assert thinking_state(make_tokenizer(template=QWEN), {}) == "on"
    assert thinking_state(make_tokenizer(template=FAMILIES["thinking"]), {}) == "off"
    assert thinking_state(make_tokenizer(template=CHAT), {}) == "none"
    always = make_tokenizer(template=CHAT + "<think>\n")
    assert thinking_state(always, {}) == "always"
    assert template_args(always, GenerationProtocol(thinking="on")) == {}


@pytest.mark.parametrize(
    ("template", "protocol", "words"),
    [
        (CHAT, {"thinking": "on"}, "has no switch for it"),
        (CHAT + "<think>", {"thinking": "off"}, "--think 0 closes a thought"),
        # A name that changes nothing is no switch.
        (CHAT + "{% set x = enable_thinking %}", {"thinking": "off"}, "has no switch"),
        (QWEN, {"chat_template_args": {"thinking": True}}, "does not know thinking"),
        (
            QWEN,
            {"thinking": "on", "chat_template_args": {"enable_thinking": True}},
            "say the same thing",
        ),
        (QWEN, {"reasoning_effort": "low"}, "its variables are: enable_thinking"),
    ],
)
def test_a_switch_or_variable_that_a_template_lacks_is_refused_with_those_it_has(
    template, protocol, words
):
    with pytest.raises(UsageError, match=words):
        template_args(make_tokenizer(template=template), GenerationProtocol(**protocol))


def test_template_args_and_instructions_are_read(tmp_path):
    assert template_args_said("a=1,b=x,c=false") == {"a": 1, "b": "x", "c": False}
    assert template_args_said('{"tools": []}') == {"tools": []}
    file = tmp_path / "system.txt"
    file.write_text("你是医生。\n第二行\n", "utf-8")
    assert instruction_said(f"@{file}") == "你是医生。\n第二行"
    assert instruction_said("你是医生。") == "你是医生。"
    with pytest.raises(UsageError, match="name a text file"):
        instruction_said(f"@{tmp_path / 'absent'}")


# --- whole runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = save_base(
        tmp_path_factory.mktemp("model") / "base", vocab_size=384, max_position_embeddings=512
    )
    make_tokenizer(template=QWEN).save_pretrained(folder)
    config = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "eos_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))


def run_named(folder, name, checkpoint, *options):
    arguments = ["--tasks", "usmle,usmle_ll", "--model", str(checkpoint), "--sample"]
    arguments += ["--limit", "3", "--output", str(folder), "--name", name, *options]
    assert main(arguments) == 0
    return load_run(folder / name)


def test_a_run_records_how_it_asked_and_compare_names_each_difference(tmp_path, checkpoint):
    plain = run_named(tmp_path, "plain", checkpoint)
    asked = run_named(
        *(tmp_path, "asked", checkpoint, "--max-new-tokens", "5", "--thinking", "off"),
        *("--gen-kwargs", "model,top_k=7", "--system-instruction", "Be brief."),
    )
    assert plain.provenance["protocol"] == {"thinking": "on", "template": {}}
    greedy = {"max_new_tokens": 32, "greedy": True}
    assert plain.provenance["tasks"]["usmle"]["generation"] == greedy
    assert "generation" not in plain.provenance["tasks"]["usmle_ll"]
    protocol = asked.provenance["protocol"]
    assert (protocol["thinking"], protocol["system_instruction"]) == ("off", "Be brief.")
    drawn = {"temperature": 0.6, "top_k": 7, "top_p": 0.95, "seed": 1234}
    assert asked.provenance["tasks"]["usmle"]["generation"] == {"max_new_tokens": 5, **drawn}
    assert all("Be brief." in sample.prompt for sample in asked.samples["usmle"])
    assert all(sample.prompt.endswith("<think></think>") for sample in asked.samples["usmle"])
    assert max(sample.generated_tokens for sample in asked.samples["usmle"]) <= 5
    kinds = {difference.kind for difference in find_differences(plain, asked)}
    assert kinds == {"budget", "sampling", "thinking", "system", "prompt"}
    with pytest.raises(IncomparableRunsError) as raised:
        check_comparable(plain, asked, frozenset())
    assert "usmle: max_new_tokens 32 against max_new_tokens 5 [budget]" in str(raised.value)
    assert "every task: 'on' against 'off' [thinking]" in str(raised.value)


def test_what_a_checkpoint_recommends_is_said_and_taken_only_when_asked_for(
    tmp_path, checkpoint, capsys
):
    run_named(tmp_path, "plain", checkpoint)
    told = "recommends temperature 0.6, top_p 0.95; this run is greedy"
    assert capsys.readouterr().err.count(told) == 1
    run_named(tmp_path, "drawn", checkpoint, "--gen-kwargs", "model")
    assert "recommends" not in capsys.readouterr().err


def test_a_run_of_another_protocol_never_gets_the_first_ones_answers(tmp_path, checkpoint):
    run_named(tmp_path, "first", checkpoint)
    again = run_named(tmp_path, "again", checkpoint)
    assert again.timing["requests_from_store"] == again.timing["requests"]
    for name, options in {
        "longer": ("--max-new-tokens", "40"),
        "drawn": ("--gen-kwargs", "temperature=0.6"),
        "penal": ("--gen-kwargs", "presence_penalty=1"),
    }.items():
        other = run_named(tmp_path, name, checkpoint, *options)
        letters = sum(len(s.log_likelihoods) for s in other.samples["usmle_ll"])
        assert other.timing["requests_from_store"] == letters, name


def test_draws_do_not_depend_on_what_else_is_computed(tmp_path, checkpoint):
    """Not on rows that stand beside a text, and not on whether a run was taken up again."""
    sampling = ("--gen-kwargs", "temperature=1.0", "--no-cache", "--max-new-tokens", "12")
    one = run_named(tmp_path, "one", checkpoint, *sampling, "--batch-size", "1")
    many = run_named(tmp_path, "many", checkpoint, *sampling, "--batch-size", "16")
    other = run_named(tmp_path, "other", checkpoint, *sampling, "--seed", "99")
    texts = [[s.response for s in run.samples["usmle"]] for run in (one, many, other)]
    assert texts[0] == texts[1] != texts[2]
    assert not [d for d in find_differences(one, other) if d.kind == "sampling"]


@pytest.mark.parametrize(
    "options", [("--thinking", "on"), ("--chat-template-args", "enable_thinking=true")]
)
def test_words_for_a_template_that_is_not_applied_are_refused(
    tmp_path, checkpoint, capsys, options
):
    arguments = ["--tasks", "usmle", "--model", str(checkpoint), "--sample", "--limit", "1"]
    assert main([*arguments, "--output", str(tmp_path), "--no-chat-template", *options]) == 2
    assert "this run applies none" in capsys.readouterr().err


def test_runs_that_did_not_record_how_they_asked_are_not_held_against_it():
    old = make_run("old", {"usmle": make_samples([1, 0])})
    new = dataclasses.replace(
        make_run("new", {"usmle": make_samples([1, 0])}),
        provenance={
            **old.provenance,
            "protocol": {"thinking": "on", "system_instruction": "x", "template": {}},
            "tasks": {
                "usmle": {
                    **old.provenance["tasks"]["usmle"],
                    "generation": {"max_new_tokens": 9, "greedy": True},
                }
            },
        },
    )
    assert list(find_differences(old, new)) == []


def test_the_spec_of_a_run_comes_back_from_json_with_its_protocol():
    spec = RunSpec(
        model="m",
        tasks="usmle",
        max_new_tokens=9,
        thinking="on",
        gen_kwargs={"temperature": 0.5},
        chat_template_args={"a": [1]},
    )
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.protocol.gen_kwargs == {"temperature": 0.5}


def test_a_served_model_is_told_in_every_request():
    spec = RunSpec(
        model="",
        tasks="usmle",
        sample=True,
        limit=2,
        max_new_tokens=77,
        thinking="off",
        chat_template_args={"tone": "dry"},
        reasoning_effort="low",
        gen_kwargs={"temperature": 0.7, "presence_penalty": 1.5},
    )
    with serving(lambda path, payload: text("A", chat=True)) as (model, seen):
        done = evaluate(dataclasses.replace(spec, model=model))
    last = seen.payloads[-1]
    assert last["chat_template_kwargs"] == {
        "enable_thinking": False,
        "thinking": False,
        "tone": "dry",
    }
    assert (last["reasoning_effort"], last["max_tokens"]) == ("low", 77)
    assert (last["temperature"], last["presence_penalty"], last["seed"]) == (0.7, 1.5, 1234)
    assert done.provenance["protocol"]["thinking"] == "off"
    generation = done.provenance["tasks"]["usmle"]["generation"]
    assert generation["max_new_tokens"] == 77


def test_a_served_models_own_sampling_is_left_to_the_server():
    spec = RunSpec(model="", tasks="usmle", sample=True, limit=1, gen_kwargs={"model": True})
    with serving(lambda path, payload: text("A", chat=True)) as (model, seen):
        done = evaluate(dataclasses.replace(spec, model=model))
    assert "temperature" not in seen.payloads[-1]
    generation = done.provenance["tasks"]["usmle"]["generation"]
    assert generation["temperature"] == "the server's own"


def test_what_only_one_kind_of_backend_can_do_is_refused_by_the_other():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    asked = {"max_gen_toks": 4, "no_repeat_ngram_size": 2, "presence_penalty": 0.5}
    assert lm.generate_until(instances("generate_until", [("one two", asked)]))
    with serving(lambda path, payload: text("A")) as (model, _):
        served = open_served(RunSpec(model=model, tasks="usmle"), None, _Silent())
        with pytest.raises(UsageError, match="endpoints do not know it"):
            served.generate_until(instances("generate_until", [("one two", asked)]))


class _Silent:
    def note(self, text):
        pass

    requests_done = task_started = task_done = note
