"""MixLoRA, MoLA, LoRAMoE and HydraLoRA checkpoints, against slow, obvious formulas."""

import json

import pytest
import torch
from sibling_checkpoints import (
    ATTENTION,
    FFN,
    Draw,
    mixlora_tensors,
    moe_peft_layers,
    moe_peft_tensors,
    plain_pairs,
    save,
    slow_linears,
    slow_mixlora,
    slow_pairs,
    vendored_layers,
    vendored_tensors,
)
from tiny_checkpoints import edit_json, logits, save_base, token_ids

from mingmoe_eval.engine.transformers_door import cache_argument
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import describe_checkpoint, load_model, probe
from mingmoe_eval.molora.router import routers
from mingmoe_eval.molora.sources import sniff

IDS = token_ids(2, 9)
ALL = [*ATTENTION, *FFN]
MIXLORA = {"peft_type": "MIXLORA", "routing_strategy": "mixlora", "num_experts": 4, "top_k": 2}
MIXLORA |= {"act_fn": "silu", "target_modules": ALL}
MOLA = {"peft_type": "MOLA", "routing_strategy": "mola", "num_experts": 4, "top_k": 2}
MOLA |= {"target_modules": ALL}
LORAMOE = {"peft_type": "LORAMOE", "num_experts": 3, "target_modules": ALL}
VENDORED = {"peft_type": "LORA", "lora_nums": 3, "target_modules": [*FFN]}


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


@pytest.fixture
def mixlora(tmp_path, base):
    tensors = mixlora_tensors(Draw())
    return save(tmp_path / "adapter", MIXLORA, tensors), tensors


def assert_same(model, slow, tolerance=2e-5):
    torch.testing.assert_close(logits(model, IDS), logits(slow, IDS), rtol=1e-4, atol=tolerance)
    assert probe(model) > 0.05


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    return str(caught.value)


def test_mixlora_is_whole_blocks_behind_one_router(base, mixlora):
    folder, tensors = mixlora
    model = load_model(folder)
    assert_same(model, slow_mixlora(base, tensors))
    assert [router.paths for router in routers(model)] == [
        ("model.layers.0.mlp",),
        ("model.layers.1.mlp",),
    ]


def test_mixlora_token_by_token_equals_all_at_once(mixlora):
    model = load_model(mixlora[0])
    whole, cache, steps = logits(model, IDS), None, []
    name = cache_argument(model.forward)
    for token in IDS.T:
        with torch.no_grad():
            output = model(input_ids=token[:, None], use_cache=True, **{name: cache})
        cache = output[name]
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("strategy", ["mixlora", "mixtral"])
@pytest.mark.parametrize("names", [FFN, {"gate_proj": "w1_proj", "down_proj": "w2_proj"}], ids=len)
def test_mixloras_older_layout_is_the_same_model(tmp_path, base, strategy, names):
    tensors = mixlora_tensors(Draw())
    old = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[-2] == "moe_gate":
            old[f"mixlora.layers.{parts[2]}.gate.weight"] = tensor
        elif "experts" in parts and parts[4] in names:
            layer = {"gate_proj": "w1_proj", "down_proj": "w2_proj"}.get(parts[4], parts[4])
            layer = layer if len(names) == 2 else parts[4]
            end = f"experts.{parts[6]}.{layer}.{parts[7]}.weight"
            old[f"mixlora.layers.{parts[2]}.{end}"] = tensor
        elif "experts" not in parts:
            old[name] = tensor
    targets = [*ATTENTION, *(names if len(names) == 3 else names.values())]
    config = {**MIXLORA, "routing_strategy": strategy, "target_modules": targets}
    folder = save(tmp_path / "adapter", config, old)
    assert_same(load_model(folder), slow_mixlora(base, tensors, names=tuple(names)))


def test_mixloras_own_rank_scaling_and_activation_of_experts_are_kept(tmp_path, base):
    tensors = mixlora_tensors(Draw(), rank=2)
    own = {"r": 2, "lora_alpha": 6, "use_rslora": True}
    targets = {name: name != "k_proj" for name in [*ALL, "k_proj"]}
    config = {**MIXLORA, "act_fn": "gelu", "expert_lora": own, "target_modules": targets}
    folder = save(tmp_path / "adapter", config, tensors)
    slow = slow_mixlora(base, tensors, rank=2, alpha=6, act="gelu", rslora=True)
    assert_same(load_model(folder), slow)
    mixture = describe_checkpoint(folder).mixture
    assert mixture.expert_scaling == pytest.approx(6 / 2**0.5)
    assert mixture.attention_scaling == 2.0


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (3, 3), (4, 1)])
def test_mixlora_of_one_expert_of_all_and_of_the_first_alone(tmp_path, base, experts, top_k):
    tensors = mixlora_tensors(Draw(), experts)
    config = {**MIXLORA, "num_experts": experts, "top_k": top_k}
    folder = save(tmp_path / "adapter", config, tensors, pickled=False)
    assert_same(load_model(folder), slow_mixlora(base, tensors, top_k=top_k))


def test_mixlora_switched_off_is_the_base(base, mixlora):
    model = load_model(mixlora[0])
    plain = load_model(base)
    slow_pairs(plain, "mixlora", mixlora[1])
    for router in routers(model):
        router.enabled = False
    torch.testing.assert_close(logits(model, IDS), logits(plain, IDS))


def test_a_masked_expert_of_mixlora_leaves_the_others_renormalised(base, mixlora):
    folder, tensors = mixlora
    model = load_model(folder)
    with torch.no_grad():
        for router in routers(model):
            router.router_bias[:, 1] = -torch.inf
    left = {}
    for name, tensor in tensors.items():
        if name.endswith("moe_gate.weight"):
            tensor = tensor[[0, 2, 3]]
        for old, new in (("1", None), ("2", "1"), ("3", "2")):
            if f"experts.{old}." in name:
                name = name.replace(f"experts.{old}.", f"experts.{new}.") if new else ""
                break
        if name:
            left[name] = tensor
    torch.testing.assert_close(
        logits(model, IDS), logits(slow_mixlora(base, left), IDS), rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize("counts", [(4, 4), (4, 2)])
@pytest.mark.parametrize("listed", [True, False])
def test_mola_has_a_router_a_layer_and_as_many_experts_as_it_says(tmp_path, base, counts, listed):
    tensors = moe_peft_tensors("mola", Draw(), counts, attention=True)
    config = {**MOLA, "num_experts": list(counts) if listed else 4}
    folder = save(tmp_path / "adapter", config, tensors)
    model = load_model(folder)
    assert_same(model, slow_linears(base, moe_peft_layers("mola", tensors, 2)))
    notes = describe_checkpoint(folder).notes
    assert [note.partition(":")[2] for note in notes] == (
        [] if counts == (4, 4) else [" 5 with 2, 5 with 4"]
    )


def test_mola_with_one_expert_in_some_layers(tmp_path, base):
    tensors = moe_peft_tensors("mola", Draw(), (1, 3), attention=True)
    folder = save(tmp_path / "adapter", {**MOLA, "num_experts": 3}, tensors)
    assert_same(load_model(folder), slow_linears(base, moe_peft_layers("mola", tensors, 2)))


def test_loramoe_of_moe_peft_weighs_all_experts_of_the_ffn(tmp_path, base):
    draw = Draw()
    tensors = moe_peft_tensors("loramoe", draw, (3, 3), attention=False)
    tensors |= plain_pairs("loramoe", draw)
    folder = save(tmp_path / "adapter", LORAMOE, tensors)
    slow = slow_linears(base, moe_peft_layers("loramoe", tensors, None))
    slow_pairs(slow, "loramoe", tensors)
    assert_same(load_model(folder), slow)


@pytest.mark.parametrize(("shared_a", "kind"), [(False, "loramoe"), (True, "hydralora")])
def test_the_originals_of_loramoe_and_hydralora_weigh_all_experts(tmp_path, base, shared_a, kind):
    tensors = vendored_tensors(Draw(), 3, shared_a=shared_a)
    folder = save(tmp_path / "adapter", VENDORED, tensors)
    assert sniff(folder) == kind
    assert_same(load_model(folder), slow_linears(base, vendored_layers(tensors)))


def test_inspect_counts_what_a_sibling_has(tmp_path, base, mixlora):
    description = describe_checkpoint(mixlora[0])
    expert = 4 * (32 + 48)  # r * (in + out) of each of a block's three layers
    routers_of_blocks, attention = 2 * 4 * 32, 2 * (4 * (32 + 32) + 4 * (32 + 16))
    assert description.kind == "mixlora"
    assert description.parameters.adapter == 2 * 3 * 4 * expert + routers_of_blocks + attention
    active = description.parameters.active - description.parameters.base
    assert active == 2 * 3 * 2 * expert + routers_of_blocks + attention
    assert description.expert_layers == {"down_proj": 2, "gate_proj": 2, "up_proj": 2}
    assert description.low_rank_layers == {"q_proj": 2, "v_proj": 2}
    tensors = vendored_tensors(Draw(), 3, shared_a=True)
    hydra = describe_checkpoint(save(tmp_path / "hydra", VENDORED, tensors))
    assert hydra.parameters.adapter == sum(tensor.numel() for tensor in tensors.values())
    assert hydra.parameters.active == hydra.parameters.base + hydra.parameters.adapter
    json.dumps(hydra.to_json())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**MIXLORA, "routing_strategy": "mixlora-dynamic"}, "'mixlora-dynamic'"),
        ({**MIXLORA, "routing_strategy": "mixlora-switch"}, "block's input unchanged"),
        ({"peft_type": "XLORA"}, "PEFT loads it itself"),
        ({"peft_type": "LORA", "arrow_config": {"top_k": 2}}, "create_arrow_model"),
        ({"peft_type": "LOHA"}, "no loader for it exists here"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_families_that_cannot_be_loaded_are_refused_by_name(tmp_path, base, config, said):
    assert said in refusal(save(tmp_path / "adapter", config, {}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("mlp.moe_gate.weight", "model.layers.1.mlp lacks router weight, of shape [4, 32]"),
        ("mlp.up_proj.experts.2.lora_B.weight", "mlp.up_proj lacks B 2, of shape [48, 4]"),
        ("self_attn.q_proj.lora_A.weight", "self_attn.q_proj lacks A, of shape [4, 32]"),
    ],
)
def test_a_hole_in_a_siblings_file_is_named(tmp_path, mixlora, change, said):
    folder, tensors = mixlora
    del tensors[f"mixlora.layers.1.{change}"]
    torch.save(tensors, folder / "adapter_model.bin")
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_experts": 5}, "lacks A 4"),
        ({"num_experts": 3}, "one too many"),
        ({"num_experts": None}, "num_experts must be a whole number"),
        ({"num_experts": 10**9}, "num_experts must be a whole number"),
        ({"top_k": 5}, "top_k = 5 exceeds num_experts = 4"),
        ({"top_k": "2"}, "top_k must be a positive whole number"),
        ({"r": 8}, "instead of [8, 32]"),
        ({"act_fn": "wobble"}, "act_fn = 'wobble' is no activation"),
        ({"use_dora": True}, "use_dora"),
        ({"target_modules": [*ALL, "k_proj"]}, "k_proj lacks A"),
        ({"target_modules": [*ALL, "qkv_proj"]}, "qkv_proj, which the base does not have"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_a_siblings_tensors_is_refused(mixlora, fields, said):
    edit_json(mixlora[0] / "adapter_config.json", **fields)
    assert said in refusal(mixlora[0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "mixlora.layers.7.mlp.up_proj.experts.0.lora_A.weight",
            "layers.7.mlp.up_proj has experts",
        ),
        ("mixlora.layers.0.mlp.moe_gate.bias", "unexpected tensor"),
    ],
)
def test_a_tensor_too_many_is_refused(mixlora, name, said):
    folder, tensors = mixlora
    torch.save({**tensors, name: torch.ones(4, 32)}, folder / "adapter_model.bin")
    assert said in refusal(folder)


def test_a_layer_of_mola_that_lost_an_expert_is_not_taken_for_a_smaller_one(tmp_path, base):
    tensors = moe_peft_tensors("mola", Draw(), (4, 4), attention=True)
    for letter in "AB":
        del tensors[f"mola.layers.1.mlp.up_proj.experts.3.lora_{letter}.weight"]
    assert "up_proj lacks A 3" in refusal(save(tmp_path / "adapter", MOLA, tensors))
