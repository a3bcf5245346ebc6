"""How texts are to be generated: lm-eval's arguments and a model's own, made into prompts."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mingmoe_eval.engine.tokenisation import Tokenisation, Tokens
from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.metrics.answer_reading.reply_text import opened_thought

DEFAULT_NEW_TOKENS = 256
# The names by which lm-eval knows the limit, the first that is given counts.
_LIMIT_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_OF_EVERY_STEP = (
    *("repetition_penalty", "no_repeat_ngram_size", "presence_penalty", "frequency_penalty"),
)
# Arguments that stock configurations carry with a value that changes nothing.
_WITHOUT_EFFECT = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """Everything beside model and prompt that decides what is generated."""

    max_new_tokens: int = DEFAULT_NEW_TOKENS
    stop: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()
    sample: bool = False
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    of_server: bool = False
    """What is not set is a server's own, which nobody here knows."""
    think: int | None = None
    """Tokens of thought at most; `max_new_tokens` are then the answer's behind it."""
    thought_end: str = ""
    """What closes a thought that has had them, as the model's template writes it."""

    @property
    def most_new_tokens(self) -> int:
        """How long a text can become, with its thought and what closes it."""
        if self.think is None:
            return self.max_new_tokens
        # No token is shorter than a byte.
        return self.think + len(self.thought_end.encode()) + self.max_new_tokens

    def within(self, tokens: int) -> "GenerationSettings":
        """The same for so many tokens in all: a thought gives way before its answer does."""
        excess = self.most_new_tokens - tokens
        if excess <= 0:
            return self
        if self.think is None:
            return dataclasses.replace(self, max_new_tokens=tokens)
        think = max(0, self.think - excess)
        left = excess - (self.think - think)
        return dataclasses.replace(self, think=think, max_new_tokens=self.max_new_tokens - left)

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the next token is the most likely one, and nothing else."""
        return not self.sample and not any(
            getattr(self, name) != _WITHOUT_CHANGE[name] for name in _OF_EVERY_STEP
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for the key under which an answer is stored.

        Settings that there were not always are left out where they change nothing: answers from
        before are still found.
        """
        later = {n for n in _ADDED_LATER if getattr(self, n) == _WITHOUT_CHANGE[n]}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in later}

    def described(self) -> dict[str, Any]:
        """What a run records: the limit, and how the next token is chosen."""
        names = (*(_OF_SAMPLING if self.sample else ()), *_OF_EVERY_STEP)
        changed = {n: getattr(self, n) for n in names if getattr(self, n) != _WITHOUT_CHANGE[n]}
        if self.think is not None:
            changed["think"] = self.think
        how: dict[str, Any] = {"greedy": True}
        if self.sample:
            how = {"temperature": "the server's own" if self.of_server else self.temperature}
        if self.sample:
            changed["seed"] = self.seed
        return {"max_new_tokens": self.max_new_tokens, **how, **changed}


_WITHOUT_CHANGE = {field.name: field.default for field in dataclasses.fields(GenerationSettings)}
_ADDED_LATER = (*("presence_penalty", "frequency_penalty", "of_server", "think", "thought_end"),)


def generation_settings(
    arguments: Mapping[str, Any], defaults: Any, *, end_ids: tuple[int, ...], seed: int
) -> GenerationSettings:
    """Settings from lm-eval's arguments, then from the model's own generation config.

    As in `model.generate`, penalties of the generation config hold for greedy decoding too, while
    its temperature, top_k and top_p are for sampling only. Sampling must be asked for: by
    `do_sample`, by a temperature above 0, or by `model`, which leaves it to the generation config.
    Without such a config, `model` leaves it to the server.

    Raises:
        UsageError: naming every argument that this engine does not know.
    """
    given = dict(arguments)
    limits = [given.pop(name) for name in _LIMIT_NAMES if given.get(name) is not None]
    stop = given.pop("until", None) or ()
    temperature = given.pop("temperature", None)
    sample = given.pop("do_sample", None)
    as_model = given.pop("model", False)
    if sample is None:
        recommended = as_model and (defaults is None or getattr(defaults, "do_sample", False))
        sample = bool(temperature or recommended)
    elif temperature == 0:
        sample = False  # as servers read it; not the temperature of somebody else
    seed = given.pop("seed", seed)
    think = given.pop("think", None)
    chosen: dict[str, Any] = {"seed": seed} if sample else {}
    if as_model and defaults is None and not temperature:
        chosen["of_server"] = True
    if sample and temperature:
        chosen["temperature"] = float(temperature)
    for name in (*_OF_SAMPLING, *_OF_EVERY_STEP):
        value = given.pop(name, None)
        value = getattr(defaults, name, None) if value is None else value
        if value is not None and name not in chosen and (sample or name in _OF_EVERY_STEP):
            chosen[name] = value
    _refuse_unknown(given)
    return GenerationSettings(
        max_new_tokens=int(limits[0]) if limits else DEFAULT_NEW_TOKENS,
        stop=tuple(text for text in ([stop] if isinstance(stop, str) else stop) if text),
        end_ids=end_ids,
        sample=sample,
        think=None if think is None else int(think),
        **chosen,
    )


def recommended_sampling(defaults: Any) -> dict[str, Any]:
    """What a generation config says of sampling; nothing where it is for greedy decoding."""
    if not getattr(defaults, "do_sample", False):
        return {}
    values = {name: getattr(defaults, name, None) for name in _OF_SAMPLING}
    return {name: value for name, value in values.items() if value is not None}


def before_stop(answer: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop strings."""
    for text in stop:
        answer = answer.split(text)[0]
    return answer


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What to continue; `repeat` tells the draws for equal sampled prompts apart.

    `opened`: the tag of the thinking block that the prompt ends in; "": it ends in none.
    """

    tokens: Tokens
    settings: GenerationSettings
    opened: str = ""
    repeat: int = 0


class PromptMaker:
    """Makes prompts for one model, and tells once when its context is short.

    Args:
        tokenisation: of the model; says how long an input may be.
        defaults: the model's own generation config, or None.
        seed: of sampled generations whose arguments name none.
        note: told what the user should know.
        thought_end: what closes a thought; asked where a budget is set, once.
    """

    def __init__(
        self,
        tokenisation: Tokenisation,
        defaults: Any,
        *,
        seed: int,
        note: Callable[[str], None] | None,
        thought_end: Callable[[], str],
    ) -> None:
        self._tokenisation, self._defaults = tokenisation, defaults
        self._seed, self._note, self._find_thought_end = seed, note, thought_end
        self._told_of_short_context = self._told_of_recommendation = False
        self._end_ids = _end_ids(defaults, tokenisation.tokenizer)

    def settings(self, arguments: Mapping[str, Any]) -> GenerationSettings:
        """What a request's arguments come to, short of what the context leaves room for."""
        settings = generation_settings(
            arguments, self._defaults, end_ids=self._end_ids, seed=self._seed
        )
        if settings.think is None:
            return settings
        return dataclasses.replace(settings, thought_end=self._thought_end)

    @cached_property
    def _thought_end(self) -> str:
        return self._find_thought_end()

    def prompts(
        self,
        texts: Sequence[str],
        encoded: Sequence[Tokens],
        arguments: Sequence[Mapping[str, Any]],
    ) -> list[Prompt]:
        """One for each text, whose ids are given; too long ones lose their beginning."""
        seen: Counter[bytes] = Counter()
        prompts = []
        for text, tokens, given in zip(texts, encoded, arguments, strict=True):
            asked = self.settings(given)
            self._tell_of_recommendation(asked)
            settings = self._fitting(asked, len(tokens))
            room = self._tokenisation.max_length - settings.most_new_tokens
            repeat = seen[tokens.tobytes()] if settings.sample else 0
            seen[tokens.tobytes()] += 1
            prompts.append(Prompt(tokens[-room:], settings, opened_thought(text), repeat))
        return prompts

    def _tell_of_recommendation(self, settings: GenerationSettings) -> None:
        """A checkpoint that recommends sampling, and is asked greedily: said, not obeyed."""
        recommended = recommended_sampling(self._defaults)
        if settings.sample or not recommended or self._told_of_recommendation:
            return
        self._told_of_recommendation = True
        if self._note is not None:
            words = ", ".join(f"{name} {value}" for name, value in recommended.items())
            self._note(
                f"the checkpoint's generation_config.json recommends {words}; this run is greedy, "
                "as the tasks are defined: take it with --gen-kwargs model"
            )

    def _fitting(self, settings: GenerationSettings, prompt_tokens: int) -> GenerationSettings:
        """Fewer new tokens where those asked for would crowd the prompt out of a short context.

        At least half of the context is the prompt's, if it needs that much; lm-eval's `hf` cuts the
        prompt to what the limit leaves, and fails where that is nothing.
        """
        longest = self._tokenisation.max_length
        most = max(longest - prompt_tokens, longest // 2)
        if settings.most_new_tokens <= most:
            return settings
        if self._note is not None and not self._told_of_short_context:
            self._note(
                f"{settings.most_new_tokens} new tokens are asked for, the model's context is "
                f"{longest}: generations are cut where it ends"
            )
            self._told_of_short_context = True
        return settings.within(most)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    offences = [
        f"{name} = {value!r}"
        for name, value in given.items()
        if name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name]
    ]
    if offences:
        known = ("until", "do_sample", "seed", *_LIMIT_NAMES, *_OF_SAMPLING, *_OF_EVERY_STEP)
        raise UsageError(
            offence_list(f"unknown generation arguments (known: {', '.join(known)}):", offences)
        )


def _end_ids(defaults: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a text: the generation config's, and the tokenizer's own."""
    named = getattr(defaults, "eos_token_id", None)
    listed = named if isinstance(named, (list, tuple)) else [named]
    return tuple(sorted({int(i) for i in [*listed, tokenizer.eos_token_id] if i is not None}))
