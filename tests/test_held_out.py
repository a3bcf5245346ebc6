"""Held-out conversations: how they are chosen, their loss, the best state, and when to stop."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Notebook, log_lines, make_spec, rows, save_chat_base, save_rows
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import DataError, UsageError
from mingmoe_eval.molora import load_model
from mingmoe_eval.training import train_adapter
from mingmoe_eval.training.conversations import Conversation, Message, read_conversations
from mingmoe_eval.training.examples import Example, encode, load_chat_tokenizer
from mingmoe_eval.training.held_out import best_step, is_exhausted, split_off, summed_loss
from mingmoe_eval.training.material import prepare
from mingmoe_eval.training.spec import HeldOut, Silence

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_chat_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def data(tmp_path):
    return save_rows(tmp_path / "data.jsonl", rows(10))


@pytest.fixture
def other(tmp_path):
    return save_rows(tmp_path / "other.jsonl", rows(5, first=100))


def watched(spec, **held_out):
    return dataclasses.replace(spec, held_out=HeldOut(**held_out))


def looks(folder):
    return [(e["step"], e["eval_loss"]) for e in log_lines(folder) if "eval_loss" in e]


def talk(words):
    return Conversation((Message("user", words), Message("assistant", "a")), "here")


def test_a_share_is_held_out_by_conversation_and_seed():
    talks = [talk(str(i)) for i in range(20)]
    kept, apart = split_off(talks, 0.25, seed=0, name="f")
    assert (len(kept), len(apart)) == (15, 5)
    assert not {one.messages for one in kept} & {one.messages for one in apart}
    assert split_off(talks, 0.25, seed=0, name="f") == (kept, apart)
    assert split_off(talks, 0.25, seed=1, name="f") != (kept, apart)
    assert [*map(talks.index, kept)] == sorted(map(talks.index, kept))


def test_copies_of_a_conversation_stay_on_one_side():
    talks = [talk(str(i % 4)) for i in range(40)]
    kept, apart = split_off(talks, 0.25, seed=3, name="f")
    assert (len(kept), len(apart)) == (30, 10)
    assert not {one.messages for one in kept} & {one.messages for one in apart}


@pytest.mark.parametrize(("count", "different", "share"), [(10, 10, 0.01), (3, 1, 0.5)])
def test_a_share_that_holds_out_nothing_or_everything_is_refused(count, different, share):
    talks = [talk(str(i % different)) for i in range(count)]
    with pytest.raises(DataError, match=f"f: a share of {share} of {count} conversations"):
        split_off(talks, share, seed=0, name="f")


def test_the_loss_before_training_is_the_bases_mean_over_learned_tokens(
    tmp_path, base, data, other
):
    """The other side: transformers' own loss of each conversation alone, weighted by tokens."""
    spec = watched(make_spec(base, data), files=(other,))
    [(step, found), *_] = looks(train_adapter(spec, tmp_path / "ckpt"))
    assert step == 0
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = load_chat_tokenizer(str(base))
    total, tokens = 0.0, 0
    for conversation in read_conversations(other):
        [example] = encode(conversation, tokenizer)
        ids, labels = torch.tensor([example.ids]), torch.tensor([example.labels])
        learned = int((labels != -100).sum())
        with torch.no_grad():
            total += model(input_ids=ids, labels=labels).loss.item() * learned
        tokens += learned
    assert found == pytest.approx(total / tokens, rel=1e-5)


def test_the_loss_after_training_is_that_of_the_checkpoint(tmp_path, base, data, other):
    spec = watched(make_spec(base, data), files=(other,), every=2)
    folder = train_adapter(spec, tmp_path / "ckpt")
    found = dict(looks(folder))
    assert list(found) == [0, 2, 4, 6]
    held = prepare(spec, Silence()).held_out
    loss, tokens = summed_loss(load_model(folder), held, 2).tolist()
    assert loss / tokens == pytest.approx(min(found[s] for s in (2, 4, 6)), rel=1e-4)


def test_the_sum_of_losses_does_not_hang_on_batches(base):
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    examples = [Example(tuple(range(5, 5 + n)), (-100, *range(6, 5 + n))) for n in (4, 9, 2, 7, 5)]
    sums = [summed_loss(model, examples, size) for size in (1, 2, 5)]
    assert sums[0][1] == sum(len(example.ids) - 1 for example in examples)
    assert torch.allclose(sums[0], sums[1], rtol=1e-6)
    assert torch.allclose(sums[0], sums[2], rtol=1e-6)


def history(*losses):
    return [{"step": step, "eval_loss": loss} for step, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "best", "exhausted_at_2"),
    [
        ((9.0,), None, False),
        ((1.0, 5.0), 1, False),
        ((9.0, 5.0, 4.0, 4.0), 2, False),
        ((9.0, 5.0, 4.0, 4.5, 4.0), 2, True),
        ((9.0, 5.0, 6.0, 7.0, 4.0), 4, False),
    ],
)
def test_the_best_step_and_the_end_of_patience(losses, best, exhausted_at_2):
    assert best_step(history(*losses)) == best
    assert is_exhausted(history(*losses), 2) is exhausted_at_2
    assert not is_exhausted(history(*losses), None)


def overfitting(base, data, other, **held_out):
    """Learns its examples so fast that the held-out ones grow worse."""
    spec = make_spec(base, data, steps=40, learning_rate=5e-2, save_every=40, keep=1)
    return watched(spec, files=(other,), every=4, **held_out)


def test_training_stops_without_patience_and_the_best_state_is_the_checkpoint(
    tmp_path, base, data, other
):
    notebook = Notebook()
    spec = overfitting(base, data, other, patience=2)
    folder = train_adapter(spec, tmp_path / "ckpt", watch=notebook)
    found = dict(looks(folder))
    best = best_step([{"step": s, "eval_loss": v} for s, v in found.items()])
    assert max(found) == best + 8 < 40
    assert f"the held-out loss was least at step {best}: that is the checkpoint" in notebook.notes
    name = "non_lora_trainables.safetensors"
    written, state = (load_file(place / name) for place in (folder, folder / f"checkpoint-{best}"))
    assert all(torch.equal(written[key], state[key]) for key in state)
    # Once stopped, a resume has nothing left to do.
    before = (folder / "training_log.jsonl").read_bytes()
    train_adapter(spec, folder, resume="last")
    assert (folder / "training_log.jsonl").read_bytes() == before
    again = load_file(folder / name)
    assert all(torch.equal(written[key], again[key]) for key in state)


def test_conversations_that_are_held_out_are_not_learned_from(tmp_path, base, data):
    spec = watched(make_spec(base, data, steps=None, epochs=1), split=0.3)
    notebook = Notebook()
    material = prepare(spec, notebook)
    assert f"{data}: 3 conversations held out" in notebook.notes
    learned = {example.ids for row in material.examples for example in row}
    assert (len(learned), len(material.held_out), material.steps) == (7, 3, 4)
    assert not learned & {example.ids for example in material.held_out}


def test_held_out_conversations_that_are_learned_from_too_are_counted(tmp_path, base, data):
    notebook = Notebook()
    prepare(watched(make_spec(base, data), files=(data,)), notebook)
    told = f"{data}: 10 of 10 held-out conversations are learned from too"
    assert any(note.startswith(told) for note in notebook.notes)


@pytest.mark.parametrize(
    ("held_out", "told"),
    [
        ({"files": ("f",), "split": 0.1}, "not both"),
        ({"split": 1.0}, "eval-split is a share"),
        ({"patience": 2}, "need eval-data or eval-split"),
        ({"every": 2}, "need eval-data or eval-split"),
        ({"split": 0.1, "every": 3}, "eval-every (3) must be a multiple of log-every (10)"),
        ({"split": 0.1, "patience": 0}, "patience must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(held_out, told, base, data):
    spec = watched(make_spec(base, data, log_every=10, save_every=10), **held_out)
    with pytest.raises(UsageError) as caught:
        spec.check()
    assert told in str(caught.value)
