"""vLLM as a backend, without vLLM: the same questions to a stand-in for its engine."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plain_engine import BLOCK, PlainEngine
from tiny_checkpoints import Recipe, edit_json, save_adapter, save_base
from tiny_language_models import make_model, make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.engine.backend import Checkpoint, LocalBackend
from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.errors import MingMoeError, UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec
from mingmoe_eval.vllm import door
from mingmoe_eval.vllm.backend import EngineSettings, VllmBackend, VllmCheckpoint
from mingmoe_eval.vllm.endings import OWNER
from mingmoe_eval.vllm.serving import Serving, port_for


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def backend_over(model, tokenizer):
    engine = PlainEngine(model)
    prepared = types.SimpleNamespace(routes=False)
    return engine, VllmBackend(engine, prepared, tokenizer, longest=512)


def answers(given):
    return {index: answer for some in given for index, answer in some}


def a_pair(rng, context, targets):
    own = rng.integers(5, 380, targets)
    return EncodedPair(np.concatenate([context, own]).astype(np.int32), targets)


def close(found, wanted):
    assert found.keys() == wanted.keys()
    for index, one in wanted.items():
        assert found[index].log_likelihood == pytest.approx(one.log_likelihood, abs=1e-4)
        assert found[index].greedy == one.greedy


def test_letters_of_a_question_are_one_request_of_one_new_token(model, tokenizer):
    rng = np.random.default_rng(0)
    contexts = [rng.integers(5, 380, 30) for _ in range(3)]
    pairs = [
        EncodedPair(np.array([*context, letter], np.int32), 1)
        for context in contexts
        for letter in (40, 41, 42, 43)
    ]
    engine, backend = backend_over(model, tokenizer)
    found = answers(backend.score(pairs, None))
    assert [request["of_last"] for request in engine.asked] == [[40, 41, 42, 43]] * 3
    assert [request["new"] for request in engine.asked] == [1, 1, 1]
    assert not any(request["of_prompt"] for request in engine.asked)
    close(found, answers(LocalBackend(model, tokenizer).score(pairs, None)))


def test_options_of_several_tokens_ask_for_their_own_tokens_and_read_the_cache(model, tokenizer):
    rng = np.random.default_rng(1)
    context = rng.integers(5, 380, 5 * BLOCK + 3)
    pairs = [a_pair(rng, context, count) for count in (2, 5, 9, 1)]
    engine, backend = backend_over(model, tokenizer)
    found = answers(backend.score(pairs, None))
    assert sorted(request["cached"] for request in engine.asked) == [0] + [5 * BLOCK] * 3
    # The option of one token is read off the context itself, and fills the cache for the others.
    assert [request["of_prompt"] for request in engine.asked] == [False, True, True, True]
    close(found, answers(LocalBackend(model, tokenizer).score(pairs, None)))


def test_what_options_share_is_asked_first_and_for_nothing_but_the_cache(model, tokenizer):
    rng = np.random.default_rng(5)
    long, short = rng.integers(5, 380, 3 * BLOCK + 2), rng.integers(5, 380, BLOCK - 1)
    pairs = [a_pair(rng, context, n) for context in (long, short) for n in (4, 2, 3)]
    engine, backend = backend_over(model, tokenizer)
    found = answers(backend.score(pairs, None))
    asked = {
        name: [r for r in engine.asked if r["tokens"][: len(context)] == context.tolist()]
        for name, context in (("long", long), ("short", short))
    }
    context, *options = asked["long"]
    assert context["prompt"] == len(long)
    assert [context[of] for of in ("of_last", "of_prompt", "values")] == [[], False, False]
    assert [request["cached"] for request in options] == [3 * BLOCK] * 3
    # Of a context that fills no block nothing is kept: it is not asked by itself.
    assert [request["of_prompt"] for request in asked["short"]] == [True] * 3
    close(found, answers(LocalBackend(model, tokenizer).score(pairs, None)))


def test_an_option_that_was_found_in_the_cache_is_asked_again_without_it(model, tokenizer):
    rng = np.random.default_rng(2)
    context, shared = rng.integers(5, 380, 4), rng.integers(5, 380, 3 * BLOCK)
    pairs = [
        EncodedPair(np.array([*context, *shared, last, 9], np.int32), len(shared) + 2)
        for last in (11, 12, 13)
    ]
    engine, backend = backend_over(model, tokenizer)
    found = answers(backend.score(pairs, None))
    assert len(engine.asked) == 5  # the first has no cache to read; two are asked twice
    close(found, answers(LocalBackend(model, tokenizer).score(pairs, None)))


def test_more_ids_than_a_request_may_ask_for_are_several_requests(model, tokenizer):
    context = np.arange(10, 30)
    pairs = [EncodedPair(np.array([*context, i], np.int32), 1) for i in range(5, 5 + 300)]
    engine, backend = backend_over(model, tokenizer)
    found = answers(backend.score(pairs, None))
    assert [len(request["of_last"]) for request in engine.asked] == [128, 128, 44]
    close(found, answers(LocalBackend(model, tokenizer).score(pairs, None)))


def test_a_pair_without_a_token_of_its_own_has_no_number(model, tokenizer):
    engine, backend = backend_over(model, tokenizer)
    [(index, answer)] = next(backend.score([EncodedPair(np.array([7, 8], np.int32), 0)], None))
    assert index == 0
    assert answer.log_likelihood != answer.log_likelihood
    assert engine.asked == []


def test_whoever_needs_no_more_answers_leaves_no_request_behind(model, tokenizer):
    rng = np.random.default_rng(3)
    pairs = [a_pair(rng, rng.integers(5, 380, 20), 1) for _ in range(4)]
    engine, backend = backend_over(model, tokenizer)
    given = backend.score(pairs, None)
    next(given)
    given.close()
    assert engine.under_way == {}


def prompts_of(*settings):
    rng = np.random.default_rng(4)
    return [Prompt(rng.integers(5, 380, 6 + n).astype(np.int32), s) for n, s in enumerate(settings)]


def both(model, tokenizer, prompts):
    engine, backend = backend_over(model, tokenizer)
    found = answers(backend.generate(prompts, None))
    assert engine.under_way == {}
    return found, answers(LocalBackend(model, tokenizer).generate(prompts, None)), engine


def test_texts_are_those_of_our_own_engine(model, tokenizer):
    plain = GenerationSettings(max_new_tokens=12, end_ids=(0,))
    found, wanted, _ = both(model, tokenizer, prompts_of(plain, replace(plain, max_new_tokens=5)))
    assert found == wanted


def test_a_special_token_is_no_part_of_a_text_as_in_lm_evals_hf(model):
    # lm-eval's `hf` leaves special tokens out of texts and its `vllm` leaves them in: scores of the
    # same answers would differ by the engine. They steer the chat, and answer nothing.
    tokenizer = make_tokenizer(bos=True)
    words, special = tokenizer("ab cd", add_special_tokens=False).input_ids, tokenizer.bos_token_id
    said = [words[0], special, *words[1:]]

    class Scripted(PlainEngine):
        def step(self):
            for reply in super().step():
                place = len(self.asked[0]["tokens"]) - self.asked[0]["prompt"] - 1
                yield replace(reply, new_ids=[said[place]])

    engine = Scripted(model)
    backend = VllmBackend(engine, types.SimpleNamespace(routes=False), tokenizer, longest=512)
    settings = GenerationSettings(max_new_tokens=len(said), end_ids=(0,))
    [answer] = answers(backend.generate(prompts_of(settings), None)).values()
    assert answer.text == tokenizer.decode(said, skip_special_tokens=True)
    assert answer.text != tokenizer.decode(said)
    assert answer.generated_tokens == len(said)


def test_a_stop_string_ends_a_text_and_its_request(model, tokenizer):
    plain = GenerationSettings(max_new_tokens=12, end_ids=(0,))
    prompts = prompts_of(plain)
    whole = answers(LocalBackend(model, tokenizer).generate(prompts, None))[0].text
    stop = replace(plain, stop=(whole[3:5],))
    found, wanted, _ = both(model, tokenizer, prompts_of(stop))
    assert found == wanted
    assert found[0].finish == "stop"
    assert len(found[0].text) < len(whole)


def test_a_thought_that_has_had_its_tokens_is_closed_and_the_rest_asked_as_a_prompt(
    model, tokenizer
):
    budget = GenerationSettings(
        max_new_tokens=6, end_ids=(0,), think=4, thought_end="\n</think>\n\n"
    )
    prompts = [replace(one, opened="<think>") for one in prompts_of(budget, budget)]
    found, wanted, engine = both(model, tokenizer, prompts)
    assert found == wanted
    assert found[0].forced
    assert len(engine.asked) == 4
    assert engine.asked[-1]["new"] < budget.most_new_tokens


def test_logits_that_are_no_numbers_fail_the_text(tokenizer):
    broken = make_model(seed=3)
    broken.lm_head.weight.data.fill_(float("nan"))
    _, backend = backend_over(broken, tokenizer)
    prompts = prompts_of(GenerationSettings(max_new_tokens=4, end_ids=(0,)))
    assert "not finite" in answers(backend.generate(prompts, None))[0].failure


def test_what_vllm_does_not_have_is_refused_by_name(model, tokenizer):
    _, backend = backend_over(model, tokenizer)
    prompts = prompts_of(GenerationSettings(no_repeat_ngram_size=3))
    with pytest.raises(UsageError, match="no_repeat_ngram_size = 3"):
        list(backend.generate(prompts, None))


def test_a_sampled_text_has_a_seed_of_its_own_for_each_draw(model, tokenizer):
    engine, backend = backend_over(model, tokenizer)
    settings = GenerationSettings(max_new_tokens=2, sample=True, temperature=0.7, top_p=0.9)
    [prompt] = prompts_of(settings)
    list(backend.generate([prompt, replace(prompt, repeat=1)], None))
    first, second = engine.asked
    assert first["temperature"] == 0.7
    assert first["top_p"] == 0.9
    assert first["seed"] != second["seed"]


def test_the_settings_of_a_run_reach_the_engine(tmp_path):
    spec = RunSpec(
        model="m", tasks="t", backend="vllm", tensor_parallel=2, gpu_memory=0.5, max_model_len=99
    )
    made = VllmCheckpoint.of(spec, Checkpoint(model="m"))
    assert made.settings == EngineSettings(tensor_parallel=2, gpu_memory=0.5, max_model_len=99)
    assert RunSpec.from_json(spec.to_json()) == spec


def test_a_device_is_not_for_vllm(tmp_path):
    made = VllmCheckpoint(checkpoint=Checkpoint(model="m", device="cuda:1"))
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        made.backend()


def test_options_of_vllm_without_it_are_refused():
    spec = RunSpec(model="m", tasks="usmle", sample=True, tensor_parallel=2)
    with pytest.raises(UsageError, match=r"--tensor-parallel: for --backend vllm alone"):
        evaluate(spec)


def test_the_core_does_not_take_another_engine_for_vllm(tmp_path):
    base = save_base(tmp_path / "base", vocab_size=384)
    make_tokenizer().save_pretrained(base)
    spec = RunSpec(model=str(base), tasks="usmle", sample=True, limit=1, backend="vllm")
    with pytest.raises(UsageError, match="open_model"):
        evaluate(spec)


def test_a_served_model_computes_elsewhere():
    spec = RunSpec(model="openai:http://127.0.0.1:9/v1#m", tasks="usmle", sample=True)
    with pytest.raises(UsageError, match="--backend"):
        evaluate(replace(spec, backend="vllm"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "sglang"], "'sglang' is none of local, vllm"),
        (["--backend", "vllm", "--adapters", "a,b"], "give --model"),
    ],
)
def test_mistakes_end_with_status_2(tmp_path, capsys, arguments, message):
    base = save_base(tmp_path / "base", vocab_size=384)
    arguments = ["--model", str(base), "--tasks", "usmle", "--sample", *arguments]
    assert main([*arguments, "--output", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(
    any(door.importlib.util.find_spec(n) for n in ("vllm",)), reason="vLLM is installed"
)
def test_without_vllm_both_verbs_say_what_to_install(tmp_path, capsys):
    base = save_base(tmp_path / "base", vocab_size=384)
    make_tokenizer().save_pretrained(base)
    options = ["--tasks", "usmle", "--sample", "--output", str(tmp_path / "runs")]
    assert main(["serve", str(base)]) == 2
    assert "vllm" in capsys.readouterr().err
    assert main(["--model", str(base), "--backend", "vllm", *options]) == 2
    told = capsys.readouterr().err
    assert "vLLM is not installed: pip install" in told
    assert "torchvision" in told


def test_an_engine_that_dies_says_that_what_was_answered_is_kept():
    class EngineDeadError(Exception): ...

    def die():
        raise EngineDeadError

    engine = door.Engine(
        types.SimpleNamespace(llm_engine=types.SimpleNamespace(step=die)), {"dtype": "float32"}
    )
    with pytest.raises(MingMoeError, match="resume the run"):
        next(engine.step())


def test_whoever_waits_for_an_engine_that_was_killed_is_woken():
    class EngineDeadError(Exception): ...

    waiting = queue.Queue()
    client = types.SimpleNamespace(
        outputs_queue=waiting, resources=types.SimpleNamespace(engine_dead=False)
    )

    def step():
        waiting.get(timeout=20)
        raise EngineDeadError

    engine = door.Engine(
        types.SimpleNamespace(llm_engine=types.SimpleNamespace(step=step, engine_core=client)),
        {"dtype": "float32"},
    )
    client.resources.engine_dead = True
    with pytest.raises(MingMoeError, match="What was answered is kept"):
        next(engine.step())


def test_the_fingerprint_names_engine_and_version_and_not_the_place(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"mingmoe": {"checkpoint": "/a", "base": "/b", "settings": "s"}})
    )
    prepared = types.SimpleNamespace(folder=tmp_path)
    backend = VllmBackend(PlainEngine(make_model()), prepared, None, longest=9)
    before = backend.settings_fingerprint
    assert before.startswith("vllm-0-")
    edit_json(tmp_path / "config.json", mingmoe={"checkpoint": "/c", "settings": "s"})
    assert backend.settings_fingerprint == before
    edit_json(tmp_path / "config.json", mingmoe={"checkpoint": "/c", "settings": "t"})
    assert backend.settings_fingerprint != before


def test_a_port_that_is_taken_is_refused_and_0_is_any_that_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is not to be had"):
            port_for("127.0.0.1", port)
        assert port_for("127.0.0.1", 0) not in (0, port)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("gpu3.lan", "http://gpu3.lan:8000"),
    ],
)
def test_where_clients_find_a_server(host, address):
    assert Serving(name="m", host=host).address == address


PARENT = """
import subprocess, sys, time
from mingmoe_eval.vllm.endings import end_with_parent
child = subprocess.Popen(["sleep", "60"], start_new_session=True, preexec_fn=end_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child of its parent")
def test_a_server_ends_with_its_parent_even_where_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < until:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break  # it has ended; whoever adopted it has not looked yet
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}/stat").exists()


OWNED = """
import time
from mingmoe_eval.vllm.endings import end_with_owner
end_with_owner()
print("watching", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of another process's end")
def test_a_process_of_an_engine_ends_with_the_run_that_asked_for_it():
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    engine = subprocess.Popen(
        [sys.executable, "-c", OWNED],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, OWNER: str(owner.pid)},
    )
    assert engine.stdout.readline() == "watching\n"
    assert engine.poll() is None
    owner.kill()
    owner.wait()
    assert engine.wait(20) == -signal.SIGKILL
    late = subprocess.run(
        [sys.executable, "-c", OWNED], check=False, env={**os.environ, OWNER: str(owner.pid)}
    )
    assert late.returncode == 1
    engine.stdout.close()


def test_a_server_is_prepared_without_vllm(tmp_path, capsys):
    base = save_base(tmp_path / "base", vocab_size=384)
    make_tokenizer().save_pretrained(base)
    save_adapter(tmp_path / "adapter", base, Recipe())
    folder = tmp_path / "for-vllm"
    assert main(["serve", str(tmp_path / "adapter"), "--prepare", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"vllm serve {folder} --tokenizer {folder}")
    assert (folder / "config.json").is_file()
