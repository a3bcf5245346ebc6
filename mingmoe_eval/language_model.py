"""What a run needs of a language model, so that anything can be evaluated that answers."""

from collections.abc import Mapping, Sequence
from inspect import getattr_static
from typing import Any, Protocol, runtime_checkable

from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import JsonDict, RequestUsage

UsageKey = tuple[str, int, int]
"""Which request: the task's name, the doc's position, the request's index within the doc."""


class Request(Protocol):
    """One question to a model: what is read of lm-eval's `Instance`.

    (`task_name`, `doc_id`, `idx`) is the key of its usage.
    """

    @property
    def args(self) -> tuple[Any, ...]:
        """(context, continuation), (text,) or (context, generation settings)."""

    @property
    def task_name(self) -> str:
        """The task's name."""

    @property
    def doc_id(self) -> int:
        """The doc's position in the task."""

    @property
    def idx(self) -> int:
        """Which of the doc's requests it is."""


class LanguageModel(Protocol):
    """All that is used of a model: that part of lm-eval's `LM`, and what each request cost.

    A subclass of `lm_eval.api.model.LM` has `rank` and `world_size` from
    there; anything else sets them to 0 and 1.
    """

    @property
    def rank(self) -> int:
        """0: runs are asked for by one process, however many compute the answers."""

    @property
    def world_size(self) -> int:
        """1, for the same reason."""

    def loglikelihood(self, requests: list[Request]) -> list[tuple[float, bool]]:
        """Of each continuation: its log-likelihood in nats, and whether it is the greedy one."""

    def loglikelihood_rolling(self, requests: list[Request]) -> list[float]:
        """The log-likelihood of each whole text in nats; only some of lm-eval's own tasks ask."""

    def generate_until(self, requests: list[Request]) -> list[str]:
        """A text that continues each context, up to a stop string of its settings."""

    def take_usage(self) -> dict[UsageKey, RequestUsage]:
        """What each request cost since the last call; the record is cleared."""

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer brings a chat template; the next two are for those that do."""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as one prompt; without a generation prompt, its last message is to go on."""

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, of which the run records a fingerprint."""

    def describe(self) -> JsonDict:
        """What the model is, for provenance: weights, format, dtype, device and so on."""


@runtime_checkable
class MayLackAbilities(Protocol):
    """A model that cannot do every kind of task, such as one behind an endpoint."""

    def refuse_unless_able(self, output_types: Mapping[str, str], *, chat: bool) -> None:
        """Refuse tasks that it cannot do, given lm-eval's output type of each."""


@runtime_checkable
class CountsTokens(Protocol):
    """A model whose tokenizer is at hand, so that what does not fit is known beforehand."""

    @property
    def max_length(self) -> int:
        """The most tokens of prompt and reply together."""

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has."""

    def most_new_tokens(self, arguments: Mapping[str, Any]) -> int:
        """How long a reply to a request with these generation arguments can become."""


@runtime_checkable
class StatesGeneration(Protocol):
    """A model that can say what a task's generation arguments come to, for provenance."""

    def generation_facts(self, arguments: Mapping[str, Any]) -> JsonDict:
        """Limit and choice of tokens, its own defaults taken in."""

    def template_facts(self) -> JsonDict:
        """What its chat template is told, and what that makes of `thinking`, where it is known."""


@runtime_checkable
class CountsRouting(Protocol):
    """A model that can say what its experts did."""

    @property
    def routing(self) -> JsonDict | None:
        """What run.json keeps of it; None for a model without routers."""


def refuse_incomplete(lm: object) -> None:
    """Refuse an object that lacks members of `LanguageModel`.

    lm-eval takes some of them for optional: without `apply_chat_template` it would ask in plain
    text, and the run would say that the template was applied.

    Raises:
        UsageError: naming every member that is missing.
    """
    members = [name for name in vars(LanguageModel) if not name.startswith("_")]
    # Looked up, not asked: a property such as `has_chat_template` may send requests of its own.
    if missing := [
        name for name in members if getattr_static(lm, name, None) is None and not hasattr(lm, name)
    ]:
        raise UsageError(
            f"{type(lm).__name__} cannot be evaluated: it lacks {', '.join(missing)}; "
            "mingmoe_eval.LanguageModel says what a run uses of a model"
        )
