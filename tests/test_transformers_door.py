"""What the engine relies on inside transformers, whichever release is installed."""

import pytest
from tiny_language_models import make_model
from transformers import AutoModelForCausalLM, BambaConfig, MambaConfig
from transformers.cache_utils import Cache

from mingmoe_eval.engine.transformers_door import attention_layers, cache_argument


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
