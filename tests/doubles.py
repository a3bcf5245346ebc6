"""A language model that answers from a function: the one double that the tests need."""

from collections.abc import Callable
from typing import Any

from lm_eval.api.model import LM

from mingmoe_eval.records import JsonDict, RequestUsage

Reply = str | RequestUsage | float


class ScriptedLM(LM):
    """Answers each request by `reply(prompt)` (a text) or `likelihood(prompt, continuation)`."""

    def __init__(
        self,
        reply: Callable[[str], str] = lambda prompt: "",
        likelihood: Callable[[str, str], float] = lambda prompt, continuation: -1.0,
        *,
        finish: Callable[[str], str] = lambda prompt: "stop",
        failure: Callable[[str], str] = lambda prompt: "",
        template: bool = False,
    ) -> None:
        super().__init__()
        self.reply = reply
        self.likelihood = likelihood
        self.finish = finish
        self.failure = failure
        self.has_chat_template = template
        self.prompts: list[str] = []
        self._usage: dict[tuple[str, int, int], RequestUsage] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> str:
        prompt = request.args[0]
        self.prompts.append(prompt)
        text = self.reply(prompt)
        self._note(request, len(text), self.finish(prompt), self.failure(prompt))
        return text

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        for request in requests:
            self.prompts.append(request.args[0])
            self._note(request, 0, "none", self.failure(request.args[0]))
        return [(self.likelihood(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return [0.0 for _ in requests]

    def _note(self, request: Any, generated: int, finish: str, failure: str) -> None:
        key = (request.task_name, request.doc_id, request.idx)
        self._usage[key] = RequestUsage(
            prompt_tokens=len(request.args[0]),
            generated_tokens=generated,
            finish=finish,
            failure=failure,
        )

    def take_usage(self) -> dict[tuple[str, int, int], RequestUsage]:
        taken, self._usage = self._usage, {}
        return taken

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        turns = "".join(f"<{turn['role']}>{turn['content']}</>" for turn in chat_history)
        return turns + ("<assistant>" if add_generation_prompt else "")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return "scripted" if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        return "scripted"

    def describe(self) -> JsonDict:
        return {"format": "scripted"}
