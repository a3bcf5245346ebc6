"""LoRAs trained after tokens were added to their base: as trained, or refused."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_checkpoints import logits, save_base
from transformers import AutoModelForCausalLM

import mingmoe_eval
from mingmoe_eval.errors import CheckpointError
from mingmoe_eval.molora import describe_checkpoint, load_adapters, load_model

OWN, MORE, FEWER = 96, 104, 90
DEMO = Path(mingmoe_eval.__file__).parent / "demo" / "checkpoints" / "base"

WHOLE = {"modules_to_save": ["embed_tokens", "lm_head"]}
EMBEDDING = {"modules_to_save": ["embed_tokens"]}
BOTH = {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}
HEAD = {"target_modules": ["q_proj", "lm_head"]}
TOKENS = {"trainable_token_indices": [5, 88]}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary") / "base"
    return save_base(folder, "llama", tie_word_embeddings=request.param)


def train(folder, base, rows, save="auto", **settings):
    """Saves a LoRA on the base with as many rows as told; returns ids and the logits it has."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    model.resize_token_embeddings(rows, mean_resizing=False)
    for end in (model.get_input_embeddings(), model.get_output_embeddings()):
        end.weight.data[OWN:] = torch.randn_like(end.weight.data[OWN:])
    settings = {"target_modules": ["q_proj", "v_proj"], **settings}
    with warnings.catch_warnings(action="ignore"):  # of tied weights
        tuned = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **settings))
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        tuned.save_pretrained(folder, save_embedding_layers=save)
    ids = torch.randint(3, rows, (2, 9), generator=torch.manual_seed(5))
    return ids, logits(tuned.eval(), ids)


@pytest.mark.parametrize("rows", [MORE, FEWER])
@pytest.mark.parametrize(
    ("settings", "save"),
    [
        *(({}, "auto"), ({}, True), (WHOLE, "auto"), (WHOLE, False)),
        *((EMBEDDING, "auto"), (BOTH, "auto"), (TOKENS, "auto")),
    ],
    ids=str,
)
def test_a_lora_with_rows_of_its_own_computes_as_trained(tmp_path, base, rows, settings, save):
    ids, trained = train(tmp_path / "lora", base, rows, save, **settings)
    model = load_model(tmp_path / "lora", base)
    torch.testing.assert_close(logits(model, ids), trained, rtol=1e-4, atol=1e-4)
    assert len(model.get_input_embeddings().weight) == rows
    assert describe_checkpoint(tmp_path / "lora", base).kind == "peft-lora"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (EMBEDDING, "does not hold all their rows (104 of the embedding, 96 of the head)"),
        (HEAD, "lm_head.lora_B.weight has shape [104, 4]"),
    ],
    ids=str,
)
def test_rows_that_were_not_saved_are_asked_for(tmp_path, base, settings, said):
    train(tmp_path / "lora", base, MORE, save=False, **settings)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "lora", base)
    assert said in str(caught.value)


def test_a_tokenizer_of_more_tokens_than_there_are_rows_is_refused(tmp_path, base):
    train(tmp_path / "lora", base, OWN)
    file = tmp_path / "lora" / "tokenizer.json"
    stated = json.loads((DEMO / "tokenizer.json").read_text("utf-8"))
    stated["added_tokens"].append({**stated["added_tokens"][0], "id": OWN - 1, "content": "<a>"})
    file.write_text(json.dumps(stated), "utf-8")
    load_model(tmp_path / "lora", base)
    stated["added_tokens"][-1]["id"] = OWN
    file.write_text(json.dumps(stated), "utf-8")
    with pytest.raises(CheckpointError, match="has 97 tokens, the model 96 rows"):
        load_model(tmp_path / "lora", base)
    # A base's own surplus is no matter of the adapter.
    shutil.copytree(base, tmp_path / "base")
    shutil.copy(file, tmp_path / "base")
    load_model(tmp_path / "lora", tmp_path / "base")


def test_a_shared_base_keeps_its_vocabulary(tmp_path, base):
    train(tmp_path / "lora", base, MORE)
    with pytest.raises(CheckpointError, match="another vocabulary than the base"):
        list(load_adapters(base, [tmp_path / "lora"]))
