"""vLLM itself against our own engine, on tiny checkpoints of every family, in fp32.

Greedy texts are equal, log-probabilities within 1e-4 of each other (with embeddings tied to the
head, 1e-3).
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make vllm, make test-vllm")

import sibling_checkpoints as siblings
from engine_questions import answers, hold_equal
from peft import LoraConfig, get_peft_model
from tiny_checkpoints import (
    FAMILIES,
    Recipe,
    edit_json,
    save_adapter,
    save_base,
    save_merged,
)
from tiny_language_models import make_tokenizer
from transformers import AutoModelForCausalLM

from mingmoe_eval.engine.backend import Checkpoint
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.run_store import load_run
from mingmoe_eval.vllm.backend import VllmCheckpoint
from mingmoe_eval.vllm.prepared import prepare

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
# vLLM's attention on a CPU wants heads of 32 or more.
WIDTH, INNER = 64, 96
SIZES = {
    "vocab_size": 384,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "head_dim": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
FFN = {"gate_proj": (WIDTH, INNER), "up_proj": (WIDTH, INNER), "down_proj": (INNER, WIDTH)}
ATTENTION = {"q_proj": (WIDTH, 64), "v_proj": (WIDTH, 32)}


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    for name, value in (("WIDTH", WIDTH), ("INNER", INNER), ("FFN", FFN), ("ATTENTION", ATTENTION)):
        monkeypatch.setattr(siblings, name, value)


def a_base(folder, family="qwen2", **changes):
    base = save_base(folder / "base", family, **{**SIZES, **changes})
    make_tokenizer().save_pretrained(base)
    return base


def ming(family, recipe=None, **changes):
    def make(folder):
        save_adapter(folder / "adapter", a_base(folder, family, **changes), recipe or Recipe())
        return folder / "adapter"

    return make


def merged(folder, family="qwen2"):
    save_merged(folder / "merged", a_base(folder, family), Recipe())
    make_tokenizer().save_pretrained(folder / "merged")
    return folder / "merged"


def full(folder):
    return a_base(folder, "qwen3")


def sibling(config, tensors):
    def make(folder):
        a_base(folder, "llama")
        return siblings.save(folder / "adapter", config, tensors(siblings.Draw()))

    return make


def lora(folder, **changes):
    base = a_base(folder, "llama")
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj", "gate_proj"]}
    config = LoraConfig(**{**settings, "init_lora_weights": False, **changes})
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    tuned.save_pretrained(folder / "adapter")
    return folder / "adapter"


MIXLORA = {
    "peft_type": "MIXLORA",
    "routing_strategy": "mixlora",
    "num_experts": 4,
    "top_k": 2,
    "target_modules": ["q_proj", "v_proj", *FFN],
}
MOLA = {**MIXLORA, "peft_type": "MOLA", "num_experts": [3, 4]}
LORAMOE = {"peft_type": "LORAMOE", "num_experts": 3, "target_modules": [*FFN]}
VENDORED = {"peft_type": "LORA", "lora_nums": 3, "target_modules": [*FFN]}

CHECKPOINTS = {
    **{
        family: ming(family, tie_word_embeddings=family == "gemma2")
        for family in FAMILIES
        if family != "gemma2"
    },
    # vLLM's class has no head of its own.
    "gemma2": ming("gemma2", tie_word_embeddings=True),
    "tied": ming("qwen2", tie_word_embeddings=True),
    "one expert": ming("llama", Recipe(num_experts=1, top_k=1)),
    "rank stabilised": ming("llama", Recipe(rslora=True)),
    "second generation": ming("qwen2", Recipe(shared=2)),
    "merged": merged,
    "merged on llama": lambda folder: merged(folder, "llama"),
    "full": full,
    "mixlora": sibling(MIXLORA, siblings.mixlora_tensors),
    "mixlora, another activation": sibling({**MIXLORA, "act_fn": "gelu"}, siblings.mixlora_tensors),
    "mola": sibling(
        MOLA, lambda draw: siblings.moe_peft_tensors("mola", draw, (3, 4), attention=True)
    ),
    "loramoe": sibling(
        LORAMOE, lambda draw: siblings.moe_peft_tensors("loramoe", draw, (3, 3), attention=False)
    ),
    "original loramoe": sibling(
        VENDORED, lambda draw: siblings.vendored_tensors(draw, 3, shared_a=False)
    ),
    "hydralora": sibling(VENDORED, lambda draw: siblings.vendored_tensors(draw, 3, shared_a=True)),
    "lora": lora,
    "dora": lambda folder: lora(folder, use_dora=True),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_vllm_gives_what_our_own_engine_gives(tmp_path, name):
    one = Checkpoint(model=str(CHECKPOINTS[name](tmp_path)))
    local, of_tokenizer = one()
    engine, same = VllmCheckpoint(checkpoint=one)()
    try:
        assert same == of_tokenizer
        # Where embeddings are the head too, logits of these models are around 60, and what rounding
        # is of one sum is fifty times what it is of others. (Gemma 2 caps them.)
        hold_equal(local, engine, 1e-3 if name == "tied" else 1e-4)
        effect = engine.probe()
        assert effect is None if name == "full" else effect > 0
        described = engine.describe()
        assert described["engine"] == "vllm"
        assert described["head_dtype"] == "float32"
    finally:
        engine.close()


def test_an_adapter_that_does_nothing_is_refused_by_the_probe(tmp_path):
    checkpoint = ming("qwen2", Recipe(spread=0.0))(tmp_path)
    engine = VllmCheckpoint(checkpoint=Checkpoint(model=str(checkpoint))).backend()
    try:
        with pytest.raises(CheckpointError, match="changes nothing"):
            engine.probe()
    finally:
        engine.close()


def test_the_head_multiplies_in_fp32_whatever_the_weights_are_in(tmp_path):
    checkpoint = ming("qwen2")(tmp_path)
    one = Checkpoint(model=str(checkpoint), dtype="bfloat16")
    engine = VllmCheckpoint(checkpoint=one).backend()
    try:
        pairs = [EncodedPair(np.array([9, 8, 7, i], np.int32), 1) for i in range(5, 120)]
        values = {one.log_likelihood for one in answers(engine.score(pairs, None)).values()}
        # bf16 has 8 bits: of a hundred logits of one size, many would be equal.
        assert len(values) == len(pairs)
    finally:
        engine.close()


def command(*arguments):
    return [sys.executable, "-m", "mingmoe_eval", *map(str, arguments)]


def environment(**changes):
    names = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    names.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    return names


def test_two_processes_of_tensor_parallelism_give_what_one_gives(tmp_path):
    # Bound by hand: vLLM would give each process a NUMA node of its own.
    there = environment(VLLM_CPU_OMP_THREADS_BIND="0|1")
    checkpoint = ming("qwen2")(tmp_path)
    options = ["--tasks", "usmle,usmle_ll", "--sample", "--limit", 4, "--max-new-tokens", 12]
    options = ["--model", checkpoint, *options, "--output", tmp_path / "runs", "--no-cache"]
    subprocess.run(command(*options, "--name", "one"), env=there, check=True)
    split = ["--backend", "vllm", "--tensor-parallel", 2, "--name", "two"]
    subprocess.run(command(*options, *split), env=there, check=True)
    one, two = (load_run(tmp_path / "runs" / name) for name in ("one", "two"))
    for task in ("usmle", "usmle_ll"):
        for ours, theirs in zip(one.samples[task], two.samples[task], strict=True):
            assert ours.response == theirs.response
            if ours.log_likelihoods:
                assert theirs.log_likelihoods == pytest.approx(ours.log_likelihoods, abs=1e-4)
    assert two.provenance["model"]["tensor_parallel"] == 2


def children_of(process):
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    found, parents = [], {process}
    for _ in range(4):
        below = [(int(p), args) for p, parent, args in rows if int(parent) in parents]
        found += below
        parents = {pid for pid, _ in below}
    return dict(found)


def test_a_run_whose_engine_was_killed_says_so_keeps_its_answers_and_goes_on(tmp_path):
    checkpoint = ming("qwen2")(tmp_path)
    options = ["--tasks", "usmle_ll,usmle", "--sample", "--max-new-tokens", 900]
    options = ["--model", checkpoint, *options, "--output", tmp_path / "runs", "--no-cache"]
    options += ["--backend", "vllm", "--batch-size", 2]
    run = subprocess.Popen(
        command(*options, "--name", "killed"),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    samples = tmp_path / "runs" / "killed" / "samples" / "usmle_ll.jsonl"
    until = time.monotonic() + 400
    while not samples.exists() and run.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    engines = [pid for pid, args in children_of(run.pid).items() if "resource_tracker" not in args]
    assert engines
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    _, told = run.communicate(timeout=120)
    assert run.returncode == 2, told
    assert "vLLM's engine died. What was answered is kept" in told
    assert "Traceback" not in told.replace("(most recent call last)", "")[-500:]
    resumed = subprocess.run(
        command("run", "--resume", tmp_path / "runs" / "killed"), env=environment(), check=False
    )
    assert resumed.returncode == 0
    finished = load_run(tmp_path / "runs" / "killed")
    assert finished.timing["requests_from_store"] >= 4
    assert finished.spec.backend == "vllm"


def test_no_process_of_an_engine_outlives_a_run_that_is_killed(tmp_path):
    checkpoint = ming("qwen2")(tmp_path)
    options = ["--tasks", "usmle", "--sample", "--max-new-tokens", 900, "--backend", "vllm"]
    options += ["--tensor-parallel", 2, "--output", tmp_path / "runs", "--no-cache"]
    there = environment(VLLM_CPU_OMP_THREADS_BIND="0|1")
    run = subprocess.Popen(
        command("--model", checkpoint, *options), env=there, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 400
    while run.poll() is None and time.monotonic() < until:
        below = children_of(run.pid)
        if sum("VLLM::Worker" in args for args in below.values()) == 2:
            break
        time.sleep(0.2)
    assert run.poll() is None
    time.sleep(10)
    engines = children_of(run.pid)
    run.kill()
    run.wait()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        left = [pid for pid in engines if Path(f"/proc/{pid}").exists()]
        if not left:
            break
        time.sleep(0.2)
    assert left == []


def test_a_checkpoint_is_served_evaluated_and_ended(tmp_path):
    checkpoint = ming("qwen2")(tmp_path)
    server = subprocess.Popen(
        command("serve", checkpoint, "--port", 0),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [server.stdout.readline().strip() for _ in range(3)]
        assert lines[0].startswith("serving adapter at http://127.0.0.1:")
        assert lines[1].endswith("/health")
        address = lines[0].rsplit(" ", 1)[1]
        options = ["--tasks", "usmle_ll", "--sample", "--limit", 4, "--no-cache"]
        options += ["--output", tmp_path / "runs"]
        served = ["--model", f"openai:{address}#adapter", "--name", "served"]
        subprocess.run(command(*options, *served), env=environment(), check=True)
        local = ["--model", checkpoint, "--name", "local"]
        subprocess.run(command(*options, *local), env=environment(), check=True)
    finally:
        server.send_signal(signal.SIGTERM)
        server.stdout.close()
        assert server.wait(60) == 0
    runs = [load_run(tmp_path / "runs" / name) for name in ("served", "local")]
    for served_one, ours in zip(*(run.samples["usmle_ll"] for run in runs), strict=True):
        assert served_one.log_likelihoods == pytest.approx(ours.log_likelihoods, abs=1e-3)


def test_a_weight_that_is_not_there_stops_before_vllm_starts(tmp_path):
    checkpoint = ming("qwen2")(tmp_path)
    edit_json(checkpoint / "config.json", num_experts=5)
    with pytest.raises(CheckpointError, match="lacks A 4"):
        VllmCheckpoint(checkpoint=Checkpoint(model=str(checkpoint))).backend()


def test_heads_that_a_cpus_attention_does_not_know_stop_before_vllm_starts(tmp_path):
    checkpoint = ming("llama", head_dim=16)(tmp_path)
    with pytest.raises(CheckpointError, match=r"heads of 16 on a CPU, but of 32, 64"):
        prepare(checkpoint, on_cpu=True)


def test_compare_names_the_engine(tmp_path):
    checkpoint = ming("qwen2")(tmp_path)
    one = Checkpoint(model=str(checkpoint))
    engine = VllmCheckpoint(checkpoint=replace(one, batch_size=4)).backend()
    try:
        told = json.loads(json.dumps(engine.describe()))
        assert told["engine"] != one.backend(make_tokenizer()).describe()["engine"]
        assert engine.settings_fingerprint.startswith("vllm-")
    finally:
        engine.close()
