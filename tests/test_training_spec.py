"""What a training may be asked for, and what is refused before anything loads."""

import dataclasses
import json
from pathlib import Path

import pytest

from mingmoe_eval.errors import UsageError
from mingmoe_eval.training.spec import (
    OBJECTIVES,
    AdapterShape,
    DataStream,
    RouterObjective,
    Schedule,
    TrainingSpec,
)

SPEC = TrainingSpec(base="org/base", data=(DataStream(Path("a.jsonl")),))


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("a.jsonl", "a.jsonl", None),
        ("a.jsonl=0.5", "a.jsonl", 0.5),
        ("x=y.jsonl", "x=y.jsonl", None),
        ("x=y.jsonl=2", "x=y.jsonl", 2.0),
    ],
)
def test_a_stream_is_a_file_with_or_without_a_weight(text, path, weight):
    assert DataStream.parse(text) == DataStream(Path(path), weight)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_a_weight_is_above_zero(weight):
    with pytest.raises(UsageError, match="a weight must be above 0"):
        DataStream.parse(f"a.jsonl={weight}")


def test_every_method_makes_sense_with_its_own_objective():
    for method, objective in OBJECTIVES.items():
        dataclasses.replace(SPEC, method=method, objective=objective).check()
    assert OBJECTIVES["molora"].coefficients == {}
    assert OBJECTIVES["molora-balanced"].coefficients == {"balance": 1e-2, "z": 1e-3}
    assert OBJECTIVES["molora-contrastive"].coefficients == {"contrast": 1e-2}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "qlora"}, "no method 'qlora'"),
        ({"data": ()}, "no data"),
        ({"data": (*SPEC.data, DataStream(Path("b"), 1.0))}, "every --data has a weight or none"),
        ({"shape": AdapterShape(num_experts=1)}, "1 expert is no mixture"),
        ({"shape": AdapterShape(experts_per_token=1)}, "gives the router no gradient"),
        ({"shape": AdapterShape(experts_per_token=5)}, "from 2 to 4, not 5"),
        ({"shape": AdapterShape(rank=0)}, "rank must be at least 1"),
        ({"shape": AdapterShape(alpha=0)}, "alpha must be above 0"),
        ({"max_tokens": 1}, "max-tokens must be at least 2"),
        ({"objective": RouterObjective(balance=-1)}, "must not be negative"),
        ({"objective": RouterObjective(temperature=0)}, "temperature must be above 0"),
        ({"objective": RouterObjective(queue=0)}, "queue must be at least 1"),
        ({"method": "lora", "objective": RouterObjective(z=1)}, "no routers, so no use for z"),
        ({"schedule": Schedule(steps=0)}, "steps must be at least 1"),
        ({"schedule": Schedule(learning_rate=0)}, "learning rate must be above 0"),
        ({"schedule": Schedule(epochs=float("nan"))}, "epochs must be above 0"),
        ({"schedule": Schedule(warmup=1)}, "warmup is a share"),
        ({"schedule": Schedule(log_every=3)}, "save-every (500) must be a multiple"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, told):
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(SPEC, **changes).check()
    assert told in str(caught.value)


def test_all_offences_are_told_at_once():
    spec = dataclasses.replace(SPEC, data=(), max_tokens=0, schedule=Schedule(batch_size=0))
    with pytest.raises(UsageError) as caught:
        spec.check()
    assert str(caught.value).count("\n  - ") == 3


def test_a_spec_is_plain_json():
    data = json.loads(json.dumps(SPEC.to_json()))
    assert data["data"] == [{"path": "a.jsonl", "weight": None}]
    assert data["shape"]["num_experts"] == 4
