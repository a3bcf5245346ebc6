"""What each door relies on inside its library: a release that takes one away fails by its name."""

import importlib
import inspect
import warnings
from pathlib import Path

import accelerate
import peft
import pytest
import torch
import transformers
from doubles import ScriptedLM
from lm_eval.api.task import ConfigurableTask
from tiny_checkpoints import save_base

from mingmoe_eval.data_sources import Docs
from mingmoe_eval.harness import lm_eval_door
from mingmoe_eval.language_model import Request
from mingmoe_eval.molora import accelerate_door, load_model, peft_door
from mingmoe_eval.training import trainer
from mingmoe_eval.workers import ray_cluster

PACKAGE = Path(peft_door.__file__).parents[1]


def resolved(library, name):
    """What a dotted name below a library means, properties of classes among it."""
    found = library
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None) or getattr(found, part)
    return found


@pytest.mark.parametrize("name", peft_door.RELIES_ON)
def test_peft_has(name):
    assert resolved(peft, name) is not None


@pytest.mark.parametrize("name", accelerate_door.RELIES_ON)
def test_accelerate_has(name):
    assert resolved(accelerate, name) is not None


@pytest.mark.parametrize("name", accelerate_door.OF_PROCESSES)
def test_accelerates_state_has(name):
    assert hasattr(accelerate_door.processes(), name)


@pytest.mark.parametrize("name", trainer.OVERRIDES)
def test_the_trainer_has_the_method_that_ours_takes_the_place_of(name):
    theirs = resolved(transformers.Trainer, name)
    ours = inspect.getattr_static(trainer.AdapterTrainer, name)
    assert theirs is not ours
    # Whatever arguments theirs is called with, ours takes.
    assert set(inspect.signature(theirs).parameters) <= set(inspect.signature(ours).parameters)


@pytest.mark.parametrize("name", trainer.RELIES_ON)
def test_transformers_training_has(name):
    kind, attribute = name.split(".")
    source = inspect.getsource(getattr(transformers, kind))
    assert attribute in source, name


@pytest.mark.parametrize("name", ray_cluster.RELIES_ON)
def test_ray_has(name):
    ray = pytest.importorskip("ray")
    assert resolved(ray, name) is not None


def test_a_method_of_rays_actors_takes_the_option_that_bounds_what_waits():
    actor = pytest.importorskip("ray.actor")
    assert ray_cluster.BACKPRESSURE in inspect.signature(actor.ActorMethod._remote).parameters


@pytest.fixture
def tuned(tmp_path):
    base = load_model(save_base(tmp_path / "base"), device="cpu")
    return peft_door.add_lora(base, rank=2, alpha=4, targets=["q_proj"])


@pytest.mark.parametrize("half", peft_door.OF_A_LAYER)
def test_a_live_lora_layer_has(tuned, half):
    layers = [m for m in tuned.modules() if isinstance(m, resolved(peft, "tuners.lora.LoraLayer"))]
    assert layers
    assert all(getattr(m, half)[peft_door.ADAPTER].weight.ndim == 2 for m in layers)


def test_peft_warns_of_missing_tensors_in_the_words_that_the_door_knows(tuned, tmp_path):
    peft_door.save_adapter(tuned, tmp_path / "adapter", base="base")
    torch.save({}, tmp_path / "adapter/adapter_model.bin")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    base = load_model(tmp_path / "base", device="cpu")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    assert any(str(one.message).startswith(peft_door.MISSING_KEYS) for one in told)


def test_an_offloaded_layer_keeps_its_hook_where_the_door_looks_for_it():
    linear = torch.nn.Linear(2, 2)
    hook = accelerate.hooks.AlignDevicesHook(execution_device="cpu", offload=True)
    accelerate.hooks.add_hook_to_module(linear, hook)
    assert getattr(getattr(linear, accelerate_door.HOOK), accelerate_door.HOOKS_DEVICE) == "cpu"
    assert linear.weight.is_meta
    assert accelerate_door.device_of(linear) == torch.device("cpu")


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("peft", "molora/peft_door.py"),
        ("accelerate", "molora/accelerate_door.py"),
        ("ray", "workers/ray_cluster.py"),
        ("lm_eval", "harness/lm_eval_door.py"),
    ],
)
def test_nothing_else_imports(library, door):
    files = (path for path in PACKAGE.rglob("*.py") if "_bundled" not in path.parts)
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in files
        for line in path.read_text("utf-8").splitlines()
        if line.split()[:2] in (["import", library], ["from", library])
        or line.strip().startswith((f"from {library}.", f"import {library}."))
    }
    assert importing == {door}


@pytest.mark.parametrize("name", lm_eval_door.RELIES_ON)
def test_lm_eval_has(name):
    module, _, attribute = name.partition(":")
    assert resolved(importlib.import_module(f"lm_eval.{module}"), attribute) is not None


@pytest.fixture(scope="module")
def asked():
    """A task of lm-eval's kind, asked with its own scoring in force."""
    rows = Docs([{"q": "1+1?", "choices": ["1", "2"], "answer": 1}])
    task = ConfigurableTask(
        config={
            "task": "sums",
            "custom_dataset": lambda **_: {"test": rows, "dev": rows},
            "test_split": "test",
            "fewshot_split": "dev",
            "output_type": "multiple_choice",
            "doc_to_text": "q",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }
    )
    results = lm_eval_door.ask(ScriptedLM(), "sums", task, limit=None, chat=False, log_samples=True)
    return task, results


@pytest.mark.parametrize("name", lm_eval_door.OF_A_TASK)
def test_a_loaded_task_of_lm_evals_has(asked, name):
    assert hasattr(asked[0], name)


def test_a_task_says_what_its_shots_are_drawn_from(asked):
    assert asked[0].fewshot_cfg.split == "dev"
    assert len(asked[0].sampler.df) == 1


@pytest.mark.parametrize("name", lm_eval_door.OF_A_REQUEST)
def test_a_request_of_lm_evals_has(asked, name):
    first, second = asked[0].instances
    assert hasattr(first, name)
    assert (first.task_name, first.doc_id, first.idx, second.idx) == ("sums", 0, 0, 1)
    assert second.args == ("1+1?", " 2")
    assert second.resps == [(-1.0, False)]


@pytest.mark.parametrize("key", lm_eval_door.OF_RESULTS)
def test_lm_evals_results_have(asked, key):
    assert key in asked[1]
    assert asked[1]["results"]["sums"]["acc,none"] == 0.0
    assert asked[1]["higher_is_better"]["sums"]["acc"] is True


@pytest.mark.parametrize("key", lm_eval_door.OF_A_LOGGED_SAMPLE)
def test_a_sample_that_lm_eval_logs_has(asked, key):
    (logged,) = asked[1]["samples"]["sums"]
    assert key in logged
    assert logged["metrics"] == ["acc"]


@pytest.mark.parametrize("name", [n for n in vars(Request) if not n.startswith("_")])
def test_what_models_read_of_a_request_is_what_lm_eval_gives(name):
    assert name in (*lm_eval_door.OF_A_REQUEST, "args")
