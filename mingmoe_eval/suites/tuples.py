"""The suite `tuples`: entities, relations, findings, terms, events, or tuples of one's own.

Scored like PromptCBLUE's structured tasks: micro F1 over the set of tuples of each doc. Gold and
reply are read alike: as JSON, as lines of values with `|` between them, or in the lines that
PromptCBLUE's tasks of the same family have (`疾病实体：a，b`; also `disease: a, b`).

A doc: `items` (the right tuples), `shape`, `keys`, `labels` (types, relations or statuses).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts
from mingmoe_eval.metrics.choice_accuracy import ANSWERED
from mingmoe_eval.metrics.metric import tabulate
from mingmoe_eval.metrics.tuple_f1 import MICRO_F1, PRECISION, RECALL, compare_sets, doc_f1
from mingmoe_eval.promptcblue.catalogue import CblueTask, Family, Item
from mingmoe_eval.promptcblue.lenient import fold_answer, fold_width
from mingmoe_eval.promptcblue.measures import LABEL_F1, answer_tuples
from mingmoe_eval.promptcblue.parsing import Profile, parse_answer, profile_named
from mingmoe_eval.records import AnyDoc, MetricValue, Response, Sample, Score, TaskSettings
from mingmoe_eval.suites.form import KEYS, Shape
from mingmoe_eval.suites.sampled import SampledSuite

_FAMILIES: Mapping[Shape, Family] = {
    "entities": "ner",
    "relations": "relations",
    "findings": "status",
    "terms": "normalisation",
    "events": "events",
}
_LABEL_KEYS: Mapping[str, str] = {"entities": "type", "relations": "predicate", "findings": "attr"}
# What models call these keys when they are asked for JSON.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "entity": ("name", "text", "mention", "term", "实体", "名称"),
    "type": ("label", "category", "entity_type", "类型", "类别"),
    "subject": ("head", "头实体", "主体"),
    "predicate": ("relation", "关系"),
    "object": ("tail", "尾实体", "客体"),
    "attr": ("status", "attribute", "状态", "属性"),
}
_SAYS_NONE = ("", "无", "没有", "暂无", "none", "nothing", "no entities", "n/a", "[]", "{}")
_MOST_TRIES = 50
"""So many places are tried at which JSON might begin: a hostile reply has thousands."""


class Doc(AnyDoc):
    """What the suite reads of a doc."""

    answer: str
    items: list[Item]
    shape: Shape
    keys: list[str]
    labels: list[str]


def tuple_facts(*, answer: Any, shape: Shape, keys: Sequence[str], labels: Sequence[str]) -> Doc:
    """What the suite reads of a doc; an empty list is gold with nothing in it.

    Raises:
        ValueError: there is no answer, or it cannot be read as such tuples.
    """
    if answer is None:
        raise ValueError("no answer")
    names = list(KEYS[shape] or keys)
    if isinstance(answer, str):
        items = _items(answer, shape, names, labels, "lenient")
        if items is None:
            raise ValueError(f"the answer holds no {shape}: {answer[:60]!r}")
    else:
        items = _of_json(answer, names, labels)
        if items is None:
            raise ValueError(f"the answer is no list of {', '.join(names)}: {str(answer)[:60]}")
    key = _LABEL_KEYS.get(shape, "")
    strange = sorted({str(item[key]) for item in items if key and labels} - set(labels))
    if strange:
        raise ValueError(f"{key} {', '.join(strange)} is none of the labels {', '.join(labels)}")
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Doc(answer=text, items=items, shape=shape, keys=names, labels=list(labels))


def _score_doc(doc: Mapping[str, Any], response: Response, settings: TaskSettings) -> Score:
    profile = _profile(settings)
    text = split_thoughts(response.text or "")[1] or ""
    items = _items(text, doc["shape"], doc["keys"], doc["labels"], profile)
    counts = compare_sets(_compared(doc["items"], profile), _compared(items or [], profile))
    return Score(
        value=doc_f1(counts) if items is not None else 0.0,
        answered=None if items is None else json.dumps(items, ensure_ascii=False),
        reading="nothing that could be read" if items is None else f"tuples read: {len(items)}",
        counts={"tp": counts.found, "fp": counts.invented, "fn": counts.missed},
    )


def _expected(doc: Mapping[str, Any]) -> str:
    return json.dumps(doc["items"], ensure_ascii=False)


def _by_label(samples: Sequence[Sample]) -> dict[str, dict[str, MetricValue]]:
    """F1 of each entity type, relation or status."""
    key = _LABEL_KEYS.get(samples[0].doc["shape"]) if samples else None
    if key is None:
        return {}
    counted = []
    for sample in samples:
        gold, said = _grouped(sample.doc["items"], key), _grouped(_said(sample), key)
        counted.append(
            {
                label: (one.found, one.invented, one.missed)
                for label in gold.keys() | said.keys()
                for one in [compare_sets(gold.get(label, ()), said.get(label, ()))]
            }
        )
    return {"label": LABEL_F1.by_class(tabulate(counted))}


SUITE = SampledSuite(
    METRICS={metric.name: metric for metric in (MICRO_F1, PRECISION, RECALL, ANSWERED)},
    score_doc=_score_doc,
    expected=_expected,
    by_label=_by_label,
)


def _profile(settings: TaskSettings) -> Profile:
    return profile_named(settings.profile or "lenient")


def _items(
    text: str, shape: Shape, keys: Sequence[str], labels: Sequence[str], profile: Profile
) -> list[Item] | None:
    """The tuples that a text states; none for one that says that there are none; None: unread."""
    family = _FAMILIES.get(shape)
    if profile != "lenient" and family is not None:
        task = _like_promptcblue(family, labels)
        return cast(list[Item], parse_answer(task, text, labels, profile)) if text.strip() else None
    empty = False
    for value in _json_values(text):
        items = _of_json(value, keys, labels)
        if items:
            return items
        empty |= items is not None  # "[]" may stand beside what was found, as in "allergies: []"
    if empty:
        return []
    if len(keys) > 1 and (items := _of_lines(text, keys)):
        return items
    if family is not None:
        task = _like_promptcblue(family, labels)
        if items := cast(list[Item], parse_answer(task, text, labels, "lenient")):
            return [{key: item[key] for key in keys} for item in items]
    says_none = fold_width(text).strip(" \n.。!").casefold() in _SAYS_NONE
    return [] if says_none and text.strip() else None


def _like_promptcblue(family: Family, labels: Sequence[str]) -> CblueTask:
    """A task of the family, for the official and lenient readers of PromptCBLUE."""
    return CblueTask(
        name=f"own {family}",
        family=family,
        task_type=family,
        metric="micro_f1",
        max_gen_toks=1024,
        labels=tuple(labels),
        fallback_status="",  # a status that was not offered is wrong, never right by luck
    )


def _json_values(text: str) -> Iterator[Any]:
    """The JSON lists and objects in a text, from the first on."""
    decoder = json.JSONDecoder()
    place = tries = 0
    while tries < _MOST_TRIES:
        starts = [at for mark in "[{" if (at := text.find(mark, place)) >= 0]
        if not starts:
            return
        tries, place = tries + 1, min(starts)
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        yield value


def _of_json(value: Any, keys: Sequence[str], labels: Sequence[str]) -> list[Item] | None:
    """A list of objects, of lists or of texts; an object of lists by label; one object of these."""
    if isinstance(value, dict):
        if (item := _of_object(value, keys)) is not None:
            return [item]
        if len(keys) == 2 and value and all(map(_is_of_texts, value.values())):
            known = {fold_width(label).casefold() for label in labels}
            # A label that nobody offered is wrong, and takes nothing from the others.
            if not known or any(fold_width(str(k)).casefold() in known for k in value):
                return [
                    {keys[0]: _text(one), keys[1]: str(label)}
                    for label, listed in value.items()
                    for one in listed
                ]
        inner = [part for part in value.values() if isinstance(part, list)]
        return _of_json(inner[0], keys, labels) if len(inner) == len(value) == 1 else None
    if not isinstance(value, list):
        return None
    items = [_of_part(part, keys) for part in value]
    return None if any(item is None for item in items) else cast(list[Item], items)


def _is_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _of_part(part: Any, keys: Sequence[str]) -> Item | None:
    if isinstance(part, dict):
        return _of_object(part, keys)
    if isinstance(part, list):
        if len(part) != len(keys):
            return None
        return dict(zip(keys, map(_text, part), strict=True))
    return {keys[0]: _text(part)} if len(keys) == 1 and isinstance(part, str) else None


def _of_object(value: Mapping[str, Any], keys: Sequence[str]) -> Item | None:
    called = {str(name).casefold(): name for name in value}
    item = {}
    for key in keys:
        names = (key, *_ALIASES.get(key, ()))
        name = next((called[n.casefold()] for n in names if n.casefold() in called), None)
        if name is None or isinstance(value[name], dict):
            return None
        item[key] = _text(value[name])
    return item


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [str(part).strip() for part in value]
    return "" if value is None else str(value).strip()


def _of_lines(text: str, keys: Sequence[str]) -> list[Item]:
    """Lines of values with `|` between them; other lines are talk around them."""
    items = []
    for line in fold_width(text).split("\n"):
        values = [value.strip() for value in line.strip(" -*•").strip("|").split("|")]
        is_rule = all(set(value) <= set("-: ") for value in values)  # of a Markdown table
        is_header = [value.casefold() for value in values] == [key.casefold() for key in keys]
        if len(values) == len(keys) and all(values) and not (is_rule or is_header):
            items.append(dict(zip(keys, values, strict=True)))
    return items


def _compared(items: Sequence[Item], profile: Profile) -> set[tuple[str, ...]]:
    """What is held against each other: under `lenient`, whatever the case and width."""
    if profile != "lenient":
        return answer_tuples(items)
    folded = cast(list[Item], fold_answer(list(items)))
    return answer_tuples([{key: _small(value) for key, value in item.items()} for item in folded])


def _small(value: Any) -> Any:
    return [_small(part) for part in value] if isinstance(value, list) else str(value).casefold()


def _said(sample: Sample) -> list[Item]:
    return [] if sample.answered is None else cast(list[Item], json.loads(sample.answered))


def _grouped(items: Sequence[Item], key: str) -> dict[str, set[tuple[str, ...]]]:
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(str(item[key]), []).append(item)
    return {label: _compared(listed, "lenient") for label, listed in grouped.items()}
