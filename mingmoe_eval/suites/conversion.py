"""Records as docs of the suites that no exam is: what a record holds, found by the entry's form."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mingmoe_eval.data_sources import Docs, Source, UnusableRow
from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.records import JsonDict, fingerprint
from mingmoe_eval.suites.form import ROLES
from mingmoe_eval.suites.labels import label_facts
from mingmoe_eval.suites.number import number_facts
from mingmoe_eval.suites.templates import rendered
from mingmoe_eval.suites.text import text_facts
from mingmoe_eval.suites.tuples import tuple_facts

Roles = Mapping[str, Any]
"""What a record holds by role, whatever its fields are called."""


def docs_of_records(chosen: Benchmark, source: Source) -> Docs:
    """The docs of one split; a row that gives none is left out, counted, and named.

    A doc has `id`, `question` and `context` (or, without such fields, what its prompt shows),
    `record` (what the prompt shows, by the prompt's own names), `tags`, `cluster`, and what its
    suite reads.

    Raises:
        DataError: a field that is needed is in no record, or no row gives a doc.
    """
    called = _names(chosen, source)
    chosen = _with_labels(chosen, source, called)
    docs: list[JsonDict] = []
    unusable: list[UnusableRow] = []
    seen: Counter[str] = Counter()
    for row in source.rows:
        roles = {role: row.fields.get(name) for role, name in called.items()}
        try:
            doc = _doc(chosen, row.fields, roles)
        except ValueError as fault:
            unusable.append(UnusableRow(row.number, str(fault)))
            continue
        seen[doc["id"]] += 1
        if (times := seen[doc["id"]]) > 1:
            doc["id"] += f"-{times}"
        docs.append(doc)
    if not docs:
        listed = [str(row) for row in unusable]
        raise DataError(
            offence_list(f"{source.path}: no row can be used for {chosen.name}", listed)
        )
    return Docs(docs, source=source, unusable=unusable)


def prompt_of(template: str, doc: Mapping[str, Any]) -> str:
    """The prompt of a doc that `docs_of_records` made, from a template of its entry."""
    return rendered(template, doc["record"])


def _names(chosen: Benchmark, source: Source) -> dict[str, str]:
    """What the file calls each role and each thing that a prompt shows.

    Raises:
        DataError: some of them are in no record; all are named.
    """
    there = {name for row in source.rows for name in row.fields}
    needed = {"answer", *chosen.fields, *chosen.shown}
    if not chosen.shown:
        needed.add("question")  # the prompt is a function, and this is what it shows
    wanted = dict.fromkeys([*ROLES[chosen.suite], *sorted(needed)])
    called = {role: chosen.fields.get(role, role) for role in wanted}
    lacking = [
        f"{role}: no field {called[role]!r}" for role in sorted(needed) if called[role] not in there
    ]
    lacking += [
        f"tag_fields.{tag}: no field {name!r}"
        for tag, name in chosen.tag_fields.items()
        if name not in there
    ]
    if lacking:
        listed = ", ".join(sorted(map(str, there)))
        raise DataError(
            offence_list(f"{source.path} lacks fields for {chosen.name}; it has {listed}", lacking)
        )
    return {role: name for role, name in called.items() if name in there}


def _with_labels(chosen: Benchmark, source: Source, called: Mapping[str, str]) -> Benchmark:
    """An entry of suite `labels` that names none has those that its file has, in their order."""
    if chosen.suite != "labels" or chosen.labels or "labels" in called:
        return chosen
    answers = (row.fields.get(called["answer"]) for row in source.rows)
    labels = dict.fromkeys(str(answer).strip() for answer in answers if answer not in (None, ""))
    if len(labels) < 2:
        raise DataError(
            f"{source.path}: the answers for {chosen.name} are all {', '.join(labels) or 'empty'}, "
            "so that there is nothing to decide: name the labels with `labels: [...]`"
        )
    return msgspec.structs.replace(chosen, labels=tuple(labels))


def _doc(chosen: Benchmark, fields: Roles, roles: Roles) -> JsonDict:
    record = {name: roles.get(name) for name in sorted(chosen.shown)}
    if empty := [name for name, value in record.items() if value is None]:
        raise ValueError(f"no {', '.join(empty)}")
    for form, template in chosen.prompts.items():
        if template and not rendered(template, record).strip():
            raise ValueError(f"the prompt of form {form} is empty")
    facts = _FACTS[chosen.suite](chosen, roles)
    texts = [str(value) for value in record.values()]
    question = str(roles.get("question") or "\n".join(texts))
    context = str(roles.get("context") or "")
    named = {tag: fields.get(name) for tag, name in chosen.tag_fields.items()}
    tags = {**chosen.tags, **{tag: str(value) for tag, value in named.items() if value is not None}}
    cluster = roles.get("cluster")
    return {
        "id": fingerprint([question, context, facts["answer"]]),
        "question": question,
        "context": context,
        "record": record,
        **facts,
        "tags": tags,
        "cluster": None if cluster is None else str(cluster),
    }


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


def _labels(chosen: Benchmark, roles: Roles) -> Mapping[str, Any]:
    return label_facts(answer=roles.get("answer"), labels=_offered(chosen, roles))


def _tuples(chosen: Benchmark, roles: Roles) -> Mapping[str, Any]:
    assert chosen.shape is not None  # an entry without one is refused
    return tuple_facts(
        answer=roles.get("answer"),
        shape=chosen.shape,
        keys=chosen.keys,
        labels=_offered(chosen, roles),
    )


def _text(chosen: Benchmark, roles: Roles) -> Mapping[str, Any]:
    return text_facts(answer=roles.get("answer"))


def _offered(chosen: Benchmark, roles: Roles) -> Sequence[str]:
    """A record's own labels, where it has any; else those of the entry."""
    own = roles.get("labels")
    if own is None:
        return chosen.labels
    if isinstance(own, str):  # a cell of a table
        own = [part.strip() for part in own.split("|")]
    if not isinstance(own, list) or not all(isinstance(label, str) for label in own) or not own:
        raise ValueError(f"its labels are no list of texts: {own!r}")
    return own


_FACTS: Mapping[str, Callable[[Benchmark, Roles], Mapping[str, Any]]] = {
    "number": _number,
    "labels": _labels,
    "tuples": _tuples,
    "text": _text,
}
"""By suite: what it reads of a doc; each raises ValueError for a record that gives none."""
