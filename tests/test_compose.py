"""Composing finished LoRAs: LoRAHub's sum by hand, and a mixture with a trained router."""

import dataclasses
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_checkpoints import edit_json, logits, save_adapter, token_ids
from tiny_training import Notebook, log_lines, rows, save_chat_base, save_rows
from transformers import AutoModelForCausalLM

from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.molora import load_model, probe
from mingmoe_eval.training import compose_adapter, compose_mixture
from mingmoe_eval.training.finished_loras import align, read_loras
from mingmoe_eval.training.lora_mixture import MixtureSpec, mean_pair
from mingmoe_eval.training.lorahub import CompositionSpec, few_shot_loss, read_examples
from mingmoe_eval.training.spec import Schedule

pytestmark = pytest.mark.filterwarnings(
    # peft asks by the old name: transformers 5.23 with peft 0.21.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

ALL = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_chat_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def few_shot(tmp_path):
    return save_rows(tmp_path / "few.jsonl", rows(4))


def save_lora(folder, base, *, seed, r=4, alpha=8, targets=ALL, **settings):
    """A PEFT LoRA whose B is not zero."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, **settings),
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            spread = parameter.shape[1] ** -0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(str(folder))
    return folder


def three(tmp_path, base, **settings):
    folders = [save_lora(tmp_path / f"lora{i}", base, seed=i, **settings) for i in range(3)]
    return tuple(map(str, folders))


def make(adapters, few_shot, **changes):
    return CompositionSpec(adapters=adapters, few_shot=few_shot, **{"steps": 12, **changes})


def fixed(*weights):
    """A search that tries one point and takes it."""

    def search(objective, count):
        assert count == len(weights)
        objective(weights)
        return list(weights)

    return search


def test_a_and_b_are_summed_with_the_same_weights(tmp_path, base, few_shot):
    adapters = three(tmp_path, base)
    weights = (0.5, -1.25, 0.75)
    compose_adapter(make(adapters, few_shot), tmp_path / "out", search=fixed(*weights))
    parts = [load_file(f"{folder}/adapter_model.safetensors") for folder in adapters]
    composed = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert composed.keys() == parts[0].keys()
    for name, tensor in composed.items():
        by_hand = sum(w * part[name] for w, part in zip(weights, parts, strict=True))
        assert torch.allclose(tensor, by_hand, atol=1e-6), name


def test_one_adapter_with_weight_one_is_that_adapter(tmp_path, base, few_shot):
    adapters = three(tmp_path, base)
    compose_adapter(make(adapters, few_shot), tmp_path / "out", search=fixed(0.0, 1.0, 0.0))
    ids = token_ids(2, 9)
    alone = logits(load_model(adapters[1]), ids)
    assert torch.allclose(logits(load_model(tmp_path / "out"), ids), alone, atol=1e-4)


def test_ranks_and_scalings_are_brought_together_without_changing_any_adapter(
    tmp_path, base, few_shot
):
    adapters = (
        str(save_lora(tmp_path / "a", base, seed=0, r=2, alpha=8)),
        str(save_lora(tmp_path / "b", base, seed=1, r=6, alpha=3, use_rslora=True)),
        str(save_lora(tmp_path / "c", base, seed=2, targets=["o_proj"])),
    )
    ids = token_ids(2, 9)
    for index, adapter in enumerate(adapters):
        weights = [float(i == index) for i in range(3)]
        out = tmp_path / f"out{index}"
        compose_adapter(make(adapters, few_shot), out, search=fixed(*weights))
        assert json.loads((out / "adapter_config.json").read_text())["r"] == 6
        alone = logits(load_model(adapter), ids)
        assert torch.allclose(logits(load_model(out), ids), alone, atol=1e-4)


def test_the_objective_is_the_few_shot_loss_plus_the_l1_term(tmp_path, base, few_shot):
    adapters, weights, seen = three(tmp_path, base), (0.5, -1.0, 0.25), []

    def search(objective, count):
        seen.append(objective(weights))
        return list(weights)

    spec = make(adapters, few_shot)
    record = compose_adapter(spec, tmp_path / "out", search=search)
    model = load_model(tmp_path / "out")
    loss = loss_by_hand(model, read_examples(spec, str(base)).examples)
    assert record["few_shot_loss"] == pytest.approx(loss, rel=1e-4)
    assert seen[0] == pytest.approx(loss + 0.05 * (0.5 + 1.0 + 0.25) / 3, rel=1e-4)


@torch.no_grad()
def loss_by_hand(model, examples):
    total, count = 0.0, 0
    for example in examples:
        scores = model(torch.tensor([example.ids])).logits[0]
        for place, label in enumerate(example.labels):
            if label != -100:
                total -= torch.log_softmax(scores[place - 1], -1)[label].item()
                count += 1
    return total / count


def test_the_few_shot_loss_does_not_hang_on_the_batch(base, few_shot):
    examples = read_examples(make((), few_shot), str(base)).examples
    model = load_model(base)
    by_hand = loss_by_hand(model, examples)
    for size in (1, 3, 8):
        assert few_shot_loss(model, examples, size) == pytest.approx(by_hand, rel=1e-5)


def test_the_outcome_is_an_ordinary_peft_adapter_with_its_weights_told(tmp_path, base, few_shot):
    adapters = three(tmp_path, base)
    record = compose_adapter(make(adapters, few_shot), tmp_path / "out", search=fixed(1, 0.5, 0))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    ids = token_ids(2, 9)
    assert torch.allclose(logits(tuned, ids), logits(load_model(tmp_path / "out"), ids), atol=1e-4)
    stored = json.loads((tmp_path / "out" / "composition.json").read_text())
    assert stored["weights"] == record["weights"] == dict(zip(adapters, (1, 0.5, 0), strict=True))
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["composition"])["weights"] == record["weights"]


def test_ngopt_stays_within_bounds_repeats_itself_and_finds_what_helps(tmp_path, base, few_shot):
    pytest.importorskip("nevergrad")
    adapters = three(tmp_path, base)
    spec = make(adapters, few_shot, steps=30)
    first = compose_adapter(spec, tmp_path / "one")
    second = compose_adapter(spec, tmp_path / "two")
    assert first["weights"] == second["weights"]
    assert all(abs(weight) <= 1.5 for weight in first["weights"].values())
    # Zero weights are the base: the search begins there.
    assert first["few_shot_loss"] <= first["few_shot_loss_of_base"]


def test_a_composition_that_does_not_help_says_so(tmp_path, base, few_shot):
    notebook = Notebook()
    zero = fixed(0.0, 0.0, 0.0)
    compose_adapter(
        make(three(tmp_path, base), few_shot), tmp_path / "out", search=zero, watch=notebook
    )
    assert notebook.notes == [
        "the composition is no better on the few examples than the base alone"
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "use_dora = True is more than a plain LoRA"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "changes the base's weights"),
        ({"r": 8}, "is not of rank 8"),
        ({"lora_alpha": 0}, "lora_alpha must be above 0"),
    ],
)
def test_what_is_no_plain_lora_is_refused(tmp_path, base, few_shot, changes, told):
    adapters = three(tmp_path, base)
    edit_json(tmp_path / "lora1" / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match="lora1") as caught:
        compose_adapter(make(adapters, few_shot), tmp_path / "out", search=fixed(0, 0, 0))
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_every_unusable_adapter_is_listed(tmp_path, base):
    save_adapter(tmp_path / "moe", base)
    names = [str(tmp_path / "moe"), str(base), str(tmp_path / "nowhere")]
    with pytest.raises(CheckpointError) as caught:
        read_loras(names)
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(UsageError, match="at least two adapters"):
        read_loras(names[:1])


def test_adapters_of_other_bases_are_refused(tmp_path, base, few_shot):
    adapters = three(tmp_path, base)
    edit_json(tmp_path / "lora2" / "adapter_config.json", base_model_name_or_path="org/other")
    with pytest.raises(UsageError, match=r"name as their base: .*org/other; say --base"):
        compose_adapter(make(adapters, few_shot), tmp_path / "out")
    wide = save_chat_base(tmp_path / "wide", hidden_size=64)
    with pytest.raises(CheckpointError, match="do not fit the base"):
        compose_adapter(make(adapters, few_shot, base=str(wide)), tmp_path / "out")


# Into a mixture


def mixture_of(adapters, few_shot, **changes):
    return MixtureSpec(
        adapters=adapters,
        few_shot=few_shot,
        **{
            "steps": 4,
            "schedule": Schedule(batch_size=2, log_every=1, save_every=4, learning_rate=1e-2),
            **changes,
        },
    )


def test_a_mixture_holds_the_loras_unchanged_and_only_routers_are_trained(tmp_path, base, few_shot):
    adapters = three(tmp_path, base, targets=["gate_proj", "down_proj"])
    folder = tmp_path / "moe"
    record = compose_mixture(mixture_of(adapters, few_shot), folder)
    assert record["experts"] == list(adapters)
    trained = load_file(folder / "non_lora_trainables.safetensors")
    for index, adapter in enumerate(adapters):
        for name, tensor in load_file(f"{adapter}/adapter_model.safetensors").items():
            path, letter = name.rsplit(".lora_", 1)
            letter = letter[0]
            assert torch.equal(
                trained[f"{path}.experts.{index}.lora_{letter}_{index}.weight"], tensor
            )
    assert not any(t.any() for name, t in trained.items() if "up_proj.experts" in name)
    assert any(t.any() for name, t in trained.items() if name.endswith("switch.bias"))
    assert probe(load_model(folder)) > 0.1
    assert len(log_lines(folder)) == 4


def test_equal_loras_in_a_mixture_are_that_lora_whatever_the_router_says(tmp_path, base, few_shot):
    """Weights sum to one, and the mean of equal products is the product."""
    same = tuple(str(save_lora(tmp_path / name, base, seed=3)) for name in "ab")
    compose_mixture(mixture_of(same, few_shot), tmp_path / "moe")
    ids = token_ids(2, 9)
    alone = logits(load_model(same[0]), ids)
    assert torch.allclose(logits(load_model(tmp_path / "moe"), ids), alone, atol=2e-4)


def test_the_mean_attention_pair_is_the_nearest_of_its_rank(tmp_path, base):
    adapters = three(tmp_path, base)
    aligned = align(read_loras(adapters), AutoModelForCausalLM.from_pretrained(base))
    path = "model.layers.0.self_attn.q_proj"
    (a, b), kept = mean_pair(aligned, path)
    stacked_a, stacked_b = aligned.layers[path]
    mean = sum(stacked_b[i] @ stacked_a[i] for i in range(3)) / 3
    singular = torch.linalg.svdvals(mean)
    missed = (singular[4:] ** 2).sum()
    assert ((mean - b @ a) ** 2).sum().item() == pytest.approx(missed.item(), rel=1e-3)
    assert kept == pytest.approx(1 - (missed / (singular**2).sum()).item(), rel=1e-4)
    assert a.shape == (4, 32)
    assert b.shape == (32, 4)


def test_a_mixture_needs_adapters_on_feed_forward_layers(tmp_path, base, few_shot):
    adapters = three(tmp_path, base, targets=["q_proj"])
    with pytest.raises(CheckpointError, match="there would be no experts"):
        compose_mixture(mixture_of(adapters, few_shot), tmp_path / "moe")
    assert not (tmp_path / "moe").exists()


def test_the_router_learns_which_expert_helps(tmp_path, base, few_shot):
    adapters = three(tmp_path, base, targets=["gate_proj", "up_proj", "down_proj"])
    spec = mixture_of(adapters, few_shot, steps=30)
    spec = dataclasses.replace(
        spec, schedule=dataclasses.replace(spec.schedule, learning_rate=5e-2, save_every=30)
    )
    losses = [line["loss"] for line in log_lines_of(compose_mixture, spec, tmp_path / "moe")]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


def log_lines_of(compose, spec, folder):
    compose(spec, folder)
    return log_lines(folder)
