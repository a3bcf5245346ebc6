"""`--model a,b,c`: how the list is read, what the folders are called, and one that fails."""

from pathlib import Path

import pytest
from test_run_command import checkpoint, own_cache, run_named  # noqa: F401 (fixtures)

from mingmoe_eval.cli.several_runs import plan_runs, split_models
from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run

SERVED = "openai:http://host:1/v1#Name,with,commas"


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a , b,", ["a", "b"]),
        ("hub/one,hub/two", ["hub/one", "hub/two"]),
        ("with,comma", ["with,comma"]),
        ("a,with,comma,b", ["a", "with,comma", "b"]),
        (SERVED, [SERVED]),
        (f"{SERVED},a", [f"{SERVED},a"]),  # nothing says that this `a` is not of the name
        (f"a,{SERVED}", ["a", SERVED]),
        (f"{SERVED},with,comma", [SERVED, "with,comma"]),
        (f"{SERVED},{SERVED}", [SERVED, SERVED]),
    ],
)
def test_lists_are_split_at_commas_but_paths_and_addresses_keep_theirs(
    tmp_path, monkeypatch, text, models
):
    (tmp_path / "with,comma").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split_models(text) == models


@pytest.mark.parametrize("name", ["checkpoint-{:04d}", "run/with/a/long/path/checkpoint-{:04d}/"])
def test_a_list_longer_than_a_file_s_name_is_a_list(name):
    models = [name.format(number) for number in range(500)]
    assert split_models(",".join(models)) == models


def folders(*models):
    specs = [RunSpec(model=model, tasks=("t",)) for model in models]
    return [folder.name for _, folder in plan_runs(specs, Path("out"), lambda name: name)]


def test_folders_are_named_by_as_much_of_the_path_as_tells_them_apart():
    assert folders("runs/a", "runs/b") == ["a", "b"]
    assert folders("runs/a/final", "runs/b/final/") == ["a-final", "b-final"]
    assert folders("/x/1/ckpt", "/x/2/ckpt", "/y/1/ckpt") == ["x-1-ckpt", "x-2-ckpt", "y-1-ckpt"]


def test_the_same_model_twice_is_refused():
    with pytest.raises(UsageError, match="a: given twice"):
        folders("a", "b", "a")


def test_each_model_has_its_run_and_one_that_fails_does_not_stop_the_others(
    tmp_path,
    checkpoint,  # noqa: F811
    capsys,
):
    models = f"{checkpoint},/nowhere,{checkpoint.parent / 'base'}"
    assert run_named(tmp_path, "g", models) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "g-adapter",
        "g-base",
    ]
    adapter, base = (load_run(tmp_path / name) for name in ("g-adapter", "g-base"))
    assert adapter.spec.model == str(checkpoint)
    assert adapter.samples.keys() == base.samples.keys()
    assert adapter.samples != base.samples
    said = capsys.readouterr().err
    assert "1 of 3 models failed:\n  /nowhere: " in said


def test_one_json_for_several_runs_is_refused(tmp_path, checkpoint, capsys):  # noqa: F811
    assert run_named(tmp_path, "g", f"{checkpoint},other", "--json", "-") == 2
    assert "--json holds one run, and --model a,b makes several" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "--workers 0: give a number from 1 up"),
        (["--workers", "1", "--gpus-per-worker", "1.5"], "--gpus-per-worker 1.5: give 0, a part"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker is for --workers or --ray-address"),
    ],
)
def test_options_of_workers_that_make_no_sense_are_refused(
    tmp_path,
    checkpoint,  # noqa: F811
    capsys,
    options,
    said,
):
    assert run_named(tmp_path, "r", checkpoint, *options) == 2
    assert said in capsys.readouterr().err


def test_workers_for_a_served_model_are_refused(tmp_path, capsys):
    assert run_named(tmp_path, "r", "openai:http://127.0.0.1:1/v1#m", "--workers", "2") == 2
    assert "a served model computes elsewhere" in capsys.readouterr().err


def test_workers_under_a_launcher_are_refused(tmp_path, checkpoint, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_named(tmp_path, "r", checkpoint, "--workers", "2") == 2
    assert "without `accelerate launch`" in capsys.readouterr().err
