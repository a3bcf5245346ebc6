"""How long scoring a whole PromptCBLUE submission takes, beside a slow and obvious scorer.

Invents as many records as test A has (10,320) with outputs of realistic length, spoils a third of
them, and scores them with the command, as a whole process. `--slow` also scores them with the
formulas written out plainly: no sets of tuples, a table for every common subsequence, no intervals.
Both must agree.

    python benchmarks/score_promptcblue.py [--slow] [--seed 0] [--json FILE]
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mingmoe_eval.metrics.rouge import tokenize
from mingmoe_eval.promptcblue.catalogue import MRG_SECTIONS, TASKS, CblueTask, Item
from mingmoe_eval.promptcblue.doc_records import target_of
from mingmoe_eval.promptcblue.parsing import parse_answer

Record = dict[str, object]
ROWS = {"CHIP-CTC": 1060, "IMCS-V2-DAC": 800, "KUAKE-QIC": 660}
SYLLABLES = "肺肝脾胃肾心脑骨皮血炎痛热咳喘肿瘤症病药剂片检查超声手术治疗护理感染出急慢性上下左右"


def invented_text(chance: random.Random, low: int, high: int) -> str:
    return "".join(chance.choices(SYLLABLES, k=chance.randint(low, high)))


def invented_answer(task: CblueTask, choices: list[str], chance: random.Random) -> object:
    def text(low: int = 2, high: int = 8) -> str:
        return invented_text(chance, low, high)

    def some(most: int) -> range:
        return range(chance.randint(1, most))

    match task.family:
        case "ner":
            return [{"entity": text(), "type": chance.choice(choices)} for _ in some(12)]
        case "relations":
            names = ("predicate", "subject", "object")
            values = ((chance.choice(choices), text(), text()) for _ in some(8))
            return [dict(zip(names, triple, strict=True)) for triple in values]
        case "events":
            return [
                {
                    "主体词": text(),
                    "发生状态": chance.choice(task.labels),
                    "描述词": [text() for _ in some(2)],
                    "解剖部位": [text() for _ in some(2)],
                }
                for _ in some(5)
            ]
        case "normalisation":
            picked = chance.sample(choices, chance.randint(1, 3))
            return [{"entity": term, "type": "normalization"} for term in picked]
        case "status":
            return [{"entity": text(), "attr": chance.choice(choices)} for _ in some(8)]
        case "generation" if task.task_type == "report_generation":
            return {name: text(5, 80) + "。" for name in MRG_SECTIONS}
        case "generation":
            return text(10, 60) + "。"
    return chance.choice(choices)


def invented_records(chance: random.Random) -> list[Record]:
    records: list[Record] = []
    for task in TASKS.values():
        for number in range(ROWS.get(task.name, 600)):
            offered = list(task.labels) or [invented_text(chance, 4, 12) for _ in range(8)]
            answer = invented_answer(task, offered, chance)
            records.append(
                {
                    "input": invented_text(chance, 80, 300),
                    "target": target_of(task, answer, offered),  # type: ignore[arg-type]
                    "answer_choices": offered,
                    "task_type": task.task_type,
                    "task_dataset": task.name,
                    "sample_id": f"test-{number}",
                }
            )
    return records


def spoiled(text: str, chance: random.Random) -> str:
    """Two of three as they are; the rest lose, gain or swap characters."""
    if chance.random() < 2 / 3 or not text:
        return text
    characters = list(text)
    for _ in range(1 + len(text) // 20):
        characters[chance.randrange(len(characters))] = chance.choice(SYLLABLES + "，：\n")
    return "".join(characters)


def slow_score(records: list[Record], replies: list[str]) -> float:
    """The overall score by the formulas as they are written, task by task."""
    by_task: dict[str, list[tuple[object, object]]] = {}
    for record, reply in zip(records, replies, strict=True):
        task = TASKS[str(record["task_dataset"])]
        choices: list[str] = record["answer_choices"]  # type: ignore[assignment]
        gold = parse_answer(task, str(record["target"]), choices)
        by_task.setdefault(task.name, []).append((gold, parse_answer(task, reply, choices)))
    scores = []
    for name, pairs in by_task.items():
        task = TASKS[name]
        if task.metric == "micro_f1":
            scores.append(slow_micro_f1(pairs))
        elif task.metric == "rouge_l":
            scores.append(slow_rouge(pairs))
        else:
            scores.append(slow_label_f1(pairs, task))
    return sum(scores) / len(scores)


def slow_micro_f1(pairs: list[tuple[object, object]]) -> float:
    def as_texts(items: list[Item]) -> list[str]:
        unique: list[str] = []
        for item in items:
            written = json.dumps(item, sort_keys=True)
            if written not in unique:
                unique.append(written)
        return unique

    found = said = wanted = 0
    for gold, answer in pairs:
        expected, answered = as_texts(gold), as_texts(answer)  # type: ignore[arg-type]
        found += sum(text in expected for text in answered)
        said, wanted = said + len(answered), wanted + len(expected)
    precision, recall = found / said, found / wanted
    return 2 * precision * recall / (precision + recall)


def slow_label_f1(pairs: list[tuple[object, object]], task: CblueTask) -> float:
    pairs = [(gold, said or task.default_label) for gold, said in pairs]
    supports = Counter(gold for gold, _ in pairs)
    total = weight = 0.0
    for label in {label for pair in pairs for label in pair}:
        hits = sum(gold == said == label for gold, said in pairs)
        seen = sum((gold == label) + (said == label) for gold, said in pairs)
        share = supports[label] if task.metric == "weighted_f1" else 1
        total, weight = total + share * 2 * hits / seen, weight + share
    return total / weight


def slow_rouge(pairs: list[tuple[object, object]]) -> float:
    values = []
    for gold, said in pairs:
        if isinstance(gold, dict) and isinstance(said, dict):
            values += [slow_rouge_l(said.get(name, ""), text) for name, text in gold.items()]
        else:
            values.append(slow_rouge_l(str(said), str(gold)))
    return sum(values) / len(values)


def slow_rouge_l(prediction: str, reference: str) -> float:
    said, wanted = tokenize(prediction), tokenize(reference)
    table = [[0] * (len(wanted) + 1) for _ in range(len(said) + 1)]
    for i, one in enumerate(said):
        for j, other in enumerate(wanted):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else longer
    precision, recall = table[-1][-1] / len(said), table[-1][-1] / len(wanted)
    return 2 * precision * recall / (precision + recall + 1e-8)


def timed_command(records: list[Record], replies: list[str]) -> tuple[float, float, float]:
    """Seconds, peak memory in MB and overall score of the command as a whole process."""
    with tempfile.TemporaryDirectory() as folder:
        gold, predictions, out = (Path(folder, n) for n in ("gold.jsonl", "said.jsonl", "out.json"))
        gold.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
        lines = [
            {key: record[key] for key in ("sample_id", "task_dataset")} | {"prediction": reply}
            for record, reply in zip(records, replies, strict=True)
        ]
        predictions.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        command = ["-m", "mingmoe_eval", "score", "promptcblue", "--gold", str(gold)]
        command += ["--predictions", str(predictions), "--json", str(out)]
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        score = json.loads(out.read_text("utf-8"))["scores"]["score"]
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, score


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--slow", action="store_true", help="also score by the plain formulas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    records = invented_records(chance)
    replies = [spoiled(str(record["target"]), chance) for record in records]
    seconds, megabytes, score = timed_command(records, replies)
    figures = {"records": len(records), "seconds": seconds, "peak_mb": megabytes, "score": score}
    if arguments.slow:
        start = time.perf_counter()
        figures["slow_score"] = slow_score(records, replies)
        figures["slow_seconds"] = time.perf_counter() - start
        figures["difference"] = abs(figures["slow_score"] - score)
    for name, value in figures.items():
        print(f"{name:<14}{value:>14,.6g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
