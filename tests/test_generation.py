import dataclasses

import numpy as np
import pytest
import torch
from tiny_language_models import EXAMPLES, make_model, make_tokenizer

from mingmoe_eval.engine.causal_model import CausalModel
from mingmoe_eval.engine.generation import generate
from mingmoe_eval.engine.memory_budget import MemoryBudget
from mingmoe_eval.engine.prompt_lookup import PromptLookup, most_guessed
from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.errors import CheckpointError, UsageError


def prompts(count=12, *, shared=True, limit=24, **settings):
    tokenizer = make_tokenizer()
    made = []
    for number in range(count):
        text = f"{EXAMPLES if shared else ''}{number} 患者{'咳嗽' * (number % 5)}？{number * 37}"
        ids = np.array(tokenizer(text)["input_ids"], np.int32)
        chosen = {"max_new_tokens": 1 + (number * 7) % limit, **settings}
        made.append(Prompt(ids, GenerationSettings(**chosen)))
    return made


def run(model, asked, most_rows=None, **options):
    causal = CausalModel(model)
    budget = MemoryBudget(causal, most_rows)
    generated = generate(causal, IdText(), asked, budget, **options)
    done = [item for ended in generated for item in ended]
    assert sorted(index for index, _ in done) == list(range(len(asked)))
    return [generation for _, generation in sorted(done, key=lambda item: item[0])]


class IdText:
    """A tokenizer whose text is the ids themselves."""

    all_special_tokens = ()

    def decode(self, ids, *, skip_special_tokens=False):
        return " ".join(map(str, ids))


def stock_ids(model, prompt, **options):
    """`model.generate` with this prompt alone."""
    ids = torch.tensor(prompt.tokens.astype(np.int64))[None]
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=prompt.settings.max_new_tokens,
        do_sample=False,
        eos_token_id=list(prompt.settings.end_ids) or None,
        pad_token_id=0,
        **options,
    )
    return out[0, len(prompt.tokens) :].tolist()


def with_end_ids(model, asked):
    """The same prompts, with end ids that come up in some of their texts."""
    free = [stock_ids(model, prompt) for prompt in asked]
    ends = tuple({text[len(text) // 2] for text in free[::4]})
    return [Prompt(p.tokens, dataclasses.replace(p.settings, end_ids=ends)) for p in asked]


def assert_as_stock(model, asked, got, **options):
    """Ids, lengths and ends as `model.generate` has them; gives how the texts ended."""
    for prompt, generation in zip(asked, got, strict=True):
        expected = stock_ids(model, prompt, **options)
        ended = expected[-1] in prompt.settings.end_ids
        assert generation.text == " ".join(map(str, expected[: len(expected) - ended]))
        assert generation.finish == ("stop" if ended else "length")
        assert generation.tokens == len(expected) - ended
    return {generation.finish for generation in got}


@pytest.mark.parametrize(
    "family", ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3_text"]
)
@pytest.mark.parametrize("shared", [True, False])
def test_greedy_ids_equal_those_of_generate_with_each_prompt_alone(family, shared):
    model = make_model(family)
    asked = with_end_ids(model, prompts(shared=shared))
    finishes = assert_as_stock(model, asked, run(model, asked, most_rows=4))
    assert finishes == {"stop", "length"}


@pytest.mark.parametrize("window", [8, 64])
def test_sliding_windows_slide_in_generation_too(window):
    model, asked = make_model("mistral", sliding_window=window), prompts(limit=40)
    assert_as_stock(model, asked, run(model, asked, most_rows=5))


@pytest.mark.parametrize("rows", [1, 2, 7, None])
def test_the_number_of_rows_changes_nothing(rows):
    model, asked = make_model(), prompts(30, shared=False)
    assert run(model, asked, most_rows=rows) == run(model, asked, most_rows=3)


def test_texts_longer_than_the_room_made_at_first_are_right():
    model = make_model(max_position_embeddings=1024)
    asked = prompts(5, shared=False, max_new_tokens=280)
    assert_as_stock(model, asked, run(model, asked, most_rows=2))


@pytest.mark.parametrize(
    "penalty", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}], ids=str
)
def test_penalties_of_greedy_decoding_equal_those_of_generate(penalty):
    model, asked = make_model(), prompts(8, **penalty)
    assert_as_stock(model, asked, run(model, asked, most_rows=3), **penalty)


def test_a_draw_depends_on_its_seed_and_prompt_but_not_on_its_neighbours():
    model = make_model()
    asked = prompts(10, sample=True, temperature=1.5, seed=3, limit=30)
    together, alone = run(model, asked), [run(model, [prompt])[0] for prompt in asked]
    assert together == alone
    assert together != run(model, prompts(10, sample=True, temperature=1.5, seed=4, limit=30))


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("rows", [2, 5, None])
def test_kin_are_computed_together_and_come_out_as_if_alone(family, rows):
    """One question cut at several lengths with an end of its own, and several times the same."""
    model = make_model(family)
    whole = np.array(make_tokenizer()(EXAMPLES * 2)["input_ids"], np.int32)
    ends = [np.array([7, number], np.int32) for number in (9, 11)]
    asked = [
        Prompt(np.concatenate([whole[start:cut], end]), GenerationSettings(max_new_tokens=9))
        for start in (0, 5)
        for cut in (60, 90, 150)
        for end in ends
    ]
    asked += [asked[0]] * 3
    assert_as_stock(model, asked, run(model, asked, most_rows=rows))


def test_what_kin_share_goes_through_the_model_once():
    model = make_model()
    seen = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    whole = np.array(make_tokenizer()(EXAMPLES)["input_ids"], np.int32)[:100]
    drawn = GenerationSettings(max_new_tokens=1, sample=True, seed=1)
    one = [Prompt(whole, drawn, repeat=n) for n in range(5)]
    other = [Prompt(whole[::-1].copy(), drawn, repeat=n) for n in range(5)]
    run(model, [*one, *other])
    assert seen[-1] == (2, 100)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"])
@pytest.mark.parametrize("rows", [1, 3, None])
def test_guessing_from_the_prompt_changes_no_text(family, rows):
    """Random models repeat themselves, so that guesses are right as often as wrong."""
    model = make_model(family)
    asked = with_end_ids(model, prompts(12, limit=60))
    guessed = run(model, asked, most_rows=rows, prompt_lookup=True)
    assert_as_stock(model, asked, guessed)
    drawn = prompts(9, sample=True, temperature=1.5, seed=3, limit=40)
    assert run(model, drawn, rows) == run(model, drawn, rows, prompt_lookup=True)


def test_guesses_that_are_right_save_steps_also_over_storage_made_anew():
    """A model that says the same token for ever: 300 of them in about a ninth of the steps."""
    model = make_model(max_position_embeddings=1024)
    head = model.get_output_embeddings().weight.data
    head.zero_()
    steps = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: steps.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    asked = prompts(1, max_new_tokens=300)
    [plain] = run(model, asked)
    before = len(steps)
    [guessed] = run(model, asked, prompt_lookup=True)
    assert guessed == plain
    assert guessed.tokens == 300
    assert len(steps) - before < before / 6


def test_what_followed_the_same_tokens_first_is_guessed():
    lookup = PromptLookup(np.array([1, 2, 3, 4, 5, 1, 2, 3, 9, 8], np.int32))
    assert lookup.guess([7], 4) == []
    assert lookup.guess([7, 2, 3], 4) == [4, 5, 1, 2]  # two alike, the first place
    assert lookup.guess([7, 2, 3, 4], 2) == [5, 1]  # three alike before two
    assert lookup.guess([7, 2, 3, 4, 5], 0) == []
    assert [most_guessed("cpu", rows) for rows in (1, 2, 4, 8, 16, 32)] == [8, 7, 3, 1, 0, -1]


def test_repeats_of_a_prompt_are_drawn_apart():
    settings = GenerationSettings(max_new_tokens=20, sample=True, temperature=2.0, seed=1)
    tokens = prompts(1)[0].tokens
    asked = [Prompt(tokens, settings, repeat=repeat) for repeat in range(4)]
    assert len({generation.text for generation in run(make_model(), asked)}) == 4


def test_top_k_of_one_is_greedy():
    model = make_model()
    greedy, drawn = prompts(6), prompts(6, sample=True, top_k=1)
    assert run(model, greedy) == run(model, drawn)


class ShortOfMemory(torch.nn.Module):
    """Refuses decoding steps of more than `most` rows."""

    def __init__(self, model, most):
        super().__init__()
        self.model, self.most = model, most
        self.config, self.dtype = model.config, model.dtype
        self.get_input_embeddings = model.get_input_embeddings
        self.get_output_embeddings = model.get_output_embeddings

    def get_decoder(self):
        return self._decode

    def _decode(self, **inputs):
        if len(inputs["input_ids"]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (scripted)")
        return self.model.get_decoder()(**inputs)

    def forward(self, **inputs):
        return self.model(**inputs)


def test_running_out_of_memory_halves_the_rows_and_loses_no_text():
    model, asked = make_model(), prompts(20, shared=False)
    assert run(ShortOfMemory(model, 4), asked) == run(model, asked)


def test_a_prompt_that_fits_nowhere_is_named_with_a_way_out():
    short = ShortOfMemory(make_model(), 2)
    causal = CausalModel(short)
    short.most = 0
    with pytest.raises(UsageError, match="not enough memory to generate even one text"):
        list(generate(causal, IdText(), prompts(2, shared=False), MemoryBudget(causal)))


def test_a_model_with_another_memory_than_keys_and_values_is_refused():
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(vocab_size=384, hidden_size=16, num_hidden_layers=2, state_size=4)
    causal = CausalModel(AutoModelForCausalLM.from_config(config).eval())
    with pytest.raises(CheckpointError, match="cannot generate with MambaForCausalLM"):
        list(generate(causal, IdText(), prompts(1), MemoryBudget(causal)))


def test_a_broken_model_says_so_instead_of_a_text():
    model = make_model()
    model.lm_head.weight.data[:] = float("nan")
    for generation in run(model, prompts(3)):
        assert generation.text == ""
        assert generation.failure == "logits not finite after 0 new tokens"


def test_no_prompts_no_generations():
    causal = CausalModel(make_model())
    assert list(generate(causal, IdText(), [], MemoryBudget(causal))) == []
