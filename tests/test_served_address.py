"""The address of a served model, and that its credentials stay where they are."""

import json

import pytest

from mingmoe_eval.engine.served_address import (
    is_served,
    model_in_words,
    served_address,
    without_credentials,
)
from mingmoe_eval.errors import UsageError

SECRET = "pa55word-of-mine"


@pytest.mark.parametrize(
    ("model", "base_url", "name"),
    [
        ("openai:http://localhost:8000/v1#qwen", "http://localhost:8000/v1", "qwen"),
        ("openai:http://localhost:8000/v1/", "http://localhost:8000/v1", ""),
        ("openai:https://host/v1#Qwen/Qwen3-8B", "https://host/v1", "Qwen/Qwen3-8B"),
        ("openai:http://[::1]:80/v1#a:b", "http://[::1]:80/v1", "a:b"),
    ],
)
def test_an_address_has_a_base_url_and_a_name(model, base_url, name):
    address = served_address(model, environment={})
    assert (address.base_url, address.name) == (base_url, name)
    assert served_address(address.public, environment={}) == address


@pytest.mark.parametrize("model", ["ckpt/", "Qwen/Qwen3-8B", "/models/openai:x", ""])
def test_a_checkpoint_is_no_endpoint_and_keeps_its_name(model):
    assert not is_served(model)
    assert without_credentials(model) == model


@pytest.mark.parametrize(
    "model",
    [
        f"openai:me:{SECRET}@host",
        f"openai:ftp://me:{SECRET}@host/v1",
        f"openai:http://me:{SECRET}@/v1",
        f"openai:http://me:{SECRET}@host:port/v1",
        f"openai:http://host/v1?api_key={SECRET}#m",
        f"openai:http://[{SECRET}/v1",
        "openai:",
    ],
)
def test_what_is_no_address_is_refused_without_being_repeated(model):
    with pytest.raises(UsageError) as caught:
        without_credentials(model)
    assert SECRET not in str(caught.value)


def test_credentials_are_used_and_never_shown():
    model = f"openai:http://me:{SECRET}@host:8000/v1#m"
    environment = {"MINGMOE_API_KEY": " sk-0123456789 \n", "OPENAI_API_KEY": "other"}
    address = served_address(model, environment=environment)
    assert address.login == ("me", SECRET)
    assert address.key == "sk-0123456789"
    assert without_credentials(model) == address.public == "openai:http://host:8000/v1#m"
    assert model_in_words(model) == "m"
    shown = f"{address!r} {address.public} {address.base_url}"
    assert SECRET not in shown
    assert "sk-0123456789" not in shown


def test_every_form_of_a_credential_is_struck_out():
    address = served_address(
        "openai:http://me:pass%20word%2F1@host/v1", environment={"OPENAI_API_KEY": "sk-0123456789"}
    )
    basic = "bWU6cGFzcyB3b3JkLzE="  # base64 of "me:pass word/1"
    text = f"key sk-0123456789, password pass word/1, basic {basic}"
    assert address.redact(text) == "key ***, password ***, basic ***"


def test_credentials_in_parsed_json_are_struck_out_wherever_they_are():
    address = served_address("openai:http://h/v1", environment={"OPENAI_API_KEY": "sk-0123456789"})
    hidden = json.loads('{"a\\u0073k-0123456789": ["\\u0073k-0123456789", {"x": 1, "y": null}]}')
    assert address.redact_json(hidden) == {"a***": ["***", {"x": 1, "y": None}]}


def test_a_word_that_stands_for_no_key_is_no_secret():
    address = served_address("openai:http://host/v1", environment={"OPENAI_API_KEY": "EMPTY"})
    assert address.redact("EMPTY") == "EMPTY"


@pytest.mark.parametrize(
    ("model", "exposed"),
    [
        ("openai:http://example.org/v1", True),
        ("openai:https://example.org/v1", False),
        ("openai:http://127.0.0.1/v1", False),
    ],
)
def test_a_key_over_plain_http_to_another_machine_is_told(model, exposed):
    address = served_address(model, environment={"OPENAI_API_KEY": "sk-0123456789"})
    assert address.exposes_secrets is exposed


def test_a_key_with_characters_that_no_header_carries_is_refused_unseen():
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        served_address("openai:http://host/v1", environment={"OPENAI_API_KEY": f"{SECRET}\nx"})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("openai:http://u:p@h:80/v1#Qwen/Qwen3-8B", "Qwen3-8B"),
        ("openai:http://u:p@h:80/v1", "h-80"),
        ("openai:http://h/v1#../..", "served"),
        ("openai:http://h/v1#a b/c:d", "c-d"),
        ("ckpt/", ""),
    ],
)
def test_a_folder_can_be_named_after_it(model, words):
    assert model_in_words(model) == words
