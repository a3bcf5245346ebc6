import dataclasses
import functools
import json
import math

import pytest

from mingmoe_eval import run_store
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.records import Counts, MetricValue, Run, RunSpec, Sample, TaskResult

SPEC = RunSpec(model="m", tasks=("usmle",), limit=2)


def make_run(**changes):
    samples = [
        Sample(
            task="usmle",
            doc_id=f"d{i}",
            position=i,
            doc={"q": "题\u2028目"},
            prompt="p",
            expected="A",
            response="A\u2028\x1b[31m",
            log_likelihoods=(-1.0, math.nan) if i else (-1.0, -math.inf),
            score=1.0,
        )
        for i in range(2)
    ]
    result = TaskResult(
        task="usmle",
        main_metric="score",
        metrics={"score": MetricValue(value=math.nan, n=0)},
        counts=Counts(docs=2),
    )
    run = Run(
        name="r",
        spec=SPEC,
        provenance={"python": "3.11"},
        results={"usmle": result},
        samples={"usmle": samples},
        timing={"seconds": 1.5},
    )
    return dataclasses.replace(run, **changes)


def test_a_run_survives_the_disk_with_its_nan_infinity_and_line_separators(tmp_path):
    run_store.save_run(make_run(), tmp_path / "r")
    loaded = run_store.load_run(tmp_path / "r")
    first, second = loaded.samples["usmle"]
    assert first.log_likelihoods == (-1.0, -math.inf)
    assert math.isnan(second.log_likelihoods[1])
    assert first.response == "A\u2028\x1b[31m"
    assert math.isnan(loaded.results["usmle"].main.value)
    assert loaded.spec == SPEC


def test_run_json_is_strict_json(tmp_path):
    run_store.save_run(make_run(), tmp_path / "r")

    def refuse(word):
        raise AssertionError(word)

    data = json.loads((tmp_path / "r" / "run.json").read_text(), parse_constant=refuse)
    assert data["results"]["usmle"]["score"]["n"] == 0
    assert data["marks"] == ["first 2 docs"]


def test_a_lone_surrogate_in_a_response_is_kept(tmp_path):
    first, second = make_run().samples["usmle"]
    broken = dataclasses.replace(first, response="bad \ud800 end")
    run_store.save_run(make_run(samples={"usmle": [broken, second]}), tmp_path / "r")
    assert run_store.load_run(tmp_path / "r").samples["usmle"][0].response == "bad \ud800 end"


def test_a_finished_run_is_never_overwritten(tmp_path):
    run_store.save_run(make_run(), tmp_path / "r")
    before = (tmp_path / "r" / "run.json").read_bytes()
    with pytest.raises(RunStoreError, match="already holds a finished run"):
        run_store.save_run(make_run(), tmp_path / "r")
    assert (tmp_path / "r" / "run.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunStoreError, match="not empty"):
        run_store.save_run(make_run(), tmp_path)


def test_an_unfinished_run_is_not_read_as_a_run_and_says_how_to_go_on(tmp_path):
    path = run_store.open_folder(tmp_path / "r")
    run_store.save_unfinished(path, SPEC)
    run_store.save_samples(path, "usmle", make_run().samples["usmle"])
    with pytest.raises(RunStoreError, match=r"--resume"):
        run_store.load_run(path)
    assert run_store.spec_to_resume(path) == SPEC


def test_what_a_kill_after_the_end_leaves_goes_with_the_next_look(tmp_path):
    folder = run_store.save_run(complete_run(), tmp_path / "r")
    whole = {path.name for path in folder.iterdir()}
    for name in (".mingmoe-eval.lock", run_store.UNFINISHED_FILE, run_store.STORE_FILE):
        (folder / name).write_text("{}")
    with pytest.raises(RunStoreError, match="already holds a finished run"):
        run_store.refuse_taken(folder)
    assert {path.name for path in folder.iterdir()} == whole


def test_of_four_that_start_at_once_three_are_told_that_one_is_writing(tmp_path):
    with run_store.claim(tmp_path / "r") as folder:
        run_store.save_unfinished(folder, make_run().spec)
        for _ in range(3):
            with pytest.raises(RunStoreError) as told, run_store.claim(tmp_path / "r"):
                pass
            assert "another process is writing" in str(told.value)
            assert "--resume" not in str(told.value)


def test_finishing_leaves_nothing_to_resume(tmp_path):
    path = run_store.open_folder(tmp_path / "r")
    run_store.save_unfinished(path, SPEC)
    run_store.finish(path, complete_run(samples={}))
    with pytest.raises(RunStoreError, match="finished"):
        run_store.spec_to_resume(path)


def complete_run(**facts):
    run = make_run(**facts)
    score = {"score": MetricValue(value=1.0, n=2)}
    results = {"usmle": dataclasses.replace(run.results["usmle"], metrics=score)}
    return dataclasses.replace(run, results=results)


def incomplete_run(**facts):
    run = make_run(**facts)
    failed = Counts(docs=2, failed=1)
    results = {"usmle": dataclasses.replace(run.results["usmle"], counts=failed)}
    return dataclasses.replace(run, results=results)


def test_an_incomplete_run_can_be_resumed_and_stays_a_run_until_its_samples_change(tmp_path):
    run = incomplete_run()
    path = run_store.save_run(run, tmp_path / "r")
    assert run_store.spec_to_resume(path) == SPEC
    with pytest.raises(RunStoreError, match="already holds a finished run"):
        run_store.save_run(run, path)
    with run_store.claim(path, resume=True):
        run_store.save_unfinished(path, SPEC)
        assert run_store.load_run(path).incomplete == run.incomplete == ("usmle",)
        run_store.save_samples(path, "usmle", run.samples["usmle"])
        with pytest.raises(RunStoreError, match=r"unfinished run; finish it with .*--resume"):
            run_store.load_run(path)
    assert run_store.spec_to_resume(path) == SPEC


def test_a_complete_run_is_not_taken_up_again(tmp_path):
    path = run_store.save_run(complete_run(), tmp_path / "r")
    before = (path / "run.json").read_bytes()
    for take_up in (
        run_store.spec_to_resume,
        functools.partial(run_store.open_folder, resume=True),
    ):
        with pytest.raises(
            RunStoreError, match="finished and complete; there is nothing to resume"
        ):
            take_up(path)
    assert (path / "run.json").read_bytes() == before


@pytest.mark.parametrize("facts", [{"parent": "one"}, {"provenance": {"imported_from": "lm-eval"}}])
def test_numbers_made_from_other_results_are_not_resumed(tmp_path, facts):
    path = run_store.save_run(incomplete_run(**facts), tmp_path / "r")
    with pytest.raises(RunStoreError, match="made from other results"):
        run_store.spec_to_resume(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "not a JSON object"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": 1}', "missing required field `name`"),
        ('{"schema_version": 1, "spec": {}', "cannot be read"),
    ],
)
def test_a_damaged_run_file_is_named(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunStoreError, match=message):
        run_store.load_run(tmp_path)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        *((word, f"Sample.score: .*, '{word}'") for word in ("nan", "inf", "-inf")),
        (math.nan, "Sample.score: a finite number is expected, not nan"),
        (10**400, "Sample.score: Number out of range, 1000"),
        (True, "Sample.score: Expected `float | null`, got `bool`, True"),
    ],
    ids=["nan", "inf", "-inf", "NaN", "beyond a float", "bool"],
)
def test_a_score_that_is_no_number_is_refused_before_it_reaches_a_mean(tmp_path, score, said):
    folder = run_store.save_run(make_run(), tmp_path / "r")
    file = next((folder / "samples").iterdir())
    first, *others = file.read_text("utf-8").split("\n")
    file.write_text(
        "\n".join([json.dumps({**json.loads(first), "score": score}), *others]), "utf-8"
    )
    with pytest.raises(RunStoreError, match=f"line 1: {said}"):
        run_store.load_run(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"position": 1}, "Sample.position: 1 comes twice"),
        ({"task": "mcmle"}, "Sample.task: the file is of 'usmle', not of 'mcmle'"),
        ({"position": -1}, "Sample.position: Expected `int` >= 0"),
        ({"status": "fine"}, "Sample.status: Invalid enum value 'fine'"),
        ({"status": "\ud800"}, "Sample: half a character, '\\ud800'"),
        ({"finish": 7}, "Sample.finish: Expected `str`, got `int`, 7"),
        ({"status": "failed"}, "Sample.score: a failed doc has none"),
        ({"doc": {"q": "\ud800"}}, "Sample.'doc'.'q': half a character"),
        ({"doc": ["q"]}, "Sample.doc: Expected `object`, got `array`"),
        ({"tags": {"year": 2021}}, "Sample.tags[...]: Expected `str`, got `int`"),
        ({"log_likelihoods": [-1.0, "x"]}, "Sample.log_likelihoods[1]: Expected `float`"),
        ({"generated_tokens": 2**64}, "Sample.generated_tokens: "),
        ({"odd": 1}, "Sample has no field 'odd'"),
    ],
)
def test_a_sample_that_cannot_be_is_told_with_its_line_and_field(tmp_path, change, said):
    folder = run_store.save_run(make_run(), tmp_path / "r")
    file = folder / "samples" / "usmle.jsonl"
    first, second, *rest = file.read_text("utf-8").split("\n")
    changed = json.dumps({**json.loads(first), **change})
    file.write_text("\n".join([changed, second, *rest]), "utf-8")
    with pytest.raises(RunStoreError) as caught:
        run_store.load_run(folder)
    line = 2 if change == {"position": 1} else 1
    assert f"usmle.jsonl is damaged\n  - line {line}: {said}" in str(caught.value)


def test_every_damaged_line_of_the_samples_is_listed(tmp_path):
    run_store.save_run(make_run(), tmp_path / "r")
    file = tmp_path / "r" / "samples" / "usmle.jsonl"
    good, other = file.read_text("utf-8").split("\n")[:2]
    file.write_text(f"{good}\n{{oops\n{other}\n[1]\n", "utf-8")
    with pytest.raises(RunStoreError) as caught:
        run_store.load_run(tmp_path / "r")
    listed = [line.split(":")[0].strip(" -") for line in str(caught.value).split("\n")[1:]]
    assert listed == ["line 2", "line 4"]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunStoreError, match="not a run folder"):
        run_store.load_run(tmp_path / "nothing")


def test_a_place_that_cannot_be_written_is_a_plain_error_and_nothing_stays(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("x")
    with pytest.raises(RunStoreError, match="cannot write"):
        run_store.save_run(make_run(), blocker / "r")
    assert blocker.read_text() == "x"


def test_a_task_name_from_outside_cannot_leave_the_folder(tmp_path):
    path = run_store.open_folder(tmp_path / "r")
    written = run_store.save_samples(path, "../../../evil", [])
    assert written.resolve().parent == (path / "samples").resolve()


def test_two_tasks_never_share_a_file(tmp_path):
    path = run_store.open_folder(tmp_path / "r")
    names = ["a/b", "a_b", "A_b", ".a_b"]
    assert len({run_store.save_samples(path, name, []) for name in names}) == len(names)


def test_a_run_that_never_got_an_answer_leaves_no_folder(tmp_path):
    path = run_store.open_folder(tmp_path / "r")
    run_store.save_unfinished(path, SPEC)
    run_store.discard_if_bare(path)
    assert not path.exists()


def test_a_run_that_has_samples_is_never_discarded(tmp_path):
    path = run_store.open_folder(tmp_path / "r")
    run_store.save_unfinished(path, SPEC)
    run_store.save_samples(path, "usmle", [])
    run_store.discard_if_bare(path)
    assert run_store.spec_to_resume(path) == SPEC


def test_samples_that_were_lost_are_noticed(tmp_path):
    run_store.save_run(make_run(), tmp_path / "r")
    file = tmp_path / "r" / "samples" / "usmle.jsonl"
    file.write_text(file.read_text("utf-8").split("\n")[0] + "\n", "utf-8")
    with pytest.raises(RunStoreError, match=r"usmle: 1 samples, where run\.json speaks of 2 docs"):
        run_store.load_run(tmp_path / "r")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("spec", "tasks"), "usmle", "RunSpec.tasks: Expected `array`, got `str`, 'usmle'"),
        (("spec", "seed"), True, "RunSpec.seed: Expected `int`, got `bool`, True"),
        (
            ("results", "usmle", "score", "value"),
            "0.9",
            "metrics.score: MetricValue.value: Expected `float`, got `str`, '0.9'",
        ),
        (
            ("results", "usmle", "score", "n"),
            1.5,
            "usmle: metrics.score: MetricValue.n: Expected `int`, got `float`, 1.5",
        ),
        (("results", "usmle"), {}, "usmle lacks its main metric, 'score'"),
        (("counts", "usmle", "docs"), None, "Counts.docs: Expected `int`, got `null`, None"),
        (("tasks", "usmle", "seconds"), 10**400, "TaskResult.seconds: Number out of range, 1000"),
        (("tasks", "usmle", "task"), "mcmle", "'usmle' does not describe that task"),
        (("tasks", "usmle", "members"), ["gone"], "a group names gone, of which nothing is there"),
        (("tasks", "mcmle"), {}, "speak of different tasks"),
        (("results", "usmle", "score", "n"), -1, "MetricValue.n: Expected `int` >= 0, -1"),
        (("results", "usmle", "score", "interval"), [0.9, 0.1], "from 0.9 to 0.1 is no interval"),
        (("results", "usmle", "score", "interval"), [0.1], "MetricValue.interval: "),
        (("counts", "usmle", "failed"), 3, "usmle: Counts.failed: 3 of 2 docs"),
        (("tasks", "usmle", "main_metric"), "f1", "usmle lacks its main metric, 'f1'"),
        (("tasks", "usmle", "members"), ["usmle"], "the groups usmle stand for themselves"),
        (("tasks", "usmle", "chance"), 1.5, "TaskResult.chance: Expected `float` <= 1.0, 1.5"),
        (
            ("tasks", "usmle", "breakdowns"),
            {"by": 1},
            "breakdowns.by: an object is expected, not 1",
        ),
        (("provenance", "tasks"), {"usmle": []}, "provenance.tasks[...]: Expected `object`"),
        (("provenance", "tasks"), {"usmle": {"reading": 1}}, "reading: Expected `str`, got `int`"),
        (("provenance", "python"), "\ud800", "'provenance'.'python': half a character"),
        (("routing",), 1, "routing: Expected `object | null`, got `int`, 1"),
        (("missing_tasks",), [1], "missing_tasks[0]: Expected `str`, got `int`"),
        (("schema_version",), True, "has schema version True"),
        (("timing",), {"seconds": "1"}, "timing[...]: Expected `float`, got `str`"),
        (("timing",), {"seconds": math.nan}, "timing[...]: Expected `float` >= 0"),
        (("timing",), [], "damaged or hand-edited: timing: Expected `object`, got `array`, []"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, place, value, said):
    run_store.save_run(make_run(), tmp_path / "r")
    file = tmp_path / "r" / "run.json"
    data = json.loads(file.read_text("utf-8"))
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(RunStoreError) as caught:
        run_store.load_run(tmp_path / "r")
    assert said in str(caught.value)


def test_a_folder_that_is_being_written_is_kept_for_its_writer(tmp_path):
    with run_store.claim(tmp_path / "r") as path:
        run_store.save_unfinished(path, SPEC)
        with (
            pytest.raises(RunStoreError, match="another process"),
            run_store.claim(path, resume=True),
        ):
            pass
    with run_store.claim(path, resume=True):
        pass
    left = {entry.name for entry in path.iterdir()}
    assert left == {"run.unfinished.json", "eval.yaml", "samples"}


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path):
    with run_store.claim(tmp_path / "r") as path:
        run_store.save_unfinished(path, SPEC)
        (path / "samples" / ".usmle.jsonl.4711.mingmoe-eval").write_text("half a li")
    with run_store.claim(path, resume=True):
        assert not any((path / "samples").iterdir())


def test_a_folder_of_a_process_killed_as_it_began_can_be_used_again(tmp_path):
    (tmp_path / "r" / "samples").mkdir(parents=True)
    (tmp_path / "r" / ".lock").touch()
    (tmp_path / "r" / ".run.unfinished.json.4711").write_text("{")
    run_store.save_run(make_run(), tmp_path / "r")
    assert run_store.load_run(tmp_path / "r").spec == SPEC
