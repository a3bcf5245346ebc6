"""`mingmoe-eval inspect`, as a process, and models that come from the hub's local cache."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from tiny_checkpoints import Recipe, edit_json, save_adapter, save_base, save_merged

pytestmark = pytest.mark.slow


def inspect(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mingmoe_eval", "inspect", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
    )


@pytest.fixture
def adapter(tmp_path):
    save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"), Recipe(rslora=True))
    return tmp_path / "adapter"


def test_a_table_for_people_and_json_for_scripts(tmp_path, adapter):
    done = inspect(adapter, "--probe", "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    for said in ("Qwen2ForCausalLM", "4, 2 a token", "2 gate_proj", "largest change of a logit"):
        assert said in done.stdout
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["mixture"]["expert_scaling"] == 4.0
    assert data["largest_logit_change"] > 0.1


def test_json_alone_on_stdout(adapter):
    done = inspect(adapter, "--json", "-")
    assert json.loads(done.stdout)["kind"] == "molora"


def test_a_broken_checkpoint_is_one_message_and_exit_status_two(adapter):
    edit_json(adapter / "config.json", num_experts=5)
    done = inspect(adapter)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "lacks A 4" in done.stderr
    assert "Traceback" not in done.stderr


def put_in_cache(home, name, folder):
    """Lay a directory down where huggingface_hub keeps what it has downloaded."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / "c0ffee")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")


def test_adapters_merged_and_full_models_load_from_the_hub_and_a_base_is_announced(
    tmp_path, adapter
):
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="org/base")
    save_merged(tmp_path / "merged", tmp_path / "base", Recipe())
    for name in ("adapter", "base", "merged"):
        put_in_cache(tmp_path / "home", f"org/{name}", tmp_path / name)
    home = str(tmp_path / "home")
    for name, kind in (("adapter", "molora"), ("base", "full"), ("merged", "molora-merged")):
        done = inspect(f"org/{name}", "--probe", "--json", "-", HF_HOME=home)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kind"] == kind
        assert ("'org/base' from the hub" in done.stderr) == (name == "adapter")


def test_a_name_that_neither_disk_nor_hub_knows_is_refused(tmp_path):
    done = inspect("org/nothing", HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "org/nothing is no directory here" in done.stderr
