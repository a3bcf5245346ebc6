"""`train` and `compose` as a user types them."""

import json

import pytest
import typer
from tiny_training import rows, save_chat_base, save_rows
from typer.testing import CliRunner

from mingmoe_eval.cli.compose import compose
from mingmoe_eval.cli.train import train
from mingmoe_eval.errors import UsageError
from mingmoe_eval.molora import describe_checkpoint

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


def call(function, *words):
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def run(function, *words):
    done = call(function, *words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def files(tmp_path):
    save_chat_base(tmp_path / "base")
    save_rows(tmp_path / "data.jsonl", rows(6))
    return tmp_path


def test_two_loras_are_trained_composed_and_made_a_mixture(files):
    pytest.importorskip("nevergrad")
    common = ("--base", files / "base", "--data", files / "data.jsonl", "--steps", 2)
    small = ("--rank", 4, "--alpha", 8, "--batch-size", 2, "--log-every", 1, "--save-every", 2)
    for name, seed in (("a", 0), ("b", 1)):
        lora = ("--method", "lora", "--seed", seed, "--output", files / name)
        done = run(train, *common, *small, *lora)
        assert done.stdout == ""
        assert "step 2 of 2: loss" in done.stderr
    few = ("--adapters", f"{files / 'a'},{files / 'b'}", "--few-shot", files / "data.jsonl")
    done = run(compose, *few, "--steps", 3, "--output", files / "one", "--json", "-")
    assert set(json.loads(done.stdout)["weights"]) == {str(files / "a"), str(files / "b")}
    run(compose, *few, "--into", "molora", "--steps", 2, "--output", files / "moe")
    assert describe_checkpoint(files / "one").kind == "peft-lora"
    mixture = describe_checkpoint(files / "moe").mixture
    assert (mixture.num_experts, mixture.rank, mixture.expert_scaling) == (2, 4, 2.0)


def test_a_molora_of_the_asked_size_and_a_resume(files):
    words = (
        *("--base", files / "base", "--data", f"{files / 'data.jsonl'}=2", "--output"),
        *(files / "ckpt", "--num-experts", 3, "--rank", 2, "--alpha", 4, "--rslora"),
        *("--steps", 2, "--batch-size", 2, "--log-every", 1, "--save-every", 1, "--balance", 0.1),
    )
    run(train, *words)
    mixture = describe_checkpoint(files / "ckpt").mixture
    assert (mixture.num_experts, mixture.rank) == (3, 2)
    assert mixture.expert_scaling == pytest.approx(4 / 2**0.5)
    assert isinstance(call(train, *words).exception, UsageError)
    run(train, *words, "--resume", "1")
    record = json.loads((files / "ckpt" / "training.json").read_text())
    assert record["spec"]["objective"]["balance"] == 0.1


def test_options_of_the_other_kind_of_composition_are_refused(files):
    words = ("--adapters", "a,b", "--few-shot", "f", "--output", "o", "--batch-size", 2)
    with pytest.raises(UsageError, match="--batch-size has a meaning with --into molora alone"):
        run(compose, *words)
