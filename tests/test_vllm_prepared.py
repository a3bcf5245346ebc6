"""The folder that vLLM takes for a model, made and checked without vLLM."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Recipe, edit_json, save_adapter, save_base, save_merged
from tiny_language_models import make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import load_model
from mingmoe_eval.molora.opening import open_checkpoint
from mingmoe_eval.vllm.merging import Merging, plain_pairs
from mingmoe_eval.vllm.prepared import prepare

SIZES = {"vocab_size": 384}


@pytest.fixture
def base(tmp_path):
    made = save_base(tmp_path / "base", **SIZES)
    make_tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def adapter(tmp_path, base):
    save_adapter(tmp_path / "adapter", base, Recipe())
    return tmp_path / "adapter"


def made(tmp_path, model, **options):
    return prepare(model, folder=tmp_path / "for-vllm", **options)


def test_the_folder_links_weights_and_names_adapter_and_base(tmp_path, base, adapter):
    prepared = made(tmp_path, adapter)
    config = json.loads((prepared.folder / "config.json").read_text())
    assert config["architectures"] == ["MoLoraQwen2ForCausalLM"]
    assert config["mingmoe"]["checkpoint"] == str(adapter)
    assert config["mingmoe"]["base"] == str(base)
    assert config["head_dtype"] == "float32"
    assert config["dtype"] == "float32"
    assert "num_experts" not in config
    assert (prepared.folder / "model.safetensors").readlink() == base / "model.safetensors"
    assert prepared.routes
    assert AutoConfig.from_pretrained(prepared.folder).mingmoe["base"] == str(base)


def test_what_a_merged_config_says_of_the_adapter_is_not_for_the_base(tmp_path):
    base = save_base(tmp_path / "base", "llama", **SIZES)
    save_merged(tmp_path / "merged", base, Recipe())
    make_tokenizer().save_pretrained(tmp_path / "merged")
    said = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert said["bias"] == "none"
    prepared = made(tmp_path, tmp_path / "merged")
    config = json.loads((prepared.folder / "config.json").read_text())
    # vLLM's Llama reads "bias": the text would be true, and its biases whatever the memory held.
    assert not {"bias", "r", "lora_alpha", "use_rslora", "num_experts"} & config.keys()
    assert config["attention_bias"] is False
    assert config["num_hidden_layers"] == said["num_hidden_layers"]


def test_the_adapters_config_wins_over_its_bases(tmp_path, adapter):
    theta = json.loads((adapter / "config.json").read_text())["rope_parameters"]
    edit_json(adapter / "config.json", rope_parameters={**theta, "rope_theta": 77.0})
    prepared = made(tmp_path, adapter)
    config = json.loads((prepared.folder / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 77.0


def test_the_folders_tokenizer_splits_as_ours(tmp_path, adapter):
    text = "患者发热咳嗽三天  which drug\n\nis given?"
    prepared = made(tmp_path, adapter)
    assert AutoTokenizer.from_pretrained(prepared.tokenizer)(text) == make_tokenizer()(text)


def test_a_tokenizer_that_its_models_class_would_replace_is_kept_apart(tmp_path, base):
    words = Tokenizer(models.WordLevel({"[end]": 0, "[unknown]": 1, "fever": 2, "cough": 3}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[end]")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    own.save_pretrained(base)
    prepared = made(tmp_path, base)
    assert prepared.tokenizer == prepared.folder / "tokenizer"
    assert AutoTokenizer.from_pretrained(prepared.tokenizer)("cough fever").input_ids == [3, 2]


def test_a_full_model_keeps_vllms_own_class(tmp_path, base):
    prepared = made(tmp_path, base)
    config = json.loads((prepared.folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert "mingmoe" not in config
    assert not prepared.routes


def test_made_again_it_forgets_links_that_are_no_more(tmp_path, base, adapter):
    prepared = made(tmp_path, adapter)
    (prepared.folder / "old.safetensors").symlink_to(base / "model.safetensors")
    made(tmp_path, adapter)
    assert not (prepared.folder / "old.safetensors").is_symlink()


def test_other_weights_have_another_fingerprint(tmp_path, adapter):
    before = made(tmp_path, adapter).weights_fingerprint()
    assert made(tmp_path, adapter).weights_fingerprint() == before
    for name in ("non_lora_trainables.safetensors",):
        tensors = load_file(adapter / name)
        first = next(iter(tensors))
        tensors[first] = tensors[first] + 1
        save_file(tensors, adapter / name, metadata={"format": "pt"})
    assert made(tmp_path, adapter).weights_fingerprint() != before


def test_what_the_base_lacks_is_listed_before_anything_is_loaded(tmp_path, base, adapter):
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.0.mlp.gate_proj.weight"]
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 4)
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(3, 4)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as refused:
        made(tmp_path, adapter)
    told = str(refused.value)
    assert "no weights for model.layers.0.mlp.gate_proj.weight" in told
    assert "model.layers.1.mlp.up_proj.weight is of shape [3, 4]" in told
    assert "weights without a place: model.layers.7.mlp.up_proj.weight" in told


def test_a_full_models_holes_are_refused_too(tmp_path, base):
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.0.self_attn.k_proj.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no weights for .*self_attn\.k_proj"):
        made(tmp_path, base)


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("value_head.weight", torch.zeros(1, 4), "weights without a place: value_head.weight"),
        (
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            torch.zeros(4, 32),
            r"weights without a place: .*lora_A",
        ),
        ("model.norm.weight", torch.ones(32, dtype=torch.int8), "norm.weight holds whole numbers"),
    ],
)
def test_what_a_full_model_has_too_much_is_refused(tmp_path, base, name, tensor, reason):
    tensors = {**load_file(base / "model.safetensors"), name: tensor}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=reason):
        made(tmp_path, base)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("non_lora_trainables", "layers.1.mlp.up_proj.experts.2.lora_B_2.weight"),
        ("non_lora_trainables", "layers.0.mlp.down_proj.switch.bias"),
        ("adapter_model", "layers.0.self_attn.q_proj.lora_A.weight"),
    ],
)
def test_what_is_no_number_in_an_adapter_is_named_before_vllm_starts(tmp_path, adapter, file, name):
    tensors = load_file(adapter / f"{file}.safetensors")
    tensors[f"base_model.model.model.{name}"].view(-1)[1] = float("nan")
    save_file(tensors, adapter / f"{file}.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name} holds values that are not finite"):
        made(tmp_path, adapter)


def test_the_loaders_own_checks_come_first(tmp_path, adapter):
    tensors = load_file(adapter / "non_lora_trainables.safetensors")
    lost = "base_model.model.model.layers.0.mlp.up_proj.experts.1.lora_A_1.weight"
    del tensors[lost]
    save_file(tensors, adapter / "non_lora_trainables.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj lacks A 1"):
        made(tmp_path, adapter)


def test_a_base_without_a_class_of_ours_is_refused_by_name(tmp_path):
    base = save_base(tmp_path / "base", "granite", **SIZES)
    make_tokenizer().save_pretrained(base)
    save_adapter(tmp_path / "adapter", base, Recipe())
    with pytest.raises(CheckpointError, match="GraniteForCausalLM"):
        made(tmp_path, tmp_path / "adapter")


SLIDING = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}


@pytest.mark.parametrize("with_experts", [True, False])
@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("gemma2", {}, "Gemma2ForCausalLM has no\n  - head apart from its embeddings"),
        # vLLM passes over the biases without a word, and answers something else.
        ("gemma", {"attention_bias": True}, "all biases of attention_bias"),
        ("qwen3", {"attention_bias": True}, "all biases of attention_bias"),
        ("qwen2", SLIDING, "sliding window in some layers alone"),
        ("qwen3", SLIDING, "sliding window in some layers alone"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act but 'silu', not 'gelu'"),
        ("gemma", {"hidden_act": "relu"}, "hidden_act but 'gelu_pytorch_tanh', not 'relu'"),
    ],
)
def test_what_vllms_class_has_not_is_refused_by_name(
    tmp_path, family, changes, reason, with_experts
):
    model = save_base(tmp_path / "base", family, **SIZES, **changes)
    make_tokenizer().save_pretrained(model)
    if with_experts:
        save_adapter(tmp_path / "adapter", model, Recipe())
        model = tmp_path / "adapter"
    with pytest.raises(CheckpointError, match=reason):
        made(tmp_path, model)


def peft_adapter(tmp_path, base, **changes):
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    config = LoraConfig(**{**settings, "init_lora_weights": False, **changes})
    tuned = get_peft_model(model, config)
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    tuned.save_pretrained(tmp_path / "peft")
    return tmp_path / "peft"


def test_a_plain_lora_is_merged_as_its_bases_weights_pass(tmp_path, base):
    adapter = peft_adapter(tmp_path, base, use_rslora=True)
    prepared = made(tmp_path, adapter)
    assert json.loads((prepared.folder / "config.json").read_text())["architectures"] == [
        "MoLoraQwen2ForCausalLM"
    ]
    merging = Merging(None, plain_pairs(open_checkpoint(adapter)), dtype=torch.float32)
    merged = dict(merging.into(load_file(base / "model.safetensors").items()))
    ours = load_model(adapter).state_dict()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, ours[name], rtol=1e-5, atol=1e-6)
    assert len(merging.changed) == 4
    assert min(merging.changed.values()) > 0


def test_what_peft_alone_computes_becomes_a_full_copy(tmp_path, base):
    adapter = peft_adapter(tmp_path, base, use_dora=True)
    prepared = made(tmp_path, adapter)
    assert prepared.opened.kind == "full"
    assert prepared.description.kind == "peft-lora"
    assert prepared.effect > 0
    copied, ours = load_file(prepared.folder / "model.safetensors"), load_model(adapter)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(copied[name], tensor)


def without(adapter, part):
    tensors = load_file(adapter / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if part not in name}
    assert len(kept) < len(tensors)
    save_file(kept, adapter / "adapter_model.safetensors", metadata={"format": "pt"})


def test_a_lora_that_lost_a_layer_is_refused_as_peft_refuses_it(tmp_path, base):
    adapter = peft_adapter(tmp_path, base)
    without(adapter, ".layers.1.mlp.")
    with pytest.raises(CheckpointError, match=r"mlp\.down_proj"):
        load_model(adapter)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down_proj lacks its low-rank"):
        made(tmp_path, adapter)


def test_a_lora_on_some_layers_alone_is_whole(tmp_path, base):
    adapter = peft_adapter(tmp_path, base, layers_to_transform=[1])
    assert len(plain_pairs(open_checkpoint(adapter)).layers) == 2
    assert made(tmp_path, adapter).opened.kind == "peft-lora"


def test_a_pair_that_its_config_does_not_name_is_refused(tmp_path, base):
    adapter = peft_adapter(tmp_path, base)
    edit_json(adapter / "adapter_config.json", target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match=r"down_proj has a low-rank pair, and adapter_config"):
        made(tmp_path, adapter)


# PEFT warns of such an adapter as it is made and as it is saved.
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_a_pair_of_a_head_that_is_the_embeddings_becomes_a_full_copy(tmp_path):
    base = save_base(tmp_path / "base", **SIZES, tie_word_embeddings=True)
    make_tokenizer().save_pretrained(base)
    adapter = peft_adapter(tmp_path, base, target_modules=["lm_head", "q_proj"])
    prepared = made(tmp_path, adapter)
    assert prepared.opened.kind == "full"
    assert not prepared.opened.model_config.tie_word_embeddings
    copied, ours = load_file(prepared.folder / "model.safetensors"), load_model(adapter)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(copied[name], tensor)


@pytest.mark.parametrize("recipe", [Recipe(num_experts=1, top_k=1), Recipe(shared=2)])
def test_what_every_token_passes_is_merged_as_the_loader_merges_it(tmp_path, base, recipe):
    save_adapter(tmp_path / "adapter", base, recipe)
    mixture = open_checkpoint(tmp_path / "adapter").mixture
    merging = Merging(mixture, None, dtype=torch.float32)
    merged = dict(merging.into(load_file(base / "model.safetensors").items()))
    ours = load_model(tmp_path / "adapter").state_dict()
    for name, tensor in merged.items():
        assert torch.equal(tensor, ours[name])
    assert len(merging.changed) == 14


def test_a_merged_checkpoints_experts_do_not_pass_as_weights(tmp_path, base):
    save_merged(tmp_path / "merged", base, Recipe())
    make_tokenizer().save_pretrained(tmp_path / "merged")
    prepared = made(tmp_path, tmp_path / "merged")
    passed = dict(
        Merging(prepared.opened.mixture, None, dtype=torch.float32).into(
            load_file(tmp_path / "merged" / "model.safetensors").items()
        )
    )
    assert passed.keys() == load_file(base / "model.safetensors").keys()


def test_a_pair_whose_weight_never_comes_is_refused(base, adapter):
    merging = Merging(open_checkpoint(adapter).mixture, None, dtype=torch.float32)
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj"):
        list(merging.into(weights.items()))


def test_a_pair_that_is_not_finite_is_refused(base, adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors[name][0, 0] = float("inf")
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    merging = Merging(open_checkpoint(adapter).mixture, None, dtype=torch.float32)
    with pytest.raises(CheckpointError, match="not finite"):
        list(merging.into(load_file(base / "model.safetensors").items()))
