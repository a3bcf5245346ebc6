"""Served models: answers, faults, resume, and that no credential is ever written."""

import dataclasses
import json
import logging
import math
import time
import weakref

import pytest
from lm_eval.api.instance import Instance
from openai_server import HASTE, TinyServer, listed, serving, text
from tiny_language_models import exam_pairs, instances, make_model, make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer
from mingmoe_eval.engine.served_address import served_address
from mingmoe_eval.engine.served_client import ServedClient, asked_to_wait
from mingmoe_eval.engine.served_lm import ServedLM
from mingmoe_eval.errors import CheckpointError, RunStoreError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run

SECRET = "sk-very-secret-0123456789"
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 8}


@pytest.fixture(autouse=True)
def _no_key_of_the_machine(monkeypatch):
    for name in ("MINGMOE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def says(content="A"):
    return lambda path, payload: text(content, chat=path.startswith("/chat"))


def served(model, **options):
    return ServedLM(model, patience=options.pop("patience", HASTE), **options)


def prompts(*contexts):
    return instances("generate_until", [(context, GREEDY) for context in contexts])


def usage_of(lm, index=0):
    return {key[1]: value for key, value in lm.take_usage().items()}[index]


# --- generations ---------------------------------------------------------------------------------


def test_completions_carry_prompt_and_settings_and_report_their_cost():
    with serving(says("答案是B。\n\n题目")) as (model, seen):
        lm = served(model)
        settings = {"until": ["\n\n"], "max_gen_toks": 9}
        assert lm.generate_until(instances("generate_until", [("Q\ud800", settings)])) == [
            "答案是B。"
        ]
    assert seen.paths == ["/completions"]
    expected = {"model": "tiny", "prompt": "Q\ud800", "max_tokens": 9, "temperature": 0.0}
    assert seen.payloads[0] == {**expected, "stop": ["\n\n"]}
    usage = usage_of(lm)
    assert (usage.prompt_tokens, usage.generated_tokens, usage.finish) == (11, 3, "stop")


def test_chats_go_as_messages():
    with serving(says("B")) as (model, seen):
        lm = served(model)
        chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "问"}]
        assert lm.generate_until(prompts(lm.apply_chat_template(chat))) == ["B"]
    assert seen.paths == ["/chat/completions"]
    assert seen.payloads[0]["messages"] == chat


def test_only_four_stop_strings_are_sent_and_all_are_heeded():
    with serving(says("one#two")) as (model, seen):
        settings = {"until": ["v", "x", "y", "z", "#"]}
        request = instances("generate_until", [("Q", settings)])
        assert served(model).generate_until(request) == ["one"]
    assert seen.payloads[0]["stop"] == ["v", "x", "y", "z"]


def test_equal_prompts_are_asked_once_and_paid_once_but_draws_are_each_their_own():
    with serving(says()) as (model, seen):
        lm = served(model)
        lm.generate_until(prompts("same", "same", "other"))
        assert len(seen.payloads) == 2
        tokens = [usage.prompt_tokens for _, usage in sorted(lm.take_usage().items())]
        assert tokens == [11, 0, 11]
        drawing = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 4}
        lm.generate_until(instances("generate_until", [("same", drawing)] * 3))
    draws = seen.payloads[2:]
    assert sorted(payload["seed"] for payload in draws) == [1234, 1235, 1236]
    assert {(p["temperature"], p["top_p"]) for p in draws} == {(0.7, 0.9)}


def test_no_more_requests_are_under_way_than_allowed_and_answers_find_their_places():
    def answer(path, payload):
        time.sleep(0.02 * (hash(payload["prompt"]) % 3))
        return text(payload["prompt"].upper(), chat=False)

    with serving(answer) as (model, seen):
        progress = []
        lm = served(model, on_progress=lambda done, total: progress.append((done, total)))
        names = [f"prompt {number}" for number in range(30)]
        assert lm.generate_until(prompts(*names)) == [name.upper() for name in names]
    assert 1 < seen.most_at_once <= HASTE.concurrency
    assert progress[0] == (0, 30)
    assert progress[-1] == (30, 30)


# --- log-likelihoods -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return make_model(), make_tokenizer(template=TEMPLATE)


def scorable(pairs):
    """What is left has a context, and no blank at its end, which tokenises differently."""
    return [(c, a) for c, a in pairs if c and c == c.rstrip()]


@pytest.mark.parametrize("bos", [False, True])
def test_echoed_log_likelihoods_equal_those_of_the_checkpoint_itself(tiny, bos):
    model, tokenizer = tiny[0], make_tokenizer(bos=bos)
    requests = instances("loglikelihood", scorable(exam_pairs()))
    local = CheckpointLM.from_loaded(model, tokenizer, device="cpu").loglikelihood(requests)
    with serving(TinyServer(model, tokenizer)) as (name, _):
        lm = served(name)
        remote = lm.loglikelihood(requests)
    usage = lm.take_usage()
    for place, (mine, its) in enumerate(zip(remote, local, strict=True)):
        if failure := usage["task", place, place].failure:
            # Characters of which a token holds but a part cannot be found again by their text.
            assert failure == "the continuation's characters are parted over several tokens"
            assert not requests[place].args[1].isascii()
            continue
        assert mine[0] == pytest.approx(its[0], abs=1e-4)
        assert mine[1] == its[1]
    assert sum(not one.failure for one in usage.values()) > len(requests) / 2


def test_letters_among_the_first_tokens_equal_those_of_the_checkpoint_itself(tiny):
    model, tokenizer = tiny
    contexts = [f"题目{n}：患者发热，最可能？\n答案：" for n in range(6)]
    requests = [
        Instance("loglikelihood", {}, (context, letter), index, ("task", doc, 1))
        for doc, context in enumerate(contexts)
        for index, letter in enumerate("ABCD")
    ]
    local = CheckpointLM.from_loaded(model, tokenizer, device="cpu").loglikelihood(requests)
    with serving(TinyServer(model, tokenizer, echo=False)) as (name, seen):
        lm = served(name)
        remote = lm.loglikelihood(requests)
        assert lm.describe()["log_likelihoods"] == "first token"
        usage = lm.take_usage()
    asked = [p for p in seen.payloads if p["prompt"] in contexts]
    assert len(asked) == 6  # one for all letters of a question
    for place, ((value, _), (expected, _)) in enumerate(zip(remote, local, strict=True)):
        if usage["task", place // 4, place % 4].failure:
            assert math.isnan(value)
            continue
        # Exact where it is listed, an upper bound where it is not.
        assert value >= expected - 1e-4
    known = [d for d in range(6) if not usage["task", d, 0].failure]
    assert known
    for doc in known:
        both = [[v for v, _ in side[4 * doc : 4 * doc + 4]] for side in (remote, local)]
        assert both[0].index(max(both[0])) == both[1].index(max(both[1]))


def test_a_chats_letters_are_read_from_its_first_token():
    tops = {"B": -0.2, "A": -2.0, "The": -3.0}
    with serving(lambda path, payload: listed(tops, chat=True)) as (model, seen):
        lm = served(model)
        prompt = lm.apply_chat_template([{"role": "user", "content": "?"}])
        values = lm.loglikelihood(instances("loglikelihood", [(prompt, c) for c in "AB"]))
    assert [value for value, _ in values] == [-2.0, -0.2]
    assert seen.payloads[-1]["top_logprobs"] == 20
    assert set(seen.paths) == {"/chat/completions"}


def test_without_log_probabilities_the_tasks_are_named_with_their_other_form():
    with serving(says()) as (model, _), pytest.raises(UsageError) as caught:
        evaluate(
            RunSpec(model=model, tasks=("usmle_ll", "usmle"), sample=True, batch_size=4),
            open_model=lambda spec, folder, watch: served(spec.model),
        )
    assert "gives no log-probabilities" in str(caught.value)
    assert "usmle_ll: use usmle" in str(caught.value)


def test_nan_from_a_server_fails_its_doc_alone():
    def answer(path, payload):
        reply = text("", chat=False)
        value = math.nan if "poison" in payload["prompt"] else -1.0
        tokens = [payload["prompt"][:-2], payload["prompt"][-2:], "x"]
        reply["choices"][0]["logprobs"] = {"tokens": tokens, "token_logprobs": [None, value, -1.0]}
        reply["usage"]["prompt_tokens"] = 2
        return reply

    with serving(answer) as (model, _):
        pairs = [("poison", " A"), ("fine", " A")]
        values = [v for v, _ in served(model).loglikelihood(instances("loglikelihood", pairs))]
    assert math.isnan(values[0])
    assert values[1] == -1.0


def as_llama_cpp_says_it(reply):
    """A completion of TinyServer's in the form of llama.cpp's server: `logprobs.content[]`.

    Its `probs_vector_to_json` (tools/server/server-task.cpp) lists a token with id, text, bytes and
    `logprob`, and its rivals in `top_logprobs`; impossible ones have a float's lowest number.
    """

    def one(token, value):
        return {"id": 7, "token": token, "bytes": [*token.encode()], "logprob": value}

    (choice,) = reply["choices"]
    if plain := choice.pop("logprobs", None):
        rows = zip(plain["tokens"], plain["token_logprobs"], plain["top_logprobs"], strict=True)
        content = [
            {**one(token, value), "top_logprobs": [one(*rival) for rival in tops.items()]}
            for token, value, tops in rows
        ]
        content[0]["top_logprobs"].append(one("\ufffd", -3.4028234663852886e38))
        choice["logprobs"] = {"content": content}
    return reply


def test_letters_of_llama_cpps_completions_equal_those_of_the_checkpoint_itself(tiny):
    model, tokenizer = tiny
    tiny_server = TinyServer(model, tokenizer, echo=False)
    contexts = [f"题目{n}：患者发热，最可能？\n答案：" for n in range(6)]
    requests = [
        Instance("loglikelihood", {}, (context, letter), index, ("task", doc, 1))
        for doc, context in enumerate(contexts)
        for index, letter in enumerate("ABCD")
    ]
    local = CheckpointLM.from_loaded(model, tokenizer, device="cpu").loglikelihood(requests)

    def answer(path, payload):
        return as_llama_cpp_says_it(tiny_server(path, payload))

    def fault(attempt, path, payload):  # "Only no echo is supported"
        return "status:400" if payload.get("echo") else None

    with serving(answer, fault) as (name, _):
        lm = served(name)
        remote = lm.loglikelihood(requests)
        assert lm.describe()["log_likelihoods"] == "first token"
        usage = lm.take_usage()
    known = [place for place in range(24) if not usage["task", place // 4, place % 4].failure]
    assert known
    for place in known:
        assert remote[place][0] >= local[place][0] - 1e-4
    likeliest = [
        [max(range(4), key=lambda n: side[4 * doc + n][0]) for doc in range(6)]
        for side in (remote, local)
    ]
    answered = {place // 4 for place in known}
    assert [likeliest[0][doc] for doc in answered] == [likeliest[1][doc] for doc in answered]


# --- faults --------------------------------------------------------------------------------------

FAULTS = ["status:429", "status:429:0", "status:500", "status:503", "cut", "drip"]
FAULTS += ['body:{"error": "overloaded"}']
FAULTS += ['body:{"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]}']
NO_JSON = ["body:<html>", "body:", "body:" + "[" * 5000]
MALFORMED = ["body:null", 'body:{"choices": []}']
MALFORMED += ['body:{"choices": [{"index": 0, "text": null, "finish_reason": "stop"}]}']
MALFORMED += ['body:{"choices": [{"index": 0, "text": "A"}, {"index": 0, "text": "B"}]}']


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[:40])
def test_what_passes_is_asked_again_until_it_is_answered(fault):
    patience = dataclasses.replace(HASTE, seconds_an_attempt=0.4)
    with serving(says("B"), lambda attempt, *_: fault if attempt < 3 else None) as (model, seen):
        lm = served(model, patience=patience)
        assert lm.generate_until(prompts("one", "two")) == ["B", "B"]
    assert len(seen.payloads) == 6
    assert not usage_of(lm).failure


@pytest.mark.parametrize("fault", NO_JSON, ids=lambda fault: fault[:40])
def test_what_is_no_json_is_asked_for_once_more(fault):
    with serving(says("B"), lambda attempt, *_: fault if attempt < 2 else None) as (model, seen):
        lm = served(model)
        assert lm.generate_until(prompts("one", "two")) == ["B", "B"]
    assert len(seen.payloads) == 4
    assert not usage_of(lm).failure


@pytest.mark.parametrize("fault", MALFORMED, ids=lambda fault: fault[:60])
def test_a_reply_of_another_kind_is_given_up_at_once(fault):
    with serving(says("B"), lambda _, __, asked: fault if "bad" in asked["prompt"] else None) as (
        model,
        seen,
    ):
        lm = served(model)
        assert lm.generate_until(prompts("bad", "good")) == ["", "B"]
    assert len(seen.payloads) == 2
    failures = [usage.failure for usage in lm.take_usage().values() if usage.failure]
    assert len(failures) == 1
    assert "given up" not in failures[0]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("status:500", "HTTP 500: trouble (given up after 7 attempts)"),
        ("status:400", "HTTP 400: trouble"),
        ("status:307", "HTTP 307: trouble"),
        ("body:oops", "the reply is no JSON (given up after 2 attempts)"),
        ("cut", "RemoteProtocolError"),
        ("charset:rot13:500", "HTTP 500"),
        ("drip", "no answer within 0.1 s"),
    ],
)
def test_what_never_passes_fails_its_doc_alone_and_says_why(fault, reason):
    patience = dataclasses.replace(HASTE, seconds_an_attempt=0.1)

    def for_one(attempt, path, payload):
        return fault if "bad" in payload["prompt"] else None

    with serving(says("B"), for_one) as (model, _):
        lm = served(model, patience=patience)
        assert lm.generate_until(prompts("bad", "good")) == ["", "B"]
    usage = lm.take_usage()
    assert reason in usage["task", 0, 0].failure
    assert sum(bool(one.failure) for one in usage.values()) == 1


def test_a_reply_without_end_is_not_read_to_its_end():
    patience = dataclasses.replace(HASTE, attempts=2)
    with serving(says(), lambda *_: "bomb:40000000") as (model, _):
        lm = served(model, patience=patience)
        lm.generate_until(prompts("one"))
    assert "the reply is larger than 32 MB" in usage_of(lm).failure


def test_a_reply_that_is_too_large_is_asked_for_once():
    with serving(says(), lambda *_: "bomb:40000000") as (model, seen):
        served(model).generate_until(prompts("one"))
    assert len(seen.payloads) == 1


@pytest.mark.parametrize("fault", ["status:400", "body:oops"])
def test_an_endpoint_that_never_answers_rightly_is_given_up(fault):
    patience = dataclasses.replace(HASTE, attempts=1, failures_in_a_row=5)
    with serving(says(), lambda *_: fault) as (model, seen):
        lm = served(model, patience=patience)
        with pytest.raises(CheckpointError, match="answered none of the last 5 requests"):
            lm.generate_until(prompts(*map(str, range(100))))
    assert len(seen.payloads) < 30


def test_refusals_of_single_docs_do_not_end_a_run_that_gets_answers():
    def fault(attempt, path, payload):
        return None if payload["prompt"].endswith("0") else "status:400"

    patience = dataclasses.replace(HASTE, attempts=1, failures_in_a_row=10, concurrency=1)
    with serving(says("B"), fault) as (model, _):
        lm = served(model, patience=patience)
        assert lm.generate_until(prompts(*map(str, range(40)))) == (["B"] + [""] * 9) * 4


@pytest.mark.parametrize("kind", ["status:400", "status:404", "status:503", "cut", *MALFORMED])
def test_failures_of_any_kind_in_a_row_end_the_run(kind):
    def fault(attempt, path, payload):
        return None if payload["prompt"] == "0" else kind

    patience = dataclasses.replace(HASTE, attempts=1, failures_in_a_row=5, concurrency=1)
    with serving(says("B"), fault) as (model, seen):
        lm = served(model, patience=patience)
        with pytest.raises(CheckpointError, match="answered none of the last 5 requests"):
            lm.generate_until(prompts(*map(str, range(200))))
    assert len(seen.payloads) < 10


@pytest.mark.parametrize("charset", ["rot13", "undefined", "hex", "latin-1", "no-such"])
def test_json_is_read_whatever_encoding_its_header_claims(charset):
    with serving(says("答案B"), lambda *_: f"charset:{charset}") as (model, seen):
        assert served(model).generate_until(prompts("one")) == ["答案B"]
    assert len(seen.payloads) == 1


def test_a_server_that_says_when_to_come_back_is_left_in_peace_by_all():
    def fault(attempt, path, payload):
        return "status:429:0.3" if payload["prompt"] == "first" and attempt == 1 else None

    patience = dataclasses.replace(HASTE, concurrency=1)
    with serving(says(), fault) as (model, seen):
        served(model, patience=patience).generate_until(prompts("first", "second"))
    assert seen.times[1] - seen.times[0] >= 0.3
    with serving(says(), lambda *_: "status:429:99999") as (model, seen):
        lm = served(model)
        lm.generate_until(prompts("first"))  # does not wait for a day
    assert "HTTP 429" in usage_of(lm).failure


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "²"}, None),
        ({}, None),
    ],
)
def test_rate_limit_headers(headers, seconds):
    assert asked_to_wait(headers) == seconds


def test_a_server_that_wants_another_name_for_the_limit_is_asked_by_it_from_then_on():
    """The words are OpenAI's, of its models that think."""

    def fault(attempt, path, payload):
        if "max_tokens" not in payload:
            return None
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead."
        )
        return f"refusal:400:{said}"

    with serving(lambda path, payload: text("A", chat=True), fault) as (model, seen):
        lm = served(model)
        lm.refuse_unless_able({"usmle": "generate_until"}, chat=True)
        limits = [{k: v for k, v in p.items() if k.startswith("max")} for p in seen.payloads]
        assert limits == [{"max_tokens": 1}, {"max_completion_tokens": 1}]
        chats = [lm.apply_chat_template([{"role": "user", "content": str(n)}]) for n in range(6)]
        assert lm.generate_until(prompts(*chats)) == ["A"] * 6
        assert [p.get("max_completion_tokens") for p in seen.payloads[2:]] == [8] * 6
        assert lm.describe()["limit_sent_as"] == "max_completion_tokens"


def test_a_model_that_spends_a_trial_on_its_thoughts_answers_all_the_same():
    words = "Could not finish the message because max_tokens or model output limit was reached."

    def fault(attempt, path, payload):
        return f"refusal:400:{words}" if payload["max_tokens"] == 1 else None

    with serving(lambda path, payload: text("A", chat=True), fault) as (model, seen):
        served(model).refuse_unless_able({"usmle": "generate_until"}, chat=True)
        assert "temperature" not in seen.payloads[0]


def test_an_endpoint_that_is_gone_ends_the_run_instead_of_failing_every_doc():
    patience = dataclasses.replace(HASTE, attempts=1, failures_in_a_row=5)
    with serving(says(), lambda *_: "status:503") as (model, seen):
        lm = served(model, patience=patience)
        with pytest.raises(CheckpointError, match="--resume"):
            lm.generate_until(prompts(*map(str, range(100))))
    assert len(seen.payloads) < 20


def test_nobody_at_home_is_told_at_once():
    with pytest.raises(CheckpointError, match="nothing answers"):
        served("openai:http://127.0.0.1:9/v1#m")


def test_a_name_is_needed_where_several_models_are_served_and_found_where_there_is_one():
    with serving(says(), models=("a", "b")) as (model, _):
        with pytest.raises(UsageError, match="it serves a, b"):
            served(model.partition("#")[0])
        notes = []
        served(model.partition("#")[0] + "#c", on_note=notes.append)
        assert "lists no model of that name" in notes[0]
    with serving(says(), models=("only",)) as (model, seen):
        lm = served(model.partition("#")[0])
        lm.generate_until(prompts("Q"))
    assert seen.payloads[0]["model"] == "only"


# --- whole runs ----------------------------------------------------------------------------------

SPEC = RunSpec(model="", tasks=("usmle",), sample=True)


def run(model, spec=SPEC, **options):
    def open_model(spec, folder, watch):
        return served(spec.model, store=folder / "responses.sqlite" if folder else None)

    return evaluate(dataclasses.replace(spec, model=model), open_model=open_model, **options)


def test_a_run_over_chat_is_scored_and_says_what_it_was():
    with serving(says("答案是 A")) as (model, seen):
        done = run(model)
    result = done.results["usmle"]
    keys = [sample.doc["answer"] for sample in done.samples["usmle"]]
    assert result.main.value == keys.count("A") / len(keys)
    assert done.spec.model == model
    assert done.provenance["chat_template"]["applied"]
    assert done.provenance["model"]["weights_fingerprint"] is None
    assert done.timing["prompt_tokens"] == 11 * len(keys)
    assert set(seen.paths) == {"/chat/completions"}


def test_a_run_without_a_chat_template_uses_completions():
    with serving(says("A")) as (model, seen):
        run(model, dataclasses.replace(SPEC, chat_template=False))
    assert set(seen.paths) == {"/completions"}


def test_a_doc_that_is_never_answered_makes_the_run_incomplete_and_the_others_count():
    def fault(attempt, path, payload):
        content = payload["messages"][-1]["content"]
        return "status:500" if victim and victim in content else None

    victim = ""
    with serving(says("A"), fault) as (model, seen):
        run(model)
        victim = seen.payloads[-1]["messages"][-1]["content"]
        done = run(model)
    counts = done.results["usmle"].counts
    assert counts.failed == 1
    assert done.results["usmle"].main.n == counts.docs - 1
    assert done.incomplete == ("usmle",)


def test_answers_are_reused_when_a_run_is_resumed_and_never_by_another_run(tmp_path):
    broken = [True]

    def fault(attempt, path, payload):
        return "status:401" if broken[0] and len(seen.payloads) > 6 else None

    with serving(says("A"), fault) as (model, seen):
        with pytest.raises(CheckpointError, match="MINGMOE_API_KEY"):
            run(model, folder=tmp_path / "one")
        broken[0], first = False, len(seen.payloads)
        done = run(model, folder=tmp_path / "one", resume=True)
        second = len(seen.payloads) - first
        docs = done.results["usmle"].counts.docs
        assert done.timing["requests_from_store"] > 0
        assert second < docs + 2  # two requests of every start find out what the endpoint can do
        run(model, folder=tmp_path / "two")
        assert len(seen.payloads) - first - second == docs + 2
    assert not list(tmp_path.rglob("*.sqlite"))


def test_only_the_failed_docs_of_an_incomplete_run_are_asked_again(tmp_path):
    sick = [True]

    def fault(attempt, path, payload):
        content = payload["messages"][-1]["content"]
        return "status:500" if sick[0] and any(v in content for v in victims) else None

    victims = ()
    with serving(says("A"), fault) as (model, seen):
        undisturbed = run(model)
        asked = {p["messages"][-1]["content"] for p in seen.payloads[2:]}
        victims = sorted(asked)[:2]
        assert run(model, folder=tmp_path / "one").incomplete == ("usmle",)
        assert list((tmp_path / "one").glob("responses.sqlite"))
        sick[0], before = False, len(seen.payloads)
        done = run(model, folder=tmp_path / "one", resume=True)
        again = {p["messages"][-1]["content"] for p in seen.payloads[before:]} & asked
        assert again == set(victims)
        with pytest.raises(RunStoreError, match="nothing to resume"):
            run(model, folder=tmp_path / "one", resume=True)
    assert done.incomplete == ()
    assert done.timing["requests_from_store"] == len(asked) - len(victims)
    stored = load_run(tmp_path / "one")
    assert stored.samples == done.samples == undisturbed.samples
    assert without_clock(stored) == without_clock(done) == without_clock(undisturbed)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "eval.yaml",
        "lm_eval",
        "run.json",
        "samples",
    }
    assert len(list((tmp_path / "one" / "lm_eval").glob("results_*.json"))) == 1


def without_clock(run):
    return {name: dataclasses.replace(r, seconds=0.0) for name, r in run.results.items()}


def test_an_incomplete_run_names_the_command_that_asks_its_failed_docs_again(tmp_path, capsys):
    sick = [True]

    def fault(attempt, path, payload):
        last = payload["messages"][-1]["content"]
        asked.setdefault(last, len(asked))
        return "status:400" if sick[0] and asked[last] == 3 else None

    asked = {}
    with serving(says("A"), fault) as (model, _):
        arguments = ["--model", model, "--tasks", "usmle", "--sample", "--no-cache"]
        assert main([*arguments, "--output", str(tmp_path), "--name", "r"]) == 4
        command = f"mingmoe-eval run --resume {tmp_path / 'r'}"
        assert command in capsys.readouterr().err
        sick[0] = False
        assert main(command.split()[1:]) == 0
        assert (
            "incomplete"
            not in (tmp_path / "r" / "report.html").read_text("utf-8").partition('id="words"')[0]
        )
        assert main(command.split()[1:]) == 2
    assert "nothing to resume" in capsys.readouterr().err


def test_no_credential_is_written_anywhere(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    caplog.set_level(logging.DEBUG)

    def answer(path, payload):  # a server that repeats what it was told
        return text(f"A. {SECRET}", chat=path.startswith("/chat"))

    def fault(attempt, path, payload):
        return f'body:{{"error": "{SECRET}"}}' if attempt == 1 else None

    with serving(answer, fault, key=f"Bearer {SECRET}") as (model, _):
        arguments = ["--model", model, "--tasks", "usmle", "--sample", "--limit", "3"]
        assert main([*arguments, "--output", str(tmp_path), "--name", "r", "--json", "-"]) == 0
    assert_nowhere(SECRET, tmp_path, caplog, capfd)


def test_a_password_in_the_address_is_used_and_written_nowhere(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    basic = "Basic bWU6cGE1NXdvcmQtb2YtbWluZQ=="  # base64 of "me:pa55word-of-mine"
    with serving(says("A"), key=basic) as (model, _):
        model = model.replace("http://", "http://me:pa55word-of-mine@")
        arguments = ["--model", model, "--tasks", "usmle", "--sample", "--limit", "2"]
        assert main([*arguments, "--output", str(tmp_path)]) == 0
        assert main([*arguments, "--output", str(tmp_path), "--batch-size", "x"]) == 2
        wrong = [word.replace("of-mine", "of-yours") for word in arguments]
        assert main([*wrong, "--output", str(tmp_path), "--name", "refused"]) == 2
    for secret in ("pa55word", basic.partition(" ")[2]):
        assert_nowhere(secret, tmp_path, caplog, capfd)


def test_a_run_with_a_password_is_resumed_by_giving_it_again(tmp_path):
    basic, broken = "Basic bWU6cGE1NXdvcmQtb2YtbWluZQ==", [True]

    def fault(attempt, path, payload):
        return "status:403" if broken[0] and len(seen.payloads) > 4 else None

    with serving(says("A"), fault, key=basic) as (model, seen):
        model = model.replace("http://", "http://me:pa55word-of-mine@")
        arguments = ["--model", model, "--tasks", "usmle", "--sample", "--batch-size", "1"]
        assert main([*arguments, "--output", str(tmp_path), "--name", "r"]) == 2
        broken[0] = False
        assert main(["--resume", str(tmp_path / "r")]) == 2
        assert main(["--resume", str(tmp_path / "r"), "--model", f"{model}-other"]) == 2
        assert main(["--resume", str(tmp_path / "r"), "--model", model]) == 0


def test_a_refused_run_leaves_no_folder_behind(tmp_path):
    with serving(says()) as (model, _):
        arguments = ["--model", model, "--tasks", "usmle_ll", "--sample"]
        assert main([*arguments, "--output", str(tmp_path), "--name", "r"]) == 2
    assert not (tmp_path / "r").exists()


def assert_nowhere(secret, folder, caplog, capfd):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert not [path for path in folder.rglob("*") if secret in path.name]
    printed = capfd.readouterr()
    assert secret not in printed.out + printed.err
    assert secret not in caplog.text


def test_options_that_only_a_checkpoint_has_are_refused():
    with serving(says()) as (model, _), pytest.raises(UsageError, match="--dtype"):
        evaluate(dataclasses.replace(SPEC, model=model, dtype="float16"))


def test_letters_of_a_run_over_an_endpoint_equal_those_of_the_checkpoint(tiny):
    model, tokenizer = tiny
    spec = dataclasses.replace(SPEC, tasks=("mcmle_ll",), chat_template=False)
    local = CheckpointLM.from_loaded(model, tokenizer, device="cpu")
    here = evaluate(spec, open_model=lambda spec, folder, watch: local)
    with serving(TinyServer(model, tokenizer)) as (name, _):
        there = run(name, spec)
    for one, other in zip(here.samples["mcmle_ll"], there.samples["mcmle_ll"], strict=True):
        assert (one.prompt, one.answered) == (other.prompt, other.answered)
        assert other.log_likelihoods == pytest.approx(one.log_likelihoods, abs=1e-4)
    assert here.results["mcmle_ll"].main == there.results["mcmle_ll"].main


def test_the_client_works_where_an_event_loop_is_running_already():
    import anyio

    async def in_a_notebook(model):
        client = ServedClient(served_address(model), HASTE)
        return ServedLM(model, client=client).generate_until(prompts("Q"))

    with serving(says("B")) as (model, _):
        assert anyio.run(in_a_notebook, model) == ["B"]


def test_what_is_stored_is_plain_json_of_the_reply(tmp_path):
    with serving(says("B")) as (model, seen):
        lm = served(model, store=tmp_path / "r.sqlite")
        lm.generate_until(prompts("Q"))
        lm.close()
        again = served(model, store=tmp_path / "r.sqlite")
        assert again.generate_until(prompts("Q")) == ["B"]
        usage = usage_of(again)
        again.close()
    assert usage.from_store
    assert usage.prompt_tokens == 11
    assert json.loads(json.dumps(seen.payloads)) == seen.payloads
    assert len(seen.payloads) == 1


def test_a_doc_that_a_firewall_forbids_fails_alone():
    def fault(attempt, path, payload):
        return "status:403" if payload["prompt"] == "; DROP TABLE" else None

    patience = dataclasses.replace(HASTE, concurrency=1)
    with serving(says(), fault) as (model, _):
        lm = served(model, patience=patience)
        assert lm.generate_until(prompts("one", "; DROP TABLE", "two")) == ["A", "", "A"]
    assert "HTTP 403" in usage_of(lm, 1).failure


def test_an_endpoint_that_is_busy_when_it_is_tried_is_not_taken_for_one_of_another_kind(tiny):
    model, tokenizer = tiny
    busy = [True]
    with serving(TinyServer(model, tokenizer), lambda *_: "status:503" if busy[0] else None) as (
        name,
        _,
    ):
        lm = served(name)
        pairs = scorable(exam_pairs())[:4]
        with pytest.raises(CheckpointError, match="does not say how it can be asked: HTTP 503"):
            _ = lm.has_chat_template
        with pytest.raises(CheckpointError, match="run again when it answers"):
            lm.loglikelihood(instances("loglikelihood", pairs))
        busy[0] = False
        lm.loglikelihood(instances("loglikelihood", pairs))
    assert lm.describe()["log_likelihoods"] == "echo"


class Reply(dict):
    """A reply whose end can be seen."""

    __hash__ = object.__hash__


class ScriptedClient:
    """Stands for the network: echoes each prompt, token by token, and counts what is still held."""

    address, patience = served_address("openai:http://nowhere/v1#tiny"), HASTE

    def __init__(self):
        self.held, self.most_held = weakref.WeakSet(), 0

    def models(self):
        return ["tiny"]

    def ask(self, question):
        return next(self.ask_all([question]))[1]

    def ask_all(self, questions):
        for place, question in enumerate(questions):
            tokens = list(question.payload["prompt"])
            reply = Reply(text("", chat=False))
            reply["usage"] = {"prompt_tokens": len(tokens)}
            values = [None, *[-1.0] * (len(tokens) - 1)]
            reply["choices"][0]["logprobs"] = {"tokens": tokens, "token_logprobs": values}
            self.held.add(reply)
            self.most_held = max(self.most_held, len(self.held))
            yield place, reply


def test_of_an_echoed_prompt_only_what_it_says_is_held(tmp_path):
    pairs = [(f"question {number}\nAnswer:", " A") for number in range(50)]
    for _ in range(2):  # once asked, once out of the store
        client = ScriptedClient()
        lm = ServedLM("", client=client, store=tmp_path / "store.sqlite")
        assert lm.loglikelihood(instances("loglikelihood", pairs)) == [(-2.0, False)] * 50
        lm.close()
        assert client.most_held <= 2


def test_whoever_stops_waiting_leaves_no_requests_behind():
    def answer(path, payload):
        time.sleep(0.02)
        return says()(path, payload)

    def on_progress(done, total):
        if done == 4:
            raise ZeroDivisionError

    with serving(answer) as (model, seen):
        lm = served(model, on_progress=on_progress)
        # The exception is held meanwhile, as a notebook does, and with it the frames below.
        with pytest.raises(ZeroDivisionError):
            lm.generate_until(prompts(*map(str, range(200))))
        asked = len(seen.payloads)
        time.sleep(0.2)
        assert len(seen.payloads) <= asked + HASTE.concurrency < 50


def test_a_stored_reply_that_is_read_no_longer_is_asked_for_again(tmp_path):
    with serving(says("B")) as (model, seen):
        lm = served(model, store=tmp_path / "store.sqlite")
        assert lm.generate_until(prompts("one")) == ["B"]
        lm.close()
        store = ResponseStore(tmp_path / "store.sqlite")
        [(key,)] = store._connection.execute("SELECT key FROM answers").fetchall()
        store.put([(key, StoredAnswer(text="{}"))])
        store.close()
        again = served(model, store=tmp_path / "store.sqlite")
        assert again.generate_until(prompts("one")) == ["B"]
        assert len(seen.payloads) == 2
        again.close()


def test_a_run_s_folder_bears_the_model_s_name_also_where_the_address_does_not(tmp_path):
    with serving(says()) as (named, _):
        address = named.partition("#")[0]
        asked = ["--tasks", "usmle", "--sample", "--limit", "1", "--output", str(tmp_path)]
        assert main(["--model", address, *asked]) == 0
        [folder] = tmp_path.iterdir()
        assert folder.name.startswith("tiny-")
        assert load_run(folder).spec.model == named
    with serving(says(), models=("a", "b")) as (named, _):
        assert main(["--model", named.partition("#")[0], *asked]) == 2
    assert list(tmp_path.iterdir()) == [folder]
