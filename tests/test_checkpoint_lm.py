import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from tiny_checkpoints import save_adapter
from tiny_language_models import EXAMPLES, exam_pairs, instances, make_model, make_tokenizer

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora import load_model
from mingmoe_eval.records import RequestUsage

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def stock(model, tokenizer, **options):
    from lm_eval.models.huggingface import HFLM

    return HFLM(model, tokenizer=tokenizer, batch_size=4, **options)


def lora_model():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    return get_peft_model(make_model(), config).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["base", "lora"])
def test_scores_and_flags_equal_those_of_lm_eval_s_own_model(kind):
    model, tokenizer = make_model() if kind == "base" else lora_model(), make_tokenizer()
    requests = instances("loglikelihood", exam_pairs())
    expected = stock(model, tokenizer).loglikelihood(requests, disable_tqdm=True)
    got = CheckpointLM.from_loaded(model, tokenizer).loglikelihood(requests)
    assert [v for v, _ in got] == pytest.approx([v for v, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bos", [False, True])
def test_whole_texts_score_as_with_lm_eval_s_own_model(bos):
    model, tokenizer = make_model(max_position_embeddings=64), make_tokenizer(bos=bos)
    requests = instances("loglikelihood_rolling", [(EXAMPLES,), ("short",), (EXAMPLES * 3,)])
    expected = stock(model, tokenizer).loglikelihood_rolling(requests, disable_tqdm=True)
    got = CheckpointLM.from_loaded(model, tokenizer).loglikelihood_rolling(requests)
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bos", [False, True])
def test_texts_equal_those_of_lm_eval_s_own_model(bos):
    model, tokenizer = make_model(), make_tokenizer(bos=bos)
    asked = [
        (
            f"{EXAMPLES if n % 2 else ''}{n * 31}？",
            {"until": ["a", "患"][: n % 3], "max_gen_toks": 5 + n},
        )
        for n in range(9)
    ]
    requests = instances("generate_until", asked)
    expected = stock(model, tokenizer).generate_until(requests, disable_tqdm=True)
    assert CheckpointLM.from_loaded(model, tokenizer).generate_until(requests) == expected


def test_it_runs_in_lm_eval_s_own_evaluate(tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"q": "q{n}", "answer": {n % 4}}}\n' for n in range(6)))
    task = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
    }
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    results = lm_eval.simple_evaluate(
        lm, tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0
    )
    assert 0 <= results["results"]["tiny"]["acc,none"] <= 1
    usage = lm.take_usage()
    assert set(usage) == {("tiny", doc, option) for doc in range(6) for option in range(4)}
    assert lm.take_usage() == {}


def test_usage_tells_what_each_request_cost(tmp_path):
    lm = CheckpointLM.from_loaded(
        make_model(max_position_embeddings=40), make_tokenizer(), store=tmp_path / "store"
    )
    lm.loglikelihood(instances("loglikelihood", [("one two", " x"), (EXAMPLES.strip(), " x")]))
    short, long = lm.take_usage().values()
    assert short == RequestUsage(prompt_tokens=len(make_tokenizer()("one two")["input_ids"]))
    # 40 inputs and the last target; " x" is two tokens.
    assert (long.prompt_tokens, long.prompt_truncated) == (39, True)
    (text,) = lm.generate_until(instances("generate_until", [("one", {"max_gen_toks": 4})]))
    (usage,) = lm.take_usage().values()
    assert (usage.generated_tokens, usage.finish, usage.from_store) == (4, "length", False)
    lm.generate_until(instances("generate_until", [("one", {"max_gen_toks": 4})]))
    assert lm.take_usage() == {("task", 0, 0): dataclasses.replace(usage, from_store=True)}
    assert text


def test_a_second_run_takes_every_answer_from_the_store(tmp_path):
    requests = instances("loglikelihood", exam_pairs())
    first = CheckpointLM.from_loaded(make_model(), make_tokenizer(), store=tmp_path / "store")
    expected = first.loglikelihood(requests)
    told = []
    second = CheckpointLM.from_loaded(
        make_model(),
        make_tokenizer(),
        store=tmp_path / "store",
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert second.loglikelihood(requests) == expected
    assert all(usage.from_store for usage in second.take_usage().values())
    assert told == [(len(requests), len(requests))]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.model.norm.weight.data.mul_(1.01),
        lambda model: model.bfloat16(),
        lambda model: setattr(model.model.layers[0].mlp, "scaling", 3.0),
        lambda model: model.set_attn_implementation("eager"),
    ],
    ids=["weights", "dtype", "setting", "attention"],
)
def test_another_function_never_gets_a_stored_answer(tmp_path, change):
    requests = instances("loglikelihood", exam_pairs()[:4])
    CheckpointLM.from_loaded(make_model(), make_tokenizer(), store=tmp_path / "s").loglikelihood(
        requests
    )
    model = make_model()
    change(model)
    other = CheckpointLM.from_loaded(model, make_tokenizer(), store=tmp_path / "s")
    other.loglikelihood(requests)
    assert not any(usage.from_store for usage in other.take_usage().values())


def test_a_model_edited_between_two_calls_is_another_one(tmp_path):
    model = make_model()
    lm = CheckpointLM.from_loaded(model, make_tokenizer(), store=tmp_path / "store")
    requests = instances("loglikelihood", exam_pairs()[:4])
    before = lm.loglikelihood(requests)
    model.model.norm.weight.data[0] = 5.0
    after = lm.loglikelihood(requests)
    assert not any(usage.from_store for usage in lm.take_usage().values())
    assert before != after


@pytest.mark.parametrize("settings", [{"until": ["b"]}, {"max_gen_toks": 6}, {"temperature": 1.0}])
def test_other_generation_settings_never_get_a_stored_text(tmp_path, settings):
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer(), store=tmp_path / "store")
    plain = {"until": ["a"], "max_gen_toks": 5}
    lm.generate_until(instances("generate_until", [("one", plain)]))
    lm.generate_until(instances("generate_until", [("one", {**plain, **settings})]))
    (usage,) = lm.take_usage().values()
    assert not usage.from_store


def test_sampled_repeats_are_stored_apart(tmp_path):
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer(), store=tmp_path / "store")
    arguments = ("one", {"temperature": 2.0, "max_gen_toks": 12})
    requests = instances("generate_until", [arguments] * 3)
    texts = lm.generate_until(requests)
    assert len(set(texts)) == 3
    assert lm.generate_until(requests) == texts


def test_a_broken_model_gives_nan_that_is_never_stored(tmp_path):
    model = make_model()
    model.lm_head.weight.data[:] = torch.nan
    lm = CheckpointLM.from_loaded(model, make_tokenizer(), store=tmp_path / "store")
    requests = instances("loglikelihood", exam_pairs()[:4])
    for _ in range(2):
        assert all(math.isnan(value) for value, _ in lm.loglikelihood(requests))
        assert not any(usage.from_store for usage in lm.take_usage().values())


def test_a_broken_model_s_texts_fail_and_are_never_stored(tmp_path):
    model = make_model()
    model.lm_head.weight.data[:] = torch.nan
    lm = CheckpointLM.from_loaded(model, make_tokenizer(), store=tmp_path / "store")
    for _ in range(2):
        lm.generate_until(instances("generate_until", [("one", {"max_gen_toks": 3})]))
        (usage,) = lm.take_usage().values()
        assert usage.failure == "logits not finite after 0 new tokens"
        assert not usage.from_store


def test_an_empty_prompt_is_continued_too():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    assert lm.generate_until(instances("generate_until", [("", {"max_gen_toks": 3})]))


def test_a_tokenizer_of_another_model_is_refused():
    lm = CheckpointLM.from_loaded(make_model(vocab_size=100), make_tokenizer())
    with pytest.raises(CheckpointError, match=r"gives token id \d+, the model knows 100"):
        lm.loglikelihood(instances("loglikelihood", exam_pairs()[:2]))


def test_a_continuation_that_cannot_be_scored_says_why():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer(), max_length=4)
    ((value, greedy),) = lm.loglikelihood(instances("loglikelihood", [("a", EXAMPLES)]))
    assert math.isnan(value)
    assert not greedy
    (usage,) = lm.take_usage().values()
    assert "no token of its own, or more than the 4 that the model can hold" in usage.failure


@pytest.mark.filterwarnings("ignore")
def test_a_molora_checkpoint_scores_and_generates_as_in_lm_eval_s_own_model(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    make_model(tie_word_embeddings=False).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    save_adapter(adapter, base)
    theirs = stock(load_model(adapter, base), make_tokenizer())
    ours = CheckpointLM(adapter, base, store=tmp_path / "store")
    requests = instances("loglikelihood", exam_pairs())
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    got = ours.loglikelihood(requests)
    assert [v for v, _ in got] == pytest.approx([v for v, _ in expected], abs=1e-4)
    texts = [(f"{EXAMPLES}{n * 7}", {"max_gen_toks": 9}) for n in range(5)]
    requests = instances("generate_until", texts)
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)
    assert ours.describe()["checkpoint"]["kind"] == "molora"


def test_a_model_with_routers_answers_requests_that_no_evaluator_made(tmp_path):
    from lm_eval.api.instance import Instance

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    make_model(tie_word_embeddings=False).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    save_adapter(adapter, base)
    lm = CheckpointLM(adapter, base)
    [bare] = lm.loglikelihood([Instance("loglikelihood", {}, ("a", " b"), 0)])
    [numbered] = lm.loglikelihood(instances("loglikelihood", [("a", " b")]))
    assert bare == numbered


def test_the_chat_template_is_applied_and_a_refusal_is_an_error():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer(template=TEMPLATE))
    chat = [{"role": "user", "content": "q"}]
    assert lm.has_chat_template
    assert lm.chat_template(True) == TEMPLATE
    assert lm.chat_template(False) is None
    assert lm.apply_chat_template(chat) == "<|user|>q<|assistant|>"
    prefilled = [*chat, {"role": "assistant", "content": "The answer is"}]
    assert lm.apply_chat_template(prefilled, False) == "<|user|>q<|assistant|>The answer is"
    with pytest.raises(UsageError, match=r"refuses a chat of system, user: no system"):
        lm.apply_chat_template([{"role": "system", "content": "s"}, *chat])


def test_a_tokenizer_without_template_says_so():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer())
    assert not lm.has_chat_template
    assert lm.chat_template(True) is None


@pytest.mark.parametrize("size", [0, -1, "many", "2.5"])
def test_a_batch_size_that_is_none_is_refused(size):
    with pytest.raises(UsageError, match="give a whole number from 1, or auto"):
        CheckpointLM.from_loaded(make_model(), make_tokenizer(), batch_size=size)


@pytest.mark.parametrize("size", [1, "8", "auto", "auto:4"])
def test_batch_sizes_may_be_spelled_as_for_lm_eval(size):
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer(), batch_size=size)
    assert lm.loglikelihood(instances("loglikelihood", [("a", "b")]))


def test_a_limit_that_would_crowd_out_the_prompt_is_lowered_and_told_once():
    notes = []
    lm = CheckpointLM.from_loaded(
        make_model(), make_tokenizer(), max_length=16, on_note=notes.append
    )
    lm.generate_until(instances("generate_until", [("one", {"max_gen_toks": 99})] * 2))
    (usage, _) = [*lm.take_usage().values()]
    assert usage.prompt_tokens + usage.generated_tokens == 16
    assert not usage.prompt_truncated
    assert len(notes) == 1
    assert "99 new tokens are asked for, the model's context is 16" in notes[0]


def test_a_long_prompt_loses_its_beginning_before_generation():
    lm = CheckpointLM.from_loaded(make_model(), make_tokenizer(), max_length=30)
    requests = instances("generate_until", [(EXAMPLES, {"max_gen_toks": 10})])
    lm.generate_until(requests)
    (usage,) = lm.take_usage().values()
    assert (usage.prompt_tokens, usage.prompt_truncated) == (20, True)


def test_importing_the_engine_loads_neither_torch_nor_lm_eval():
    code = "import sys, mingmoe_eval.engine; print({'torch', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
