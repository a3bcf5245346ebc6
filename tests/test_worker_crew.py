"""Workers in threads: the answers of one process, whoever dies, hangs or sees another model."""

import threading

import numpy as np
import pytest
from scripted_backend import Script, computed, value_of
from test_routing_engine import assert_near, routed_model
from thread_workers import ThreadWorker, healthy
from tiny_language_models import exam_pairs, instances, make_tokenizer

from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.engine.backend import LocalBackend
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.errors import CheckpointError, MingMoeError
from mingmoe_eval.workers.crew import Crew

PAIRS = [EncodedPair(np.array([*range(20), n % 7, n, n * n % 90], np.int32), 1) for n in range(200)]


ONE_AT_A_TIME = threading.Lock()  # random weights come from a generator that threads share


def load_routed():
    tokenizer = make_tokenizer()
    with ONE_AT_A_TIME:
        return LocalBackend(routed_model(), tokenizer), "tokenizer"


@pytest.fixture
def crews():
    """Makes crews that end with the test."""
    made = []

    def make(spawn, workers=2, **options):
        made.append(Crew(spawn, workers, **options))
        return made[-1]

    yield make
    for crew in made:
        crew.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pilot")]


def score_all(crew, pairs=PAIRS):
    got = {}
    for some in crew.score(pairs, None):
        assert not got.keys() & {index for index, _ in some}
        got.update(some)
    assert [got[n].log_likelihood for n in range(len(pairs))] == [value_of(p.tokens) for p in pairs]


TEXTS = [(f"题目{n % 5}：{n * 31}？", {"until": ["a"], "max_gen_toks": 8}) for n in range(12)]
# The same prompt twice: its draws differ by how often it was asked.
DRAWN = [(f"题目{n % 4}", {"max_gen_toks": 8, "temperature": 1.0, "seed": 7}) for n in range(8)]


def test_answers_and_routing_equal_those_of_one_process(crews):
    tokenizer = make_tokenizer()
    alone = CheckpointLM.from_loaded(routed_model(), tokenizer)
    crew = CheckpointLM.from_backend(crews(healthy(load_routed)), tokenizer)
    asked = instances("loglikelihood", exam_pairs())
    expected, got = alone.loglikelihood(asked), crew.loglikelihood(asked)
    assert [value for value, _ in got] == pytest.approx([v for v, _ in expected], abs=1e-5)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]
    for texts in (TEXTS, DRAWN):
        asked = instances("generate_until", texts)
        assert crew.generate_until(asked) == alone.generate_until(asked)
    whole = instances("loglikelihood_rolling", [("the patient has a fever",), ("咳嗽",)])
    assert crew.loglikelihood_rolling(whole) == pytest.approx(alone.loglikelihood_rolling(whole))
    assert_near(crew.routing["tasks"], alone.routing["tasks"])
    assert crew.take_usage() == alone.take_usage()
    assert crew.describe()["weights_fingerprint"] == alone.describe()["weights_fingerprint"]


def test_answers_of_a_crew_are_those_of_one_process_in_the_store(crews, tmp_path):
    tokenizer, store = make_tokenizer(), tmp_path / "store"
    asked = instances("loglikelihood", exam_pairs())
    crew = CheckpointLM.from_backend(crews(healthy(load_routed)), tokenizer, store=store)
    crew.loglikelihood(asked)
    alone = CheckpointLM.from_loaded(routed_model(), tokenizer, store=store)
    alone.loglikelihood(asked)
    assert all(usage.from_store for usage in alone.take_usage().values())
    assert_near(alone.routing["tasks"], crew.routing["tasks"])


def test_progress_is_told_over_all_workers(crews):
    told = []
    lm = CheckpointLM.from_backend(
        crews(healthy(load_routed)),
        make_tokenizer(),
        on_progress=lambda done, total: told.append((done, total)),
    )
    asked = instances("loglikelihood", exam_pairs())
    lm.loglikelihood(asked)
    assert told == sorted(told)
    assert told[-1] == (len(asked), len(asked))


def test_a_dead_worker_costs_what_it_had_not_told(crews, tmp_path):
    script, notes, spawned = Script(tmp_path / "log"), [], []

    def spawn(worker):
        first = not spawned
        spawned.append(worker)
        return ThreadWorker(script, pieces_until_death=5 if first else None)

    crew = crews(spawn, 1, on_note=notes.append)
    score_all(crew)
    account = crew.describe()["workers"]
    assert account["deaths"] == 1
    # Of its shard five answers had come; the sixth was computed and not told.
    assert len(computed(tmp_path / "log")) == len(PAIRS) + 1
    assert account["handed_out"] == len(PAIRS) + account["returned"]
    assert spawned == [0, 0]
    (note,) = notes
    assert "died, its unfinished questions go to others: killed" in note


def test_workers_that_always_die_at_last_get_all_done(crews, tmp_path):
    crew = crews(lambda n: ThreadWorker(Script(tmp_path / "log"), pieces_until_death=7), 3)
    score_all(crew)
    assert crew.describe()["workers"]["deaths"] >= len(PAIRS) // 7 - 3


def test_workers_that_die_before_any_answer_are_given_up(crews, tmp_path):
    crew = crews(lambda n: ThreadWorker(Script(tmp_path / "log"), pieces_until_death=0))
    with pytest.raises(MingMoeError, match="6 workers died without giving an answer"):
        score_all(crew)


def test_a_question_that_kills_its_worker_stops_the_run_when_the_others_are_done(crews, tmp_path):
    deadly = value_of(PAIRS[3].tokens)

    class Deadly(Script):
        def __call__(self):
            backend, tokenizer = super().__call__()
            whole = backend.score

            def score(pairs, on_routing):
                for some in whole(pairs, on_routing):
                    if some[0][1].log_likelihood == deadly:
                        raise ZeroDivisionError
                    yield some

            backend.score = score
            return backend, tokenizer

    got = {}

    def keep(some):
        got.update(some)

    crew = crews(healthy(Deadly(tmp_path / "log")))
    with pytest.raises(MingMoeError, match="workers in a row failed with ZeroDivisionError"):
        list(map(keep, crew.score(PAIRS, None)))
    assert 3 not in got
    assert len(got) > 0.75 * len(PAIRS)


def test_a_worker_that_hangs_does_not_stop_the_others(crews, tmp_path):
    script, made = Script(tmp_path / "log"), []

    def spawn(worker):
        made.append(ThreadWorker(script, hangs=worker == 0))
        return made[-1]

    crew = crews(spawn)
    # The first call may end before the one that hangs is there to be given anything.
    while not crew.describe()["workers"]["copied"]:
        score_all(crew)
    assert crew.describe()["workers"]["deaths"] == 0
    # It is told that nobody waits for it, and the next call does without it.
    assert any(worker.stopped for worker in made)
    score_all(crew)


def test_a_straggler_s_questions_go_to_who_is_idle(crews, tmp_path):
    log = tmp_path / "log"
    script = Script(log, seconds=0.001, slow_file=tmp_path / "slow", slow_seconds=0.5)
    crew = crews(healthy(script), 2)
    while len(crew.processes) < 2:
        score_all(crew)
    draw = np.random.default_rng(0)
    long = [EncodedPair(draw.integers(0, 99, 90).astype(np.int32), 1) for _ in range(200)]
    score_all(crew, long)
    account = crew.describe()["workers"]
    # By itself the slow one would take half a second for each question of its shard.
    assert account["copied"] > 0
    assert account["deaths"] == 0
    assert account["returned"] == 0


def test_a_call_that_is_given_up_leaves_nothing_to_the_next(crews, tmp_path):
    crew = crews(healthy(Script(tmp_path / "log", seconds=0.002)))
    next(crew.score(PAIRS, None))
    other = [EncodedPair(pair.tokens + 1, 1) for pair in PAIRS]
    score_all(crew, other)


def test_a_crew_works_with_those_that_can_load_the_model(crews, tmp_path):
    notes = []
    good, bad = Script(tmp_path / "log"), Script(tmp_path / "log", refusal="no such folder")
    crew = crews(lambda n: ThreadWorker(bad if n == 1 else good), 3, on_note=notes.append)
    score_all(crew)
    assert notes == ["worker 1 is left out: no such folder"]


def test_a_checkpoint_that_no_worker_can_load_is_the_user_s_mistake(crews, tmp_path):
    with pytest.raises(CheckpointError, match=r"^no such folder$"):
        crews(healthy(Script(tmp_path / "log", refusal="no such folder")))


def test_workers_that_see_other_weights_are_never_mixed(crews, tmp_path):
    scripts = [Script(tmp_path / "log", seconds=0.01, weights=w) for w in ("one", "other")]
    with pytest.raises(CheckpointError, match=r"(?s)see different models.*weights: o\w+ against"):
        score_all(crews(lambda n: ThreadWorker(scripts[n])))


def test_a_mistake_of_the_user_s_in_the_middle_is_told_as_such(crews, tmp_path):
    class Refusing(Script):
        def __call__(self):
            backend, tokenizer = super().__call__()

            def score(pairs, on_routing):
                raise CheckpointError("token id 400, the model knows 384")
                yield

            backend.score = score
            return backend, tokenizer

    with pytest.raises(CheckpointError, match=r"^token id 400"):
        score_all(crews(healthy(Refusing(tmp_path / "log"))))


def test_a_bug_in_a_worker_is_told_with_its_text(crews, tmp_path):
    with pytest.raises(MingMoeError, match=r"\d workers in a row failed with .*a bug in a worker"):
        score_all(crews(healthy(Script(tmp_path / "log", raises=True))))


def test_no_place_for_any_worker_is_told(tmp_path):
    with pytest.raises(MingMoeError, match=r"no place for a worker in 0 seconds. It needs 4 GPU"):
        Crew(
            lambda n: ThreadWorker(Script(tmp_path / "log"), placed=False),
            2,
            place_seconds=0.1,
            waits_for="It needs 4 GPU",
        )
