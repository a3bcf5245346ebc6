"""Served models against a server that is not ours: transformers' own, on loopback and CPU."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from openai_server import HASTE
from tiny_language_models import instances, make_model, make_tokenizer

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.served_lm import ServedLM
from mingmoe_eval.errors import UsageError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec

NEEDED = ("fastapi", "uvicorn", "openai")
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 8}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason=f"transformers serve needs {', '.join(NEEDED)}: pip install 'transformers[serving]'",
    ),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    # Of a Qwen that server expects Qwen's own chat template.
    model, tokenizer = make_model("llama"), make_tokenizer(template=TEMPLATE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(tiny):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from transformers.cli.transformers import main; main()"
    arguments = ["serve", str(tiny), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    server = subprocess.Popen(
        [sys.executable, "-c", start, *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"openai:http://127.0.0.1:{port}/v1#{tiny}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(url, server, seconds=180):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert server.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"{url} did not answer within {seconds} s")


@pytest.mark.parametrize("chat", [False, True])
def test_texts_equal_those_of_the_checkpoint_itself(tiny, address, chat):
    questions = [f"题目{n}：which drug is given?\n答案：" for n in range(4)]
    served = ServedLM(address, patience=HASTE)
    here = CheckpointLM(str(tiny), device="cpu", dtype="float32")

    def answers(lm):
        prompts = questions
        if chat:
            prompts = [lm.apply_chat_template([{"role": "user", "content": q}]) for q in questions]
        return lm.generate_until(instances("generate_until", [(p, GREEDY) for p in prompts]))

    assert served.has_chat_template
    assert answers(served) == answers(here)
    expected = here.take_usage()
    for place, usage in served.take_usage().items():
        assert not usage.failure
        assert usage.prompt_tokens == expected[place].prompt_tokens
        assert usage.generated_tokens == expected[place].generated_tokens


def test_a_run_goes_through_and_letters_are_refused_with_a_way_out(address):
    spec = RunSpec(model=address, tasks=("usmle",), sample=True, limit=2)
    run = evaluate(spec)
    assert run.results["usmle"].counts.docs == 2
    assert not run.incomplete
    with pytest.raises(UsageError, match="usmle_ll: use usmle"):
        evaluate(RunSpec(model=address, tasks=("usmle_ll",), sample=True, limit=2))
