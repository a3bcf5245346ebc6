"""The samples of several runs, paired by doc and packed for the page's explorer.

A small index holds one row a doc; prompts and responses lie in compressed chunks that the browser
opens one at a time. What would not fit stays out by a stated rule: flipped, failed, unanswered and
truncated docs and those seen in training come first, then a share of the rest that does not depend
on how they went.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.records import Run, Sample, fingerprint
from mingmoe_eval.report.embedding import json_bytes, packed

FLIPPED, UNANSWERED, FAILED, TRUNCATED, SEEN = 1, 2, 4, 8, 16
"""Bits of a row's flags; `SEEN << run`: the doc was found in training data of that run."""

_CHUNK_BYTES = 400_000  # before compression; opening a doc unpacks one chunk, in a few ms
# Tried in turn until all docs of the first rank fit: whole texts, then head and tail.
_TEXT_LIMITS: tuple[int | None, ...] = (None, 20_000, 4_000, 1_000, 300, 100)
_PROBE = 200  # docs packed to foresee the size of all
_QUESTION_FIELDS = ("question", "input", "query", "sent1", "text")
_EXCERPT, _ANSWER_EXCERPT = 80, 32


@dataclass(frozen=True, slots=True)
class PairedDoc:
    """One doc and each run's sample of it; None where a run did not have the doc.

    `seen`: where each run's training data holds it; empty where it was not found. `repeat`: which
    of several answers to it these are, from 1; 0 where it was asked once.
    """

    task: str
    doc_id: str
    samples: tuple[Sample | None, ...]
    flags: int
    seen: tuple[str, ...]
    repeat: int = 0

    @property
    def first(self) -> Sample:
        """A sample of the doc, for what all runs share."""
        return next(sample for sample in self.samples if sample is not None)


@dataclass(frozen=True, slots=True)
class SamplePack:
    """What the page carries of the samples.

    Attributes:
        index: Columns of the explorer's table, for embedding as JSON.
        chunks: Compressed records, as base64.
        total: How many docs there are.
        held: Of how many the page holds prompts and responses.
        notable: How many docs are flipped, failed, unanswered, truncated or seen in training.
        text_limit: Longer texts were cut to head and tail of this length; None: none were.
        readings: By which rules answers were read, each once.
    """

    index: dict[str, Any]
    chunks: list[str]
    total: int
    held: int
    notable: int
    text_limit: int | None
    readings: frozenset[str]


def pair_docs(
    runs: Sequence[Run], baseline: int, seen: Sequence[Mapping[tuple[str, str], str]] = ()
) -> list[PairedDoc]:
    """The docs of all runs, paired within task by content and repeat.

    seen: by run, (task, doc) -> where training data holds the doc, of those that were found.
    """
    rows: dict[tuple[str, str, int, int], list[Sample | None]] = {}
    for position, run in enumerate(runs):
        for key, sample in _keyed(run):
            rows.setdefault(key, [None] * len(runs))[position] = sample
    docs = []
    repeated = {key[0] for key in rows if key[2]}
    for (task, doc_id, repeat, _), samples in rows.items():
        places = tuple(of_run.get((task, doc_id), "") for of_run in seen or [{}] * len(runs))
        flags = _flags(samples, baseline) | sum(SEEN << n for n, at in enumerate(places) if at)
        which = repeat + 1 if task in repeated else 0
        docs.append(PairedDoc(task, doc_id, tuple(samples), flags, places, which))
    return docs


def pack_samples(
    docs: Sequence[PairedDoc],
    *,
    withheld_tasks: Collection[str],
    budget: int,
    hashed: bool = False,
) -> SamplePack:
    """Pack docs into at most about `budget` bytes.

    Args:
        docs: What `pair_docs` gave.
        withheld_tasks: Tasks whose prompts, gold texts and responses must stay out. Responses too:
            a right answer to an extraction task is the gold text.
        budget: The largest size of index and chunks together, in bytes of the page.
        hashed: The fingerprint of a withheld question stands in its place.
    """
    rows = [_index_row(doc, hide=doc.task in withheld_tasks) for doc in docs]
    for row, doc in zip(rows, docs, strict=True):
        if hashed and doc.task in withheld_tasks:
            row[2] = f"#{doc.doc_id}"
    left = budget - len(packed(json_bytes(rows)))
    open_docs = [n for n, doc in enumerate(docs) if doc.task not in withheld_tasks]
    notable = [n for n in open_docs if docs[n].flags]
    # By fingerprint: a share that depends neither on the order of the data nor on the scores.
    rest = sorted(
        (n for n in open_docs if not docs[n].flags),
        key=lambda n: fingerprint(f"{docs[n].task}/{docs[n].doc_id}"),
    )
    chunks, places, limit = _first_fit(docs, notable, left)
    if len(places) == len(notable):
        size = sum(map(len, chunks))
        more, more_places = _fill(docs, rest, limit, left - size, first_chunk=len(chunks))
        chunks, places = chunks + more, places | more_places
    for number, row in enumerate(rows):
        row.extend(places.get(number, (-1, 0)))
    return SamplePack(
        index={"tasks": sorted({doc.task for doc in docs}), "rows": rows},
        chunks=chunks,
        total=len(docs),
        held=len(places),
        notable=len(notable),
        text_limit=limit,
        readings=frozenset(s.reading for doc in docs for s in doc.samples if s is not None),
    )


def is_right(sample: Sample | None) -> bool:
    """Whether a sample earned the full score."""
    return sample is not None and sample.score is not None and sample.score > 1 - 1e-9


def _keyed(run: Run) -> Iterator[tuple[tuple[str, str, int, int], Sample]]:
    """Each sample under its task, doc and repeat, and its place among those that share them."""
    for task, samples in run.samples.items():
        seen: Counter[tuple[str, int]] = Counter()
        for sample in samples:
            same = sample.doc_id, sample.repeat
            yield (task, *same, seen[same]), sample
            seen[same] += 1


def _flags(samples: Sequence[Sample | None], baseline: int) -> int:
    present = [sample for sample in samples if sample is not None]
    scored = [sample for sample in present if sample.score is not None]
    reference = samples[baseline]
    flipped = (
        reference is not None
        and reference.score is not None
        and any(is_right(sample) != is_right(reference) for sample in scored)
    )
    return (
        FLIPPED * flipped
        | UNANSWERED * any(sample.status == "unanswered" for sample in present)
        | FAILED * any(sample.status == "failed" for sample in present)
        | TRUNCATED * any(s.finish == "length" or s.prompt_truncated for s in present)
    )


def _index_row(doc: PairedDoc, *, hide: bool) -> list[Any]:
    """[task, doc, question, expected, outcomes, answers, flags, repeat]; chunk and place follow.

    `repeat` counts from 1; 0 where each question was asked once.
    """
    question = "" if hide else _question(doc.first)
    expected = "" if hide else _short(doc.first.expected, _ANSWER_EXCERPT)
    answers = [
        "" if hide or sample is None else _short(sample.answered or "", _ANSWER_EXCERPT)
        for sample in doc.samples
    ]
    outcomes = [_outcome(sample) for sample in doc.samples]
    return [doc.task, doc.doc_id, question, expected, outcomes, answers, doc.flags, doc.repeat]


def _outcome(sample: Sample | None) -> float | str | None:
    """The score; a word where there is none; None where the run did not have the doc."""
    if sample is None:
        return None
    if sample.status != "scored":
        return sample.status
    return None if sample.score is None else round(sample.score, 4)


def _question(sample: Sample) -> str:
    for name in _QUESTION_FIELDS:
        if isinstance(text := sample.doc.get(name), str) and text.strip():
            return _short(text, _EXCERPT)
    # The end, since a prompt begins with the instruction that all docs of a task share.
    return " ".join(sample.prompt[-4 * _EXCERPT :].split())[-_EXCERPT:]


def _short(text: str, length: int) -> str:
    # Cut before splitting: a text may be a megabyte long.
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _first_fit(
    docs: Sequence[PairedDoc], order: Sequence[int], budget: int
) -> tuple[list[str], dict[int, tuple[int, int]], int | None]:
    """Pack all of `order` with the largest text limit that lets it fit; else what fits."""
    foreseen = [limit for limit in _TEXT_LIMITS if _likely_size(docs, order, limit) <= budget]
    for limit in foreseen or _TEXT_LIMITS[-1:]:
        chunks, places = _fill(docs, order, limit, budget)
        if len(places) == len(order):
            break
    return chunks, places, limit


def _likely_size(docs: Sequence[PairedDoc], order: Sequence[int], limit: int | None) -> float:
    """What the docs would take, from some of them: packing all at every limit takes long."""
    probe = order[:: max(1, len(order) // _PROBE)]
    records = [json_bytes(_record(docs[number], limit)) for number in probe]
    return len(packed(b",".join(records))) * len(order) / max(1, len(probe))


def _fill(
    docs: Sequence[PairedDoc],
    order: Sequence[int],
    limit: int | None,
    budget: int,
    *,
    first_chunk: int = 0,
) -> tuple[list[str], dict[int, tuple[int, int]]]:
    """Chunks within the budget, and where each doc went: (chunk, place in it)."""
    chunks: list[str] = []
    places: dict[int, tuple[int, int]] = {}
    for numbers, records in _batches(docs, order, limit):
        chunk = packed(b"[" + b",".join(records) + b"]")
        budget -= len(chunk)
        if budget < 0:
            break
        place = first_chunk + len(chunks)
        places |= {number: (place, row) for row, number in enumerate(numbers)}
        chunks.append(chunk)
    return chunks, places


def _batches(
    docs: Sequence[PairedDoc], order: Sequence[int], limit: int | None
) -> Iterator[tuple[list[int], list[bytes]]]:
    numbers: list[int] = []
    records: list[bytes] = []
    size = 0
    for number in order:
        record = json_bytes(_record(docs[number], limit))
        numbers.append(number)
        records.append(record)
        size += len(record)
        if size > _CHUNK_BYTES:
            yield numbers, records
            numbers, records, size = [], [], 0
    if numbers:
        yield numbers, records


def _record(doc: PairedDoc, limit: int | None) -> dict[str, Any]:
    prompts = list(dict.fromkeys(s.prompt for s in doc.samples if s is not None))
    return {
        "prompts": [_cut(prompt, limit) for prompt in prompts],
        "expected": _cut(doc.first.expected, limit),
        "tags": doc.first.tags,
        "runs": [
            None
            if s is None
            else {"prompt": prompts.index(s.prompt), "seen": place, **_answer(s, limit)}
            for s, place in zip(doc.samples, doc.seen, strict=True)
        ],
    }


def _answer(sample: Sample, limit: int | None) -> Mapping[str, Any]:
    return {
        "response": None if sample.response is None else _cut(sample.response, limit),
        "logLikelihoods": sample.log_likelihoods,
        "answered": None if sample.answered is None else _cut(sample.answered, limit),
        "reading": sample.reading,
        "score": sample.score,
        "status": sample.status,
        "failure": sample.failure,
        "finish": sample.finish,
        "tokens": [sample.prompt_tokens, sample.generated_tokens],
        "promptTruncated": sample.prompt_truncated,
    }


def _cut(text: str, limit: int | None) -> str:
    """Head and tail: the question or the answer mostly stands at an end."""
    if limit is None or len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} …]\n{text[-half:]}"
