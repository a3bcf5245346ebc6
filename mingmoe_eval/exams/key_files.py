"""Answer keys that come in a file of their own, joined to the questions by their id."""

from collections.abc import Sequence
from typing import Any

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.exams.benchmarks import Part
from mingmoe_eval.record_files import Row

# CMB repeats these in its key: they show a key that belongs to other questions.
_REPEATED = ("exam_type", "exam_class", "exam_subject", "question_type")

_IDS = ("id", "pmid", "pubid")


def join_key(rows: Sequence[Row], key_rows: Sequence[Row], part: Part, *, name: str) -> list[Row]:
    """The questions with their keys; where the key selects, without those that it does not name.

    Args:
        rows: The questions, with an `id` (PubMedQA: or a `pmid`, on the hub a `pubid`).
        key_rows: Records of `id` and `answer`, or one record that has an answer for each id.
        part: Says which field takes the key.
        name: What error messages call the key file.

    Raises:
        DataError: an id has two answers, or the key tells other facts of a question than it does.
    """
    keys = _by_id(key_rows, name)
    joined: list[Row] = []
    offences: list[str] = []
    for row in rows:
        key = keys.get(_id_of(row))
        if key is not None:
            offences += _contradictions(row, key)
            joined.append(Row(row.number, {**row.fields, part.key_field: key["answer"]}))
        elif not part.key_selects:
            joined.append(row)
    if offences:
        raise DataError(offence_list(f"{name} is the key of other questions", offences))
    return joined


def _by_id(key_rows: Sequence[Row], name: str) -> dict[str, dict[str, Any]]:
    records = [dict(row.fields) for row in key_rows]
    if len(records) == 1 and "answer" not in records[0]:
        records = [{"id": key, "answer": answer} for key, answer in records[0].items()]
    keys: dict[str, dict[str, Any]] = {}
    offences = []
    for record in records:
        if "answer" not in record or "id" not in record:
            raise DataError(f"{name}: a record without `id` or `answer`: {', '.join(record)}")
        known = keys.setdefault(str(record["id"]), record)
        if known["answer"] != record["answer"]:
            offences.append(f"id {record['id']}: {known['answer']} and {record['answer']}")
    if offences:
        raise DataError(offence_list(f"{name} has two answers for one id", offences))
    return keys


def _id_of(row: Row) -> str:
    return next((str(row.fields[name]) for name in _IDS if name in row.fields), "")


def _contradictions(row: Row, key: dict[str, Any]) -> list[str]:
    return [
        f"id {key['id']}: {field} is {row.fields[field]!r}, the key says {key[field]!r}"
        for field in _REPEATED
        if field in row.fields and field in key and row.fields[field] != key[field]
    ]
