"""How the two JSON files of an adapter are read, trap by trap."""

import pytest

from mingmoe_eval.molora.config import MoLoraConfig, lora_scaling, read_config

ADAPTER = {"r": 16, "lora_alpha": 32, "target_modules": ["v_proj", "q_proj"]}
MODEL = {"num_experts": 8, "num_experts_per_token": 2, "expert_selection": "top_k"}


def test_the_settings_come_from_both_files():
    config = read_config({**ADAPTER, "base_model_name_or_path": "org/base"}, MODEL)
    assert config == MoLoraConfig(
        num_experts=8,
        experts_per_token=2,
        rank=16,
        alpha=32,
        base="org/base",
        target_modules=("q_proj", "v_proj"),
    )


@pytest.mark.parametrize(
    ("trained", "stored", "compat", "experts", "attention", "noted"),
    [
        (False, False, False, 2.0, 2.0, False),
        (True, True, False, 8.0, 8.0, False),
        (True, None, False, 8.0, 8.0, True),
        (True, None, True, 2.0, 8.0, True),
        (None, True, False, 8.0, 2.0, True),
        (None, True, True, 8.0, 2.0, True),
    ],
)
def test_rank_stabilisation(trained, stored, compat, experts, attention, noted):
    # 32 / 16 = 2; 32 / sqrt(16) = 8.
    config = read_config(
        {**ADAPTER, "use_rslora": trained}, {**MODEL, "use_rslora": stored}, reference_compat=compat
    )
    assert (config.expert_scaling, config.attention_scaling) == (experts, attention)
    assert bool(config.notes) == noted


@pytest.mark.parametrize("word", ["top_k", "topk"])
def test_both_spellings_of_top_k_are_known(word):
    assert read_config(ADAPTER, {**MODEL, "expert_selection": word}).notes == ()


def test_an_unknown_selection_is_read_as_top_k_and_noted():
    [note] = read_config(ADAPTER, {**MODEL, "expert_selection": "best"}).notes
    assert "'best'" in note


def test_a_single_expert_takes_every_token_whatever_k_says():
    config = read_config(ADAPTER, {**MODEL, "num_experts": 1})
    assert (config.num_experts, config.experts_per_token) == (1, 1)


def test_scalings():
    assert lora_scaling(16, 4, rslora=False) == 4.0
    assert lora_scaling(16, 4, rslora=True) == 8.0
