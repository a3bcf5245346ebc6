"""LoRAs of PEFT's own kinds: each computes what PEFT computes with it live, or is refused."""

import json
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_checkpoints import logits, save_base, token_ids
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import load_adapters, load_model, probe
from mingmoe_eval.molora.opening import open_checkpoint

IDS = token_ids(2, 7)
FILE = "adapter_model.safetensors"
NORM = "base_model.model.model.norm.weight"

KINDS = {
    "plain": {},
    "lora_bias": {"lora_bias": True},
    "dora": {"use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "tied": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "tied head": {"target_modules": ["lm_head", "q_proj"], "ensure_weight_tying": True},
    "repeated layers": {"layer_replication": [[0, 2], [0, 2]]},
    "whole embedding": {"modules_to_save": ["embed_tokens"]},
    "whole norm": {"modules_to_save": ["norm"]},
    "one layer": {"layers_to_transform": [1]},
    "pattern": {"target_modules": r".*\.(q|o)_proj", "rank_pattern": {"q_proj": 2}},
}
EDITS = {"norm beside the pairs": {NORM: 3 * torch.ones(32)}}


def save_lora(folder, base, name, **changes):
    torch.manual_seed(3)
    settings = {"target_modules": ["q_proj", "v_proj"], **KINDS.get(name, {}), **changes}
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings)
    with warnings.catch_warnings(action="ignore"):  # of what PEFT itself cannot merge
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    with warnings.catch_warnings(action="ignore"):  # of embeddings that it saves, as asked
        tuned.save_pretrained(folder)
    edit_tensors(folder, EDITS.get(name, {}))
    return folder


def edit_tensors(folder, changes):
    tensors = load_file(folder / FILE) | changes
    save_file({n: t.contiguous() for n, t in tensors.items() if t is not None}, folder / FILE)


def live(folder, base):
    with warnings.catch_warnings(action="ignore"):
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Llama, since PEFT itself cannot run Qwen2 with repeated layers; its embeddings are tied."""
    return save_base(tmp_path_factory.mktemp("peft") / "base", "llama", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def loras(base):
    return {name: save_lora(base.parent / name, base, name) for name in (*KINDS, *EDITS)}


@pytest.mark.parametrize("name", [*KINDS, *EDITS])
def test_a_lora_merged_computes_what_peft_computes_with_it_live(base, loras, name):
    merged = load_model(loras[name], base)
    assert not any("lora" in path for path, _ in merged.named_modules())
    expected = logits(live(loras[name], base), IDS)
    assert torch.allclose(logits(merged, IDS), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(load_model(base), IDS), expected, atol=1e-2)
    if name not in EDITS:  # PEFT switches off what is beside the pairs by no means
        assert probe(merged) > 0.01


def test_keys_that_hold_the_adapters_name_are_read(base, loras, tmp_path):
    folder = save_lora(tmp_path / "named", base, "plain")
    tensors = load_file(folder / FILE)
    save_file(
        {n.replace(".weight", ".default.weight"): t for n, t in tensors.items()}, folder / FILE
    )
    same = logits(load_model(loras["plain"], base), IDS)
    assert torch.equal(logits(load_model(folder, base), IDS), same)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.weight",
        "base_model.model.model.layers.9.input_layernorm.weight",
        "base_model.model.value_head.weight",
        "something.else",
    ],
)
def test_a_tensor_that_nobody_reads_is_named(base, tmp_path, name):
    folder = save_lora(tmp_path / "lora", base, "plain")
    edit_tensors(folder, {name: torch.ones(32, 32)})
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, base)
    assert str(caught.value).splitlines()[1:] == [f"  - {name}"]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_are_not_finite_are_refused(base, tmp_path, value):
    folder = save_lora(tmp_path / "lora", base, "plain")
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    spoilt = load_file(folder / FILE)[name]
    spoilt[0, 0] = value
    edit_tensors(folder, {name: spoilt})
    with pytest.raises(CheckpointError, match=r"1\.self_attn\.q_proj\.lora_A\.weight holds values"):
        load_model(folder, base, check=False)


def test_a_field_that_needs_another_library_is_a_refusal(base, tmp_path):
    folder = save_lora(tmp_path / "lora", base, "plain")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    config["megatron_config"] = {"x": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match=r"does not fit its base: .*megatron"):
        load_model(folder, base)


def test_a_plain_lora_of_mings_trainer_has_an_empty_file_beside_it(base, loras, tmp_path):
    folder = save_lora(tmp_path / "ming", base, "plain")
    torch.save({}, folder / "non_lora_trainables.bin")
    same = logits(load_model(loras["plain"], base), IDS)
    assert torch.equal(logits(load_model(folder, base), IDS), same)


def test_a_lora_that_waits_for_its_tokens_is_refused(base, tmp_path):
    folder = save_lora(tmp_path / "lora", base, "plain")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    config["alora_invocation_tokens"] = [5]
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match="cannot be merged into its base: aLoRA"):
        load_model(folder, base)


def test_a_lora_whose_start_is_drawn_anew_at_each_load_is_refused(base, tmp_path):
    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa_niter_2")
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    tuned.save_pretrained(tmp_path / "lora")
    with pytest.raises(CheckpointError, match="path_initial_model_for_weight_conversion"):
        load_model(tmp_path / "lora", base)


def test_on_one_base_each_kind_leaves_nothing_to_any_other(base, loras):
    names = list(loras)
    alone = {name: logits(load_model(loras[name], base), IDS) for name in names}
    # Every ordered pair: each kind follows each other, and itself.
    order = [name for one in names for other in names for name in (one, other)]
    models = load_adapters(base, [loras[name] for name in order])
    for name, model in zip(order, models, strict=True):
        assert torch.equal(logits(model, IDS), alone[name]), name
    assert open_checkpoint(base).kind == "full"
