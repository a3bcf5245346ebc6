"""Values of any kind in any place of what a verb reads: done, or one message; never a bug.

`make test` tries a few of one seed. A soak takes FUZZ_SEED and FUZZ_COUNT from the environment, and
says with which seed and number a failure comes again: `python tests/test_value_fuzz.py TARGET SEED
COUNT [FIRST]`.
"""

import contextlib
import csv
import io
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml
from doubles import ScriptedLM
from test_foreign_logs import files_of
from value_changes import as_yaml, mutate, spoil

from mingmoe_eval.cli import main
from mingmoe_eval.errors import MingMoeError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run

FEW = 12
TASKS = ("usmle_ll", "promptcblue_cmeee_v2", "promptcblue_kuake_qic", "medcalc")
POLICY = {
    "alpha": 0.05,
    "margin": 0.02,
    "must": {"tasks": ["usmle*"], "margin": 0.0},
    "trade": {"tasks": ["prompt*"], "margin": 0.1},
    "watch": {"tasks": ["med*"]},
    "rises": {"unanswered": 0.01},
    "cost": {"tokens": 1.5},
}
FORM = {
    "ward": {
        "suite": "choice",
        "parts": {"ward": {"file": "ward"}},
        "sample": "questions.jsonl",
        "language": "en",
    }
}
ENTRY = {
    "suite": "labels",
    "labels": ["a", "b"],
    "prompt": "Which? {{ text }}",
    "fields": {"answer": "gold", "id": "id"},
    "tags": ["ward"],
    "parts": {"triage": {"file": "rows"}},
    "sample": "rows.jsonl",
    "rows": {"test": 3},
    "language": "en",
}
RUN_FILE = {
    "model": "no/such/model",
    "tasks": "usmle,mcmle",
    "sample": True,
    "limit": 2,
    "gen_kwargs": "temperature=0.6",
    "runs": [{"name": "a"}, {"name": "b", "model": "c"}],
}


def run_verb(command: str) -> Callable[[Path, Path, random.Random], None]:
    """A verb on a run with something changed."""

    def trial(place: Path, good: Path, rng: random.Random) -> None:
        bad = place / "bad"
        shutil.copytree(good, bad)
        change_a_file(bad, rng, "run.json", "samples/*.jsonl")
        call(command, place, GOOD=good, BAD=bad)
        nothing_impossible(place)

    return trial


def import_trial(place: Path, good: Path, rng: random.Random) -> None:
    shutil.copytree(good / "lm_eval", place / "bad")
    change_a_file(place / "bad", rng, "*.json", "*.jsonl")
    call("import BAD --output OUT --name n", place, BAD=place / "bad")
    nothing_impossible(place)


def foreign_trial(place: Path, good: Path, rng: random.Random) -> None:
    """Logs of inspect_ai, EvalScope and OpenCompass."""
    (place / "bad").mkdir()
    files_of(rng.choice(["inspect", "evalscope", "opencompass"]), place / "bad")
    change_a_file(place / "bad", rng, "**/*.json*")
    call("import BAD --output OUT --name n", place, BAD=place / "bad")
    nothing_impossible(place)


def policy_trial(place: Path, good: Path, rng: random.Random) -> None:
    file = place / "policy.yaml"
    write(file, as_yaml(mutate(POLICY, rng), rng), rng)
    call("gate GOOD --baseline GOOD --allow-marked --policy BAD", place, GOOD=good, BAD=file)


def run_file_trial(place: Path, good: Path, rng: random.Random) -> None:
    file = place / "run.yaml"
    write(file, as_yaml(mutate(RUN_FILE, rng), rng), rng)
    call("run --config BAD --output OUT", place, BAD=file)


def task_trial(place: Path, good: Path, rng: random.Random) -> None:
    """One of our own folders of tasks as somebody else's, with one of its YAML files changed."""
    folder = place / "mine"
    source = rng.choice(["medcalc", "medqa", "pubmedqa"])
    shutil.copytree(tasks_dir() / source, folder)
    file = rng.choice(sorted(folder.glob("*.yaml")))
    text = file.read_text("utf-8").replace("!function ", "")
    changed = as_yaml(mutate(yaml.safe_load(text), rng), rng)
    write(file, changed, rng)
    call("tasks check BAD", place, BAD=folder)
    evaluated(place, rng, include_path=(str(folder),), sample=True)


def entry_trial(place: Path, good: Path, rng: random.Random) -> None:
    """Somebody's own data set, an entry of a `_data.yaml`."""
    folder = place / "mine"
    folder.mkdir()
    rows = [{"id": n, "text": f"case {n}", "gold": "ab"[n % 2], "ward": "x"} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    entry = {**ENTRY, "suite": rng.choice(["labels", "text", "tuples", "number", "choice"])}
    write(folder / "_data.yaml", as_yaml(mutate({"triage": entry}, rng), rng), rng)
    call("tasks check BAD", place, BAD=folder)
    evaluated(place, rng, include_path=(str(folder),), sample=True)


def price_trial(place: Path, good: Path, rng: random.Random) -> None:
    price = {"input": 0.5, "output": 1.5, "currency": "USD", "per": 1_000_000}
    file = place / "price.json"
    write(file, json.dumps(mutate({"m": price, "good": "0.5,1.5"}, rng)), rng)
    call(
        "table GOOD --allow-marked --cost money --price BAD",
        place,
        GOOD=good,
        BAD=place / "price.yaml",
    )


def resume_trial(place: Path, good: Path, rng: random.Random) -> None:
    """A run's `eval.yaml`, as it is given to `--config`, and an unfinished run's record."""
    shutil.copytree(good, place / "bad")
    file = place / "bad" / "eval.yaml"
    text = yaml.safe_load(file.read_text("utf-8"))
    write(file, as_yaml(mutate({**text, "model": "no/such/model"}, rng), rng), rng)
    call("run --config BAD --output OUT", place, BAD=file)
    change_a_file(place / "bad", rng, "run.json")
    (place / "bad" / "run.json").rename(place / "bad" / "run.unfinished.json")
    call("run --resume BAD", place, BAD=place / "bad")


def data_trial(place: Path, good: Path, rng: random.Random) -> None:
    """A data file of any format with something changed, evaluated by a scripted model."""
    name, sample = rng.choice(
        [("medqa_usmle_4opt", "medqa/sample_usmle.jsonl"), ("medcalc", "medcalc/sample.jsonl")]
    )
    path = tasks_dir() / sample
    path = path if path.exists() else sorted(path.parent.glob("sample*.jsonl"))[0]
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()][:4]
    folder = place / "data" / name
    folder.mkdir(parents=True)
    kind = rng.choice(["jsonl", "json", "csv", "parquet", "xlsx"])
    write_rows(folder / f"test.{kind}", mutate(rows, rng), kind)
    spoil_a_file(folder / f"test.{kind}", rng)
    tasks = ("usmle", "usmle_ll") if name.startswith("medqa") else ("medcalc",)
    evaluated(place, rng, tasks=tasks, data_dir=str(place / "data"))
    call("overlap --train BAD --tasks usmle --sample", place, BAD=folder / f"test.{kind}")


TARGETS: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "compare": run_verb("compare GOOD BAD --json OUT.json"),
    "gate": run_verb("gate --baseline GOOD --candidate BAD --allow-marked --json OUT.json"),
    "table": run_verb("table GOOD BAD --allow-marked --output OUT.md"),
    "rescore": run_verb("rescore BAD --output OUT --name again"),
    "report": run_verb("report GOOD BAD --output OUT.html"),
    "budget": run_verb("budget BAD --budgets 1,2 --model GOOD --output OUT"),
    "explain": run_verb("explain BAD --published medcare --json OUT.json"),
    "import": import_trial,
    "foreign log": foreign_trial,
    "policy": policy_trial,
    "run file": run_file_trial,
    "eval.yaml": resume_trial,
    "price": price_trial,
    "task YAML": task_trial,
    "entry": entry_trial,
    "data file": data_trial,
}


def call(command: str, place: Path, **places: Path) -> None:
    """Run a command; it ends as documented, and without a traceback."""
    words = command.split()
    for name, path in {**places, "OUT": place / "out"}.items():
        words = [word.replace(name, str(path)) for word in words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    assert status in (0, 1, 2, 3, 4), err.getvalue()
    assert "Traceback" not in err.getvalue()
    if status == 2:
        assert err.getvalue().count("rror: ") >= 1


def evaluated(place: Path, rng: random.Random, **options: Any) -> None:
    spec = RunSpec(model="m", **{"tasks": ("*",), "limit": 2, **options})
    reply = rng.choice(["A", "12", "", "答案：B", "\ud800"])
    with contextlib.suppress(MingMoeError):
        evaluate(spec, open_model=lambda *_: ScriptedLM(reply=lambda prompt: reply))


def change_a_file(folder: Path, rng: random.Random, *patterns: str) -> None:
    file = rng.choice(sorted(folder.glob(rng.choice(patterns))))
    text = file.read_text("utf-8")
    if file.suffix == ".jsonl":
        rows = mutate([json.loads(line) for line in text.splitlines()], rng)
        rows = rows if isinstance(rows, list) else [rows]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        text = json.dumps(mutate(json.loads(text), rng))
    write(file, text, rng)


def write_rows(path: Path, rows: Any, kind: str) -> None:
    rows = rows if isinstance(rows, list) else [rows]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
        except Exception:  # columns of several kinds: as texts, then
            texts = [{"all": json.dumps(row)} for row in rows]
            pq.write_table(pa.Table.from_pylist(texts), path)
    elif kind == "csv":
        rows = [row if isinstance(row, dict) else {"x": row} for row in rows]
        names = list(dict.fromkeys(name for row in rows for name in row))
        written = io.StringIO()
        writer = csv.writer(written)
        writer.writerow(names)
        writer.writerows(
            [v if isinstance(v := row.get(name, ""), str) else json.dumps(v) for name in names]
            for row in rows
        )
        path.write_text(written.getvalue(), "utf-8", errors="surrogatepass")
    elif kind == "xlsx":
        sheet = (book := openpyxl.Workbook()).active
        rows = [row if isinstance(row, dict) else {"x": row} for row in rows]
        names = list(dict.fromkeys(name for row in rows for name in row))
        for cells in [names, *([row.get(name) for name in names] for row in rows)]:
            sheet.append([as_cell(cell) for cell in cells])
        book.save(path)
    elif kind == "json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def as_cell(value: Any) -> Any:
    """What a sheet can hold of a value."""
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(c for c in text[:30_000] if c.isprintable())


def write(file: Path, text: str, rng: random.Random) -> None:
    file.write_text(text, "utf-8", errors="surrogatepass")
    spoil_a_file(file, rng)


def spoil_a_file(file: Path, rng: random.Random) -> None:
    """One in eight is damaged as a text, too."""
    if rng.random() < 0.125:
        file.write_bytes(spoil(file.read_bytes(), rng))


def nothing_impossible(place: Path) -> None:
    """Of each run that was written, every number is one that its own samples allow."""
    for file in place.glob("out*/*/run.json"):
        run = load_run(file.parent)
        for name, result in run.results.items():
            samples = run.samples.get(name)
            for metric in result.metrics.values():
                value, ends = metric.value, metric.interval or (metric.value, metric.value)
                assert ends[0] <= value + 1e-9 or math.isnan(value + ends[0]), (name, metric)
                assert value <= ends[1] + 1e-9 or math.isnan(value + ends[1]), (name, metric)
                if metric.unit == "share":
                    assert -1e-9 <= value <= 1 + 1e-9 or math.isnan(value), (name, metric)
                if samples is not None:
                    assert metric.n <= len(samples), (name, metric)
            if samples and result.suite in ("choice", "number", "labels", "text"):
                scores = {}
                for one in samples:
                    if one.score is not None and one.status != "failed":
                        scores.setdefault(one.position, []).append(one.score)
                means = [sum(given) / len(given) for given in scores.values()]
                if means and result.main.metric in ("accuracy", "within_limits"):
                    assert abs(sum(means) / len(means) - result.main.value) < 1e-6, name


def good_run(folder: Path) -> Path:
    spec = RunSpec(model="m", tasks=TASKS, sample=True, limit=2)
    evaluate(spec, folder=folder, open_model=lambda *_: ScriptedLM(reply=lambda prompt: "A"))
    return folder


def try_one(target: str, seed: int, number: int, good: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        TARGETS[target](Path(place), good, random.Random(f"{seed} {target} {number}"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_run(tmp_path_factory.mktemp("values") / "good")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_some_values_in_any_place_are_no_bug(target: str, run_folder: Path) -> None:
    for number in range(FEW):
        try_one(target, 1, number, run_folder)


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_any_value_in_any_place_is_no_bug(target: str, run_folder: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    for number in range(int(os.environ.get("FUZZ_COUNT") or 20_000)):
        try:
            try_one(target, seed, number, run_folder)
        except (Exception, RecursionError) as error:
            error.add_note(f"again: python tests/test_value_fuzz.py '{target}' {seed} 1 {number}")
            raise


def by_hand(target: str, seed: str, count: str = "20000", first: str = "0") -> None:
    import traceback

    with tempfile.TemporaryDirectory() as place:
        good = good_run(Path(place) / "good")
        failures = 0
        for number in range(int(first), int(first) + int(count)):
            try:
                try_one(target, int(seed), number, good)
            except Exception as error:
                failures += 1
                told = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
                print(f"FAIL {target} {seed} {number}\n{told[-2500:]}", flush=True)
        print(f"{target}, seed {seed}: {failures} of {count} failed", flush=True)


if __name__ == "__main__":
    by_hand(*sys.argv[1:])
