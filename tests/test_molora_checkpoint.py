"""Every kind of checkpoint that the loader takes, against slow and obvious formulas."""

import dataclasses
import json
import logging
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    FAMILIES,
    LAYERS,
    Adapter,
    Recipe,
    draw_adapter,
    edit_json,
    logits,
    save_adapter,
    save_base,
    save_merged,
    slow_model,
    token_ids,
)
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora import describe_checkpoint, load_model, probe
from mingmoe_eval.molora.attaching import routed_experts

# Logits are of the order of one; fp32 sums in another order differ by about 1e-6 of that.
TOLERANCE = 5e-5


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def largest_difference(one, other):
    return float((one - other).abs().max())


def assert_same_function(loaded, slow):
    for rows, length in ((1, 13), (3, 7), (1, 1)):
        ids = token_ids(rows, length)
        assert largest_difference(logits(loaded, ids), logits(slow, ids)) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_works_on_any_decoder_with_gate_up_and_down(tmp_path, family):
    base = save_base(tmp_path / "base", family)
    adapter = save_adapter(tmp_path / "adapter", base)
    model = load_model(tmp_path / "adapter")
    assert not model.training
    assert len(routed_experts(model)) == 2 * LAYERS
    assert_same_function(model, slow_model(base, adapter))
    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = token_ids(2, 5)
    assert largest_difference(logits(model, ids), logits(plain, ids)) > 0.2


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(num_experts=8, rslora=True, dtype=torch.bfloat16),
        Recipe(num_experts=3, top_k=3),
        Recipe(num_experts=4, top_k=1, dtype=torch.float16),
        Recipe(num_experts=1, top_k=1),
        Recipe(shared=1),
        Recipe(shared=2, rslora=True),
        Recipe(num_experts=1, top_k=2, shared=1),
    ],
    ids=str,
)
def test_every_kind_of_ming_adapter_computes_what_was_trained(tmp_path, base, recipe):
    adapter = save_adapter(tmp_path / "adapter", base, recipe)
    assert_same_function(load_model(tmp_path / "adapter"), slow_model(base, adapter))


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(num_experts=8, rslora=True)], ids=str)
def test_a_merged_checkpoint_keeps_its_experts(tmp_path, base, recipe):
    adapter = save_merged(tmp_path / "merged", base, recipe)
    model = load_model(tmp_path / "merged")
    assert model.loaded.description.kind == "molora-merged"
    assert_same_function(model, slow_model(base, adapter))


def test_a_merged_checkpoint_in_a_pickle_loads_too(tmp_path, base):
    adapter = save_merged(tmp_path / "merged", base, Recipe())
    weights = tmp_path / "merged" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "merged" / "pytorch_model.bin")
    weights.unlink()
    assert_same_function(load_model(tmp_path / "merged"), slow_model(base, adapter))


def test_a_single_expert_and_shared_experts_cost_nothing(tmp_path, base):
    save_adapter(tmp_path / "adapter", base, Recipe(num_experts=1, shared=1))
    assert routed_experts(load_model(tmp_path / "adapter")) == []


def test_the_share_expert_flag_alone_changes_nothing(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    edit_json(tmp_path / "adapter" / "config.json", share_expert=True)
    model = load_model(tmp_path / "adapter")
    assert_same_function(model, slow_model(base, adapter))
    assert any("share_expert" in note for note in model.loaded.description.notes)


def test_shared_experts_are_counted_in_the_config_and_noted_as_nothing_idle(tmp_path, base):
    save_adapter(tmp_path / "adapter", base, Recipe(shared=2))
    written = json.loads((tmp_path / "adapter" / "config.json").read_text("utf-8"))
    assert (written["share_expert"], written["num_share_experts"]) == (True, 2)
    edit_json(tmp_path / "adapter" / "config.json", num_share_experts=None)
    notes = load_model(tmp_path / "adapter").loaded.description.notes
    assert not [note for note in notes if "share_expert" in note]


def test_a_model_without_its_last_layers_is_refused(base):
    edit_json(base / "config.json", num_hidden_layers=1, layer_types=["full_attention"])
    with pytest.raises(CheckpointError, match="the config has 1 layers, the file has more"):
        load_model(base)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_loading_says_that_an_adapter_changes_nothing_or_holds_no_numbers(tmp_path, base, value):
    save_peft(tmp_path / "lora", base)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = {name: torch.full_like(one, value) for name, one in load_file(file).items()}
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"changes nothing|not finite|no number"):
        load_model(tmp_path / "lora")
    if math.isnan(value):  # damaged tensors are refused whether or not the effect is looked at
        with pytest.raises(CheckpointError, match="not finite"):
            load_model(tmp_path / "lora", check=False)
    else:
        assert load_model(tmp_path / "lora", check=False) is not None


def test_a_peft_lora_for_a_base_of_another_width_is_refused_by_its_headers(tmp_path, base):
    save_peft(tmp_path / "lora", base)
    other = save_base(tmp_path / "other", hidden_size=48)
    with pytest.raises(CheckpointError, match=r"q_proj\.lora_A\.weight has shape \[\d+, 32\]"):
        describe_checkpoint(tmp_path / "lora", other)
    fewer = save_base(tmp_path / "fewer", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"the base has no layer model\.layers\.1"):
        describe_checkpoint(tmp_path / "lora", fewer)


def test_rank_stabilisation_named_by_either_file_counts_and_is_noted(tmp_path, base, caplog):
    adapter = save_adapter(tmp_path / "adapter", base, Recipe(rslora=True))
    # As the MING trainer leaves it: in adapter_config.json alone.
    edit_json(tmp_path / "adapter" / "config.json", use_rslora=None)
    with caplog.at_level(logging.WARNING):
        model = load_model(tmp_path / "adapter")
    assert "as they were trained" in caplog.text
    assert_same_function(model, slow_model(base, adapter))


def test_reference_compat_takes_rank_stabilisation_from_config_json_alone(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base, Recipe(rslora=True, rank=4, alpha=8.0))
    edit_json(tmp_path / "adapter" / "config.json", use_rslora=None)
    model = load_model(tmp_path / "adapter", reference_compat=True)
    # Experts at alpha / r = 2 instead of alpha / sqrt(r) = 4; the attention keeps 4.
    assert_same_function(model, slow_model(base, adapter, scaling=2.0))


def test_four_experts_two_a_token_are_assumed_when_the_config_names_none(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base, Recipe(num_experts=4, top_k=2))
    config = tmp_path / "adapter" / "config.json"
    edit_json(config, num_experts=None, num_experts_per_token=None, expert_selection=None)
    model = load_model(tmp_path / "adapter")
    assert_same_function(model, slow_model(base, adapter))
    assert any("names no num_experts" in note for note in model.loaded.description.notes)


def test_the_adapters_own_config_wins_over_the_bases(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    rope = {"rope_theta": 50.0, "rope_type": "default"}
    edit_json(tmp_path / "adapter" / "config.json", rope_parameters=rope)
    slow = slow_model(base, adapter)
    loaded = load_model(tmp_path / "adapter")
    assert largest_difference(logits(loaded, token_ids(1, 9)), logits(slow, token_ids(1, 9))) > 0.1
    edit_json(base / "config.json", rope_parameters=rope)
    assert_same_function(loaded, slow_model(base, adapter))


def test_an_old_top_level_rope_theta_is_read(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    config = tmp_path / "adapter" / "config.json"
    edit_json(config, rope_parameters=None, rope_theta=50.0, dtype=None, torch_dtype="float32")
    edit_json(base / "config.json", rope_parameters={"rope_theta": 50.0, "rope_type": "default"})
    assert_same_function(load_model(tmp_path / "adapter"), slow_model(base, adapter))


@pytest.mark.parametrize("prefix", ["", "model.", "base_model.model."])
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_prefixed_and_stripped_names_load_from_both_kinds_of_file(tmp_path, base, prefix, suffix):
    adapter = save_adapter(tmp_path / "adapter", base)
    for stem in ("non_lora_trainables", "adapter_model"):
        tensors = load_file(tmp_path / "adapter" / f"{stem}.safetensors")
        renamed = {prefix + k.removeprefix("base_model.model."): v for k, v in tensors.items()}
        for path in (tmp_path / "adapter").glob(f"{stem}.*"):
            path.unlink()
        save = torch.save if suffix == "bin" else save_file
        save(renamed, tmp_path / "adapter" / f"{stem}.{suffix}")
    assert_same_function(load_model(tmp_path / "adapter"), slow_model(base, adapter))


def test_safetensors_are_preferred_to_a_pickle_beside_them(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    (tmp_path / "adapter" / "non_lora_trainables.bin").write_bytes(b"broken")
    assert_same_function(load_model(tmp_path / "adapter"), slow_model(base, adapter))


def test_a_base_that_is_given_wins_over_the_one_named(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    edit_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="/nowhere")
    assert_same_function(load_model(tmp_path / "adapter", base), slow_model(base, adapter))


def test_padding_on_the_left_changes_no_real_token(tmp_path, base):
    save_adapter(tmp_path / "adapter", base)
    model = load_model(tmp_path / "adapter")
    ids = token_ids(1, 9)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    both = torch.cat([padded, token_ids(1, 13, seed=8)])
    mask = torch.ones_like(both)
    mask[0, :4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batched = logits(model, both, attention_mask=mask, position_ids=positions)
    assert largest_difference(batched[0, 4:], logits(model, ids)[0]) < TOLERANCE


def test_greedy_decoding_in_a_batch_gives_what_each_row_gives_alone(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    model, slow = load_model(tmp_path / "adapter"), slow_model(base, adapter)
    ids = token_ids(3, 6)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    mask = torch.ones_like(ids)
    together = model.generate(ids, attention_mask=mask, **settings)
    for row, answer in zip(ids, together, strict=True):
        alone = slow.generate(row[None], attention_mask=mask[:1], **settings)
        assert answer.tolist() == alone[0].tolist()


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        ("float32", "auto", torch.float32),
        ("bfloat16", "auto", torch.bfloat16),
        ("float16", "auto", torch.float32),
        ("float32", "bfloat16", torch.bfloat16),
        ("bfloat16", torch.float32, torch.float32),
    ],
)
def test_dtype_follows_the_base_and_fp16_is_widened_on_a_cpu(tmp_path, stored, asked, expected):
    base = save_base(tmp_path / "base", dtype=getattr(torch, stored))
    weights = load_file(base / "model.safetensors")
    narrow = {name: tensor.to(getattr(torch, stored)) for name, tensor in weights.items()}
    save_file(narrow, base / "model.safetensors", metadata={"format": "pt"})
    save_adapter(tmp_path / "adapter", base)
    edit_json(tmp_path / "adapter" / "config.json", dtype="float32")
    model = load_model(tmp_path / "adapter", dtype=asked)
    assert model.dtype == expected
    assert {module.lora_a.dtype for module in routed_experts(model)} == {expected}
    assert {module.router.dtype for module in routed_experts(model)} == {torch.float32}


def test_an_unknown_dtype_is_refused(tmp_path, base):
    with pytest.raises(UsageError, match="no dtype 'fp8'"):
        load_model(base, dtype="fp8")


def test_reference_compat_routes_in_the_models_dtype(tmp_path, base):
    save_adapter(tmp_path / "adapter", base)
    model = load_model(tmp_path / "adapter", dtype="bfloat16", reference_compat=True)
    assert {module.router.dtype for module in routed_experts(model)} == {torch.bfloat16}


@pytest.mark.parametrize("targets", [None, [], "all-linear"])
def test_the_attentions_pairs_are_read_whatever_the_config_says_of_them(tmp_path, base, targets):
    save_adapter(tmp_path / "adapter", base)
    expected = logits(load_model(tmp_path / "adapter"), token_ids(1, 5))
    edit_json(tmp_path / "adapter" / "adapter_config.json", target_modules=targets)
    assert torch.equal(logits(load_model(tmp_path / "adapter"), token_ids(1, 5)), expected)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    if targets:
        with pytest.raises(CheckpointError, match=r"has neither adapter_model\.safetensors"):
            load_model(tmp_path / "adapter")


def save_peft(folder, base, **settings):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    targets = ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, **settings)
    tuned = get_peft_model(model, config)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
    tuned.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 6}},
        {"use_dora": True},
    ],
    ids=str,
)
def test_a_peft_lora_is_merged_and_equals_peft_itself(tmp_path, base, settings):
    folder = save_peft(tmp_path / "lora", base, **settings)
    loaded = load_model(folder, base)
    assert type(loaded).__name__ == "Qwen2ForCausalLM"
    assert not any("lora" in name for name, _ in loaded.named_modules())
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    assert_same_function(loaded, peft)
    assert probe(loaded) > 0.1


def test_a_peft_lora_with_a_hole_is_refused(tmp_path, base):
    folder = save_peft(tmp_path / "lora", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight")
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down_proj\.lora_B"):
        load_model(folder, base)


def test_a_peft_lora_for_layers_that_the_base_lacks_is_refused(tmp_path, base):
    folder = save_peft(tmp_path / "lora", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = torch.ones(4, 32)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.7\.self_attn"):
        load_model(folder, base)


def test_a_full_model_loads_as_transformers_loads_it(base):
    model = load_model(base)
    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = token_ids(2, 5)
    assert torch.equal(logits(model, ids), logits(plain, ids))
    assert probe(model) is None


def test_attention_that_is_capped_is_capped_whatever_transformers_would_run(tmp_path):
    # So low a cap moves logits by more than rounding: without it the model is another.
    base = save_base(tmp_path / "base", "gemma2", attn_logit_softcapping=0.2)
    ids = token_ids(2, 12)
    wanted = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    uncapped = AutoModelForCausalLM.from_pretrained(
        base, attn_implementation="eager", attn_logit_softcapping=None
    )
    found = logits(load_model(base), ids)
    assert torch.allclose(found, logits(wanted, ids), atol=TOLERANCE)
    assert not torch.allclose(found, logits(uncapped, ids), atol=100 * TOLERANCE)


def test_the_probe_says_how_far_the_adapter_moves_the_logits_and_leaves_it_on(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base, Recipe(shared=1))
    model = load_model(tmp_path / "adapter")
    ids = torch.arange(1, 9)[None] * 96 // 10
    before = logits(model, ids)
    expected = largest_difference(before, logits(AutoModelForCausalLM.from_pretrained(base), ids))
    assert probe(model) == pytest.approx(expected, abs=1e-3)
    assert torch.equal(logits(model, ids), before)
    assert_same_function(model, slow_model(base, adapter))


@pytest.mark.parametrize("recipe", [Recipe(spread=0.0), Recipe(num_experts=1, spread=0.0)], ids=str)
def test_the_probe_refuses_an_adapter_that_changes_nothing(tmp_path, base, recipe):
    save_adapter(tmp_path / "adapter", base, recipe)
    with pytest.raises(CheckpointError, match="changes nothing"):
        probe(load_model(tmp_path / "adapter"))


def test_the_probe_finds_a_single_merged_expert_live(tmp_path, base):
    save_adapter(tmp_path / "adapter", base, Recipe(num_experts=1))
    assert probe(load_model(tmp_path / "adapter")) > 0.1


def test_the_probe_refuses_logits_that_are_not_finite(tmp_path, base):
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"][5, 0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="not finite"):
        probe(load_model(base))


def test_a_description_counts_parameters_and_layers_without_the_bases_weights(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base, Recipe(num_experts=4, top_k=2, shared=1))
    (base / "model.safetensors").unlink()
    description = describe_checkpoint(tmp_path / "adapter")
    experts = sum(one.a.numel() + one.b.numel() for one in adapter.experts.values())
    routers = sum(
        one.router_weight.numel() + one.router_bias.numel() for one in adapter.experts.values()
    )
    pairs = [*(one.shared for one in adapter.experts.values()), *adapter.attention.values()]
    always = routers + sum(a.numel() + b.numel() for a, b in pairs)
    plain = AutoModelForCausalLM.from_config(draw_config(base))
    full = sum(parameter.numel() for parameter in plain.parameters())
    counts = description.parameters
    assert (counts.base, counts.adapter) == (full, experts + always)
    assert counts.active == full + experts // 2 + always
    assert description.expert_layers == {"down_proj": 2, "gate_proj": 2, "up_proj": 2}
    assert description.mixture.generation == 2
    assert description.to_json()["parameters"]["total"] == full + experts + always


def draw_config(base):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base)


def test_what_was_saved_is_what_is_loaded(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    model = load_model(tmp_path / "adapter")
    loaded = {
        path: one
        for module in routed_experts(model)
        for path, one in zip(module.paths, module.unstack(), strict=True)
    }
    assert loaded.keys() == adapter.experts.keys()
    for path, one in adapter.experts.items():
        for name in ("a", "b", "router_weight", "router_bias"):
            assert torch.equal(getattr(loaded[path], name), getattr(one, name)), (path, name)


def test_two_adapters_that_differ_only_in_a_router_differ(tmp_path, base):
    adapter = save_adapter(tmp_path / "adapter", base)
    path = "model.layers.0.mlp.gate_proj"
    flipped = dataclasses.replace(
        adapter.experts[path], router_weight=-adapter.experts[path].router_weight
    )
    other = Adapter(adapter.recipe, {**adapter.experts, path: flipped}, adapter.attention)
    ids = token_ids(1, 9)
    apart = largest_difference(
        logits(load_model(tmp_path / "adapter"), ids), logits(slow_model(base, other), ids)
    )
    assert apart > 0.1


def test_drawn_adapters_cover_every_linear_layer_but_the_head(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    adapter = draw_adapter(model, Recipe())
    assert len(adapter.experts) == 3 * LAYERS
    assert len(adapter.attention) == 4 * LAYERS
