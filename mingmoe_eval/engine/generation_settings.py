"""How a text is to be generated: lm-eval's generation arguments, validated and frozen."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.errors import UsageError, offence_list

DEFAULT_NEW_TOKENS = 256

# The names by which lm-eval knows the limit, the first that is given counts.
_LIMIT_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_OF_EVERY_STEP = ("repetition_penalty", "no_repeat_ngram_size")
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

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the next token is the most likely one, and nothing else."""
        return not self.sample and self.repetition_penalty == 1.0 and not self.no_repeat_ngram_size

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for the key under which an answer is stored."""
        return dataclasses.asdict(self)


def generation_settings(
    arguments: Mapping[str, Any], defaults: Any, *, end_ids: tuple[int, ...], seed: int
) -> GenerationSettings:
    """Settings from lm-eval's arguments, then from the model's own generation config.

    As in `model.generate`, penalties of the generation config hold for greedy decoding too, while
    its temperature, top_k and top_p are for sampling only. Sampling must be asked for: by
    `do_sample`, or by a temperature above 0.

    Raises:
        UsageError: naming every argument that this engine does not know.
    """
    given = dict(arguments)
    limits = [given.pop(name) for name in _LIMIT_NAMES if given.get(name) is not None]
    stop = given.pop("until", None) or ()
    temperature = given.pop("temperature", None)
    sample = given.pop("do_sample", None)
    if sample is None:
        sample = bool(temperature)
    seed = given.pop("seed", seed)
    chosen: dict[str, Any] = {"seed": seed} if sample else {}
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
        **chosen,
    )


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
