"""How the records of a data set are asked and scored: the part of `_data.yaml` that makes tasks.

An entry that no task's YAML names makes its tasks by itself, one a form; what it says of its
prompt, labels and metric is here. What it says of its files is in `exams.benchmarks`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, get_args

import msgspec

from mingmoe_eval.suites.templates import fields_in

SuiteName = Literal["choice", "number", "labels", "tuples", "text"]
FormName = Literal["direct", "letters", "cot"]
Kind = Literal["number", "date", "weeks"]
"""As `metrics.number_reading` has it, which takes long to import."""

Shape = Literal["entities", "relations", "findings", "terms", "events", "tuples"]
"""What a tuple is; `tuples` have keys of the user's own, and no lines but those with `|`."""

KEYS: Mapping[Shape, tuple[str, ...]] = {
    "entities": ("entity", "type"),
    "relations": ("subject", "predicate", "object"),
    "findings": ("entity", "attr"),
    "terms": ("entity",),
    "events": ("主体词", "发生状态", "描述词", "解剖部位"),
    "tuples": (),
}

ENDINGS: Mapping[FormName, str] = {"direct": "", "letters": "_ll", "cot": "_cot"}
"""What a form's task has behind its name."""

ROLES: Mapping[SuiteName, tuple[str, ...]] = {
    "choice": ("question", "context", "options", "answer", "type", "subject", "sheet", "first"),
    "number": ("answer", "question", "context", "lower", "upper", "unit", "cluster"),
    "labels": ("answer", "question", "context", "labels", "cluster"),
    "tuples": ("answer", "question", "context", "labels", "cluster"),
    "text": ("answer", "question", "context", "cluster"),
}
"""What a record may hold, by suite; `fields` says how it is called there."""

Fault = tuple[str, str]
"""Where in an entry something is wrong, as `prompt.cot`, and what."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Several = Annotated[int, msgspec.Meta(ge=1)]


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a model, and how its reply is scored.

    Attributes:
        suite: What is asked for, and by which scorer.
        fields: Which field of a record holds what, where it is not called so:
            `answer: Ground Truth Answer`; also names that prompts have for fields.
        prompt: The prompt as a Jinja text over a record's fields; or one a form (direct, letters,
            cot). Exams have wordings of their own, which it replaces.
        language: Of the questions: zh, en, or another code of two letters; it chooses the wording
            of exams.
        description: One line for those who choose among tasks.
        version: Raised whenever a score could move.
        metric: The suite's metric that is the score, where it is not its first.
        chance: What guessing would score, where it does not follow from options or labels.
        max_gen_toks: Tokens that a reply may have in the plain form.
        num_fewshot: Worked examples before each question; `shots` says where they come from.
        access: `registered` data may not be passed on: reports leave the docs out.
        kind: Of `number`: what is asked for; by default what a record's answer looks like.
        unit: Of `number`: the unit of answers and limits, where the records do not say it.
        tolerance: Of `number`: the share of the answer that a reply may miss, where records have no
            limits.
        day_first: Of `number`: 3/4/2024 is the third of April.
        labels: Of `labels` those that can be given, by default those that the file has; of
            `tuples` the types, relations or statuses.
        shape: Of `tuples`: what a tuple is.
        keys: Of `tuples` of shape tuples: what its values are called, in their order.
        profile: Of `labels` and `tuples`: how replies are read; `official` as PromptCBLUE does.
    """

    suite: SuiteName = "choice"
    fields: dict[str, str] = {}
    prompt: str | dict[FormName, str] = ""
    language: Annotated[str, msgspec.Meta(pattern="^[a-z]{2}$")] | None = None
    description: str = ""
    version: float | str = 1.0
    metric: str = ""
    chance: Share | None = None
    max_gen_toks: Several | None = None
    num_fewshot: Annotated[int, msgspec.Meta(ge=0)] | None = None
    access: Literal["", "registered"] = ""
    kind: Kind | None = None
    unit: str = ""
    tolerance: Share = 0.0
    day_first: bool = False
    labels: tuple[str, ...] = ()
    shape: Shape | None = None
    keys: tuple[str, ...] = ()
    profile: Literal["lenient", "official", "legacy"] | None = None

    @property
    def prompts(self) -> dict[FormName, str]:
        """The prompts that are the user's own, by form; a single one is that of the plain form."""
        return {"direct": self.prompt} if isinstance(self.prompt, str) else dict(self.prompt)

    def prompt_of(self, form: FormName) -> str:
        """The user's own prompt of a form; "" where there is none."""
        return self.prompts.get(form, "")

    @property
    def prompts_that_ask(self) -> list[FormName]:
        """The forms for which there is a prompt of the user's own."""
        return [form for form in get_args(FormName) if self.prompt_of(form).strip()]

    @property
    def shown(self) -> frozenset[str]:
        """What the user's own prompts show of a record, by the names that they have for it."""
        shown: frozenset[str] = frozenset()
        for text in self.prompts.values():
            with contextlib.suppress(ValueError):  # a fault, which `faults` names
                shown |= fields_in(text)
        return shown

    def faults(self) -> Iterator[Fault]:
        """What its values contradict."""
        for name, suites in _BELONGS_TO.items():
            if self.suite not in suites and getattr(self, name) != _DEFAULTS[name]:
                yield name, f"it belongs to suite {' and '.join(suites)}, not to {self.suite}"
        # An exam's prompt shows what every exam has, whatever the file calls it.
        names = self.shown if self.suite != "choice" else frozenset()
        for role in sorted(self.fields.keys() - set(ROLES[self.suite]) - names):
            roles = ", ".join(ROLES[self.suite])
            yield (
                f"fields.{role}",
                "no prompt shows it, and it is nothing that a record of suite "
                f"{self.suite} is asked for ({roles})",
            )
        if len(set(self.labels)) < len(self.labels) or "" in self.labels:
            yield "labels", "each has to be there once, and none may be empty"
        if self.suite == "labels" and len(self.labels) == 1:
            yield "labels", "there is but one, so that there is nothing to decide"
        if self.suite == "tuples" and self.shape is None:
            yield "shape", f"it is missing: one of {', '.join(get_args(Shape))}"
        if self.shape is not None and bool(self.keys) != (not KEYS[self.shape]):
            own = ", ".join(KEYS[self.shape])
            needs = f"has the keys {own}: leave this out" if own else "needs keys of your own"
            yield "keys", f"shape {self.shape} {needs}"
        if len(set(self.keys)) < len(self.keys):
            yield "keys", "each has to be there once"
        yield from self._faults_of_prompts()

    def _faults_of_prompts(self) -> Iterator[Fault]:
        own = self.prompts
        if self.suite != "choice" and "letters" in own:
            yield "prompt.letters", f"this form belongs to suite choice, not to {self.suite}"
        for form, text in own.items():
            where = "prompt" if isinstance(self.prompt, str) else f"prompt.{form}"
            if not text.strip():
                if isinstance(self.prompt, dict) or self.prompt:
                    yield where, "it is empty"
                continue
            if text.startswith("!function"):
                yield where, "it is a text here; a function goes into a YAML of lm-eval's"
                continue
            try:
                used = fields_in(text)
            except ValueError as error:
                yield where, f"it is no Jinja text: {error}"
                continue
            if not used:
                yield where, "it shows nothing of a record: write {{ field }} where one goes"
            if shown := sorted({"answer", self.fields.get("answer", "answer")} & used):
                yield where, f"it shows the answer: {{{{ {shown[0]} }}}}"


_BELONGS_TO: Mapping[str, tuple[SuiteName, ...]] = {
    "kind": ("number",),
    "unit": ("number",),
    "tolerance": ("number",),
    "day_first": ("number",),
    "labels": ("labels", "tuples"),
    "shape": ("tuples",),
    "keys": ("tuples",),
    "profile": ("labels", "tuples"),
}
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Form)}
