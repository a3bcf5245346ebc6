"""The reference's own output on a tiny checkpoint, to 5e-4 in the logits, greedy ids exactly."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mingmoe_eval.molora import load_model, load_tokenizer, probe
from mingmoe_eval.molora.attaching import routed_experts

GOLDEN = Path(__file__).resolve().parents[1].parent / "shared" / "golden" / "molora"
EXAMPLE = GOLDEN / "public_n4k2"
TOLERANCE = 5e-4

pytestmark = pytest.mark.skipif(not EXAMPLE.is_dir(), reason="golden data not beside the project")


@pytest.fixture(scope="module")
def expected():
    return load_file(EXAMPLE / "expected" / "expected.safetensors")


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return load_model(EXAMPLE / "moe-adapter")


def logits(model, ids, **inputs):
    with torch.no_grad():
        return model(input_ids=ids.long(), **inputs).logits


@pytest.mark.parametrize("name", ["single", "batch"])
def test_logits_equal_the_references(model, expected, name):
    found = logits(model, expected[f"ids_{name}"])
    assert (found - expected[f"logits_{name}"]).abs().max() < TOLERANCE


def test_logits_of_left_padded_rows_equal_the_references(model, expected):
    mask = expected["mask_leftpad"].long()
    found = logits(
        model,
        expected["ids_leftpad"],
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
    )
    assert ((found - expected["logits_leftpad"]) * mask[..., None]).abs().max() < TOLERANCE


@pytest.mark.parametrize("prompt", [0, 1])
def test_greedy_ids_equal_the_references(model, expected, prompt):
    ids, answer = expected[f"greedy_prompt_{prompt}"].long(), expected[f"greedy_ids_{prompt}"]
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=answer.shape[1],
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert found[0, ids.shape[1] :].tolist() == answer[0].tolist()


def test_routers_choose_and_weigh_as_the_references(model, expected):
    seen = {}

    def remember(module, router_logits, index, weights):
        for group, path in enumerate(module.paths):
            seen[path] = (router_logits[:, group], index[:, group], weights[:, group])

    for module in routed_experts(model):
        module.observer = remember
    logits(model, expected["ids_single"])
    for module in routed_experts(model):
        module.observer = None
    info = json.loads((EXAMPLE / "expected" / "info.json").read_text())
    for place, path in enumerate(info["router_module_order"]):
        router_logits, index, weights = seen[path]
        torch.testing.assert_close(
            router_logits, expected["router_logits_single"][place], rtol=0, atol=TOLERANCE
        )
        assert torch.equal(index, expected["topk_index_single"][place].long())
        torch.testing.assert_close(
            weights, expected["topk_weight_single"][place], rtol=0, atol=TOLERANCE
        )


def test_the_adapter_is_live_and_as_far_from_the_base_as_the_reference_found(model):
    # The reference, on another text: dropping the experts moves some logit by 14.25.
    assert 5 < probe(model) < 30


def test_the_tokenizer_comes_from_the_base_when_the_adapter_has_none():
    assert len(load_tokenizer(EXAMPLE / "moe-adapter")) > 100
