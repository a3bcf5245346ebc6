"""Which records are conversations, and what is said of those that are not."""

import json

import pytest

from mingmoe_eval.errors import DataError, MissingDataError
from mingmoe_eval.training.conversations import Message, read_conversations

ASKED = {"role": "user", "content": "fever?"}
TOLD = {"role": "assistant", "content": "see a doctor"}


def read(tmp_path, *records, suffix=".jsonl"):
    path = tmp_path / f"data{suffix}"
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]", "utf-8")
    return read_conversations(path)


def test_openai_messages_with_a_system_turn(tmp_path):
    [one] = read(tmp_path, {"messages": [{"role": "system", "content": "你是医生"}, ASKED, TOLD]})
    assert one.messages == (
        Message("system", "你是医生"),
        Message("user", "fever?"),
        Message("assistant", "see a doctor"),
    )


@pytest.mark.parametrize("key", ["from", "role"])
def test_ming_conversations_name_their_roles_human_and_gpt_under_either_key(tmp_path, key):
    turns = [{key: "human", "value": "发热？"}, {key: "gpt", "value": "就医"}]
    [one] = read(tmp_path, {"id": 7, "conversations": turns}, suffix=".json")
    assert one.messages == (Message("user", "发热？"), Message("assistant", "就医"))


def test_a_greeting_before_any_question_is_dropped_from_ming_records_as_its_trainer_does(tmp_path):
    turns = [("gpt", "hello"), ("human", "q"), ("gpt", "a")]
    [one] = read(tmp_path, {"conversations": [{"from": f, "value": v} for f, v in turns]})
    assert [m.content for m in one.messages] == ["q", "a"]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"text": "x"}, "neither or both of messages and conversations"),
        ({"messages": [ASKED, TOLD], "weight": 2}, "unknown fields: weight"),
        ({"messages": []}, "not a list of turns"),
        ({"messages": "x"}, "not a list of turns"),
        ({"messages": [ASKED, "x"]}, "turn 2 is not an object"),
        ({"messages": [ASKED, {**TOLD, "tool_calls": []}]}, "unknown fields: tool_calls"),
        ({"messages": [ASKED, {"role": "tool", "content": "x"}]}, "turn 2 has role 'tool'"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "not text: None"),
        ({"messages": [ASKED, {"role": "assistant", "content": " "}]}, "says nothing"),
        ({"messages": [ASKED]}, "does not end with the assistant"),
        ({"messages": [ASKED, ASKED, TOLD]}, "user speaks where assistant should"),
        ({"messages": [TOLD, ASKED, TOLD]}, "assistant speaks where user should"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "does not end with the assistant"),
    ],
)
def test_a_bad_record_is_named_with_what_is_wrong_with_it(tmp_path, record, told):
    with pytest.raises(DataError, match=r"1 bad records\n  - record 2: ") as caught:
        read(tmp_path, {"messages": [ASKED, TOLD]}, record)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        (
            {"instruction": "译", "input": "fever", "output": "发热", "id": 3, "source": "x"},
            [("user", "译\nfever"), ("assistant", "发热")],
        ),
        (
            {"instruction": "q", "output": "a", "history": [["h", "r"]], "system": "be kind"},
            [
                *(("system", "be kind"), ("user", "h"), ("assistant", "r")),
                *(("user", "q"), ("assistant", "a")),
            ],
        ),
        (
            {"input": "找出实体", "target": "没有", "answer_choices": ["a"], "sample_id": "1"},
            [("user", "找出实体"), ("assistant", "没有")],
        ),
        ({"prompt": "q", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
        ({"prompt": [ASKED], "completion": [TOLD]}, None),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
             "system": "s", "id": "7", "lang": "zh"},
            [("system", "s"), ("user", "q"), ("assistant", "a")],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, TOLD]},
            None,
        ),
    ],
)  # fmt: skip
def test_shapes_that_people_have_are_read(tmp_path, record, turns):
    [one] = read(tmp_path, record)
    said = [(m.role, m.content) for m in one.messages]
    assert said == turns if turns else [role for role, _ in said] == ["user", "assistant"]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASKED, TOLD], "tools": []},
        {"instruction": "q", "output": "a", "images": ["x.png"]},
        {"instruction": "q", "output": ""},
        {"input": 1, "target": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "q", "output": "a", "history": ["h"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, TOLD]},
        {"messages": [ASKED, TOLD], "system": 1},
    ],
)
def test_what_would_be_lost_is_refused(tmp_path, record):
    with pytest.raises(DataError, match="1 bad records"):
        read(tmp_path, record)


def test_all_bad_records_are_listed_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path, {"a": 1}, {"messages": [ASKED, TOLD]}, {"messages": [ASKED]})
    assert "record 1" in str(caught.value)
    assert "record 3" in str(caught.value)


def test_an_empty_file_and_one_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no conversation"):
        read(tmp_path)
    with pytest.raises(MissingDataError, match="cannot be read"):
        read_conversations(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"must end in \.jsonl or \.json"):
        read_conversations(tmp_path / "data.csv")
