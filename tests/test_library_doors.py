"""What each door relies on inside its library: a release that takes one away fails by its name."""

import inspect
import warnings
from pathlib import Path

import accelerate
import peft
import pytest
import torch
import transformers
from tiny_checkpoints import save_base

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
