"""LoRAs on bases whose feed-forward blocks are experts: those of transformers 4, and on parameters.

transformers 4 kept an expert's matrices as layers, which a LoRA gave a pair each; transformers 5
keeps those of a block as two parameters, and PEFT joins the pairs.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_molora_peft import live, save_lora
from tiny_checkpoints import logits, save_base, token_ids
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import describe_checkpoint, load_adapters, load_model, probe

IDS = token_ids(2, 7)
EXPERTS, RANK, ALPHA = 4, 4, 8
SIZES = {"num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
BASES = {
    "mixtral": {"num_local_experts": EXPERTS, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": EXPERTS, "num_experts_per_tok": 2},
    "qwen2_moe": {**SIZES, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**SIZES, "norm_topk_prob": True},
}
# The names in files, by transformers 4 and 5 alike.
OF_MIXTRAL = ("block_sparse_moe.experts", ("w1", "w3", "w2"), "block_sparse_moe.gate")
OF_OTHERS = ("mlp.experts", ("gate_proj", "up_proj", "down_proj"), "mlp.gate")


@pytest.fixture(scope="module", params=BASES)
def sparse(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "base"
    return request.param, save_base(folder, request.param, **BASES[request.param])


def old_lora(folder, family, base, *, router=False, shared=False, default=False):
    """A LoRA as PEFT wrote it under transformers 4, on attention and every expert."""
    block, names, gate = OF_MIXTRAL if family == "mixtral" else OF_OTHERS
    weights = load_file(base / "model.safetensors")
    layers = [n for n in weights if f".{block}." in n or ".o_proj." in n]
    layers += [n for n in weights if router and f".{gate}." in n]
    layers += [n for n in weights if shared and ".shared_expert." in n]
    generator, tensors = torch.Generator().manual_seed(5), {}
    for name in layers:
        path = f"base_model.model.{name.removesuffix('.weight')}"
        middle = ".default" if default else ""
        outputs, inputs = weights[name].shape
        for half, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
            drawn = torch.randn(*shape, generator=generator) * shape[1] ** -0.5
            tensors[f"{path}.lora_{half}{middle}.weight"] = drawn
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA}
    config |= {"target_modules": [*names, "o_proj", *(["gate"] if router else [])], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def added_by_hand(folder, base, adapter):
    """The logits of the base with W + (alpha / r) B A for each pair, in the files' own names."""
    weights = load_file(base / "model.safetensors")
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in [n for n in tensors if ".lora_A." in n]:
        path = name.removeprefix("base_model.model.").partition(".lora_A.")[0]
        b = tensors[name.replace(".lora_A.", ".lora_B.")]
        weights[f"{path}.weight"] += ALPHA / RANK * (b @ tensors[name])
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text((base / "config.json").read_text())
    return logits(AutoModelForCausalLM.from_pretrained(folder).eval(), IDS)


@pytest.mark.parametrize("sparse", [base for base in BASES if base != "qwen2_moe"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"router": True}, {"default": True}], ids=str)
def test_pairs_of_single_experts_are_each_added_to_theirs(tmp_path, sparse, options):
    family, base = sparse
    adapter = old_lora(tmp_path / "lora", family, base, **options)
    model = load_model(adapter, base)
    by_hand = added_by_hand(tmp_path / "merged", base, adapter)
    torch.testing.assert_close(logits(model, IDS), by_hand, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(live(adapter, base), IDS), by_hand, rtol=1e-4, atol=1e-4)
    assert probe(model) > 0.05
    assert describe_checkpoint(adapter, base).kind == "peft-lora"


@pytest.mark.parametrize("sparse", ["qwen2_moe"], indirect=True)
def test_pairs_that_peft_leaves_out_are_named(tmp_path, sparse):
    adapter = old_lora(tmp_path / "lora", *sparse, shared=True)
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.experts\.lora_A\.weight"):
        load_model(adapter, sparse[1])


@pytest.mark.parametrize("sparse", ["mixtral"], indirect=True)
def test_an_expert_without_its_pair_is_refused(tmp_path, sparse):
    family, base = sparse
    adapter = old_lora(tmp_path / "lora", family, base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    lost = {n: t for n, t in tensors.items() if ".1.block_sparse_moe.experts.2.w1." not in n}
    save_file(lost, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its base"):
        load_model(adapter, base)


PARAMETERS = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.mark.parametrize("targets", [[], ["o_proj"]], ids=len)
def test_a_lora_on_parameters_computes_what_peft_computes_live(tmp_path, sparse, targets):
    _, base = sparse
    settings = {"target_modules": targets, "target_parameters": PARAMETERS}
    adapter = save_lora(tmp_path / "lora", base, "parameters", **settings)
    model, plain = load_model(adapter, base), load_model(base)
    expected = logits(live(adapter, base), IDS)
    torch.testing.assert_close(logits(model, IDS), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, logits(plain, IDS), atol=1e-2)


@pytest.mark.parametrize("sparse", ["qwen3_moe"], indirect=True)
def test_on_one_sparse_base_nothing_is_left_to_the_next(tmp_path, sparse):
    family, base = sparse
    adapters = [
        old_lora(tmp_path / "old", family, base),
        save_lora(tmp_path / "lora", base, "p", target_modules=[], target_parameters=PARAMETERS),
    ]
    alone = [logits(load_model(adapter, base), IDS) for adapter in adapters]
    models = load_adapters(base, [*adapters, *adapters])
    for model, expected in zip(models, [*alone, *alone], strict=True):
        assert torch.equal(logits(model, IDS), expected)
