"""Checkpoints that are not what they claim to be: each is refused whole, with all its offences."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Recipe, edit_json, save_adapter, save_base, save_merged

from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora import load_model, load_tokenizer
from mingmoe_eval.molora.sources import sniff

EXPERTS, ATTENTION = "non_lora_trainables", "adapter_model"
LAYER = "base_model.model.model.layers.1.mlp.up_proj"


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path, base):
    save_adapter(tmp_path / "adapter", base)
    (tmp_path / "adapter" / f"{EXPERTS}.bin").unlink()
    return tmp_path / "adapter"


def edit_tensors(folder, stem, change):
    tensors = load_file(folder / f"{stem}.safetensors")
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{stem}.safetensors")


def refusal(*arguments, **options):
    with pytest.raises(CheckpointError) as caught:
        load_model(*arguments, **options)
    return str(caught.value)


def test_every_missing_tensor_is_named(adapter):
    def take_out(tensors):
        del tensors[f"{LAYER}.switch.weight"]
        del tensors[f"{LAYER}.switch.bias"]
        del tensors[f"{LAYER}.experts.2.lora_B_2.weight"]

    edit_tensors(adapter, EXPERTS, take_out)
    message = refusal(adapter)
    assert "up_proj lacks router weight, of shape [4, 32]" in message
    assert "up_proj lacks router bias, of shape [4]" in message
    assert "up_proj lacks B 2, of shape [48, 4]" in message
    assert len(message.splitlines()) == 4


def test_a_layer_without_any_expert_is_named(adapter):
    def take_out(tensors):
        for name in [name for name in tensors if name.startswith(LAYER)]:
            del tensors[name]

    edit_tensors(adapter, EXPERTS, take_out)
    assert "model.layers.1.mlp.up_proj has no experts" in refusal(adapter)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{LAYER}.experts.4.lora_A_4.weight", "up_proj has A 4, which is one too many"),
        (f"{LAYER}.experts.1.lora_A_2.weight", "unexpected tensor"),
        (f"{LAYER}.gate.weight", "unexpected tensor"),
        ("base_model.model.model.layers.9.mlp.up_proj.switch.bias", "no such feed-forward layer"),
        ("model.layers.1.mlp.up_proj.switch.bias", "unexpected tensor"),
    ],
)
def test_a_tensor_too_many_is_named(adapter, name, said):
    edit_tensors(adapter, EXPERTS, lambda tensors: tensors.update({name: torch.ones(4)}))
    assert said in refusal(adapter)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_experts": 8}, "up_proj lacks A 7"),
        ({"num_experts": 2}, "has A 3, which is one too many"),
        ({"num_experts": 1}, "router weight, which is one too many"),
        ({"num_experts_per_token": 5}, "exceeds num_experts = 4"),
        ({"num_experts_per_token": 0}, "positive whole number, not 0"),
        ({"num_experts_per_token": None}, "num_experts_per_token is absent"),
        ({"num_experts": "4"}, "positive whole number, not '4'"),
        ({"expert_selection": "sampling"}, "no two runs agree"),
        ({"intermediate_size": 64}, "instead of [64, 4]"),
        ({"num_hidden_layers": 1, "layer_types": None}, "no such feed-forward layer"),
        ({"model_type": "gpt2"}, "has no block with gate_proj, up_proj, down_proj"),
        ({"model_type": "unheard_of"}, "model config"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_tensors_is_refused(adapter, changes, said):
    edit_json(adapter / "config.json", **changes)
    assert said in refusal(adapter)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 8}, "instead of [8, 32]"),
        ({"r": None}, "r must be a positive whole number, not None"),
        ({"lora_alpha": "8"}, "lora_alpha must be a number above 0, not '8'"),
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"lora_bias": True}, "lora_bias = True is not supported"),
        ({"layer_replication": [[0, 2]]}, "layer_replication = [[0, 2]] is not supported"),
        ({"target_parameters": ["w"]}, "target_parameters = ['w'] is not supported"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens = [5] is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' changes the base's weights"),
        ({"use_rslora": "false"}, "use_rslora must be true or false: 'false'"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"target_modules": ["q_proj", "query"]}, "target_modules names query"),
        ({"base_model_name_or_path": "../nowhere"}, "'../nowhere'"),
        ({"base_model_name_or_path": None}, "names no base model"),
    ],
    ids=str,
)
def test_an_adapter_config_that_does_not_fit_is_refused(adapter, changes, said):
    edit_json(adapter / "adapter_config.json", **changes)
    assert said in refusal(adapter)


def test_several_offences_are_listed_together(adapter):
    edit_json(adapter / "config.json", num_experts_per_token=9, expert_selection="sampling")
    edit_json(adapter / "adapter_config.json", r=None, bias="all")
    assert len(refusal(adapter).splitlines()) == 1 + 4


def test_a_pair_missing_in_one_block_is_named(adapter):
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    edit_tensors(adapter, ATTENTION, lambda tensors: tensors.pop(name))
    assert "layers.1.self_attn.v_proj lacks B, of shape [16, 4]" in refusal(adapter)


def test_values_that_are_not_finite_are_refused(adapter):
    def spoil(tensors):
        tensors[f"{LAYER}.experts.0.lora_A_0.weight"][0, 0] = float("inf")

    edit_tensors(adapter, EXPERTS, spoil)
    assert "up_proj holds values that are not finite" in refusal(adapter)


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", f"{ATTENTION}.safetensors"])
def test_a_missing_file_is_named(adapter, name):
    (adapter / name).unlink()
    assert name.split(".")[0] in refusal(adapter)


def test_a_missing_file_of_experts_is_not_taken_for_a_plain_lora(adapter):
    (adapter / f"{EXPERTS}.safetensors").unlink()
    assert "holds them and their routers" in refusal(adapter)


@pytest.mark.parametrize("content", [b"", b"not a tensor file", b"\x80\x02."])
def test_an_unreadable_file_is_named(adapter, content):
    for suffix in ("safetensors", "bin"):
        path = adapter / f"{EXPERTS}.{suffix}"
        path.write_bytes(content)
        assert str(path) in refusal(adapter)
        path.unlink()


class RunsCode:
    def __reduce__(self):
        return (pytest.fail, ("the pickle's code ran",))


def test_a_pickle_with_code_is_refused_and_does_not_run(adapter):
    (adapter / f"{EXPERTS}.safetensors").unlink()
    torch.save({"x": RunsCode()}, adapter / f"{EXPERTS}.bin", pickle_protocol=2)
    assert "could run code" in refusal(adapter)
    (adapter / f"{EXPERTS}.bin").write_bytes(pickle.dumps({"x": RunsCode()}, protocol=2))
    assert "could run code" in refusal(adapter)


@pytest.mark.parametrize("content", [[1, 2], {"x": 1}, {1: torch.ones(1)}], ids=str)
def test_a_pickle_of_something_else_is_refused(adapter, content):
    (adapter / f"{EXPERTS}.safetensors").unlink()
    torch.save(content, adapter / f"{EXPERTS}.bin")
    assert "not a dict of tensors" in refusal(adapter)


def test_json_that_is_broken_is_named(adapter):
    (adapter / "adapter_config.json").write_text("{")
    assert "adapter_config.json cannot be read: not JSON" in refusal(adapter)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 3}, "weights without a place"),
        ({"intermediate_size": 64}, "layers.0.mlp.up_proj.weight is of shape [64, "),
        ({"intermediate_size": 64}, "layers.1.mlp.up_proj.weight is of shape [64, "),
        ({"num_hidden_layers": 1}, "no weights for"),
    ],
    ids=str,
)
def test_a_base_of_another_shape_is_refused(tmp_path, adapter, changes, said):
    other = save_base(tmp_path / "other", **changes)
    assert said in refusal(adapter, other)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_a_device_that_is_not_here_is_a_mistake_of_the_user(adapter, device):
    with pytest.raises(UsageError, match=f"the device '{device}' cannot be used here: "):
        load_model(adapter, device=device)


def test_a_base_without_weights_is_refused(adapter, base):
    (base / "model.safetensors").unlink()
    assert str(base) in refusal(adapter)


def test_an_adapter_given_as_base_is_refused(tmp_path, adapter):
    assert "weights" in refusal(adapter, adapter)


def test_code_in_a_checkpoint_is_never_run(adapter):
    (adapter / "modeling_custom.py").write_text("raise SystemExit('the code ran')\n")
    edit_json(
        adapter / "config.json",
        auto_map={
            "AutoConfig": "modeling_custom.Config",
            "AutoModelForCausalLM": "modeling_custom.Model",
        },
    )
    load_model(adapter)
    edit_json(adapter / "config.json", model_type="custom")
    assert "model config" in refusal(adapter)


def test_a_merged_checkpoint_with_a_hole_is_refused(tmp_path, base):
    save_merged(tmp_path / "merged", base, Recipe())
    edit_tensors(
        tmp_path / "merged", "model", lambda t: t.pop("model.layers.0.mlp.gate_proj.switch.bias")
    )
    assert "gate_proj lacks router bias" in refusal(tmp_path / "merged")


def test_a_merged_checkpoint_without_alpha_is_refused(tmp_path, base):
    save_merged(tmp_path / "merged", base, Recipe())
    edit_json(tmp_path / "merged" / "config.json", lora_alpha=None)
    assert "lora_alpha must be a number" in refusal(tmp_path / "merged")


def test_experts_are_never_dropped_because_the_config_does_not_speak_of_them(tmp_path, base):
    merged = tmp_path / "merged"
    save_merged(merged, base, Recipe())
    torch.save(load_file(merged / "model.safetensors"), merged / "pytorch_model.bin")
    (merged / "model.safetensors").unlink()
    edit_json(merged / "config.json", num_experts_per_token=None)
    assert "weights without a place: model.layers.0.mlp" in refusal(merged)


def test_a_full_model_with_a_hole_is_refused(base):
    edit_tensors(base, "model", lambda tensors: tensors.pop("model.norm.weight"))
    assert "no weights for model.norm.weight" in refusal(base)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "MIXLORA", "routing_strategy": "mixlora-dynamic"}, "mixlora-dynamic"),
        ({"peft_type": "MIXLORA", "routing_strategy": "mixlora-switch"}, "unchanged"),
        ({"peft_type": "MIXLORA", "routing_strategy": "random"}, "no loader for it"),
        ({"peft_type": "PROMPT_TUNING"}, "'prompt_tuning'"),
        ({}, "'unnamed'"),
    ],
    ids=str,
)
def test_adapters_of_other_families_are_refused_by_name(tmp_path, fields, said):
    (tmp_path / "adapter_config.json").write_text("{}")
    edit_json(tmp_path / "adapter_config.json", **fields)
    assert said in refusal(tmp_path)


def test_a_training_state_without_routers_is_refused(tmp_path):
    (tmp_path / "molora.bin").write_bytes(b"")
    assert "holds no routers" in refusal(tmp_path)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "a/b/c", "../x", "folder/"])
def test_a_path_that_does_not_exist_is_not_sought_on_the_hub(path):
    assert "no model directory" in refusal(path)


def test_an_empty_directory_is_no_model(tmp_path):
    assert "holds no model" in refusal(tmp_path)


def test_the_kinds_are_told_apart(tmp_path, adapter, base):
    save_merged(tmp_path / "merged", base, Recipe())
    assert sniff(adapter) == "molora"
    assert sniff(tmp_path / "merged") == "molora-merged"
    assert sniff(base) == "full"
    assert sniff("organisation/model") == "hub"


def test_a_model_without_a_tokenizer_is_named(adapter, base):
    for path in (base, adapter):
        with pytest.raises(CheckpointError, match="tokenizer"):
            load_tokenizer(path)
