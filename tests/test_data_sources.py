import hashlib
import json

import pytest

from mingmoe_eval.data_sources import Docs, records_of
from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.hub import HubSet

HUB = HubSet(id="someone/set", split="test")


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def found(data_dir, *, folder="set", stems=("test",), **kwargs):
    return records_of(folder, stems, data_dir=str(data_dir), sample=False, **kwargs)


def test_records_come_with_line_numbers_path_and_sha_256(data_dir):
    path = data_dir / "set" / "test.jsonl"
    write(path, {"a": 1}, {"a": 2})
    source = found(data_dir)
    assert source.kind == "data-dir"
    assert source.path == str(path)
    assert source.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [row.number for row in source.rows] == [1, 2]
    assert source.records == [{"a": 1}, {"a": 2}]
    assert source.commit is None


def test_the_first_stem_that_exists_counts_before_the_suffix(data_dir):
    write(data_dir / "set" / "second.jsonl", {"a": 2})
    (data_dir / "set" / "first.csv").write_text("a\n1\n")
    assert found(data_dir, stems=("zeroth", "first", "second")).records == [{"a": "1"}]


def test_json_lines_win_over_csv_of_the_same_stem(data_dir):
    write(data_dir / "set" / "test.jsonl", {"a": 1})
    (data_dir / "set" / "test.csv").write_text("a\n2\n")
    assert found(data_dir).records == [{"a": 1}]


def test_a_third_party_folder_is_found_by_its_name(data_dir):
    write(data_dir / "someone" / "set" / "data" / "test-00000-of-00001.jsonl", {"a": 1})
    source = found(data_dir, folder=("set", "someone/set"), stems=("test", "data/test-*"))
    assert source.records == [{"a": 1}]


def test_brackets_in_official_file_names_stand_for_themselves(data_dir):
    write(data_dir / "set" / "exam_(Pharmacy_track)[1]?.jsonl", {"a": 1})
    assert found(data_dir, stems=("exam_(Pharmacy_track)[1]?",)).records == [{"a": 1}]
    assert found(data_dir, stems=("exam_(Pharmacy_track)[1]?*",)).records == [{"a": 1}]


def test_two_files_for_one_pattern_are_a_question_not_a_guess(data_dir):
    write(data_dir / "set" / "test-1.jsonl", {"a": 1})
    write(data_dir / "set" / "test-2.jsonl", {"a": 2})
    with pytest.raises(DataError, match=r"more than one file could be meant.*test-1.*test-2"):
        found(data_dir, stems=("test-*",))


def test_a_missing_file_tells_where_was_looked_what_is_there_and_the_ways_out(data_dir):
    write(data_dir / "set" / "train.jsonl", {"a": 1})
    with pytest.raises(MissingDataError) as caught:
        found(data_dir, stems=("test", "final"), hub=HUB)
    for expected in (
        str(data_dir),
        "set/test, set/final",
        ".jsonl, .json, .csv, .parquet",
        "the folder set holds train.jsonl",
        "--data-dir",
        "--sample",
        "someone/set/test",
    ):
        assert expected in str(caught.value)


def test_a_missing_folder_lists_the_folders_that_are_there(tmp_path):
    (tmp_path / "medqa").mkdir()
    with pytest.raises(MissingDataError, match="there is no folder set, only medqa"):
        found(tmp_path)


def test_many_files_are_counted_not_all_listed(data_dir):
    for number in range(25):
        (data_dir / "set" / f"{number:02}.txt").touch()
    with pytest.raises(MissingDataError, match=r"19\.txt and 5 more"):
        found(data_dir)


@pytest.mark.parametrize("name", ["nowhere", "nul\0byte", ""])
def test_a_data_dir_that_does_not_exist_is_refused(tmp_path, name):
    with pytest.raises(MissingDataError):
        records_of("set", ["test"], data_dir=str(tmp_path / "x" / name), sample=False)


@pytest.mark.parametrize("stem", ["../secret", "/etc/passwd"])
def test_no_name_leads_out_of_the_data_dir(data_dir, stem):
    write(data_dir / "secret.jsonl", {"a": 1})
    with pytest.raises((UsageError, MissingDataError)):
        found(data_dir, stems=(stem,))


def test_a_folder_called_like_the_file_is_passed_over(data_dir):
    (data_dir / "set" / "test.jsonl").mkdir()
    write(data_dir / "set" / "test.json", {"a": 1})
    assert found(data_dir).records == [{"a": 1}]


def test_an_empty_file_is_refused(data_dir):
    (data_dir / "set" / "test.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no records"):
        found(data_dir)


def test_local_data_and_the_sample_exclude_each_other(data_dir):
    with pytest.raises(UsageError, match="exclude each other"):
        records_of("set", ["test"], data_dir=str(data_dir), sample=True)


def test_a_sample_that_is_not_bundled_is_refused():
    with pytest.raises(MissingDataError, match="no sample is bundled for set"):
        records_of("set", ["test"], data_dir=None, sample=True)


def test_the_sample_says_that_it_is_one():
    source = records_of(
        "x", ["test"], data_dir=None, sample=True, sample_file="medmcqa/sample.jsonl"
    )
    assert source.kind == "sample"
    assert source.rows


def test_the_hub_is_read_only_when_nothing_else_is_asked_for(data_dir):
    asked = []

    def reader(hub):
        asked.append(hub)
        return [{"a": 1}], "c0ffee"

    source = records_of("set", ["test"], data_dir=None, sample=False, hub=HUB, hub_reader=reader)
    assert (source.kind, source.path, source.commit) == ("hub", "someone/set/test", "c0ffee")
    assert source.records == [{"a": 1}]
    assert asked == [HUB]
    with pytest.raises(MissingDataError):
        found(data_dir, hub=HUB, hub_reader=reader)
    assert asked == [HUB]


def test_downloading_is_announced(caplog):
    def reader(_):
        return [{"a": 1}], None

    records_of("set", ["test"], data_dir=None, sample=False, hub=HUB, hub_reader=reader)
    assert "downloading someone/set/test" in caplog.text


def test_the_fingerprint_of_hub_records_follows_their_content():
    def source(record):
        return records_of(
            "set",
            ["test"],
            data_dir=None,
            sample=False,
            hub=HUB,
            hub_reader=lambda _: ([record], None),
        )

    assert source({"a": 1, "b": 2}).fingerprint == source({"b": 2, "a": 1}).fingerprint
    assert source({"a": 1}).fingerprint != source({"a": 2}).fingerprint


def test_a_failed_download_names_the_way_out():
    def reader(_):
        raise ConnectionError("no network")

    with pytest.raises(MissingDataError, match=r"no network.*--data-dir DIR.*--sample"):
        records_of("set", ["test"], data_dir=None, sample=False, hub=HUB, hub_reader=reader)


def test_a_set_that_no_hub_has_asks_for_a_local_copy():
    with pytest.raises(MissingDataError, match=r"cannot be downloaded.*DIR/set/test\.jsonl"):
        records_of("set", ["test"], data_dir=None, sample=False)


def test_joined_sources_name_both_files_and_change_the_fingerprint(data_dir):
    write(data_dir / "set" / "test.jsonl", {"a": 1})
    write(data_dir / "set" / "key.jsonl", {"a": 2})
    one, other = found(data_dir), found(data_dir, stems=("key",))
    joined = one.joined_with(other, one.rows)
    assert joined.path == f"{one.path} + {other.path}"
    assert joined.fingerprint not in (one.fingerprint, other.fingerprint)


def test_docs_offer_their_fields_as_lm_eval_asks_for_them():
    docs = Docs([{"id": "1", "question": "?"}], notes=["a note"])
    assert list(docs.features.keys()) == ["id", "question"]
    assert docs.notes == ("a note",)
    assert docs.unusable == ()


def test_no_docs_have_no_fields():
    assert Docs().features == {}
