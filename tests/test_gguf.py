"""Files of llama.cpp's: what transformers reads of them is what we evaluate."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import describe_checkpoint, load_model, load_tokenizer
from mingmoe_eval.molora.presence import refuse_absent
from mingmoe_eval.vllm.prepared import prepare

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")

WIDTH, INNER, LAYERS, HEADS, HEAD = 64, 96, 2, 4, 16
WORDS = ["<s>", "</s>", "<unk>", *(chr(i) for i in range(33, 127)), "Ġ", "Ġt", "he", "Ġthe"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))


def write(path, family, *, packed=None):
    """A model with random weights; `packed`: how its matrices are, as llama.cpp packs them."""
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    if family == "gemma3":
        writer.add_sliding_window(256)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3 if word in WORDS[:3] else 1 for word in WORDS])
    writer.add_token_merges(["Ġ t", "h e", "Ġt he"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng = np.random.default_rng(0)

    def add(name, *shape):
        values = rng.normal(size=shape, scale=shape[-1] ** -0.5).astype(np.float32)
        if packed and len(shape) == 2:
            kind = gguf.GGMLQuantizationType[packed]
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ones(shape, np.float32) if len(shape) == 1 else values)

    add("token_embd.weight", len(WORDS), WIDTH)
    add("output_norm.weight", WIDTH)
    if family != "gemma3":
        add("output.weight", len(WORDS), WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm.weight", WIDTH)
        add(f"{block}.ffn_norm.weight", WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}.weight", WIDTH, WIDTH)
        if family == "qwen2":
            for name in ("attn_q", "attn_k", "attn_v"):
                add(f"{block}.{name}.bias", WIDTH)
        if family == "gemma3":
            for name in ("attn_q_norm", "attn_k_norm"):
                add(f"{block}.{name}.weight", HEAD)
            for name in ("post_attention_norm", "post_ffw_norm"):
                add(f"{block}.{name}.weight", WIDTH)
        add(f"{block}.ffn_gate.weight", INNER, WIDTH)
        add(f"{block}.ffn_up.weight", INNER, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("packed", [None, "F16", "BF16", "Q8_0", "Q5_1", "Q4_0"])
@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma3"])
def test_logits_are_those_of_transformers_reading(tmp_path, family, packed):
    file = write(tmp_path / "model.gguf", family, packed=packed)
    ours, ids = load_model(file), torch.arange(3, 60)[None]
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, wanted(ids).logits)
    assert ours.dtype == torch.float32


def test_the_tokenizer_is_the_files(tmp_path):
    file = write(tmp_path / "model.gguf", "qwen2")
    wanted = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert load_tokenizer(file)("a the b").input_ids == wanted("a the b").input_ids


def test_a_description_says_that_it_is_unpacked(tmp_path):
    described = describe_checkpoint(write(tmp_path / "model.gguf", "qwen2", packed="Q8_0"))
    assert described.kind == "gguf"
    assert described.base is None
    assert "unpacked" in described.notes[0]


def test_a_run_of_a_file(tmp_path):
    file = write(tmp_path / "model.gguf", "qwen2")
    options = ["--tasks", "usmle_ll", "--sample", "--limit", "2", "--output", str(tmp_path / "r")]
    assert main(["--model", str(file), "--name", "run", *options]) == 0
    told = json.loads((tmp_path / "r" / "run" / "run.json").read_text())
    checkpoint = told["provenance"]["model"]["checkpoint"]
    assert checkpoint["kind"] == "gguf"
    assert "unpacked" in checkpoint["notes"][0]


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(CheckpointError, match=r"model\.gguf"):
        load_model(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"there is no file .*modle\.gguf; did you mean"):
        refuse_absent(tmp_path / "modle.gguf")


@pytest.mark.parametrize("share", [0.0, 0.0002, 0.01, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused(tmp_path, share):
    whole = write(tmp_path / "model.gguf", "llama", packed="Q4_0").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        load_model(tmp_path / "cut.gguf")


def test_vllm_does_not_take_it(tmp_path):
    with pytest.raises(CheckpointError, match="local backend"):
        prepare(write(tmp_path / "model.gguf", "qwen2"))
