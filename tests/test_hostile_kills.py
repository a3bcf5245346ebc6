"""Runs that are killed (SIGKILL) at random moments, and go on as if nothing had happened."""

import multiprocessing
import random
import time

import pytest

pytest.importorskip("torch")

import hostile_runs

from mingmoe_eval import run_store
from mingmoe_eval.errors import RunStoreError

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hostile_runs"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    # The first process also waits for the server's imports: a run would take longer in it.
    join(PROCESSES.Process(target=hostile_runs.quieten))
    started = time.monotonic()
    finish(folder)
    return run_store.load_run(folder), time.monotonic() - started


def finish(folder):
    join(PROCESSES.Process(target=hostile_runs.run_or_go_on, args=(folder,)))


def join(process):
    process.start()
    process.join(300)
    assert process.exitcode == 0


def kill_after(folder, seconds):
    """Whether the process was still at work when it was killed."""
    process = PROCESSES.Process(target=hostile_runs.run_or_go_on, args=(folder,))
    process.start()
    process.join(seconds)
    at_work = process.is_alive()
    process.kill()
    process.join()
    return at_work


def refuse_half_a_run(folder):
    """A killed run is either nothing that can be loaded, or all of it."""
    if not (folder / "run.json").exists():
        with pytest.raises(RunStoreError, match=r"unfinished run|not a run folder"):
            run_store.load_run(folder)
    else:
        run_store.load_run(folder)


def kill_and_go_on(folder, whole, moments):
    reference, _ = whole
    killed = 0
    for seconds in moments:
        killed += kill_after(folder, seconds)
        refuse_half_a_run(folder)
    finish(folder)
    run = run_store.load_run(folder)
    assert without_time(run.results) == without_time(reference.results)
    assert {task: list(found) for task, found in run.samples.items()} == reference.samples
    hidden = [path.name for path in folder.rglob(".*")]
    left = [
        path.name for path in folder.iterdir() if path.suffix not in ("", ".json", ".html", ".yaml")
    ]
    assert (hidden, left) == ([], [])
    return killed


def without_time(results):
    return {task: {**result.to_json(), "seconds": None} for task, result in results.items()}


def test_a_run_killed_three_times_ends_as_if_it_had_not_been(tmp_path, whole):
    rng = random.Random(1)
    moments = [rng.uniform(0, whole[1]) for _ in range(3)]
    kill_and_go_on(tmp_path / "r", whole, moments)


@pytest.mark.soak
def test_fifty_runs_killed_at_random_moments_end_as_if_they_had_not_been(tmp_path, whole):
    rng = random.SystemRandom()
    killed = 0
    for number in range(50):
        moment = rng.uniform(0, whole[1])
        killed += kill_and_go_on(tmp_path / f"r{number}", whole, [moment])
    # The rest were done before their moment came.
    assert killed >= 25
    print(f"{killed} of 50 runs were at work when they were killed")


def test_a_second_process_in_the_same_folder_is_refused_and_harms_nothing(tmp_path, whole):
    folder = tmp_path / "r"
    first = PROCESSES.Process(target=hostile_runs.run_or_go_on, args=(folder,))
    first.start()
    deadline = time.monotonic() + 120
    while not (folder / "run.unfinished.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with (
        pytest.raises(RunStoreError, match="another process is writing"),
        run_store.claim(folder, resume=True),
    ):
        pass
    # Not told to resume what is being written.
    with (
        pytest.raises(RunStoreError, match="another process is writing"),
        run_store.claim(folder),
    ):
        pass
    first.join(300)
    assert first.exitcode == 0
    assert run_store.load_run(folder).samples == whole[0].samples
