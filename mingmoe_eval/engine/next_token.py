"""Choosing the next token of one text: the most likely one, or one drawn with a seed of its own."""

import hashlib
from collections.abc import Sequence

import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mingmoe_eval.engine.generation_settings import GenerationSettings
from mingmoe_eval.engine.tokenisation import Tokens


class NextToken:
    """Chooses for one text. A draw depends on seed, prompt and repeat, never on its neighbours."""

    def __init__(self, settings: GenerationSettings, prompt: Tokens, repeat: int = 0) -> None:
        self._settings = settings
        self._prompt = prompt.tolist()
        self._processors = _processors(settings)
        self._generator = torch.Generator()
        if settings.sample:
            self._generator.manual_seed(_seed(settings.seed, prompt, repeat))

    def __call__(self, logits: torch.Tensor, likeliest: int, ids: Sequence[int]) -> int:
        """The token after `ids`; `logits`: [vocabulary], whose argmax is `likeliest`."""
        if self._settings.is_plain_greedy:
            return likeliest
        so_far = torch.tensor([[*self._prompt, *ids]])
        scores = self._processors(so_far, logits[None].float().cpu())
        if not self._settings.sample:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


def _processors(settings: GenerationSettings) -> LogitsProcessorList:
    """In the order of `model.generate`: penalties first, then what shapes the draw."""
    chosen = LogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        chosen.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if not settings.sample:
        return chosen
    if settings.temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        chosen.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        chosen.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        chosen.append(MinPLogitsWarper(settings.min_p))
    return chosen


def _seed(seed: int, prompt: Tokens, repeat: int) -> int:
    digest = hashlib.blake2b(prompt.tobytes(), digest_size=8)
    digest.update(f"{seed}/{repeat}".encode())
    return int.from_bytes(digest.digest(), "big") >> 1
