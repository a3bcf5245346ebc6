"""Texts with lm-eval's generation arguments, made into prompts that fit the model."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mingmoe_eval.engine.generated_text import THOUGHT_BEGINS
from mingmoe_eval.engine.generation import Prompt
from mingmoe_eval.engine.generation_settings import GenerationSettings, generation_settings
from mingmoe_eval.engine.tokenisation import Tokenisation, Tokens


class PromptMaker:
    """Makes prompts for one model, and tells once when its context is short.

    Args:
        tokenisation: of the model; says how long an input may be.
        defaults: the model's own generation config, or None.
        seed: of sampled generations whose arguments name none.
        note: told what the user should know.
    """

    def __init__(
        self,
        tokenisation: Tokenisation,
        defaults: Any,
        *,
        seed: int,
        note: Callable[[str], None] | None,
    ) -> None:
        self._tokenisation, self._defaults = tokenisation, defaults
        self._seed, self._note = seed, note
        self._told_of_short_context = False

    def prompts(
        self,
        texts: Sequence[str],
        encoded: Sequence[Tokens],
        arguments: Sequence[Mapping[str, Any]],
    ) -> list[Prompt]:
        """One for each text, whose ids are given; too long ones lose their beginning."""
        end_ids = _end_ids(self._defaults, self._tokenisation.tokenizer)
        seen: Counter[bytes] = Counter()
        prompts = []
        for text, tokens, given in zip(texts, encoded, arguments, strict=True):
            asked = generation_settings(given, self._defaults, end_ids=end_ids, seed=self._seed)
            settings = self._fitting(asked, len(tokens))
            room = self._tokenisation.max_length - settings.max_new_tokens
            repeat = seen[tokens.tobytes()] if settings.sample else 0
            seen[tokens.tobytes()] += 1
            in_thought = text.rstrip().endswith(THOUGHT_BEGINS)
            prompts.append(Prompt(tokens[-room:], settings, in_thought, repeat))
        return prompts

    def _fitting(self, settings: GenerationSettings, prompt_tokens: int) -> GenerationSettings:
        """Fewer new tokens where those asked for would crowd the prompt out of a short context.

        At least half of the context is the prompt's, if it needs that much; lm-eval's `hf` cuts the
        prompt to what the limit leaves, and fails where that is nothing.
        """
        longest = self._tokenisation.max_length
        most = max(longest - prompt_tokens, longest // 2)
        if settings.max_new_tokens <= most:
            return settings
        if self._note is not None and not self._told_of_short_context:
            self._note(
                f"{settings.max_new_tokens} new tokens are asked for, the model's context is "
                f"{longest}: generations are cut where it ends"
            )
            self._told_of_short_context = True
        return dataclasses.replace(settings, max_new_tokens=most)


def _end_ids(defaults: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a text: the generation config's, and the tokenizer's own."""
    named = getattr(defaults, "eos_token_id", None)
    listed = named if isinstance(named, (list, tuple)) else [named]
    return tuple(sorted({int(i) for i in [*listed, tokenizer.eos_token_id] if i is not None}))
