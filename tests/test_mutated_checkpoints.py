"""A checkpoint's JSON with any value in any field: it loads, or one error names the file."""

import copy
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mingmoe_eval
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.errors import CheckpointError, MingMoeError, UsageError
from mingmoe_eval.molora import describe_checkpoint, load_model, load_tokenizer

DEMO = Path(mingmoe_eval.__file__).parent / "demo" / "checkpoints"
VALUES = (
    *("x", "", "1", "../x", "\ud800", None, True, False, -1, 0, 3, 1.5, 1e308, math.nan),
    *(2**31, 2**63, 10**30, [], {}, [None], ["x"], {"a": 1}, [[[]]]),
)
MORE = {
    "base/config.json": {
        "num_experts": 2,
        "head_dim": 24,
        "quantization_config": {"quant_method": "gptq", "bits": 4},
        "is_encoder_decoder": False,
        "return_dict": True,
        "output_hidden_states": False,
    },
    "base/tokenizer_config.json": {
        "chat_template": "{{ messages }}",
        "added_tokens_decoder": {"0": {"content": "<x>", "special": True}},
        "extra_special_tokens": {},
    },
    "base/generation_config.json": {"output_hidden_states": False},
    "molora-adapter/adapter_config.json": {
        "rank_pattern": {},
        "modules_to_save": None,
        "layers_to_transform": None,
        "init_lora_weights": True,
    },
}
FILES = (*MORE, "molora-adapter/config.json", "base/tokenizer.json")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    shutil.copytree(DEMO, tmp_path / "ck")
    return tmp_path / "ck"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field down to the third level, but for the entries of a vocabulary."""
    if isinstance(value, dict) and len(path) < 3 and "vocab" not in path:
        for name in value:
            yield (*path, name)
            yield from places(value[name], (*path, name))
    elif isinstance(value, list) and value and len(path) < 3:
        yield (*path, 0)


def change(record: Any, path: tuple[Any, ...], value: Any) -> None:
    for name in path[:-1]:
        record = record[name]
    record[path[-1]] = value


@pytest.mark.fuzz
@pytest.mark.parametrize("name", FILES)
def test_any_value_in_any_field_loads_or_is_one_error(
    name: str, checkpoint: Path, request: pytest.FixtureRequest
) -> None:
    file = checkpoint / name
    record = {**json.loads(file.read_text("utf-8")), **MORE.get(name, {})}
    soak = request.config.getoption("hypothesis_profile", None) == "soak"
    rng = random.Random(f"{time.time()}" if soak else name)
    tries = [(path, value) for path in places(record) for value in VALUES]
    said = set()
    for path, value in rng.sample(tries, len(tries) if soak else 25):
        changed = copy.deepcopy(record)
        if name == "base/config.json" and path[0] != "quantization_config":
            del changed["quantization_config"]
        change(changed, path, value)
        file.write_text(json.dumps(changed), "utf-8")
        try:
            use(str(checkpoint / "molora-adapter"))
        except MingMoeError as error:
            said.add(str(error))
        except Exception as error:
            raise AssertionError(f"{name}: {path} = {value!r}") from error
    assert said
    assert all(said)


def use(adapter: str) -> None:
    describe_checkpoint(adapter)
    tokenizer = load_tokenizer(adapter)
    model = load_model(adapter)
    ids = torch.tensor([tokenizer.encode("What is 阿司匹林?", add_special_tokens=False) or [1]])
    assert model(ids % model.config.vocab_size).logits.ndim == 3
    lm = CheckpointLM.from_loaded(model, tokenizer)
    if lm.has_chat_template:
        lm.apply_chat_template([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("base/config.json", "num_hidden_layers", 2**31, "num_hidden_layers = 2147483648"),
        ("base/config.json", "hidden_size", "x", "hidden_size"),
        ("base/config.json", "logit_scale", 10**30, "logit_scale = 1000.*more than 64 bits"),
        ("base/config.json", "logits_scaling", -(2**63) - 1, "more than 64 bits"),
        ("base/config.json", "rope_parameters", {"factor": 10**30}, r"rope_parameters\.factor = 1"),
        ("molora-adapter/config.json", "x", [[2**64]], r"x\.0\.0 = 184.*more than 64 bits"),
        ("base/config.json", "dtype", "x", "dtype|'x'"),
        ("molora-adapter/config.json", "num_experts", 100_000_000, "num_experts must be"),
        ("molora-adapter/adapter_config.json", "r", 10**30, "r must be"),
        ("molora-adapter/adapter_config.json", "use_rslora", "false", "use_rslora must be"),
        ("molora-adapter/adapter_config.json", "target_modules", [1], "target_modules must"),
        ("base/tokenizer_config.json", "model_max_length", [], "model_max_length must be"),
        ("base/tokenizer_config.json", "chat_template", 3, "chat_template must be|tokenizer of"),
        ("base/generation_config.json", "eos_token_id", ["x"], "eos_token_id must be|weights of"),
        (
            "molora-adapter/adapter_config.json",
            "lora_alpha",
            -1,
            "lora_alpha must be a number above",
        ),
        (
            "molora-adapter/adapter_config.json",
            "use_dora",
            [None],
            "use_dora must be true or false",
        ),
        ("molora-adapter/adapter_config.json", "base_model_name_or_path", "a" * 5000, "--base"),
        ("molora-adapter/config.json", "rope_parameters", {"rope_theta": True}, "rope_theta must"),
    ],
)
def test_the_message_names_the_field(
    name: str, field: str, value: Any, said: str, checkpoint: Path
) -> None:
    file = checkpoint / name
    record = json.loads(file.read_text("utf-8"))
    record[field] = value
    if field == "num_hidden_layers":
        del record["layer_types"]  # which contradict it, and would be refused first
        own = checkpoint / "molora-adapter" / "config.json"
        described = json.loads(own.read_text("utf-8"))
        del described["layer_types"]
        own.write_text(json.dumps({**described, field: value}), "utf-8")
    file.write_text(json.dumps(record), "utf-8")
    began = time.thread_time()
    with pytest.raises(CheckpointError, match=said):
        use(str(checkpoint / "molora-adapter"))
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"act_fn": ["silu"]}, "act_fn"),
        ({"expert_lora": "x"}, "expert_lora must be an object"),
    ],
)
def test_a_siblings_field_of_another_type_is_named(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    settings = {"peft_type": "MIXLORA", "routing_strategy": "mixlora", "num_experts": 2, "r": 4}
    settings |= {"lora_alpha": 8, "base_model_name_or_path": str(DEMO / "base"), **fields}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(CheckpointError, match=said):
        describe_checkpoint(tmp_path)


def test_a_tokenizer_at_which_its_library_gives_up_is_named(checkpoint: Path) -> None:
    file = checkpoint / "base" / "tokenizer.json"
    stated = json.loads(file.read_text("utf-8"))
    stated["model"]["continuing_subword_prefix"] = "sdpa"
    file.write_text(json.dumps(stated), "utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .*base cannot be loaded"):
        load_tokenizer(checkpoint / "base")


def test_weights_whose_config_names_no_dtype_are_still_widened(checkpoint: Path) -> None:
    file = checkpoint / "base" / "config.json"
    stated = json.loads(file.read_text("utf-8"))
    assert stated.pop("dtype") == "float16"
    file.write_text(json.dumps(stated), "utf-8")
    widened, whole = load_model(checkpoint / "base"), load_model(DEMO / "base")
    ids = torch.arange(3, 20)[None]
    assert torch.equal(widened(ids).logits, whole(ids).logits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_weight_that_is_no_number_is_found_wherever_it_stands(
    value: float, checkpoint: Path
) -> None:
    file = checkpoint / "base" / "model.safetensors"
    weights = load_file(file)
    # The embedding of a token that no probe asks for.
    weights["model.embed_tokens.weight"][7, 3] = value
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not finite in torch\.float32:\n.*embed_tokens"):
        load_model(checkpoint / "base")


def test_a_template_that_never_ends_is_given_up(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mingmoe_eval.engine.checkpoint_lm._SECONDS_OF_A_TEMPLATE", 0.2)
    endless = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    tokenizer = load_tokenizer(DEMO / "base")
    tokenizer.chat_template = endless
    lm = CheckpointLM.from_loaded(load_model(DEMO / "base"), tokenizer)
    with pytest.raises(UsageError, match=r"not rendered after 0\.2 seconds"):
        lm.apply_chat_template([{"role": "user", "content": "x"}])
