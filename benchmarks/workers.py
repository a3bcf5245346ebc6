"""What a driver carries: questions and answers through Ray, with workers that compute nothing.

    python benchmarks/workers.py [--quick] [--workers 1 4 16 64] [--seconds-a-question 0.02]

Three figures. Packing: CPU time and bytes of a question on its way out and back, and of writing it
into the store, in one process. Driver: questions a second through a real Ray cluster on this
machine, with fake workers that answer at once (threads of four processes). They share the cores
with the driver, so its own CPU time stands beside it, and what that alone would be good for.
Paced: workers that take a stated time for a question, as GPUs do, and the share of what they could
answer that came through. Tokenisation and keys of the front are `overhead.py`'s.
"""

import os
import pickle
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from workload import common_arguments

from mingmoe_eval.engine.backend import Answers, ModelFacts
from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer, answer_key
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.routing.counts import RoutedLayer, RoutingCounts, layout_of
from mingmoe_eval.routing.record import RunRouting
from mingmoe_eval.workers.crew import Crew
from mingmoe_eval.workers.ledger import cut_into_shards
from mingmoe_eval.workers.packing import PackedQuestions, Piece, ReceivedCounts
from mingmoe_eval.workers.ray_cluster import Places, _Actor, connected
from mingmoe_eval.workers.worker import Worker

# A question of 115 tokens with four letters to score, as in the other benchmarks.
QUESTION_TOKENS = 115
OPTIONS = 4
PIECE = 64
# Processes that the fake workers share.
PROCESSES = 4


@dataclass(frozen=True)
class Fake:
    """A backend without a model; called in a worker, it opens it."""

    seconds: float

    def __call__(self) -> tuple["FakeBackend", str]:
        """Nothing to load."""
        return FakeBackend(self.seconds), "tokenizer"


class FakeBackend:
    """Answers `PIECE` questions at a time, after the time that they are to take."""

    facts = ModelFacts(longest_input=4096)
    weights_fingerprint = settings_fingerprint = "fake"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def score(self, pairs: Sequence[EncodedPair], on_routing: object) -> Answers:
        """The same answer to all."""
        answer = StoredAnswer(log_likelihood=-1.0)
        for first in range(0, len(pairs), PIECE):
            some = range(first, min(first + PIECE, len(pairs)))
            time.sleep(self.seconds * len(some))
            yield [(place, answer) for place in some]

    def generate(self, prompts: object, on_routing: object) -> Answers:
        """Never asked."""
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        """Nothing to say."""
        return {}

    def probe(self) -> None:
        """No adapter."""

    def close(self) -> None:
        """Nothing held."""


class Host:
    """Several workers in one process: on a small machine 64 processes would measure the machine."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}

    def open(self, index: int, seconds: float) -> object:
        """See `Worker`; it answers at this pace."""
        self.workers[index] = Worker(Fake(seconds))
        return self.workers[index].open()

    def work(self, index: int, number: int, questions: PackedQuestions) -> Iterator[object]:
        """See `Worker`."""
        yield from self.workers[index].work(number, questions)

    def stop(self, index: int, number: int) -> None:
        """See `Worker`."""
        if index in self.workers:
            self.workers[index].stop(number)


class Share:
    """One worker of a host, with the methods of an actor of its own."""

    def __init__(self, host: Any, index: int, seconds: float) -> None:
        self.open = Method(host.open, index, seconds)
        self.work, self.stop = Method(host.work, index), Method(host.stop, index)


class Method:
    """A host's method with its first arguments filled in."""

    def __init__(self, method: Any, *first: object) -> None:
        self.method, self.first = method, first

    def remote(self, *given: object) -> Any:
        """Call it."""
        return self.method.remote(*self.first, *given)

    def options(self, **options: object) -> "Method":
        """As for an actor's method."""
        return Method(self.method.options(**options), *self.first)


def main() -> None:
    parser = common_arguments(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds-a-question", type=float, default=0.02)
    options = parser.parse_args()
    size = 20_000 if options.quick else 100_000
    packing(size)
    routing()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    with connected(Places(workers=PROCESSES)):
        import ray

        kind = ray.remote(Host).options(num_cpus=0, max_concurrency=2 * max(options.workers))
        hosts = [kind.remote() for _ in range(PROCESSES)]
        for workers in options.workers:
            driver(hosts, workers, size, 0.0)
            a_worker = int(5 / options.seconds_a_question)
            driver(hosts, workers, min(size, workers * a_worker), options.seconds_a_question)


def exam(size: int) -> list[EncodedPair]:
    draw = np.random.default_rng(0)
    pairs = []
    for _ in range(size // OPTIONS):
        question = draw.integers(0, 150_000, QUESTION_TOKENS)
        pairs += [EncodedPair(np.append(question, n).astype(np.int32), 1) for n in range(OPTIONS)]
    return pairs


def packing(size: int) -> None:
    """One process, no Ray: bytes and CPU time of a question's way."""
    pairs = exam(size)
    began = process_time()
    shards = cut_into_shards([pair.tokens for pair in pairs], 64)
    cut = process_time() - began
    began = process_time()
    sent = [pickle.dumps(PackedQuestions.of_pairs([pairs[i] for i in s]), 5) for s in shards]
    pack = process_time() - began
    plain = sum(len(pair.tokens) * 4 for pair in pairs)
    answers = [(n, StoredAnswer(log_likelihood=-1.0 - n), None) for n in range(size)]
    began = process_time()
    back = [pickle.dumps(Piece.of(answers[n : n + PIECE]), 5) for n in range(0, size, PIECE)]
    told = [answer for data in back for answer in pickle.loads(data).answers()]
    unpack = process_time() - began
    assert len(told) == size
    keys = [answer_key("f", pair.tokens, {"n": 1}) for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        store = ResponseStore(Path(folder) / "responses.sqlite")
        began = perf_counter()
        for first in range(0, size, PIECE):
            some = range(first, min(first + PIECE, size))
            store.put([(keys[n], told[n][1]) for n in some])
        put = perf_counter() - began
        store.close()
    micro = 1e6 / size
    print(
        f"{size} questions of {QUESTION_TOKENS} tokens, {OPTIONS} options each, in {len(shards)} "
        f"shards:\n"
        f"  out {sum(map(len, sent)) / size:.0f} bytes a question (plain ids {plain / size:.0f}), "
        f"back {sum(map(len, back)) / size:.0f} in pieces of {PIECE}\n"
        f"  CPU a question: cut {cut * micro:.1f} us, pack {pack * micro:.1f}, answers "
        f"{unpack * micro:.1f}\n"
        f"  store: {size / put:.0f} answers written a second, {PIECE} a transaction",
        flush=True,
    )


def routing(size: int = 300) -> None:
    """What the counts of a mixture cost the driver: 24 layers, 3 linears each, 4 experts, K = 2."""
    layers = [
        RoutedLayer(f"layers.{layer}.mlp.{name}", 4, 2)
        for layer in range(24)
        for name in ("gate_proj", "up_proj", "down_proj")
    ]
    layout, draw = layout_of(layers), np.random.default_rng(0)
    values = [draw.uniform(0, 100, (2, layout.size)) for _ in range(size)]
    sent = [RoutingCounts(one, np.array([100.0, 1.0])).to_bytes() for one in values]
    sums = RunRouting(layout)
    began = process_time()
    for data in sent:
        counts = ReceivedCounts.of(data, layout)
        assert counts is not None
        sums.add("task", 0, counts)
        counts.to_bytes()
    own = process_time() - began
    print(
        f"  a mixture's routing: {sum(map(len, sent)) / size:.0f} bytes a question more, "
        f"{1e6 * own / size:.0f} us of CPU",
        flush=True,
    )


def driver(hosts: Sequence[Any], workers: int, size: int, seconds: float) -> None:
    """Through Ray, with the driver's own CPU time."""
    pairs = exam(size)

    def spawn(worker: int) -> _Actor:
        return _Actor(Share(hosts[worker % PROCESSES], worker, seconds))

    crew = Crew(spawn, workers)
    while len(crew.processes) < workers:
        list(crew.score(pairs[:1], None))
    with tempfile.TemporaryDirectory() as folder:
        store = ResponseStore(Path(folder) / "responses.sqlite")
        wall, own = perf_counter(), process_time()
        keys = [answer_key("f", pair.tokens, {"n": 1}) for pair in pairs]
        for some in crew.score(pairs, None):
            store.put([(keys[index], answer) for index, answer in some])
        wall, own = perf_counter() - wall, process_time() - own
        store.close()
    crew.close()
    pace = f", {seconds * 1e3:.0f} ms a question" if seconds else ""
    share = f", {100 * size * seconds / wall / workers:.0f} % of what they could" if seconds else ""
    print(
        f"{workers} workers{pace}: {size / wall:.0f} questions a second{share}; driver "
        f"{1e6 * own / size:.0f} us of CPU each, alone good for {size / own:.0f} a second",
        flush=True,
    )


if __name__ == "__main__":
    main()
