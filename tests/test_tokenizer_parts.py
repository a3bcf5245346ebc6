"""A base is asked in the tokens that its tokenizer.json makes; `tokenizers` itself is the judge."""

import json

import pytest
from tiny_checkpoints import save_base
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from mingmoe_eval.molora import load_tokenizer
from mingmoe_eval.molora.tokenizer import keep_to_file

TEXT = "AB a b, ab"
VOCABULARY = {"<unk>": 0, "a": 1, "b": 2, "ab": 3, ",": 4, "<eos>": 5}


def word_level():
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def byte_pairs():
    tokenizer = Tokenizer(models.BPE(VOCABULARY, [("a", "b")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="")
    return tokenizer


@pytest.fixture
def folder(tmp_path):
    save_base(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text(
        json.dumps({"unk_token": "<unk>", "eos_token": "<eos>", "chat_template": "{{ messages }}"})
    )
    return tmp_path / "base"


@pytest.mark.parametrize("make", [word_level, byte_pairs])
def test_a_qwen2_base_is_asked_in_the_tokens_that_its_own_file_makes(folder, make):
    make().save(str(folder / "tokenizer.json"))
    stated = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT)
    assert stated.ids == [3, 1, 2, 4, 3]
    stock = AutoTokenizer.from_pretrained(str(folder))
    assert stock(TEXT).input_ids != stated.ids, "transformers keeps to the file by itself now"
    tokenizer = load_tokenizer(folder)
    coded = tokenizer(TEXT, return_offsets_mapping=True)
    assert coded.input_ids == stated.ids
    assert coded.offset_mapping == stated.offsets
    assert tokenizer.decode(stated.ids) == Tokenizer.from_str(make().to_str()).decode(stated.ids)


def test_special_tokens_and_the_template_stay(folder):
    byte_pairs().save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<eos>", 5)
    assert tokenizer("a<eos>").input_ids == [1, 5]
    assert tokenizer.chat_template == "{{ messages }}"


def test_what_was_put_right_is_what_gets_saved_with_an_adapter(folder, tmp_path):
    byte_pairs().save(str(folder / "tokenizer.json"))
    load_tokenizer(folder).save_pretrained(tmp_path / "saved")
    saved = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    assert saved.encode(TEXT).ids == [3, 1, 2, 4, 3]


def test_a_file_that_says_what_the_class_does_changes_nothing(folder):
    byte_pairs().save(str(folder / "tokenizer.json"))
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    before = tokenizer.backend_tokenizer.to_str()
    assert keep_to_file(tokenizer, folder) == ()
    assert tokenizer.backend_tokenizer.to_str() == before


def test_parts_that_differ_are_named(folder):
    word_level().save(str(folder / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    named = keep_to_file(tokenizer, folder)
    assert named == ("normalizer", "pre_tokenizer", "decoder", "model")
    assert keep_to_file(tokenizer, folder) == ()


def test_tools_that_take_the_class_as_it_is_are_spoken_of_where_tokens_differ(folder, caplog):
    byte_pairs().save(str(folder / "tokenizer.json"))
    for _ in range(2):
        load_tokenizer(folder)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "tokens are those of its tokenizer.json, not those of transformers'" in said
    assert "Qwen2Tokenizer (normalizer and pre_tokenizer" in said
