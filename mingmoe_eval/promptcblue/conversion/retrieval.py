"""KUAKE-IR: queries, documents and which belong together, as pairs that are relevant or not."""

import random
from collections.abc import Iterator
from pathlib import Path

from mingmoe_eval.errors import DataError

_QUERY_FILES = ("{stem}_query.txt", "{stem}.query.txt")


def retrieval_rows(path: Path) -> Iterator[dict[str, str]]:
    """One pair for each line `query id, document id`: the right document, or another query's.

    `corpus.tsv` and the file of queries are looked for beside `path`. Half of the pairs, drawn at
    random, get a document of another query, so the irrelevant ones are easier than PromptCBLUE's.

    Raises:
        DataError: The queries or the documents are not there.
    """
    pairs = [(query, document) for query, document in _cells(path)]
    queries = dict(_cells(_beside(path, [name.format(stem=path.stem) for name in _QUERY_FILES])))
    wanted = {document for _, document in pairs}
    corpus = _cells(_beside(path, ["corpus.tsv"]))
    documents = {key: text for key, text in corpus if key in wanted}
    chance = random.Random(path.stem)
    for query, document in pairs:
        other_query, other = chance.choice(pairs)
        swapped = other_query != query and chance.random() < 0.5
        yield {
            "query": queries[query],
            "document": documents[other if swapped else document],
            "label": str(int(not swapped)),
        }


def _beside(path: Path, names: list[str]) -> Path:
    for name in names:
        if (path.parent / name).is_file():
            return path.parent / name
    raise DataError(f"{path} needs {' or '.join(names)} beside it")


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            key, tab, value = line.rstrip("\n").partition("\t")
            if tab:
                yield key, value
