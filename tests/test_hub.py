import json

from mingmoe_eval.hub import HubSet, read_hub


def test_records_are_read_and_an_unknown_commit_is_not_invented(tmp_path):
    """A folder stands in for the hub: `datasets` reads both, and a folder has no commit."""
    records = [{"question": "a", "choices": ["x", "y"]}, {"question": "b", "choices": ["z"]}]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "test.jsonl").write_text(lines)
    assert read_hub(HubSet(id=str(tmp_path), split="test")) == (records, None)
    by_file = HubSet(id=str(tmp_path), split="train", files="test.jsonl")
    assert read_hub(by_file) == (records, None)


def test_a_hub_set_is_called_by_what_is_downloaded():
    assert str(HubSet(id="o/n", split="test", config="c")) == "o/n/c/test"
    assert str(HubSet(id="o/n", split="train", files="d/val.json")) == "o/n/d/val.json"
