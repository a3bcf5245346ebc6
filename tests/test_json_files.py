"""What the one door for JSON lets in, and what it says of the rest."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import pytest

from mingmoe_eval.errors import DataError
from mingmoe_eval.json_files import (
    JsonFault,
    as_record,
    dumps,
    lone_surrogate,
    numbers,
    parse,
    parse_lines,
    read_object,
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1, "b": {"c": 2, "c": 3}}', "the key 'c' comes twice"),
        (b"[" * 101 + b"]" * 101, "nested more than 100 levels deep"),
        (b'{"a": ' * 101 + b"1" + b"}" * 101, "nested more than 100 levels deep"),
        (b"[" * 100_000, "nested more than 100 levels deep"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"1" * 5_000, "not JSON"),  # Python reads no whole number of more than 4,300 digits
        (b"{} {}", "not JSON: Extra data"),
    ],
)
def test_what_is_no_json_for_any_use_is_said(data, said):
    with pytest.raises(JsonFault, match=said):
        parse(data)


def test_depth_is_counted_in_levels_and_not_in_brackets():
    flat = [[1]] * 1_000
    assert parse(json.dumps(flat).encode()) == flat
    assert parse(b"[" * 100 + b"]" * 100)


def test_json_lines_are_numbered_and_each_bad_one_is_told():
    text = '\ufeff{"a": "x\u2028y"}\r\n\n   \n{oops\n[1, {"b": 1, "b": 2}]\n2'
    found = list(parse_lines(text.encode()))
    assert [number for number, _ in found] == [1, 4, 5, 6]
    assert found[0][1] == {"a": "x\u2028y"}
    assert str(found[1][1]).startswith("not JSON")
    assert "'b' comes twice" in str(found[2][1])
    assert found[3][1] == 2


def test_a_file_that_holds_no_object_is_named(tmp_path):
    file = tmp_path / "x.json"
    for text, said in (("[]", "is not a JSON object"), ("{", "cannot be read: not JSON")):
        file.write_text(text)
        with pytest.raises(DataError, match=said):
            read_object(file, DataError)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_object(tmp_path / "gone.json", DataError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    name: str
    kind: Literal["near", "far"] = "near"
    times: Annotated[int, msgspec.Meta(ge=0)] = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    pair: tuple[float, float] | None = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "Sight.name: Expected `str`, got `null`, None"),
        ({"kind": "middling"}, "Sight.kind: Invalid enum value 'middling'"),
        ({"kind": ["near"]}, "Sight.kind: Expected `str`, got `array`, ['near']"),
        ({"times": -1}, "Sight.times: Expected `int` >= 0, -1"),
        ({"times": True}, "Sight.times: Expected `int`, got `bool`, True"),
        ({"times": 1.0}, "Sight.times: Expected `int`, got `float`, 1.0"),
        ({"times": "1"}, "Sight.times: Expected `int`, got `str`, '1'"),
        ({"shares": {"a": "0.5"}}, "Sight.shares[...]: Expected `float`, got `str`, {'a': '0.5'}"),
        ({"shares": {"a": 10**400}}, "Sight.shares[...]: Number out of range, {'a': 1000"),
        ({"shares": []}, "Sight.shares: Expected `object`, got `array`, []"),
        ({"pair": [1.0, 2.0, 3.0]}, "Sight.pair: Expected `array` of length 2, got 3"),
        ({"colour": 1, "age": 2}, "Sight has no field 'age', 'colour': written by another version"),
    ],
)
def test_a_field_of_another_kind_is_named_with_its_value(change, said):
    with pytest.raises(JsonFault) as caught:
        as_record(Sight, {"name": "x", **change})
    assert said in str(caught.value)


def test_a_record_is_what_its_object_says():
    data = {"name": "x", "kind": "far", "times": 3, "shares": {"a": 1}, "pair": [1, 2.5]}
    sight = as_record(Sight, data)
    assert sight == Sight(name="x", kind="far", times=3, shares={"a": 1.0}, pair=(1.0, 2.5))
    assert isinstance(sight.shares["a"], float)
    for other in (None, 1, "x", [], [data]):
        with pytest.raises(JsonFault, match="Sight: Expected `object`"):
            as_record(Sight, other)


def test_words_stand_for_numbers_that_json_lacks():
    assert numbers(["inf", -1.0, "-inf", "0.5", True]) == [math.inf, -1.0, -math.inf, "0.5", True]
    assert math.isnan(numbers({"a": "nan"})["a"])
    assert math.isnan(numbers([None])[0])
    assert numbers("nan") == "nan"


def test_half_a_character_is_found_wherever_it_is():
    assert lone_surrogate({"a": [{"b": "x"}, "y"], "c": None}) is None
    assert lone_surrogate({"a": ["x", {"b": "\ud800"}]}) == "'a'.1.'b'"
    assert lone_surrogate({"a": {"\ud800": 1}}) == "'a'.'\\ud800'"
    assert lone_surrogate("\ud800") == "the value"


def test_what_is_written_is_strict_and_read_back():
    value = {"a": [math.nan, math.inf, -math.inf, 0.1], "b": "题\u2028\ud800"}
    text = dumps(value)
    assert json.loads(text.encode("utf-8")) == {
        "a": ["nan", "inf", "-inf", 0.1],
        "b": "题\u2028\ud800",
    }
    assert dumps({"题": 1}) == '{"题": 1}'
