"""Several adapters on one base: the same bits as each loaded by itself, and the base unharmed."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sibling_checkpoints import Draw, mixlora_tensors, save
from test_molora_siblings import MIXLORA
from tiny_checkpoints import Recipe, edit_json, logits, save_adapter, save_base, token_ids
from transformers import AutoModelForCausalLM

from mingmoe_eval.engine.backend import weights_fingerprint
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import load_adapters, load_model, probe

IDS = token_ids(2, 7)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def save_peft(folder, base, **options):
    torch.manual_seed(4)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_adapter_in_turn_is_bit_for_bit_what_it_is_alone(tmp_path, base, dtype):
    names = ["ming", "shared", "single", "mixlora", "peft", "dora"]
    save_adapter(tmp_path / "ming", base)
    save_adapter(tmp_path / "shared", base, Recipe(shared=1))
    save_adapter(tmp_path / "single", base, Recipe(num_experts=1))
    save(tmp_path / "mixlora", MIXLORA, mixlora_tensors(Draw()))
    save_peft(tmp_path / "peft", base, target_modules=["q_proj", "up_proj", "embed_tokens"])
    save_peft(
        tmp_path / "dora", base, target_modules=["v_proj"], use_dora=True,
        modules_to_save=["lm_head"],
    )  # fmt: skip
    paths = [tmp_path / name for name in names]
    plain = weights_fingerprint(load_model(base, dtype=dtype))
    seen = []
    # Twice round: what one leaves behind would show in the next.
    for path, model in zip(paths * 2, load_adapters(base, paths * 2, dtype=dtype), strict=True):
        alone = load_model(path, base, dtype=dtype)
        assert torch.equal(logits(model, IDS), logits(alone, IDS)), path.name
        assert weights_fingerprint(model) == weights_fingerprint(alone)
        assert probe(model) == probe(alone)
        seen.append(model)
    assert all(model is seen[0] for model in seen)
    assert weights_fingerprint(seen[0]) == plain


def test_what_cannot_share_a_base_is_refused_before_it_is_loaded(tmp_path, base):
    save_adapter(tmp_path / "other", base)
    edit_json(tmp_path / "other" / "config.json", rms_norm_eps=0.5)
    save_peft(tmp_path / "bias", base, target_modules=["q_proj"], bias="all")
    save_adapter(tmp_path / "good", base)
    (base / "model.safetensors").unlink()
    adapters = [tmp_path / "other", tmp_path / "bias", tmp_path / "good", base]
    with pytest.raises(CheckpointError) as caught:
        next(load_adapters(base, adapters))
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "differs from the base's in rms_norm_eps" in lines[1]
    assert "trains bias" in lines[2]
    assert "is a full model" in lines[3]
