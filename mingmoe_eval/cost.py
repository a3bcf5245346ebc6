"""What a run's answers cost: tokens of prompt, thought and answer, seconds, and money at a price.

Tokens are those of the answers, whoever computed them: an answer out of the response store has the
same ones. Seconds are those of this run, which stored answers took none of: then they say nothing
of what an answer costs.
"""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from mingmoe_eval.errors import UsageError
from mingmoe_eval.json_files import read_object
from mingmoe_eval.metrics.resampling import Mean
from mingmoe_eval.records import JsonDict, Run, Sample, TaskResult
from mingmoe_eval.scoring import metric_of

_PARTS = ("in", "out", "hour", "currency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What tokens and time cost; a user states it, for nobody's list stays true.

    Attributes:
        input: Of a million tokens of prompt.
        output: Of a million generated tokens, thought and answer alike.
        hour: Of an hour of computing, as for a rented GPU.
        currency: What all of them are in; "" where nobody said.
    """

    input: float = 0.0
    output: float = 0.0
    hour: float = 0.0
    currency: str = ""

    @property
    def said(self) -> str:
        """The words that `price_said` reads as this price."""
        parts = {"in": self.input, "out": self.output, "hour": self.hour}
        numbers = [f"{name}={value}" for name, value in parts.items()]
        return ",".join([*numbers, *([f"currency={self.currency}"] if self.currency else [])])


def price_said(text: str | None, *names: str) -> Price | None:
    """The price that `--price` states for a run, or for a model, of one of these names.

    `0.5,1.5` for a million tokens of prompt and of reply; `in=0.5,out=1.5,hour=2,currency=EUR` for
    any part of it; or a JSON file that has one or the other for each name, which may be a pattern
    such as `*7b*`. The first of the file's names that fits counts; None where none does.

    Raises:
        UsageError: a word is none of these, or no price.
    """
    if not text:
        return None
    if not _is_file(text):
        return _price(text)
    for pattern, value in read_object(Path(text), UsageError).items():
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            words = value if isinstance(value, str) else _words(value, f"{text}, {pattern}")
            return _price(words)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some answers cost; None where nobody knows.

    Attributes:
        answers: How many there are.
        right: What they earned together, in right answers; None where no sum of them says it.
        prompt_tokens: Of all requests; a question with four options that are compared is asked
            four times.
        thought_tokens: Generated before the answers; None where nobody counted them apart.
        generated_tokens: Thoughts and answers together.
        seconds: Of this run.
        timed: Whether all of them were computed in these seconds, none taken from the store.
        money: At the price that was stated.
        currency: What the money is in.
    """

    answers: int
    right: float | None
    prompt_tokens: int
    thought_tokens: int | None
    generated_tokens: int
    seconds: float | None
    timed: bool = True
    money: float | None = None
    currency: str = ""

    @property
    def answer_tokens(self) -> int | None:
        """Generated tokens without the thoughts."""
        return None if self.thought_tokens is None else self.generated_tokens - self.thought_tokens

    @property
    def has_tokens(self) -> bool:
        """Whether anybody counted: results of other programs come without."""
        return bool(self.prompt_tokens or self.generated_tokens)

    def a_right_answer(self) -> dict[str, float | None]:
        """Generated tokens, seconds and money for each right answer.

        No seconds where answers came out of the store: they would look cheaper than they were.
        """
        seconds = self.seconds if self.timed else None
        amounts = {"tokens": self.generated_tokens, "seconds": seconds, "money": self.money}
        return {
            name: amount / self.right if amount is not None and self.right else None
            for name, amount in amounts.items()
        }

    def an_answer(self) -> dict[str, float | None]:
        """Generated tokens, seconds and money for each answer, right or wrong."""
        return replace(self, right=float(self.answers)).a_right_answer()

    def to_json(self) -> JsonDict:
        """What `run.json` keeps of it, for readers other than us: it follows from the samples."""
        return {
            "answers": self.answers,
            "right": self.right,
            "prompt_tokens": self.prompt_tokens,
            "thought_tokens": self.thought_tokens,
            "answer_tokens": self.answer_tokens,
            "generated_tokens": self.generated_tokens,
            "seconds": self.seconds,
            "seconds_are_of_all": self.timed,
            "money": self.money,
            "currency": self.currency,
            "per_right_answer": self.a_right_answer(),
        }

    def at(self, price: Price | None) -> Self:
        """The same with its money; seconds of stored answers cannot be paid for by the hour."""
        if price is None or not self.has_tokens:
            return self
        tokens = self.prompt_tokens * price.input + self.generated_tokens * price.output
        hours = (self.seconds or 0.0) / 3600 * price.hour
        known = not price.hour or (self.seconds is not None and self.timed)
        money = tokens / 1e6 + hours if known else None
        return replace(self, money=money, currency=price.currency)


def price_of(run: Run, text: str | None = None) -> Price | None:
    """The price for a run: as stated now, else as it was stated when the run was made."""
    return price_said(text or run.spec.price, run.name, run.spec.model)


def task_costs(run: Run, price: Price | None = None) -> dict[str, Cost]:
    """By leaf task what its answers cost; the run's samples must be loaded."""
    # Only the whole run says how many answers it took from the store.
    timed = not run.timing.get("requests_from_store")
    return {
        task: _cost(run.samples[task], result, timed=timed).at(price)
        for task, result in run.leaves.items()
        if task in run.samples
    }


def total_cost(costs: Iterable[Cost]) -> Cost | None:
    """All of them together, unknown where one is; None for none."""
    listed = list(costs)
    if not listed:
        return None
    currencies = {cost.currency for cost in listed}
    return Cost(
        answers=sum(cost.answers for cost in listed),
        right=_sum([cost.right for cost in listed]),
        prompt_tokens=sum(cost.prompt_tokens for cost in listed),
        thought_tokens=_whole_sum([cost.thought_tokens for cost in listed]),
        generated_tokens=sum(cost.generated_tokens for cost in listed),
        seconds=_sum([cost.seconds for cost in listed]),
        timed=all(cost.timed for cost in listed),
        money=_sum([cost.money for cost in listed]),
        currency=currencies.pop() if len(currencies) == 1 else "",
    )


def _cost(samples: Sequence[Sample], result: TaskResult, *, timed: bool) -> Cost:
    # A log-likelihood has no thought; where none of a task's answers was counted, nobody counted.
    counted = [s.thought_tokens for s in samples if s.response is not None]
    return Cost(
        answers=len(samples),
        right=_right(samples, result),
        prompt_tokens=sum(sample.prompt_tokens for sample in samples),
        thought_tokens=_whole_sum(counted),
        generated_tokens=sum(sample.generated_tokens for sample in samples),
        seconds=result.seconds or None,
        timed=timed,
    )


def _right(samples: Sequence[Sample], result: TaskResult) -> float | None:
    """Right answers, credit for ties and grades as parts of one.

    None where the score is no mean of what docs earn: of a micro F1 no doc has a right share.
    """
    main = result.main
    if main.unit != "share" or main.better != "higher":
        return None
    if not isinstance(metric_of(result).resampling, Mean):
        return None
    return math.fsum(sample.score for sample in samples if sample.score is not None)


def _sum(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return math.fsum(known) if len(known) == len(amounts) else None


def _whole_sum(amounts: Sequence[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _is_file(text: str) -> bool:
    try:
        return text.endswith(".json") or Path(text).is_file()
    except OSError:  # longer than any file's name
        return False


def _words(value: object, where: str) -> str:
    if not isinstance(value, Mapping):
        raise UsageError(f'{where}: a price is an object such as {{"in": 0.5, "out": 1.5}}')
    return ",".join(f"{name}={part}" for name, part in value.items())


def _price(text: str) -> Price:
    parts = [part.strip() for part in text.split(",")]
    if all("=" not in part for part in parts) and len(parts) == 2:
        parts = [f"in={parts[0]}", f"out={parts[1]}"]
    given: dict[str, str] = {}
    for part in parts:
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in _PARTS or name in given:
            raise UsageError(
                f"--price {text:.80}: {part[:80]!r} cannot be read; write 0.5,1.5 for a million "
                "tokens of prompt and of reply, or in=0.5,out=1.5,hour=2,currency=EUR, or name a "
                "JSON file that has one for each model"
            )
        given[name] = value
    amounts = {name: _amount(given.get(name, "0"), text) for name in ("in", "out", "hour")}
    return Price(
        input=amounts["in"],
        output=amounts["out"],
        hour=amounts["hour"],
        currency=given.get("currency", ""),
    )


def _amount(word: str, text: str) -> float:
    try:
        amount = float(word)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise UsageError(f"--price {text:.80}: {word[:80]!r} is no price; give a number from 0 up")
    return amount
