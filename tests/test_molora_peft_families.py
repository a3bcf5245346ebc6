"""PEFT LoRAs on bases whose layers are fused, transposed or parameters: as PEFT has them."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    Phi3Config,
    Qwen2MoeConfig,
    Starcoder2Config,
)

from mingmoe_eval.molora import load_model

SIZES = {
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
SPARSE = {**SIZES, "num_key_value_heads": 2, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8}
CONV1D = {"fan_in_fan_out": True}
BASES = {
    "gpt2": GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=128, n_positions=64, bos_token_id=0,
        eos_token_id=0,
    ),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "starcoder2": Starcoder2Config(num_key_value_heads=2, **SIZES),
    "phi3": Phi3Config(num_key_value_heads=2, **SIZES),
    "qwen2_moe": Qwen2MoeConfig(
        num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16, **SPARSE
    ),
    "gpt_oss": GptOssConfig(head_dim=8, num_local_experts=4, **SPARSE),
    "deepseek_v3": DeepseekV3Config(
        n_routed_experts=4, moe_intermediate_size=16, n_group=1, topk_group=1, v_head_dim=8,
        first_k_dense_replace=1, **LATENT, **{**SPARSE, "num_key_value_heads": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "targets", "options"),
    [
        ("gpt2", ["c_attn"], CONV1D),
        ("gpt2", ["c_attn", "c_proj", "c_fc"], {}),  # PEFT itself corrects fan_in_fan_out
        ("gpt2", ["c_attn"], {**CONV1D, "use_dora": True}),
        ("gpt2", ["c_attn"], {**CONV1D, "lora_bias": True}),
        ("gpt2", ["wte", "c_attn"], CONV1D),
        ("gpt_neox", ["query_key_value"], {"bias": "all"}),
        ("gpt_neox", "all-linear", {"use_dora": True}),
        ("starcoder2", ["c_fc", "c_proj"], {"lora_bias": True}),
        ("phi3", "all-linear", {}),
        ("qwen2_moe", ["gate_proj", "up_proj", "down_proj"], {}),
        ("gpt_oss", ["q_proj"], {"target_parameters": ["mlp.experts.gate_up_proj"]}),
        ("deepseek_v3", "all-linear", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out", "ignore:Careful, disabling")
@pytest.mark.filterwarnings(r"ignore:The following \w+ keys")
@pytest.mark.filterwarnings("ignore:.*invalid shape")  # what PEFT says of its own lora_bias
def test_a_lora_on_any_family_gives_pefts_logits(family, targets, options, tmp_path: Path):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(BASES[family]).eval()
    base.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", **options)
    made = get_peft_model(base, config)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    made.save_pretrained(tmp_path / "adapter")
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    live = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    ours = load_model(tmp_path / "adapter", tmp_path / "base", dtype="float32")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        theirs = live(input_ids=ids).logits
        with live.disable_adapter():
            plain = live(input_ids=ids).logits
        assert (ours(input_ids=ids).logits - theirs).abs().max() < 1e-5
    assert (theirs - plain).abs().max() > 0.01
