"""The whole domain: what was asked for, how each question went, and what it adds up to.

RunSpec -> Sample (one a doc) -> MetricValue -> TaskResult -> Run. All frozen, all JSON in and out.
"""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NotRequired,
    Self,
    TypedDict,
    TypeVar,
)

import msgspec

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.json_files import JsonFault, as_record, number, numbers, shown

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

Finish = Literal["stop", "length", "none"]
"""How a generation ended: by itself, cut at its token limit, or there was none."""

Status = Literal["scored", "unanswered", "failed"]
"""A failed sample has no score and is left out; an unanswered one is wrong, and counted."""

Unit = Literal["share", "number", "unknown"]
"""A share lies between 0 and 1; an unknown unit is never taken for a share."""

Better = Literal["higher", "lower", "neither", "unknown"]
"""Which values of a metric are the better ones; `neither` and `unknown` are never marked best."""

Thinking = Literal["auto", "on", "off"]
"""What of a chat template's switch for thoughts: `auto` leaves it where the template has it."""

Engine = Literal["local", "vllm"]
"""What computes a checkpoint's answers: transformers in our own engine, or vLLM."""

JsonDict = dict[str, Any]

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A count; reading a record refuses one below 0, or beyond what numpy can hold."""

_T = TypeVar("_T")


class AnyDoc(TypedDict):
    """What a doc of any suite of ours may say beside what its suite reads; samples take it over."""

    tags: NotRequired[dict[str, str] | None]
    cluster: NotRequired[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """How a task's replies are read and scored: the `metadata` of its YAML, as a run has it.

    Attributes:
        suite: Which scorer folds its samples; "" leaves lm-eval's own scoring in force.
        version: Raised whenever a score could move.
        form: How an exam asks: for the letters, by their log-likelihoods, or for reasoning first.
        reading: A compatibility mode by which exam replies are read; None reads by our own rules.
        profile: The official scorer's profile for PromptCBLUE; None is `official`.
        metric: The suite's metric that is the score; "" leaves the choice to the suite.
        also: Further metrics of the suite that stand beside it.
        macro_over: A tag over whose values an exam's accuracy is averaged too.
        labels: The options are labels (yes, no, maybe), so that a macro-F1 belongs beside the
            accuracy.
        access: `registered` data may not be passed on: reports leave the docs out.
        language: Of the questions.
        description: One line for those who choose among tasks.
        also_called: Names by which people know the benchmark, for who asks for it by one of them.
        chance: What guessing would score, where it does not follow from options or labels.
        permute_options: Each question is asked under several option orders; a run decides on that.
        coverage: At which coverages the accuracy of the confident part is told; a run decides that.
    """

    suite: Literal["", "choice", "promptcblue", "number", "labels", "tuples", "text"] = ""
    version: float | str = ""
    form: Literal["", "direct", "letters", "cot"] = ""
    reading: str | None = None
    profile: str | None = None
    metric: str = ""
    also: tuple[str, ...] = ()
    macro_over: str | None = None
    labels: bool = False
    access: Literal["", "registered"] = ""
    language: str = ""
    description: str = ""
    also_called: tuple[str, ...] = ()
    chance: float | None = None
    permute_options: str | None = None
    coverage: tuple[float, ...] = ()

    def in_run(
        self,
        *,
        reading: str | None,
        profile: str | None,
        permute_options: str | None,
        coverage: tuple[float, ...] = (),
    ) -> Self:
        """The same with what a run may change; None leaves what the definition says."""
        return dataclasses.replace(
            self,
            reading=reading or self.reading,
            profile=profile or self.profile,
            permute_options=permute_options,
            coverage=coverage,
        )

    def to_json(self) -> JsonDict:
        """What is set, by name."""
        defaults = dataclasses.asdict(type(self)())
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value != defaults[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationProtocol:
    """How a run asks for texts, as far as it says so; what is None or empty is left as it was.

    Attributes:
        max_new_tokens: Instead of each task's own limit; with `think`, of the answer alone.
        think: Tokens of thought at most; what is not closed by then is closed, and the answer
            forced.
        thinking: Whether the chat template is told to have the model think.
        gen_kwargs: How the next token is chosen, by name; `model`: as the checkpoint's own
            generation_config.json recommends.
        system_instruction: Stands before everything, in a chat as its system message.
        chat_template_args: What else the chat template is told.
        reasoning_effort: What a served model, or a template that has such a variable, is told.
    """

    max_new_tokens: Natural | None = None
    think: Natural | None = None
    thinking: Thinking = "auto"
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)  # a dict has no hash
    system_instruction: str | None = None
    chat_template_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    reasoning_effort: str | None = None

    def to_json(self) -> JsonDict:
        """What is said, by name."""
        said = {name: getattr(self, name) for name in _PROTOCOL_FIELDS}
        return {name: value for name, value in said.items() if value not in (None, {}, "auto")}


_PROTOCOL_FIELDS = tuple(field.name for field in dataclasses.fields(GenerationProtocol))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What a user asked for: one model over some tasks. Names follow the command's flags.

    `tasks` takes one name or several, and is a tuple once the spec is made.
    """

    model: str
    tasks: Sequence[str]
    base: str | None = None
    data_dir: str | None = None
    sample: bool = False
    split: str | None = None
    partial: bool = False
    limit: Natural | None = None
    num_fewshot: Natural | None = None
    batch_size: int | str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 1234
    chat_template: bool | None = None
    cache: bool = True
    permute_options: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)  # a dict has no hash
    """Of exams that are files: which column holds what, where its name does not tell."""
    include_path: Sequence[str] = ()
    """Folders of tasks beside the bundled ones; see `locations.plugin_folders`."""
    max_new_tokens: Natural | None = None
    think: Natural | None = None
    thinking: Thinking = "auto"
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    system_instruction: str | None = None
    chat_template_args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    reasoning_effort: str | None = None
    repeats: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How often each question is asked, by sampling, with seeds from `seed` up."""
    coverage: tuple[float, ...] = ()
    """Which parts of the questions, those of the highest confidence, have their accuracy told."""
    backend: Engine = "local"
    tensor_parallel: Natural | None = None
    gpu_memory: float | None = None
    max_model_len: Natural | None = None
    prompt_lookup: bool = False
    price: str | None = None
    """What tokens and time cost, in the words of `--price`; it changes no answer and no score."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What pages and tables call tasks and the model, by their names."""

    def __post_init__(self) -> None:
        # A lone name is a sequence too, of letters: as such it would be five tasks, "u" to "e".
        names = (self.tasks,) if isinstance(self.tasks, str) else tuple(self.tasks)
        object.__setattr__(self, "tasks", names)
        folders = self.include_path
        listed = (folders,) if isinstance(folders, str) else tuple(folders)
        object.__setattr__(self, "include_path", listed)

    @property
    def protocol(self) -> GenerationProtocol:
        """How texts are asked for; the fields of the same names, together."""
        return GenerationProtocol(**{name: getattr(self, name) for name in _PROTOCOL_FIELDS})

    @property
    def marks(self) -> tuple[str, ...]:
        """Why this run's numbers are not the benchmark's; empty when they are."""
        reasons = (
            (self.sample, "invented sample"),
            (self.limit is not None, f"first {self.limit} docs"),
            (self.split is not None, f"split {self.split}"),
            (self.partial, "partial"),
        )
        return tuple(mark for applies, mark in reasons if applies)

    def to_json(self) -> JsonDict:
        """A plain dict that `from_json` reads back."""
        return {**dataclasses.asdict(self), "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The spec that `to_json` wrote; an unknown field is refused."""
        return _record(cls, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUsage:
    """What one request to a language model cost, and how it ended."""

    prompt_tokens: int
    generated_tokens: int = 0
    finish: Finish = "none"
    prompt_truncated: bool = False
    from_store: bool = False
    failure: str = ""
    """Why no answer could be had; the doc then fails and is left out."""
    thought_tokens: int | None = None
    """Of the generated ones, those before the answer; None where nobody counted."""
    forced: bool = False
    """A thought had its tokens, and was closed for it so that an answer followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a model gave for one doc: a text, or one log-likelihood an option, with its cost."""

    text: str | None = None
    log_likelihoods: tuple[float, ...] | None = None
    usage: tuple[RequestUsage, ...] = ()

    @property
    def finite(self) -> bool:
        """False when any log-likelihood is NaN or infinite: such a doc must not be scored."""
        return all(math.isfinite(value) for value in self.log_likelihoods or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one response earned, with the answer that was read and by which rule.

    `counts` holds what a corpus metric sums over docs (for instance tp, fp, fn), so that every
    metric and interval can be made again from samples alone.
    """

    value: float
    answered: str | None
    reading: str
    counts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How one doc went: what was asked, what came back, how it was read, what it earned."""

    task: str
    doc_id: str
    position: Natural
    doc: Mapping[str, Any]
    prompt: str
    expected: str
    response: str | None = None
    log_likelihoods: tuple[float, ...] | None = None
    answered: str | None = None
    reading: str = ""
    score: float | None = None
    status: Status = "scored"
    failure: str = ""
    counts: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    finish: Finish = "none"
    prompt_tokens: Natural = 0
    generated_tokens: Natural = 0
    prompt_truncated: bool = False
    thought_tokens: Natural | None = None
    forced: bool = False
    repeat: Natural = 0
    """Which of several draws for the same doc this is."""
    variant: str = ""
    """How the doc was changed to test for robustness; "" is the benchmark's own doc."""

    @property
    def prompt_id(self) -> str:
        """A fingerprint of the prompt as the model saw it."""
        return fingerprint(self.prompt)

    def to_json(self) -> JsonDict:
        """A dict that `from_json` reads back, and that JSON can write; what it holds is shared."""
        return {name: getattr(self, name) for name in _SAMPLE_FIELDS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The sample that `to_json` wrote; refused: an unknown field, a score of NaN."""
        try:
            sample = as_record(cls, data)
        except JsonFault:  # perhaps for a word that stands for a number, which few samples have
            lists = ("log_likelihoods", "counts") if isinstance(data, Mapping) else ()
            words = {name: numbers(data[name]) for name in lists if name in data}
            sample = _record(cls, {**data, **words} if words else data)
        if sample.score is not None and not math.isfinite(sample.score):
            raise RunStoreError(f"Sample.score: a finite number is expected, not {sample.score}")
        return sample


_NEVER_MORE_THAN_DOCS = (
    *("unanswered", "truncated", "prompt_truncated", "non_finite", "failed", "forced", "empty"),
)

# `asdict` would copy every doc, which takes longer than writing it.
_SAMPLE_FIELDS = tuple(field.name for field in dataclasses.fields(Sample))


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """One number with its doubt, and what is needed to read it.

    Attributes:
        value: The number; a share is a fraction of one.
        n: How many docs stand behind it.
        interval: Its 95 % interval; None where none is known.
        interval_method: How the interval was made.
        metric: The name of the metric that it is a value of; "" in runs that did not say.
        unit: `share` is shown in %, anything else as it is.
        better: Which direction is the better one, if any is known to be.
    """

    value: float
    n: Natural
    interval: tuple[float, float] | None = None
    interval_method: str = ""
    metric: str = ""
    unit: Unit = "share"
    better: Better = "higher"

    def to_json(self) -> JsonDict:
        """A plain dict that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The value that `to_json` wrote."""
        values = data
        if isinstance(data, Mapping) and "value" in data:
            values = {**data, "value": number(data["value"])}
            values["interval"] = numbers(data.get("interval"))
        metric = _record(cls, values)
        low, high = metric.interval or (0.0, 0.0)
        if low > high + 1e-9:  # the bounds of an interval of no width may differ by rounding
            raise RunStoreError(f"MetricValue.interval: from {low} to {high} is no interval")
        return metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many docs a task had, and what became of those that earned no plain score."""

    docs: Natural = 0
    unanswered: Natural = 0
    truncated: Natural = 0
    prompt_truncated: Natural = 0
    non_finite: Natural = 0
    failed: Natural = 0
    unusable: Natural = 0
    forced: Natural = 0
    """Replies whose thought was closed for them at its budget."""
    empty: Natural = 0
    """Replies that give nothing as their answer: no text, or a thought that never ends."""
    tied: Natural = 0
    """Docs whose most likely option is not one but several, so that they share its credit."""

    @property
    def failed_share(self) -> float:
        """Failed docs, non-finite ones among them, as a share of the docs."""
        return self.failed / self.docs if self.docs else 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The counts of a task's result; none can be larger than that of the docs."""
        counts = _record(cls, data)
        for name in _NEVER_MORE_THAN_DOCS:
            if (some := getattr(counts, name)) > counts.docs:
                raise RunStoreError(f"Counts.{name}: {some} of {counts.docs} docs")
        return counts

    def __add__(self, other: "Counts") -> "Counts":
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What one task, or one group of tasks, added up to."""

    task: str
    main_metric: str
    metrics: Mapping[str, MetricValue]
    counts: Counts
    breakdowns: Mapping[str, Mapping[str, MetricValue]] = field(default_factory=dict)
    chance: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    version: str = ""
    suite: str = ""
    num_fewshot: Natural = 0
    repeats: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How often each doc was asked; counts are of answers, and the numbers' n of docs."""
    members: tuple[str, ...] = ()
    weight_by_size: bool | None = None
    """Of a group: whether every doc weighs the same, or every member; None where unknown."""
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    """Why the data make these numbers not the benchmark's; what was asked for is in the spec."""
    seconds: float = 0.0

    @property
    def is_group(self) -> bool:
        """A group stands for its members and is never tested beside them."""
        return bool(self.members)

    @property
    def main(self) -> MetricValue:
        """The headline number."""
        return self.metrics[self.main_metric]

    @property
    def shortfall(self) -> str:
        """Why this is no finished result; empty where it is one.

        More than 0.1 % of the docs failed, or nothing stands behind the headline number, whatever
        the reason: an unknown scorer, no docs, a metric that is NaN.
        """
        if self.counts.failed_share > 1e-3:
            return f"{self.counts.failed} of {self.counts.docs} docs failed"
        return "no doc has a score" if not self.main.n or math.isnan(self.main.value) else ""

    def to_json(self) -> JsonDict:
        """A plain dict that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The result that `to_json` wrote; an unknown field is refused."""
        values = dict(data) if isinstance(data, Mapping) else data
        if isinstance(values, dict):
            values["metrics"] = _metric_values(values.get("metrics"), "metrics")
            values["counts"] = Counts.from_json(values.get("counts", {}))
            values["breakdowns"] = {
                tag: _metric_values(by_value, f"breakdowns.{tag}")
                for tag, by_value in _mapping(values.get("breakdowns", {}), "breakdowns").items()
            }
        result = _record(cls, values)
        if result.main_metric not in result.metrics:
            raise RunStoreError(f"{result.task} lacks its main metric, {result.main_metric!r}")
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One model over some tasks: numbers, samples, and what made them."""

    name: str
    spec: RunSpec
    provenance: Mapping[str, Any]
    results: Mapping[str, TaskResult]
    samples: Mapping[str, Sequence[Sample]]
    timing: Mapping[str, float] = field(default_factory=dict)
    routing: Mapping[str, Any] | None = None
    parent: str | None = None
    missing_tasks: tuple[str, ...] = ()

    @property
    def leaves(self) -> dict[str, TaskResult]:
        """The tasks themselves, without the groups over them."""
        return {name: result for name, result in self.results.items() if not result.is_group}

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Tasks that did not run, that have no score, or of whose docs more than 0.1 % failed."""
        short = [name for name, result in self.leaves.items() if result.shortfall]
        return (*self.missing_tasks, *short)

    @property
    def marks(self) -> tuple[str, ...]:
        """Why this run's numbers are not the benchmark's: what was asked for, and its data."""
        from_data = (f"{task}: {mark}" for task, one in self.leaves.items() for mark in one.marks)
        return (*self.spec.marks, *from_data)

    def marks_of(self, task: str) -> tuple[str, ...]:
        """Why one task's numbers, or one group's, are not the benchmark's."""
        result = self.results.get(task)
        return self.spec.marks if result is None else (*self.spec.marks, *result.marks)

    def to_frame(self) -> "pd.DataFrame":
        """The samples, one a row, as a pandas frame."""
        import pandas as pd

        return pd.DataFrame([s.to_json() for samples in self.samples.values() for s in samples])

    def results_frame(self) -> "pd.DataFrame":
        """The metrics, one a row, as a pandas frame.

        Its columns: task, metric, value, low, high, n, unit, better.
        """
        import pandas as pd

        rows = []
        for task, result in self.results.items():
            for metric, value in result.metrics.items():
                low, high = value.interval or (None, None)
                facts = (value.value, low, high, value.n, value.unit, value.better)
                rows.append((task, metric, *facts))
        columns = ["task", "metric", "value", "low", "high", "n", "unit", "better"]
        return pd.DataFrame(rows, columns=columns)


def fingerprint(value: Any) -> str:
    """Sixteen hex digits of the SHA-256 of a text, or of anything JSON can write, keys sorted."""
    text = (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class DocIds:
    """Ids of docs one after the other: the second and later of equal ones are `d#2`, `d#3`."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int]] = Counter()

    def next(self, doc_id: str, repeat: int = 0) -> str:
        """The id of a doc of this content, among those that came so far in the same repeat."""
        self._seen[doc_id, repeat] += 1
        times = self._seen[doc_id, repeat]
        return doc_id if times == 1 else f"{doc_id}#{times}"


def _record(cls: type[_T], data: object) -> _T:
    try:
        return as_record(cls, data)
    except JsonFault as fault:
        raise RunStoreError(str(fault)) from fault


def _metric_values(data: object, where: str) -> dict[str, MetricValue]:
    values = {}
    for name, value in _mapping(data, where).items():
        try:
            values[name] = MetricValue.from_json(value)
        except RunStoreError as error:
            raise RunStoreError(f"{where}.{name}: {error}") from error
    return values


def _mapping(data: object, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise RunStoreError(f"{where}: an object is expected, not {shown(data)}")
    return data
