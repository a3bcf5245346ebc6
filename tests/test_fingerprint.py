import copy

import pytest
import torch
from tiny_language_models import make_model, make_tokenizer

from mingmoe_eval.engine.backend import (
    settings_fingerprint,
    tokenizer_fingerprint,
    weights_fingerprint,
)


def both(model):
    return weights_fingerprint(model), settings_fingerprint(model)


def test_the_same_model_has_the_same_fingerprints_wherever_it_came_from(tmp_path):
    from transformers import AutoModelForCausalLM

    model = make_model()
    loaded = []
    for folder in ("one", "two"):
        model.save_pretrained(tmp_path / folder)
        loaded.append(AutoModelForCausalLM.from_pretrained(tmp_path / folder).eval())
    assert both(loaded[0]) == both(loaded[1])
    assert weights_fingerprint(model) == weights_fingerprint(loaded[0])


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_one_changed_number_makes_another_model(name):
    model = make_model()
    before = weights_fingerprint(model)
    model.get_parameter(name).data.view(-1)[3] += 1e-6
    assert weights_fingerprint(model) != before


def test_another_type_makes_another_model():
    assert weights_fingerprint(make_model().bfloat16()) != weights_fingerprint(make_model())


def test_another_attention_kernel_makes_another_function():
    eager, sdpa = (make_model(attn_implementation=name) for name in ("eager", "sdpa"))
    assert weights_fingerprint(eager) == weights_fingerprint(sdpa)
    assert settings_fingerprint(eager) != settings_fingerprint(sdpa)


class Scaled(torch.nn.Module):
    """As an adapter's layer: numbers and flags that are no tensors."""

    def __init__(self, inner, **settings):
        super().__init__()
        self.inner = inner
        self.__dict__.update(settings)


@pytest.mark.parametrize("change", [{"scaling": 2.0}, {"top_k": 1}, {"enabled": False}], ids=str)
def test_a_changed_setting_of_any_module_makes_another_function(change):
    settings = {"scaling": 4.0, "top_k": 2, "enabled": True}
    model = make_model()
    inner = model.model.layers[0].mlp
    model.model.layers[0].mlp = Scaled(inner, **settings)
    before = settings_fingerprint(model)
    model.model.layers[0].mlp = Scaled(inner, **{**settings, **change})
    assert settings_fingerprint(model) != before


def test_a_lora_that_is_switched_off_or_scaled_is_seen():
    import peft

    tuned = peft.get_peft_model(
        make_model(), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    ).eval()
    before = settings_fingerprint(tuned)
    with tuned.disable_adapter():
        assert settings_fingerprint(tuned) != before
    assert settings_fingerprint(tuned) == before
    layer = next(
        module for module in tuned.modules() if isinstance(module, peft.tuners.lora.Linear)
    )
    layer.scaling = {"default": 9.0}
    assert settings_fingerprint(tuned) != before


def test_a_masked_expert_is_seen_without_hashing_all_weights_again():
    model = make_model()
    model.register_buffer("router_bias", torch.zeros(4))
    before = settings_fingerprint(model)
    model.router_bias[2] = -torch.inf
    assert settings_fingerprint(model) != before


def test_a_tokenizer_is_known_by_what_it_does():
    plain, again, marked = make_tokenizer(), make_tokenizer(), make_tokenizer(bos=True)
    assert tokenizer_fingerprint(plain) == tokenizer_fingerprint(again)
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(marked)


def test_an_added_token_makes_another_tokenizer():
    tokenizer = make_tokenizer()
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(["<new>"])
    assert tokenizer_fingerprint(extended) != tokenizer_fingerprint(tokenizer)
