"""How long the search for test questions in training data takes, and what it finds.

Invents exam questions and training records at the size of a real project, plants questions in the
records in ways that are known, and searches. Beside it, if it is installed (`pip install
datasketch`), a MinHash index of the same questions, over part of the records.

    python benchmarks/overlap.py --records 300000 --items 30000 --minhash-records 3000
"""

import argparse
import importlib.util
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

from mingmoe_eval.overlap import Item, search
from mingmoe_eval.overlap.search import words_of

PLANTED = 500  # records a way of planting
OPENINGS = ("下列哪一项是正确的", "患者最可能的诊断是", "首选的治疗药物是", "以下说法错误的是")
WRAPPING = "请根据你的医学知识回答下面的单项选择题，只给出选项字母。"


@dataclass(frozen=True)
class Plant:
    """One question put into one record."""

    way: str
    item: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--minhash-records", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    letters = [chr(0x4E00 + n) for n in range(3000)]
    weights = [1 / (n + 1) ** 0.8 for n in range(len(letters))]

    def prose(length: int) -> str:
        return "".join(rng.choices(letters, weights, k=length))

    items = [question(rng, prose) for _ in range(options.items)]
    texts, plants = training(rng, prose, items, options.records)
    started = time.perf_counter()
    found = search(items, texts)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{options.items} questions in {options.records} records: {seconds:.0f} s, "
        f"peak {peak:.1f} GB with the data"
    )
    print_recall("phrases", {match.item for match in found.matches}, plants.values())
    if importlib.util.find_spec("datasketch"):
        last = max(plants) + 1
        minhash(items, texts[: max(last, options.minhash_records)], plants)


def question(rng: random.Random, prose: Callable[[int], str]) -> Item:
    stem = prose(rng.randint(20, 60)) + rng.choice(OPENINGS)
    return Item((stem, "\n".join(prose(rng.randint(2, 10)) for _ in range(5)), ""))


def training(
    rng: random.Random, prose: Callable[[int], str], items: list[Item], count: int
) -> tuple[list[str], dict[int, Plant]]:
    """Records of which the first ones hold a question each; the rest are new text."""
    ways: dict[str, Callable[[Item], str]] = {
        "word by word": lambda item: "\n".join(item.parts),
        "options in another order": lambda item: reordered(item),
        "inside a record five times as long": lambda item: prose(200) + item.parts[0] + prose(200),
        "one character in thirty changed": lambda item: edited(rng, item.parts[0], 1 / 30),
        "one character in ten changed": lambda item: edited(rng, item.parts[0], 1 / 10),
    }
    texts: list[str] = []
    plants: dict[int, Plant] = {}
    chosen = iter(rng.sample(range(len(items)), PLANTED * len(ways)))
    for way, write in ways.items():
        for _ in range(PLANTED):
            item = next(chosen)
            plants[len(texts)] = Plant(way, item)
            texts.append(WRAPPING + write(items[item]))
    while len(texts) < count:
        texts.append(WRAPPING + prose(rng.randint(60, 240)) + rng.choice(OPENINGS) + prose(40))
    return texts, plants


def reordered(item: Item) -> str:
    stem, options, _ = item.parts
    return "\n".join((stem, *reversed(options.split("\n"))))


def edited(rng: random.Random, text: str, share: float) -> str:
    return "".join(chr(rng.randint(0x4E00, 0x5600)) if rng.random() < share else c for c in text)


def print_recall(method: str, found: set[int], plants: object) -> None:
    by_way: dict[str, list[bool]] = {}
    planted: set[int] = set()
    for plant in plants:  # type: ignore[attr-defined]
        by_way.setdefault(plant.way, []).append(plant.item in found)
        planted.add(plant.item)
    for way, hits in by_way.items():
        print(f"  {method}: {way}: {sum(hits)} of {len(hits)} found")
    print(f"  {method}: found without being planted: {len(found - planted)}")


def minhash(items: list[Item], texts: list[str], plants: dict[int, Plant]) -> None:
    """Datasketch's MinHash LSH over the same phrases of five words, at Jaccard 0.7."""
    from datasketch import MinHash, MinHashLSH

    def sketch(text: str) -> MinHash:
        words = words_of(text)
        one = MinHash(num_perm=128)
        one.update_batch(["".join(words[i : i + 5]).encode() for i in range(len(words) - 4)])
        return one

    started = time.perf_counter()
    index = MinHashLSH(threshold=0.7, num_perm=128)
    for number, item in enumerate(items):
        index.insert(number, sketch("\n".join(item.parts)))
    found = {number for text in texts for number in index.query(sketch(text))}
    seconds = time.perf_counter() - started
    print(f"MinHash: {len(items)} questions in {len(texts)} records: {seconds:.0f} s")
    print_recall("MinHash", found, plants.values())


if __name__ == "__main__":
    main()
