"""The two ways in which log-likelihoods are had from an OpenAI-compatible endpoint.

* `echo`: the prompt with each continuation is sent for completion with `echo` and `logprobs`, and
  the continuation's own tokens are summed. Exact, for any continuation (vLLM, SGLang).
* `first token`: the prompt is sent once, one token is generated, and the letters are looked up in
  its `top_logprobs`. The only way over chat. For single letters alone: which one is likeliest is
  exact, the value of a letter that is not listed is an upper bound.

Which of them an endpoint takes is tried out; the first that it takes, in the order above, is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mingmoe_eval.engine.served_client import Failure
from mingmoe_eval.engine.served_protocol import (
    FirstTokens,
    Question,
    echo_question,
    first_token_question,
    path_of,
    trial_prompt,
)
from mingmoe_eval.errors import offence_list

# OpenAI lists 20 likeliest tokens of a chat and 5 of a completion; some servers fewer still.
_LISTED_AT_MOST = (20, 5)


@dataclass(frozen=True, slots=True)
class Valued:
    """What a reply says of a continuation: its log-likelihood in nats, and whether it is greedy."""

    value: tuple[float, bool]
    prompt_tokens: int


class Way(Protocol):
    """How continuations are asked about, and what the replies say of them."""

    name: ClassVar[str]

    def question(self, model: str, prompt: str, continuation: str) -> Question:
        """What is sent for one continuation."""
        ...

    def valued(self, requests: Sequence[Any], replies: Sequence[Any]) -> list[Valued | str]:
        """What each reply says, in order; a text: why it says nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Echo:
    """The continuation's own tokens, of a prompt that is echoed with it."""

    name: ClassVar[str] = "echo"

    def question(self, model: str, prompt: str, continuation: str) -> Question:
        """Another one for each continuation."""
        return echo_question(model, prompt, continuation)

    def valued(self, requests: Sequence[Any], replies: Sequence[Any]) -> list[Valued | str]:
        """What each reply says of its own continuation."""
        return [
            reply.reason if isinstance(reply, Failure) else _echoed(*reply) for reply in replies
        ]


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Letters, looked up among the `most` likeliest first tokens of an answer."""

    most: int
    name: ClassVar[str] = "first token"

    def question(self, model: str, prompt: str, continuation: str) -> Question:
        """The same for every letter of a prompt, so that it is asked once."""
        return first_token_question(model, prompt, most=self.most)

    def valued(self, requests: Sequence[Any], replies: Sequence[Any]) -> list[Valued | str]:
        """What each reply says of its letter, beside the other letters of its question."""
        letters: dict[tuple[str, int, str], list[str]] = {}
        for request in requests:
            letters.setdefault(_doc(request), []).append(request.args[1])
        return [
            reply.reason
            if isinstance(reply, Failure)
            else _listed(reply, request.args[1], letters[_doc(request)])
            for request, reply in zip(requests, replies, strict=True)
        ]


def trials(model: str, *, chat: bool) -> Iterator[tuple[Way, Question]]:
    """The ways that prompts of this kind could take, the best first, each with a trial of it."""
    prompt = trial_prompt(chat=chat)
    ways: list[Way] = [FirstToken(most) for most in _LISTED_AT_MOST]
    if not chat:
        ways.insert(0, Echo())
    return ((way, way.question(model, prompt, " A")) for way in ways)


def no_log_probabilities(address: str, tasks: set[str], *, chat: bool) -> str:
    """That an endpoint has none for tasks that need them, with the tasks that do without."""
    return offence_list(
        f"{address}{path_of(chat=chat)} gives no log-probabilities, which these "
        "tasks need; use the form in which the model writes its answer (of a file: its name "
        "without _ll)",
        [
            f"{task}: use {task.removesuffix('_ll')}" if task.endswith("_ll") else task
            for task in sorted(tasks)
        ],
    )


def _echoed(prompt_tokens: int, value: tuple[float, bool] | str) -> Valued | str:
    return value if isinstance(value, str) else Valued(value, prompt_tokens)


def _listed(reply: FirstTokens, letter: str, letters: Sequence[str]) -> Valued | str:
    values = reply.log_likelihoods(letters)
    if isinstance(values, str):
        return values
    return Valued((values[letter], reply.likeliest == letter), reply.prompt_tokens)


def _doc(request: Any) -> tuple[str, int, str]:
    """What the letters of one question have in common."""
    return request.task_name, request.doc_id, request.args[0]
