import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer, answer_key
from mingmoe_eval.errors import RunStoreError

IDS = np.array([5, 6, 7], np.int32)
LETTER = StoredAnswer(log_likelihood=-0.1234567890123456789, greedy=True)
TEXT = StoredAnswer(text="患者\x00 \ud800", generated_tokens=7, finish="length")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "responses.sqlite"


def key(number):
    return answer_key("model", np.array([number], np.int32), {})


def test_answers_come_back_bit_for_bit_in_another_process_s_store(path):
    first = ResponseStore(path)
    first.put([(key(1), LETTER), (key(2), TEXT)])
    assert ResponseStore(path).get([key(1), key(2), key(3)]) == {key(1): LETTER, key(2): TEXT}


@pytest.mark.parametrize(
    "other",
    [
        ("other model", IDS, {"last": 1}),
        ("model", np.array([5, 6, 8], np.int32), {"last": 1}),
        ("model", np.array([5, 6], np.int32), {"last": 1}),
        ("model", IDS, {"last": 2}),
        ("model", IDS, {"last": 1, "stop": ["\n"]}),
    ],
)
def test_a_key_depends_on_model_ids_and_what_was_asked(other):
    assert answer_key("model", IDS, {"last": 1}) != answer_key(*other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_never_stored(path, value):
    store = ResponseStore(path)
    store.put([(key(1), StoredAnswer(log_likelihood=value)), (key(2), LETTER)])
    assert store.get([key(1), key(2)]) == {key(2): LETTER}


def test_more_keys_than_a_query_takes_are_all_found(path):
    store = ResponseStore(path)
    answers = {key(n): StoredAnswer(log_likelihood=-float(n)) for n in range(1700)}
    store.put(answers.items())
    assert store.get(list(answers)) == answers
    assert len(store) == 1700


def test_a_row_whose_number_was_altered_counts_as_not_there(path):
    store = ResponseStore(path)
    store.put([(key(1), LETTER)])
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answers SET answer = '[-9.0, true]'")
    assert ResponseStore(path).get([key(1)]) == {}


def test_another_program_s_database_is_refused_and_left_alone(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE answers (key, answer)")
    before = path.read_bytes()
    with pytest.raises(RunStoreError, match="no response store of mingmoe-eval; name another"):
        ResponseStore(path)
    assert path.read_bytes() == before


def test_a_store_of_another_schema_is_refused(path):
    ResponseStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(RunStoreError, match=r"schema 99.*move it away"):
        ResponseStore(path)


def test_a_file_that_is_no_database_is_refused_with_advice(path):
    path.parent.mkdir()
    path.write_text("not a database at all, but long enough to have a header" * 20)
    with pytest.raises(RunStoreError, match="damaged or of another kind; move it away"):
        ResponseStore(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_store_gives_right_answers_or_an_error_but_no_wrong_number(path, share):
    store = ResponseStore(path)
    answers = {key(n): StoredAnswer(log_likelihood=-float(n)) for n in range(3000)}
    store.put(answers.items())
    store.close()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    message, found = "", {}
    try:
        found = ResponseStore(path).get(list(answers))
    except RunStoreError as error:
        message = str(error)
    assert found.items() <= answers.items()
    assert found or "move it away" in message


def test_a_path_that_is_a_folder_is_refused_with_advice(tmp_path):
    with pytest.raises(RunStoreError, match=r"cannot open the response store.*name another place"):
        ResponseStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_with_advice(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStoreError, match="run without a store"):
        ResponseStore(tmp_path / "file" / "responses.sqlite")


FULL_DISK = """
import resource, sys, numpy as np
from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer, answer_key
from mingmoe_eval.errors import RunStoreError
store = ResponseStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for n in range(1000):
        key = answer_key("model", np.array([n], np.int32), {})
        store.put([(key, StoredAnswer(text="x" * 4000))])
except RunStoreError as error:
    print(n, error)
"""


def test_a_full_disk_says_so_and_keeps_what_is_stored(path):
    # A limit on file sizes stands for the disk: writes fail in the same place.
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stored, _, message = said.partition(" ")
    assert "free some space and run again: what was stored so far is kept" in message
    assert int(stored) > 10
    found = ResponseStore(path).get([key(n) for n in range(int(stored))])
    assert len(found) == int(stored)


def write_some(path, first, count):
    store = ResponseStore(path)
    for number in range(first, first + count):
        store.put([(key(number), StoredAnswer(log_likelihood=-float(number)))])


def test_processes_that_write_at_once_lose_nothing(path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_some, args=(path, n * 100, 100)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = ResponseStore(path).get([key(n) for n in range(300)])
    numbers = {k: answer.log_likelihood for k, answer in found.items()}
    assert numbers == {key(n): -float(n) for n in range(300)}


ENDLESS_WRITER = """
import sys, numpy as np
from mingmoe_eval.engine.response_store import ResponseStore, StoredAnswer, answer_key
store = ResponseStore(sys.argv[1])
for n in range(10**9):
    store.put([(answer_key("model", np.array([n], np.int32), {}), StoredAnswer(log_likelihood=-n))])
    print(n, flush=True)
"""


def test_what_was_stored_survives_a_kill(path):
    command = [sys.executable, "-c", ENDLESS_WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        reported = 0
        deadline = time.monotonic() + 60
        for line in writer.stdout:
            reported = int(line)
            if reported >= 200 or time.monotonic() > deadline:
                break
        os.kill(writer.pid, signal.SIGKILL)
        reported = int(([str(reported), *writer.stdout.read().split()])[-1])
    found = ResponseStore(path).get([key(n) for n in range(reported + 1)])
    assert len(found) == reported + 1
