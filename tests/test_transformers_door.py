"""What the engine relies on inside transformers, whichever release is installed."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from tiny_language_models import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, BambaConfig, MambaConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicSlidingWindowLayer

from mingmoe_eval.engine import transformers_door
from mingmoe_eval.engine.transformers_door import (
    OF_INSTANCES,
    RELIES_ON,
    attention_layers,
    cache_argument,
)

NAMES = [(place, name) for place, names in RELIES_ON.items() for name in names]
PARTS = [(kind, name) for kind, names in OF_INSTANCES.items() for name in names]


@pytest.mark.parametrize(("place", "name"), NAMES, ids=[".".join(pair) for pair in NAMES])
def test_what_the_engine_relies_on_is_there(place, name):
    module, owner = place.split(":")
    found = getattr(importlib.import_module(module), owner)
    if isinstance(found, type) and issubclass(found, torch.nn.Linear):
        found = found(2, 2)
    assert hasattr(found, name)


@pytest.fixture(scope="module")
def made():
    """One of each kind whose attributes are only there once it is made."""
    model = make_model("qwen2")
    config = model.config
    cache = DynamicCache(config=config)
    forward = {"use_cache": True, cache_argument(model.forward): cache}
    model(input_ids=torch.tensor([[1, 2]]), **forward)
    return {
        "cache": cache,
        "layer": cache.layers[0],
        "sliding layer": DynamicSlidingWindowLayer(sliding_window=4),
        "model": model,
        "config": config,
        "tokenizers backend": make_tokenizer().backend_tokenizer,
    }


@pytest.mark.parametrize(("kind", "name"), PARTS, ids=[".".join(pair) for pair in PARTS])
def test_what_the_engine_relies_on_is_there_in_what_is_made(made, kind, name):
    assert hasattr(made[kind], name)


def test_no_other_module_of_the_engine_goes_into_transformers_by_itself():
    inside = re.compile(r"transformers\.(cache_utils|masking_utils|generation|integrations|models)")
    private = re.compile(r"(config|cache|layer|model|head)\._[a-z]")
    folder = Path(transformers_door.__file__).parent
    for path in folder.glob("*.py"):
        if path.name != "transformers_door.py":
            text = path.read_text("utf-8")
            assert not inside.search(text), path.name
            assert not private.search(text.replace("self._", "self.")), path.name


class HybridCache:
    """As older releases have them: not transformers' `Cache`, with another inside."""


def older(input_ids, past_key_values: Cache | None = None, **kwargs): ...


def newer(input_ids, cache: Cache | None = None, **kwargs): ...


def both(input_ids, cache: Cache | None = None, past_key_values: Cache | None = None): ...


def untyped(input_ids, past_key_values=None): ...


def hybrid(input_ids, past_key_values: HybridCache | None = None): ...


def recurrent(input_ids, cache_params: HybridCache | None = None): ...


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (older, "past_key_values"),
        (newer, "cache"),
        (both, "cache"),
        (untyped, "past_key_values"),
        (hybrid, None),
        (recurrent, None),
    ],
)
def test_the_cache_is_given_by_the_name_that_the_signature_has(forward, name):
    assert cache_argument(forward) == name


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_whole_model_and_its_decoder_take_the_cache_by_their_name_without_a_warning(family):
    model = make_model(family)
    ids = model.dummy_inputs["input_ids"]
    assert cache_argument(lambda *_, **__: None) == cache_argument(model.forward)
    for part in (model, model.get_decoder()):
        name = cache_argument(part.forward)
        cache = part(input_ids=ids, use_cache=True)[name]
        part(input_ids=ids, use_cache=True, **{name: cache})  # a warning would be an error
        assert cache.get_seq_length() == 2 * ids.shape[1]
    assert len(attention_layers(model.config)) == model.config.num_hidden_layers


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(num_hidden_layers=2),
        BambaConfig(num_hidden_layers=2, attn_layer_indices=[1]),
    ],
    ids=["mamba", "bamba"],
)
def test_a_model_that_remembers_more_than_keys_and_values_is_known(config):
    small = {"vocab_size": 384, "hidden_size": 32, "state_size": 4, "intermediate_size": 48}
    small |= {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
    for name in small.keys() & config.to_dict().keys():
        setattr(config, name, small[name])
    model = AutoModelForCausalLM.from_config(config)
    takes = cache_argument(model.get_decoder().forward)
    assert takes is None or attention_layers(config) is None
