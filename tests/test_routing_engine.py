"""Routing counts of the engine, against router logits recomputed for each answer by itself."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_checkpoints import Recipe, draw_adapter
from tiny_language_models import EXAMPLES, exam_pairs, instances, make_model, make_tokenizer
from torch import nn

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts, routed_experts
from mingmoe_eval.molora.block_experts import BlockExperts, MixLoraFFN
from mingmoe_eval.molora.formats.families import ffn_blocks
from mingmoe_eval.molora.layers import FFN_LINEARS
from mingmoe_eval.molora.router import routers

FP32 = ComputeDtypes(torch.float32, torch.float32)
UNTIL = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}


def routed_model(*, blocks=False):
    model = make_model()
    experts = draw_adapter(model, Recipe(num_experts=4, top_k=2)).experts
    for block in ffn_blocks(model):
        of_block = {name: experts[f"{block}.{name}"] for name in FFN_LINEARS}
        if blocks:
            ffn = model.get_submodule(block)
            routed = BlockExperts(block, of_block, dtype=torch.float32)
            model.set_submodule(block, MixLoraFFN(ffn, routed, None))
        else:
            attach_experts(model, block, of_block, FP32)
    return model.eval().requires_grad_(False)


def slow_counts(model, ids):
    """{layer: per token (logits, the K largest, their weights)} of one sequence by itself."""
    inputs, hooks = {}, []
    for router in routers(model):
        keep = router.register_forward_pre_hook(
            lambda module, given: inputs.__setitem__(module, given[0])
        )
        hooks.append(keep)
    if not any(isinstance(router, BlockExperts) for router in routers(model)):
        model(input_ids=torch.tensor([ids]), use_cache=False)
    else:
        for block in [m for m in model.modules() if isinstance(m, MixLoraFFN)]:
            hooks.append(
                block.register_forward_pre_hook(
                    lambda module, given: inputs.__setitem__(module.experts, given[0])
                )
            )
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    found = {}
    for router, x in inputs.items():
        n = router.num_experts
        for group, path in enumerate(router.paths):
            weight = router.router[group * n : (group + 1) * n]
            found[path] = x.reshape(-1, x.shape[-1]) @ weight.T + router.router_bias[group]
    return found


def add_up(model, reads):
    """The counts of answers (ids read, prompt tokens), token by token in plain loops."""
    sums = {}
    for ids, prompt in reads:
        for path, logits in slow_counts(model, ids).items():
            for position, g in enumerate(logits):
                phase = "prompt" if position < prompt else "generated"
                n, k = len(g), routers(model)[0].top_k
                mine = sums.setdefault((phase, path), [np.zeros(n) for _ in range(3)] + [0, 0, 0])
                if len(mine) == 6:
                    mine.append(np.zeros((n, n)))
                p = [math.exp(v) for v in (g - g.max()).tolist()]
                p = np.array(p) / sum(p)
                top = sorted(range(n), key=lambda i: -p[i])[:k]
                for i in top:
                    mine[0][i] += 1
                    mine[2][i] += p[i] / sum(p[j] for j in top)
                    for j in top:
                        mine[6][i, j] += 1
                mine[1] += p
                mine[3] += -sum(p * np.log(p))
                mine[4] += 1
    return sums


def assert_same(routing, task, sums):
    checked = 0
    for (phase, path), (chosen, probability, weight, entropy, tokens, _, joint) in sums.items():
        found = routing["tasks"][task][phase]
        assert found["tokens"] == tokens
        layer = found["layers"][path]
        assert layer["chosen"] == chosen.tolist()
        assert layer["together"] == joint.tolist()
        np.testing.assert_allclose(layer["probability"], probability, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(layer["weight"], weight, rtol=1e-4, atol=1e-3)
        assert layer["entropy"] == pytest.approx(entropy, rel=1e-4)
        checked += 1
    assert checked == len(sums) > 0


def assert_near(one, other):
    """Equal whole numbers, and fractions up to the rounding of sums."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        for mine, theirs in zip(one, other, strict=True):
            assert_near(mine, theirs)
    else:
        assert one == (pytest.approx(other, rel=1e-4) if isinstance(one, float) else other)


def scored_reads(lm, pairs):
    encoded = lm._tokenisation.encode_pairs(pairs)
    return [(p.tokens[:-1].tolist(), len(p.tokens) - p.n_targets) for p in encoded if p.n_targets]


@pytest.fixture
def pairs():
    return [pair for pair in exam_pairs() if pair[0]]


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_scoring_counts_each_answers_own_tokens_whatever_is_shared(pairs, blocks, batch_size):
    lm = CheckpointLM.from_loaded(
        routed_model(blocks=blocks), make_tokenizer(), batch_size=batch_size
    )
    lm.loglikelihood(instances("loglikelihood", pairs))
    sums = add_up(routed_model(blocks=blocks), scored_reads(lm, pairs))
    assert {phase for phase, _ in sums} == {"prompt", "generated"}
    assert_same(lm.routing, "task", sums)
    assert lm.routing["tasks"]["task"]["answers"] == len(pairs)
    json.dumps(lm.routing)


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_generation_counts_prompts_and_what_was_read_back(batch_size):
    prompts = [
        (f"{EXAMPLES}题目{number * 77}：患者{'咳嗽' * number}？", UNTIL) for number in range(5)
    ]
    lm = CheckpointLM.from_loaded(routed_model(), make_tokenizer(), batch_size=batch_size)
    lm.generate_until(instances("generate_until", prompts))
    plain, reads = routed_model(), []
    for text, _ in prompts:
        prompt = lm._tokenisation.encode_prompts([text])[0].tolist()
        out = plain.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            stop_strings=["\n"],
            tokenizer=lm.tokenizer,
            eos_token_id=lm.tokenizer.eos_token_id,
            pad_token_id=0,
        )[0].tolist()
        reads.append((out[:-1], len(prompt)))
    assert_same(lm.routing, "task", add_up(plain, reads))


def test_answers_out_of_the_store_keep_their_counts(tmp_path, pairs):
    def run(wanted):
        lm = CheckpointLM.from_loaded(
            routed_model(), make_tokenizer(), store=tmp_path / "answers.sqlite"
        )
        lm.loglikelihood(instances("loglikelihood", wanted))
        lm.generate_until(instances("generate_until", [(text, UNTIL) for text, _ in wanted[:3]]))
        usage = lm.take_usage().values()
        lm.close()
        return lm.routing, sum(one.from_store for one in usage)

    half, fresh = run(pairs[::2])
    assert fresh == 0
    whole, stored = run(pairs)
    assert 0 < stored < len(pairs)
    again, all_stored = run(pairs)
    assert all_stored > stored
    assert_near(again["tasks"], whole["tasks"])
    assert half["tasks"]["task"]["answers"] < whole["tasks"]["task"]["answers"]
    (tmp_path / "answers.sqlite").unlink()
    assert_near(run(pairs)[0]["tasks"], whole["tasks"])


def test_stored_answers_without_counts_are_told_apart(tmp_path, pairs):
    # As a store that was filled before, or by a process that was killed between two writes.
    store = tmp_path / "answers.sqlite"
    for _ in range(2):
        lm = CheckpointLM.from_loaded(routed_model(), make_tokenizer(), store=store)
        lm.loglikelihood(instances("loglikelihood", pairs))
        lm._store._connection.execute("DELETE FROM routing")
        lm.close()
    facts = lm.routing["tasks"]["task"]
    assert facts["answers"] == facts["answers_without_counts"] == len(pairs)


def test_a_masked_expert_is_never_counted_and_its_answers_are_other_answers(tmp_path, pairs):
    lm = CheckpointLM.from_loaded(routed_model(), make_tokenizer(), store=tmp_path / "a.sqlite")
    before = lm.loglikelihood(instances("loglikelihood", pairs))
    for module in routed_experts(lm.model):
        module.router_bias.data[:, 1] = -torch.inf
    lm._routing.tasks.clear()
    assert lm.loglikelihood(instances("loglikelihood", pairs)) != before
    layers = lm.routing["tasks"]["task"]["prompt"]["layers"].values()
    assert all(layer["chosen"][1] == 0 for layer in layers)
    assert all(layer["probability"][1] == 0 for layer in layers)


def test_a_model_without_routers_has_no_routing(pairs):
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    lm.loglikelihood(instances("loglikelihood", pairs[:4]))
    assert lm.routing is None


def test_metrics_of_two_tasks_are_in_the_account(pairs):
    lm = CheckpointLM.from_loaded(routed_model(), make_tokenizer())
    requests = instances("loglikelihood", pairs)
    for request in requests:
        request.task_name = "one" if request.doc_id % 2 else "two"
    lm.loglikelihood(requests)
    metrics = lm.routing["metrics"]["prompt"]
    assert set(metrics["tasks"]) == {"one", "two"}
    layer = metrics["layers"]["model.layers.0.mlp.gate_proj"]
    assert sum(layer["load"]) == pytest.approx(1, abs=1e-3)
    assert metrics["information"]["bits"] >= 0
    assert metrics["distance"]["matrix"][0][0] == pytest.approx(0, abs=1e-4)
    assert {tuple(one["layers"]) for one in metrics["agreement"]} >= {
        ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"),
        ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"),
    }
    assert all(one["chance"] == 0.5 for one in metrics["agreement"])
    assert len(lm.routing["tasks"]["one"]["load"]) == 2


def test_agreement_of_routers_that_are_one_and_the_same_is_whole():
    model = make_model()
    experts = draw_adapter(model, Recipe()).experts
    for block in ffn_blocks(model):
        of_block = {name: experts[f"{block}.{name}"] for name in FFN_LINEARS}
        attach_experts(model, block, of_block, FP32)
    for into in routed_experts(model)[::2]:
        into.router.data[4:] = into.router.data[:4]
        into.router_bias.data[1] = into.router_bias.data[0]
    lm = CheckpointLM.from_loaded(model.eval().requires_grad_(False), make_tokenizer())
    lm.loglikelihood(instances("loglikelihood", [("a fever and a cough", " x")]))
    shares = {
        tuple(path.rpartition(".")[2] for path in one["layers"]): one["share"]
        for one in lm.routing["metrics"]["prompt"]["agreement"]
    }
    assert shares["gate_proj", "up_proj"] == 1
    assert shares["gate_proj", "down_proj"] < 1
    assert isinstance(model, nn.Module)
