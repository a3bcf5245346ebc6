"""What the page says of routing, against figures worked out from raw router logits."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from report_runs import exam_run, exam_samples, guessing
from tiny_checkpoints import Recipe, draw_adapter
from tiny_language_models import instances, make_model, make_tokenizer

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.molora.attaching import ComputeDtypes, attach_experts
from mingmoe_eval.molora.formats.families import ffn_blocks
from mingmoe_eval.molora.layers import FFN_LINEARS
from mingmoe_eval.molora.router import routers
from mingmoe_eval.report import render_report
from mingmoe_eval.routing.view import MOST_MEETINGS, read_routing

N, K = 4, 2
TEXTS = {
    "cmexam": "患者发热咳嗽三天，下列哪项检查最有意义？",
    "usmle": "which drug is given for angina?",
}
OPTION = "nitroglycerin is given"


def routed_model():
    model = make_model()
    experts = draw_adapter(model, Recipe(num_experts=N, top_k=K)).experts
    for block in ffn_blocks(model):
        of_block = {name: experts[f"{block}.{name}"] for name in FFN_LINEARS}
        attach_experts(model, block, of_block, ComputeDtypes(torch.float32, torch.float32))
    return model.eval().requires_grad_(False)


def raw_logits(model, ids):
    """{router: [tokens, N]} of one sequence by itself, from the inputs of the routers."""
    inputs = {}
    hooks = [
        router.register_forward_pre_hook(lambda module, x: inputs.__setitem__(module, x[0]))
        for router in routers(model)
    ]
    model(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {
        path: (
            x.reshape(-1, x.shape[-1]) @ router.router[g * N : (g + 1) * N].T
            + router.router_bias[g]
        ).numpy()
        for router, x in inputs.items()
        for g, path in enumerate(router.paths)
    }


@pytest.fixture(scope="module")
def measured():
    """The view of a real run's routing, its page, and raw logits by task and phase."""
    model, tokenizer = routed_model(), make_tokenizer()
    lm = CheckpointLM.from_loaded(model, tokenizer)
    requests = instances("loglikelihood", [(text, OPTION) for text in TEXTS.values()])
    for request, task in zip(requests, TEXTS, strict=True):
        request.task_name = task
    lm.loglikelihood(requests)
    raw = {"prompt": {}, "generated": {}}
    for task, text in TEXTS.items():
        prompt, whole = len(tokenizer.encode(text)), tokenizer.encode(text + OPTION)[:-1]
        logits = raw_logits(model, whole)
        raw["prompt"][task] = {path: rows[:prompt] for path, rows in logits.items()}
        raw["generated"][task] = {path: rows[prompt:] for path, rows in logits.items()}
    samples = {task: exam_samples(task, 3, guessing(1, 0.5)) for task in TEXTS}
    run = exam_run("ours", samples, routing=lm.routing)
    one = read_routing(run.routing)
    return one, run, raw


def choices(logits):
    """[tokens, N] of 0 and 1: the K largest."""
    chosen = np.zeros_like(logits)
    np.put_along_axis(chosen, np.argsort(-logits, axis=1)[:, :K], 1.0, axis=1)
    return chosen


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def slow_figures(logits):
    """Of one router, each as its definition says, in natural logarithms over log N."""
    f, p = choices(logits).mean(0) / K, softmax(logits)
    mean = p.mean(0)
    return {
        "variation": math.sqrt(sum((x - 1 / N) ** 2 for x in f) / N) * N,
        "largest_violation": max(f) / (1 / N) - 1,
        "balance": N * sum(f * mean),
        "token_entropy": -(p * np.log(p)).sum(1).mean() / math.log(N),
        "mean_entropy": -sum(mean * np.log(mean)) / math.log(N),
        "dead_experts": sum(x < 0.1 / N for x in f),
    }


@pytest.mark.parametrize("place", [0, 1])
def test_balance_and_entropy_are_those_of_the_raw_logits(measured, place):
    one, _, raw = measured
    phase = one.phases[place]
    for task, by_router in raw[phase.name].items():
        slow = [slow_figures(logits) for logits in by_router.values()]
        for name in ("variation", "largest_violation", "balance", "token_entropy", "mean_entropy"):
            expected = np.mean([figures[name] for figures in slow])
            assert phase.tasks[task][name] == pytest.approx(expected, abs=1e-3), name
        assert phase.tasks[task]["dead_experts"] == sum(s["dead_experts"] for s in slow)
        assert phase.tasks[task]["tokens"] == len(next(iter(by_router.values())))


@pytest.mark.parametrize("place", [0, 1])
def test_loads_are_apart_for_prompt_and_generated_tokens(measured, place):
    one, _, raw = measured
    phase = one.phases[place]
    for task, by_router in raw[phase.name].items():
        expected = np.mean([choices(x).mean(0) / K for x in by_router.values()], axis=0)
        assert phase.loads[task] == pytest.approx(expected.tolist(), abs=1e-6)
    assert one.phases[0].loads != one.phases[1].loads


def test_agreement_is_the_share_of_equal_choices_by_kind_of_router(measured):
    one, _, raw = measured
    phase = one.phases[0]
    assert [pair.routers for pair in phase.agreements] == [
        "gate_proj + up_proj",
        "gate_proj + down_proj",
        "up_proj + down_proj",
    ]
    for pair in phase.agreements:
        first, second = pair.routers.split(" + ")
        by_layer = []
        for layer in (0, 1):
            both = [
                choices(by_router[f"model.layers.{layer}.mlp.{first}"])
                * choices(by_router[f"model.layers.{layer}.mlp.{second}"])
                for by_router in raw["prompt"].values()
            ]
            by_layer.append(np.concatenate(both).sum(1).mean() / K)
        assert pair.share == pytest.approx(np.mean(by_layer), abs=1e-3)
        assert (pair.lowest, pair.highest) == pytest.approx(
            (min(by_layer), max(by_layer)), abs=1e-3
        )
        assert pair.chance == K / N


def test_meetings_are_pairs_of_experts_against_an_even_draw(measured):
    one, _, raw = measured
    assert len(one.phases[0].meetings) == 6 <= MOST_MEETINGS
    for met in one.phases[0].meetings:
        chosen = np.concatenate([choices(of[met.router]) for of in raw["prompt"].values()])
        share = chosen.mean(0)
        # Of two of four drawn evenly, a pair has 1/6 of all draws, each expert one half.
        times = {
            f"{i} + {j}": (chosen[:, i] * chosen[:, j]).mean() / (share[i] * share[j]) / (4 / 6)
            for i, j in itertools.combinations(range(N), 2)
            if share[i] * share[j] > 0
        }
        assert met.most == pytest.approx(max(times.values()), abs=1e-3)
        assert met.least == pytest.approx(min(times.values()), abs=1e-3)
        assert times[met.most_pair] == pytest.approx(met.most, abs=1e-3)


def test_the_page_shows_each_of_them_with_how_to_read_it(measured, tmp_path):
    one, run, _ = measured
    page = render_report([run], tmp_path / "r.html").read_text("utf-8")
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    section = page[page.index('id="routing"') : page.index('id="settings"')]
    for key in ("balance", "agreement", "co_activation", "distance", "information", "variation"):
        assert f'data-t="{key}_means"' in section
    prompt, generated = section.split('data-t="phase_generated"')
    parts = (prompt.split('data-t="phase_prompt"')[1], generated)
    for phase, part in zip(one.phases, parts, strict=True):
        assert f">{phase.agreements[0].share:.3f}<" in part
        assert f">{phase.meetings[0].most:.2f}<" in part
        for figures in phase.tasks.values():
            assert f">{figures['balance']:.3f}<" in part
        for shares in phase.loads.values():
            assert all(f">{share:.3f}<" in part for share in shares)


def test_of_many_routers_only_those_furthest_from_chance_are_shown():
    lift = [[None, 1.0, 1.0], [1.0, None, 1.0], [1.0, 1.0, None]]
    far = [[None, 2.0, 1.0], [2.0, None, 1.0], [1.0, 1.0, None]]
    layers = {f"l.{n}": {"lift": lift, "chance_lift": 1.0} for n in range(40)}
    layers["l.30"] = {"lift": far, "chance_lift": 1.0}
    layers["l.31"] = {"lift": [[None]], "chance_lift": None}
    facts = {
        "tasks": {"cmexam": {"load": [[0.5, 0.5]]}},
        "metrics": {"prompt": {"tasks": {}, "layers": layers}},
    }
    run = exam_run("ours", {"cmexam": exam_samples("cmexam", 2, guessing(1, 0.5))}, routing=facts)
    one = read_routing(run.routing)
    (phase,) = one.phases
    assert len(phase.meetings) == MOST_MEETINGS
    assert ("l.30", "0 + 1", 2.0) in [(m.router, m.most_pair, m.most) for m in phase.meetings]
