import json
import math

import pytest

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.records import (
    Counts,
    MetricValue,
    Response,
    Run,
    RunSpec,
    Sample,
    TaskResult,
    fingerprint,
)

SAMPLE = Sample(
    task="usmle",
    doc_id="d1",
    position=0,
    doc={"question": "q"},
    prompt="q?",
    expected="A",
    response="B",
    answered="B",
    score=0.0,
)
RESULT = TaskResult(
    task="usmle",
    main_metric="score",
    metrics={"score": MetricValue(value=0.5, n=2, interval=(0.1, 0.9), interval_method="wilson")},
    counts=Counts(docs=2, unanswered=1),
    breakdowns={"step": {"step1": MetricValue(value=1.0, n=1)}},
    notes=("300 of 1,273 rows",),
)


@pytest.mark.parametrize(
    "record",
    [
        RunSpec(model="m", tasks=("usmle", "mcmle"), limit=3),
        SAMPLE,
        RESULT,
        MetricValue(value=0.25, n=4, interval=(0.0, 1.0)),
    ],
)
def test_a_record_survives_json(record):
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_field_of_another_version_is_refused_by_name():
    with pytest.raises(RunStoreError, match="no field 'colour'"):
        RunSpec.from_json({"model": "m", "tasks": [], "colour": "red"})


def test_every_departure_from_the_benchmark_is_a_mark():
    spec = RunSpec(model="m", tasks=(), sample=True, limit=5, split="val", partial=True)
    assert spec.marks == ("invented sample", "first 5 docs", "split val", "partial")
    assert RunSpec(model="m", tasks=()).marks == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_non_finite_log_likelihood_makes_the_response_non_finite(bad):
    assert not Response(log_likelihoods=(-1.0, bad)).finite
    assert Response(log_likelihoods=(-1.0, -2.0)).finite
    assert Response(text="A").finite


@pytest.mark.parametrize(
    ("docs", "failed", "incomplete"),
    [(1000, 0, False), (1000, 1, False), (1000, 2, True), (10, 1, True), (0, 0, True)],
)
def test_a_run_is_incomplete_past_one_failed_doc_in_a_thousand(docs, failed, incomplete):
    counts = Counts(docs=docs, failed=failed)
    score = MetricValue(value=0.5, n=docs - failed)
    result = TaskResult(task="t", main_metric="score", metrics={"score": score}, counts=counts)
    run = Run(
        name="r",
        spec=RunSpec(model="m", tasks=("t",)),
        provenance={},
        results={"t": result},
        samples={},
    )
    assert bool(run.incomplete) == incomplete


def test_a_task_that_did_not_run_makes_the_run_incomplete():
    spec = RunSpec(model="m", tasks=("t",))
    run = Run(name="r", spec=spec, provenance={}, results={}, samples={}, missing_tasks=("usmle",))
    assert run.incomplete == ("usmle",)


def test_counts_add_up_field_by_field():
    total = Counts(docs=2, unanswered=1) + Counts(docs=3, truncated=2)
    assert total == Counts(docs=5, unanswered=1, truncated=2)


def test_a_fingerprint_does_not_depend_on_the_order_of_keys_and_takes_lone_surrogates():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("甲") != fingerprint("乙")
    assert len(fingerprint("\ud800")) == 16


def test_the_frames_hold_one_row_a_sample_and_one_row_a_metric():
    run = Run(
        name="r",
        spec=RunSpec(model="m", tasks=("usmle",)),
        provenance={},
        results={"usmle": RESULT},
        samples={"usmle": [SAMPLE]},
    )
    assert list(run.to_frame()["doc_id"]) == ["d1"]
    row = run.results_frame().iloc[0]
    assert (row.task, row.metric, row.value, row.low, row.high, row.n) == (
        "usmle",
        "score",
        0.5,
        0.1,
        0.9,
        2,
    )
