"""The base of an adapter as people have it: named badly, in shards, packed, with more beside it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_molora_peft import live, save_lora
from tiny_checkpoints import (
    Recipe,
    edit_json,
    logits,
    save_adapter,
    save_base,
    slow_model,
    token_ids,
)
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from transformers import AutoModelForCausalLM

from mingmoe_eval.engine.backend import weights_fingerprint
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import describe_checkpoint, load_adapters, load_model
from mingmoe_eval.molora.attaching import attach_pair, plain_parts
from mingmoe_eval.molora.layers import LowRankLinear
from mingmoe_eval.molora.presence import refuse_absent

IDS = token_ids(2, 7)
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def shards(base):
    folder = base.parent / "shards"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder, max_shard_size="5KB")
    assert len(list(folder.glob("*.safetensors"))) >= 15
    return folder


@pytest.fixture
def lora(tmp_path, base):
    return save_lora(tmp_path / "lora", base, "plain")


@pytest.mark.parametrize(
    "name",
    [
        *("C:\\models\\base", "D:/base", "\\\\server\\base", ".\\base", "~/base", "base ", "a\0b"),
        *("/home/somebody/base", ".", "./", "..", "", " ", "a/b/c", "file:///base", "x" * 5000),
    ],
    ids=lambda name: repr(name[:20]),
)
def test_a_base_that_is_not_here_is_asked_for(lora, name):
    edit_json(lora / "adapter_config.json", base_model_name_or_path=name)
    for look in (refuse_absent, describe_checkpoint, load_model):
        with pytest.raises(CheckpointError, match="--base") as caught:
            look(lora)
        assert len(str(caught.value)) < 500


def test_a_base_that_the_hub_does_not_have_is_asked_for(lora):
    edit_json(lora / "adapter_config.json", base_model_name_or_path="nobody/nothing")
    with pytest.raises(CheckpointError, match="give a base's directory or hub id with --base"):
        refuse_absent(lora)


def test_a_base_in_many_shards_is_the_same_base(base, shards, lora):
    assert torch.equal(logits(load_model(shards), IDS), logits(load_model(base), IDS))
    assert torch.equal(logits(load_model(lora, shards), IDS), logits(load_model(lora, base), IDS))


def lose(folder):
    next(folder.glob("*-00003-*.safetensors")).unlink()


def point_outside(folder):
    index = json.loads((folder / INDEX).read_text())
    name = sorted(index["weight_map"])[0]
    index["weight_map"][name] = "../base/model.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def point_elsewhere(folder):
    index = json.loads((folder / INDEX).read_text())
    name = "model.layers.0.mlp.up_proj.weight"  # which has a shard of its own
    others = sorted(set(index["weight_map"].values()) - {index["weight_map"][name]})
    index["weight_map"][name] = others[0]
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose, "names files that are not in its folder"),
        (point_outside, "names files that are not in its folder"),
        (point_elsewhere, "no weights for model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_a_torn_base_is_refused(tmp_path, shards, lora, change, said):
    shutil.copytree(shards, tmp_path / "shards")
    change(tmp_path / "shards")
    for arguments in ((tmp_path / "shards",), (lora, tmp_path / "shards")):
        with pytest.raises(CheckpointError, match=said):
            load_model(*arguments)


class RunsCode:
    def __reduce__(self):
        return (pytest.fail, ("the pickle's code ran",))


def test_a_base_that_could_run_code_is_not_opened(tmp_path, base):
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save({"x": RunsCode()}, tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="could run code; save the model again"):
        load_model(tmp_path / "base")


def test_an_adapter_that_lies_in_its_base_is_not_put_on_unasked(tmp_path, base, lora):
    shutil.copytree(base, tmp_path / "base")
    for file in lora.iterdir():
        shutil.copy(file, tmp_path / "base")
    save_adapter(tmp_path / "ming", base)
    with pytest.raises(CheckpointError, match="would put on them unasked"):
        load_model(tmp_path / "ming", tmp_path / "base")
    # As a model it is its adapter, on the base that this names.
    edit_json(tmp_path / "base" / "adapter_config.json", base_model_name_or_path=str(base))
    same = logits(load_model(lora, base), IDS)
    assert torch.equal(logits(load_model(tmp_path / "base"), IDS), same)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_weights_that_are_whole_numbers_are_refused(tmp_path, base, lora, dtype):
    file = lora / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name].to(dtype)}, file)
    with pytest.raises(CheckpointError, match=r"lora_A\.weight holds whole numbers"):
        load_model(lora, base)
    shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.o_proj.weight"
    weights[name] = weights[name].to(dtype)
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="are whole numbers that no config explains"):
        load_model(tmp_path / "base")


def pack_in_fp8(folder, base):
    """The base in 8 bits, a scale a block of 16 x 16: as DeepSeek's and Qwen's FP8 files are."""
    shutil.copytree(base, folder)
    weights = load_file(base / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        rows, columns = weights[name].shape
        blocks = weights[name].view(rows // 16, 16, columns // 16, 16)
        scale = blocks.abs().amax((1, 3)) / 448
        packed = (blocks / scale[:, None, :, None]).view(rows, columns)
        weights[name] = packed.to(torch.float8_e4m3fn)
        weights[name.replace("weight", "weight_scale_inv")] = scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    settings |= {"weight_block_size": [16, 16], "modules_to_not_convert": ["lm_head"]}
    edit_json(folder / "config.json", quantization_config=settings)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_adapters_on_a_base_of_8_bits_are_those_of_its_unpacked_weights(tmp_path, base, lora):
    packed = pack_in_fp8(tmp_path / "packed", base)
    wanted = AutoModelForCausalLM.from_pretrained(packed).eval()
    assert torch.equal(logits(load_model(packed), IDS), logits(wanted, IDS))
    assert not torch.allclose(logits(wanted, IDS), logits(load_model(base), IDS), atol=1e-2)
    on_it = logits(load_model(lora, packed), IDS)
    torch.testing.assert_close(on_it, logits(live(lora, packed), IDS), rtol=1e-4, atol=1e-4)
    adapter = save_adapter(tmp_path / "ming", base, Recipe())
    expected = logits(slow_model(packed, adapter), IDS)
    on_it = logits(load_model(tmp_path / "ming", packed), IDS)
    torch.testing.assert_close(on_it, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "library"),
    [("gptq", "optimum|gptqmodel"), ("awq", "gptqmodel"), ("compressed-tensors", "compressed")],
)
def test_a_packing_whose_library_is_not_here_names_it(tmp_path, base, method, library):
    shutil.copytree(base, tmp_path / "packed")
    settings = {"quant_method": method, "bits": 4, "group_size": 32}
    edit_json(tmp_path / "packed" / "config.json", quantization_config=settings)
    with pytest.raises(CheckpointError, match=library):
        load_model(tmp_path / "packed")


@pytest.mark.parametrize(
    ("file", "field", "value", "noted"),
    [
        ("adapter_config.json", "lora_gain", 2.0, "lora_gain: unknown here"),
        ("config.json", "router_temperature", 0.7, "router_temperature: unknown here"),
        ("config.json", "num_share_experts", 3, "num_share_experts = 3, and the file holds 1"),
        ("config.json", "router_temperature", None, None),
        ("config.json", "router_loss_coeff", 0.1, None),
        ("config.json", "publisher", "its base says so too", None),
    ],
)
def test_what_a_config_says_and_nobody_reads_is_noted(tmp_path, base, file, field, value, noted):
    shutil.copytree(base, tmp_path / "base")
    edit_json(tmp_path / "base" / "config.json", publisher="somebody")
    save_adapter(tmp_path / "ming", tmp_path / "base", Recipe(shared=1))
    settings = json.loads((tmp_path / "ming" / file).read_text()) | {field: value}
    (tmp_path / "ming" / file).write_text(json.dumps(settings))
    notes = describe_checkpoint(tmp_path / "ming").notes
    assert [noted in note for note in notes] == [True] if noted else notes == ()


def test_a_field_that_peft_would_drop_in_silence_is_noted(base, lora):
    edit_json(lora / "adapter_config.json", lora_gain=2.0)
    assert "lora_gain: unknown here" in describe_checkpoint(lora, base).notes[0]


@pytest.mark.parametrize("name", ["latest_checkpointed_iteration.txt", "__0_0.distcp"])
def test_a_checkpoint_of_megatrons_is_told_as_such(tmp_path, name):
    (tmp_path / name).write_text("200")
    with pytest.raises(CheckpointError, match=r"distributed checkpoint of Megatron's .* Relax"):
        describe_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.qkv_proj.mixture_lora.experts.lora_A",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
    ],
)
def test_an_adapter_among_the_weights_of_a_model_is_not_left_out(tmp_path, base, name):
    shutil.copytree(base, tmp_path / "model")
    weights = load_file(base / "model.safetensors") | {name: torch.ones(4, 32)}
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"weights without a place: model\.layers\.0"):
        load_model(tmp_path / "model")


@pytest.mark.filterwarnings("ignore")
def test_a_packed_base_is_not_shared(tmp_path, base, lora):
    packed = pack_in_fp8(tmp_path / "packed", base)
    with pytest.raises(CheckpointError, match="needs a base that is not packed"):
        list(load_adapters(packed, [lora]))


def layer(change):
    linear = nn.Linear(4, 4, bias=False)
    change(linear)
    return linear


def in_eight_bits(linear):
    linear.weight = nn.Parameter(linear.weight.data.to(torch.float8_e4m3fn), requires_grad=False)


def in_two_tensors(linear):
    halves = TwoTensor(linear.weight.data, linear.weight.data.clone())
    linear.weight = nn.Parameter(halves, requires_grad=False)


def without_weight(linear):
    del linear.weight


def with_a_way_of_its_own(linear):
    linear.forward = lambda x: x


@pytest.mark.parametrize(
    "change", [in_eight_bits, in_two_tensors, without_weight, with_a_way_of_its_own]
)
def test_a_pair_goes_beside_a_layer_that_does_not_just_hold_its_weight(change):
    block = nn.Module()
    block.up = layer(change)
    assert attach_pair(block, "up", (torch.ones(2, 4), torch.ones(4, 2)), 1.0, torch.float32) == []
    assert isinstance(block.up, LowRankLinear)
    block.up = layer(lambda linear: None)
    assert attach_pair(block, "up", (torch.ones(2, 4), torch.ones(4, 2)), 1.0, torch.float32)


def test_every_part_of_a_packed_weight_makes_its_fingerprint():
    one, other = torch.ones(2), torch.zeros(2)
    assert plain_parts(one) == [one]
    found = plain_parts(TwoTensor(one, other))
    assert [part.tolist() for part in found] == [[1, 1], [0, 0]]
    marks = set()
    for second in (other, one):
        model = nn.Module()
        model.register_buffer("packed", TwoTensor(one, second))
        marks.add(weights_fingerprint(model))
    assert len(marks) == 2
