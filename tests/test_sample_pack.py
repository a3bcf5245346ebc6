import base64
import dataclasses
import json
import zlib

import pytest
from report_runs import exam_run, exam_samples, guessing

from mingmoe_eval.report.sample_pack import (
    FAILED,
    FLIPPED,
    TRUNCATED,
    UNANSWERED,
    pack_samples,
    pair_docs,
)

PLENTY = 10_000_000
CHUNK, PLACE = -2, -1


def always(letter, response="好"):
    return lambda number: (letter, response)


def runs_of(*replies, docs=4):
    return [exam_run(f"r{n}", {"t": exam_samples("t", docs, r)}) for n, r in enumerate(replies)]


def record(pack, row):
    chunk = json.loads(zlib.decompress(base64.b64decode(pack.chunks[row[CHUNK]])))
    return chunk[row[PLACE]]


def test_docs_pair_by_content_whatever_their_order():
    first, second = runs_of(always("A"), always("B"))
    turned = dataclasses.replace(second, samples={"t": second.samples["t"][::-1]})
    for doc in pair_docs([first, turned], 0):
        assert doc.samples[0].doc_id == doc.samples[1].doc_id


def test_a_doc_that_occurs_twice_is_paired_in_order():
    (run,) = runs_of(always("A"), docs=1)
    twice = dataclasses.replace(run, samples={"t": [*run.samples["t"], *run.samples["t"]]})
    assert [len(doc.samples) for doc in pair_docs([twice, twice], 0)] == [2, 2]


def test_a_doc_that_a_run_lacks_has_no_sample_there():
    first, second = runs_of(always("A"), always("A"))
    short = dataclasses.replace(second, samples={"t": second.samples["t"][:3]})
    assert [doc.samples[1] is None for doc in pair_docs([first, short], 0)] == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"score": 0.0, "answered": "B"}, FLIPPED),
        ({"score": 0.0, "answered": None, "status": "unanswered"}, FLIPPED | UNANSWERED),
        ({"score": None, "status": "failed"}, FAILED),
        ({"finish": "length"}, TRUNCATED),
        ({"prompt_truncated": True}, TRUNCATED),
        ({}, 0),
    ],
)
def test_flags_say_what_happened(change, flag):
    first, second = runs_of(always("A"), always("A"), docs=1)
    changed = [dataclasses.replace(second.samples["t"][0], **change)]
    (doc,) = pair_docs([first, dataclasses.replace(second, samples={"t": changed})], 0)
    assert doc.flags == flag


def test_a_record_holds_prompt_gold_reading_and_each_response():
    docs = pair_docs(runs_of(always("A", "是A"), always("B", "是B")), 0)
    pack = pack_samples(docs, withheld_tasks=(), budget=PLENTY)
    one = record(pack, pack.index["rows"][0])
    assert one["prompts"] == [docs[0].first.prompt]
    assert one["expected"] == "A"
    assert [run["response"] for run in one["runs"]] == ["是A", "是B"]
    assert [run["reading"] for run in one["runs"]] == ["an answer cue"] * 2


def test_different_prompts_are_kept_apart():
    first, second = runs_of(always("A"), always("A"), docs=1)
    other = [dataclasses.replace(second.samples["t"][0], prompt="另一个提示")]
    docs = pair_docs([first, dataclasses.replace(second, samples={"t": other})], 0)
    pack = pack_samples(docs, withheld_tasks=(), budget=PLENTY)
    one = record(pack, pack.index["rows"][0])
    assert len(one["prompts"]) == 2
    assert [run["prompt"] for run in one["runs"]] == [0, 1]


def test_withheld_tasks_leave_no_question_no_gold_and_no_response():
    docs = pair_docs(runs_of(always("A", "机密回答")), 0)
    pack = pack_samples(docs, withheld_tasks={"t"}, budget=PLENTY)
    assert pack.chunks == []
    assert "机密" not in json.dumps(pack.index, ensure_ascii=False)
    assert [row[2:4] for row in pack.index["rows"]] == [["", ""]] * 4
    assert [row[4] for row in pack.index["rows"]] == [[1.0]] * 4


def test_when_all_does_not_fit_notable_docs_come_first_and_the_share_is_known():
    reply = guessing(3, 0.95)
    noise = [f"{n:064x}" * 40 for n in range(2000)]
    runs = runs_of(lambda n: ("A", noise[n]), lambda n: (reply(n)[0], noise[n][::-1]), docs=2000)
    docs = pair_docs(runs, 0)
    pack = pack_samples(docs, withheld_tasks=(), budget=160_000)
    held = [row[CHUNK] >= 0 for row in pack.index["rows"]]
    notable = [doc.flags > 0 for doc in docs]
    assert all(h for h, n in zip(held, notable, strict=True) if n)
    assert pack.notable == sum(notable) < pack.held == sum(held) < pack.total == 2000


def test_texts_are_cut_to_head_and_tail_only_where_whole_ones_would_not_fit():
    import random

    rng = random.Random(0)
    long = ["".join(rng.choices("一二三四五六七八九十", k=30_000)) + "答案是B" for _ in range(20)]
    runs = runs_of(always("A"), lambda n: ("B", long[n]), docs=20)
    roomy = pack_samples(pair_docs(runs, 0), withheld_tasks=(), budget=PLENTY)
    tight = pack_samples(pair_docs(runs, 0), withheld_tasks=(), budget=100_000)
    assert roomy.text_limit is None
    assert (tight.text_limit, tight.held) == (4_000, 20)
    assert record(tight, tight.index["rows"][0])["runs"][1]["response"].endswith("答案是B")
    assert sum(map(len, tight.chunks)) <= 100_000


def test_the_question_is_taken_from_the_doc_else_from_the_end_of_the_prompt():
    (run,) = runs_of(always("A"), docs=1)
    bare = dataclasses.replace(run.samples["t"][0], doc={"x": 1}, prompt="指令" * 500 + "尾")
    docs = pair_docs([run, dataclasses.replace(run, samples={"t": [bare]})], 0)
    assert "第0题" in pack_samples(docs, withheld_tasks=(), budget=PLENTY).index["rows"][0][2]
    docs = pair_docs([dataclasses.replace(run, samples={"t": [bare]})], 0)
    question = pack_samples(docs, withheld_tasks=(), budget=PLENTY).index["rows"][0][2]
    assert question.endswith("尾")
    assert len(question) == 80
