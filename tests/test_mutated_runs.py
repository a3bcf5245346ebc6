"""Any value in any place of a run: each verb does its work, or says what is wrong."""

import copy
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from doubles import ScriptedLM
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hostile_fuzz import any_input, damage, write

from mingmoe_eval import run_store
from mingmoe_eval.cli import main
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec
from mingmoe_eval.rescoring import rescore

TASKS = (
    *("usmle_ll", "pharmacist2023"),
    *(f"promptcblue_{name}" for name in ("cmeee_v2", "chip_cdee", "kuake_qic", "imcs_v2_mrg")),
)
VERBS = {
    "compare": "compare GOOD BAD --json JSON",
    "gate": "gate --baseline GOOD --candidate BAD --allow-marked --json JSON",
    "table": "table GOOD BAD --allow-marked --output TABLE",
    "rescore": "rescore BAD --output OUT --name again",
    "report": "report GOOD BAD --output PAGE",
    "import": "import BAD/lm_eval --output OUT --name imported",
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated") / "good"
    spec = RunSpec(model="m", tasks=TASKS, sample=True, limit=2)
    evaluate(spec, folder=folder, open_model=lambda *_: ScriptedLM(reply=lambda prompt: "A"))
    return folder


@pytest.mark.fuzz
@pytest.mark.parametrize("verb", VERBS)
def test_any_value_in_any_place_is_no_bug(verb, run_folder):
    summary = json.loads((run_folder / "run.json").read_text("utf-8"))
    samples = {
        path.name: [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for path in (run_folder / "samples").iterdir()
    }

    # A verb takes some tenths of a second: a fifth of the tries of the other tests.
    @settings(any_input, max_examples=settings.default.max_examples // 5)
    @given(data=st.data())
    def one_try(data):
        changed, listed = copy.deepcopy(summary), copy.deepcopy(samples)
        if data.draw(st.booleans()):
            changed = data.draw(damage(changed))
        else:
            name = data.draw(st.sampled_from(sorted(listed)))
            listed[name] = data.draw(damage(listed[name]))
        with tempfile.TemporaryDirectory() as place:
            bad = Path(place) / "bad"
            bad.mkdir()
            write(bad, changed, listed)
            if verb == "import":
                bad = _imported(run_folder, Path(place), data)
            places = {"GOOD": run_folder, "BAD": bad, "OUT": f"{place}/out"}
            places |= {name: f"{place}/{name.lower()}" for name in ("JSON", "TABLE", "PAGE")}
            words = VERBS[verb].split()
            for name, value in places.items():
                words = [word.replace(name, str(value)) for word in words]
            assert main(words) in (0, 1, 2, 3, 4), words

    one_try()


def _imported(run_folder, place, data):
    """The run with one file of its `lm_eval` folder damaged."""
    folder = place / "bad"
    shutil.rmtree(folder)
    shutil.copytree(run_folder, folder)
    file = data.draw(st.sampled_from(sorted(folder.glob("lm_eval/**/*.json*"))))
    lines = (
        [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
        if file.suffix == ".jsonl"
        else json.loads(file.read_text("utf-8"))
    )
    changed = data.draw(damage(lines))
    text = "\n".join(map(json.dumps, changed)) if file.suffix == ".jsonl" else json.dumps(changed)
    file.write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("field", ["tp", "fp", "fn"])
def test_a_sample_without_what_its_score_is_made_of_is_named(field, run_folder, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(run_folder, folder)
    (file,) = folder.glob("samples/*cmeee*.jsonl")
    first, *others = file.read_text("utf-8").splitlines()
    sample = json.loads(first)
    del sample["counts"][field]
    file.write_text("\n".join([json.dumps(sample), *others]), "utf-8")
    with pytest.raises(RunStoreError, match=rf"{file.name} is damaged[^$]*'{field}' is missing"):
        run_store.load_run(folder)


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        ("usmle_ll", "tags", 3),
        ("usmle_ll", "tags", {"step": ["step1"]}),
        ("usmle_ll", "cluster", {"a": 1}),
        ("promptcblue_kuake_qic", "cluster", []),
        ("promptcblue_cmeee_v2", "tags", "x"),
        ("medcalc", "tags", 1.5),
    ],
)
def test_what_samples_take_over_of_a_doc_is_checked_in_every_suite(task, field, value, tmp_path):
    folder = tmp_path / "run"
    spec = RunSpec(model="m", tasks=(task,), sample=True, limit=2)
    evaluate(spec, folder=folder, open_model=lambda *_: ScriptedLM(reply=lambda prompt: "A"))
    (file,) = folder.glob("samples/*.jsonl")
    first, *others = file.read_text("utf-8").splitlines()
    sample = json.loads(first)
    sample["doc"][field] = value
    file.write_text("\n".join([json.dumps(sample), *others]), "utf-8")
    with pytest.raises(RunStoreError, match=rf"line 1: Sample\.doc\.{field}"):
        run_store.load_run(folder)


def test_log_likelihoods_that_are_no_logarithms_of_probabilities_are_rescored(run_folder, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(run_folder, folder)
    (file,) = folder.glob("samples/usmle_ll.jsonl")
    first, *others = file.read_text("utf-8").splitlines()
    sample = json.loads(first)
    sample["log_likelihoods"] = [1e6, *sample["log_likelihoods"][1:]]
    file.write_text("\n".join([json.dumps(sample), *others]), "utf-8")
    again = rescore(run_store.load_run(folder))
    assert again.samples["usmle_ll"][0].answered == "A"
    assert again.samples["usmle_ll"][0].counts["letter_mass"] == 1.0
