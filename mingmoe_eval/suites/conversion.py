"""Records as docs of the suites that no exam is: what a record holds, found by the task's form."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from mingmoe_eval.data_sources import Docs, Source, UnusableRow
from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.records import JsonDict, fingerprint
from mingmoe_eval.suites.number import number_facts

Roles = Mapping[str, Any]
"""What a record holds by role, whatever its fields are called."""


def docs_of_records(chosen: Benchmark, source: Source) -> Docs:
    """The docs of one split; a row that gives none is left out, counted, and named.

    Raises:
        DataError: a field that is needed is in no record, or no row gives a doc.
    """
    needed, facts = _SUITES[chosen.suite]
    there = {name for row in source.rows for name in row.fields}
    called = {role: chosen.fields.get(role, role) for role in (*needed, *chosen.fields)}
    if missing := [
        f"{role}: no field {name!r}" for role, name in called.items() if name not in there
    ]:
        fields = ", ".join(sorted(map(str, there)))
        raise DataError(
            offence_list(f"{source.path} lacks fields of {chosen.name}; it has {fields}", missing)
        )
    docs: list[JsonDict] = []
    unusable: list[UnusableRow] = []
    seen: Counter[str] = Counter()
    for row in source.rows:
        roles = {role: row.fields.get(chosen.fields.get(role, role)) for role in _ROLES}
        try:
            doc = _doc(chosen, row.fields, roles, facts(chosen, roles))
        except ValueError as fault:
            unusable.append(UnusableRow(row.number, str(fault)))
            continue
        seen[doc["id"]] += 1
        if (times := seen[doc["id"]]) > 1:
            doc["id"] += f"-{times}"
        docs.append(doc)
    if not docs:
        raise DataError(
            offence_list(
                f"{source.path}: no row can be used for {chosen.name}", [*map(str, unusable)]
            )
        )
    return Docs(docs, source=source, unusable=unusable)


def _doc(chosen: Benchmark, fields: Roles, roles: Roles, facts: Mapping[str, Any]) -> JsonDict:
    question, context = (str(roles.get(role) or "") for role in ("question", "context"))
    named = {tag: fields.get(name) for tag, name in chosen.tag_fields.items()}
    tags = {**chosen.tags, **{tag: str(value) for tag, value in named.items() if value is not None}}
    shown = {"question": question, "context": context}
    return {"id": fingerprint([*shown.values(), facts["answer"]]), **shown, **facts, "tags": tags}


def _number(chosen: Benchmark, roles: Roles) -> Mapping[str, Any]:
    return number_facts(
        answer=roles.get("answer"),
        lower=roles.get("lower"),
        upper=roles.get("upper"),
        kind=chosen.kind,
        unit=str(roles.get("unit") or chosen.unit),
        tolerance=chosen.tolerance,
        day_first=chosen.day_first,
    )


_ROLES = ("question", "context", "answer", "lower", "upper", "unit")
_SUITES: Mapping[str, tuple[tuple[str, ...], Callable[[Benchmark, Roles], Mapping[str, Any]]]] = {
    "number": (("question", "answer"), _number),
}
"""By suite: the roles that a file must have, and what the suite itself reads of a doc."""
