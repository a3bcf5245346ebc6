import pytest

from mingmoe_eval.engine.prompts import GenerationSettings, generation_settings
from mingmoe_eval.errors import UsageError


class Defaults:
    """A model's generation config, as chat models ship it."""

    temperature, top_k, top_p, min_p = 0.7, 20, 0.8, None
    repetition_penalty, no_repeat_ngram_size = 1.05, None


def settings(arguments, defaults=None):
    return generation_settings(arguments, defaults, end_ids=(2,), seed=7)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {}),
        ({"until": "\n"}, {"stop": ("\n",)}),
        ({"until": ["a", "", "b"]}, {"stop": ("a", "b")}),
        ({"until": None}, {}),
        ({"max_gen_toks": 9}, {"max_new_tokens": 9}),
        ({"max_new_tokens": 8, "max_gen_toks": 9}, {"max_new_tokens": 9}),
        ({"max_tokens": "5"}, {"max_new_tokens": 5}),
        ({"do_sample": False, "temperature": 0.0}, {}),
        ({"do_sample": False, "temperature": 0.6}, {}),
        ({"temperature": 0}, {}),
        ({"do_sample": True, "temperature": 0.0}, {}),
        ({"temperature": 0.6}, {"sample": True, "temperature": 0.6, "seed": 7}),
        ({"do_sample": True, "seed": 3, "top_p": 0.5}, {"sample": True, "seed": 3, "top_p": 0.5}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"num_beams": 1, "use_cache": True}, {}),
    ],
)
def test_arguments_mean_what_they_mean_to_lm_eval(arguments, expected):
    assert settings(arguments) == GenerationSettings(end_ids=(2,), **expected)


def test_greedy_decoding_takes_the_penalties_of_the_model_but_not_its_temperature():
    greedy = settings({"do_sample": False}, Defaults())
    assert greedy == GenerationSettings(end_ids=(2,), repetition_penalty=1.05)
    assert not greedy.is_plain_greedy


def test_sampling_takes_what_the_arguments_leave_open_from_the_model():
    drawn = settings({"do_sample": True, "top_k": 5}, Defaults())
    assert (drawn.temperature, drawn.top_k, drawn.top_p) == (0.7, 5, 0.8)


def test_every_unknown_argument_is_named():
    with pytest.raises(UsageError) as raised:
        settings({"num_beams": 4, "length_penalty": 2, "until": []})
    assert "num_beams = 4" in str(raised.value)
    assert "length_penalty = 2" in str(raised.value)


def test_the_arguments_are_left_as_they_were():
    given = {"until": ["x"], "temperature": 0.5}
    settings(given)
    assert given == {"until": ["x"], "temperature": 0.5}
