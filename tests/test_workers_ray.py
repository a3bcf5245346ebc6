"""Workers on a real Ray cluster of several nodes on this machine; some are killed on the way."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("ray")

from ray_nodes import add_node, cluster_of, workers_of
from scripted_backend import Script, computed, value_of
from test_routing_engine import assert_near
from test_run_command import checkpoint, own_cache, run_named  # noqa: F401 (fixtures)
from tiny_language_models import exam_pairs, instances, make_tokenizer

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.backend import Checkpoint
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.run_store import load_run
from mingmoe_eval.workers.ray_cluster import Places

PAIRS = [EncodedPair(np.array([*range(20), n % 7, n, n * n % 90], np.int32), 1) for n in range(300)]


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as made:
        yield made


def score_with(crew, *disturbances):
    """All answers; each (how many, what) happens once so many are there."""
    got, waiting = {}, list(disturbances)
    for some in crew.score(PAIRS, None):
        got.update(some)
        while waiting and len(got) >= waiting[0][0]:
            waiting.pop(0)[1](set(got))
    assert not waiting
    values = [got[n].log_likelihood for n in range(len(PAIRS))]
    assert values == [value_of(pair.tokens) for pair in PAIRS]


def test_a_run_over_two_nodes_equals_one_process(tmp_path, cluster, checkpoint):  # noqa: F811
    tasks = "usmle,usmle_ll"
    assert run_named(tmp_path, "one", checkpoint, "--no-cache", tasks=tasks) == 0
    there = ("--workers", "2", "--ray-address", cluster.address, "--no-cache")
    assert run_named(tmp_path, "many", checkpoint, *there, tasks=tasks) == 0
    one, many = (load_run(tmp_path / name) for name in ("one", "many"))
    for task, samples in one.samples.items():
        for a, b in zip(samples, many.samples[task], strict=True):
            assert (a.doc_id, a.answered, a.response, a.score) == (
                b.doc_id,
                b.answered,
                b.response,
                b.score,
            )
            assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-5)
    assert_near(many.routing["tasks"], one.routing["tasks"])
    (mine, theirs) = (run.provenance["model"] for run in (one, many))
    assert mine["weights_fingerprint"] == theirs["weights_fingerprint"]
    assert theirs["workers"]["workers"] == 2
    assert one.spec == many.spec


def test_a_killed_worker_of_a_mixture_changes_no_answer_and_no_count(
    tmp_path,
    cluster,
    checkpoint,  # noqa: F811
):
    asked = instances("loglikelihood", exam_pairs() * 3)
    for number, request in enumerate(asked):
        request.arguments = (f"{number} {request.args[0]}", request.args[1])
    place = Checkpoint(model=str(checkpoint), dtype="float32", device="cpu", batch_size=1)
    alone = CheckpointLM(checkpoint, dtype="float32", device="cpu")
    expected = alone.loglikelihood(asked)
    notes, killed = [], []

    def kill(done, total):
        if done > 20 and not killed:
            # Of those that are there: the other may still be loading.
            killed.append(next(iter(crew.processes.values()))[1])
            os.kill(killed[0], signal.SIGKILL)

    with workers_of(cluster, 2) as ray:
        crew = ray.crew(place, notes.append)
        lm = CheckpointLM.from_backend(crew, make_tokenizer(), on_progress=kill)
        got = lm.loglikelihood(asked)
    assert killed
    assert [value for value, _ in got] == pytest.approx([v for v, _ in expected], abs=1e-5)
    assert_near(lm.routing["tasks"], alone.routing["tasks"])


def test_a_killed_worker_and_a_lost_node_cost_only_what_was_not_told(tmp_path, cluster):
    notes, log, told = [], tmp_path / "log", set()
    node = add_node(cluster)
    with workers_of(cluster, 3) as ray:
        crew = ray.crew(Script(log, seconds=0.02), notes.append)

        def kill(answered):
            told.update(answered)
            os.kill(computed(log)[-1][0], signal.SIGKILL)

        def remove(answered):
            told.update(answered)
            cluster.remove_node(node, allow_graceful=False)
            add_node(cluster)

        score_with(crew, (40, kill), (120, remove))
        account = crew.describe()["workers"]
    assert 1 <= account["deaths"] == len(notes) <= 2  # the node may have had nobody to lose
    assert any("its worker process has died" in note for note in notes)
    values = [value for _, value in computed(log)]
    assert all(values.count(value_of(PAIRS[n].tokens)) == 1 for n in told)
    # Each took a quarter of a second of work with it; some at the end is done by two.
    assert len(values) < 1.4 * len(PAIRS)


def test_a_checkpoint_that_does_not_load_is_one_clear_mistake(tmp_path, cluster):
    with (
        workers_of(cluster, 1) as ray,
        pytest.raises(CheckpointError, match=r"^no weights in ckpt$"),
    ):
        ray.crew(Script(tmp_path / "log", refusal="no weights in ckpt"), lambda note: None)


def test_rays_account_of_a_node_says_what_the_door_asks_of_it(cluster):
    import ray

    from mingmoe_eval.workers.ray_cluster import OF_A_NODE, connected

    with connected(Places(workers=1, address=cluster.address)):
        nodes = ray.nodes()
    assert {name for name in OF_A_NODE for node in nodes if name in node} == set(OF_A_NODE)


def test_more_gpus_than_any_machine_has_are_refused(cluster):
    places = Places(workers=1, address=cluster.address, gpus_per_worker=4)
    from mingmoe_eval.workers.ray_cluster import connected

    with pytest.raises(UsageError, match="--gpus-per-worker 4: no machine"), connected(places):
        pass


@pytest.mark.slow
def test_workers_on_this_machine_end_with_the_run(tmp_path, checkpoint):  # noqa: F811
    arguments = ["--tasks", "usmle_ll", "--model", str(checkpoint), "--sample", "--limit", "4"]
    arguments += ["--output", str(tmp_path), "--workers", "2", "--no-cache", "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "mingmoe_eval", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{")
    left = subprocess.run(["pgrep", "-f", f"ray.*{tmp_path}"], capture_output=True, check=False)
    assert left.stdout == b""
