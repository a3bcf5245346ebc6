"""One text that is being generated: which token comes next, and what its tokens say so far.

A greedy token is the most likely one; a drawn one comes from a seed of the text's own.
"""

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mingmoe_eval.engine.prompts import GenerationSettings, before_stop
from mingmoe_eval.engine.tokenisation import Tokens
from mingmoe_eval.metrics.answer_reading.reply_text import (
    begins_thought,
    closes_thought,
    heading_behind,
    is_thinking_tag,
    split_thoughts,
)

# No token is shorter than a byte, so that so many hold any tag that closes a thought.
_TAIL_OF_A_TAG = 44
# A stop string may begin inside a token and end inside another.
_SPARE_TOKENS = 4


class NextToken:
    """Chooses for one text. A draw depends on seed, prompt and repeat, never on its neighbours."""

    def __init__(self, settings: GenerationSettings, prompt: Tokens, repeat: int = 0) -> None:
        self._settings = settings
        self._processors = logits_processors(settings, len(prompt))
        # Prompt and text so far, with room to grow: to make it anew for each token would take time
        # that grows with the square of a long thought.
        self._so_far = torch.from_numpy(prompt.astype(np.int64))
        self._prompt_tokens = self._known = len(prompt)
        self._generator = torch.Generator()
        if settings.sample:
            self._generator.manual_seed(seed_of(settings.seed, prompt, repeat))

    def __call__(self, logits: torch.Tensor, likeliest: int, ids: Sequence[int]) -> int:
        """The token after `ids`; `logits`: [vocabulary], whose argmax is `likeliest`."""
        if self._settings.is_plain_greedy:
            return likeliest
        so_far = self._all(ids)[None]
        # On the CPU, where the generator is: the same seed draws the same on any device.
        scores = self._processors(so_far, logits[None].float().cpu())
        if not self._settings.sample:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))

    def _all(self, ids: Sequence[int]) -> torch.Tensor:
        """Prompt and text; `ids` only ever grow."""
        length = self._prompt_tokens + len(ids)
        if length > len(self._so_far):
            self._so_far = torch.cat([self._so_far, self._so_far.new_zeros(max(length, 256))])
        new = ids[self._known - self._prompt_tokens :]
        self._so_far[self._known : length] = torch.tensor(new, dtype=torch.int64)
        self._known = length
        return self._so_far[:length]


class GeneratedText:
    """Reads one growing text. The reply is kept whole; what of it is the answer, its reader says.

    Stop strings are looked for behind the thoughts only: a thought may hold any of them. Where the
    prompt ends inside a thought, the reply begins with the tag that `opened` it, as nobody could
    tell from the rest alone that it was one.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], *, opened: str = "") -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._opened = opened
        # No token is shorter than a byte, so this many surely hold the longest stop string.
        longest = max((len(text.encode()) for text in stop), default=0)
        self._tail = longest + _SPARE_TOKENS
        self._in_thought: bool | None = True if opened else None
        self._heading = ""
        self._searched = 0  # tokens that were searched for what closes the thought

    def stops(self, ids: Sequence[int]) -> bool:
        """Whether the answer holds a stop string by now; asked after every token."""
        if not self._stop:
            return False
        # The tail first: to decode all of a long text after every token would take quadratic time.
        tail = self._tokenizer.decode(ids[-self._tail :])
        if not any(text in tail for text in self._stop) or self._still_thinks(ids):
            return False
        _, answer = split_thoughts(self._opened + self._tokenizer.decode(ids))
        return answer is not None and any(text in answer for text in self._stop)

    def _still_thinks(self, ids: Sequence[int]) -> bool:
        """Whether the text is one thought by now; a long one is not decoded whole for that.

        A thought may hold a stop string in every line. Each token is looked at once, with as many
        before it as may begin the tag.
        """
        if self._in_thought is None:
            beginning = self._tokenizer.decode(ids[:_TAIL_OF_A_TAG])
            self._in_thought = begins_thought(beginning)
            self._heading = heading_behind(beginning)
        if self._in_thought:
            new = self._tokenizer.decode(ids[max(0, self._searched - _TAIL_OF_A_TAG) :])
            self._searched = len(ids)
            self._in_thought = not closes_thought(new, headed=bool(self._heading))
        return bool(self._in_thought)

    def final(self, ids: Sequence[int]) -> str:
        """The reply: no special tokens but those that mark thoughts, nothing from a stop on."""
        thoughts, answer = split_thoughts(self._opened + self._tokenizer.decode(ids))
        if thoughts:
            special = [t for t in self._tokenizer.all_special_tokens if not is_thinking_tag(t)]
            for token in special:
                thoughts = thoughts.replace(token, "")
                answer = answer and answer.replace(token, "")
        else:
            answer = self._tokenizer.decode(ids, skip_special_tokens=True)
        return thoughts + before_stop(answer or "", self._stop)

    def thought_tokens(self, ids: Sequence[int]) -> int:
        """How many of the tokens are thoughts, the tag that closes them included."""
        thoughts, answer = split_thoughts(self._opened + self._tokenizer.decode(ids))
        if answer is None:
            return len(ids)
        if not thoughts:
            return 0
        # The fewest tokens that spell all of the thoughts; blanks behind them are the answer's.
        length = len(thoughts.rstrip()) - len(self._opened)
        return bisect_left(
            range(len(ids)), length, key=lambda count: len(self._tokenizer.decode(ids[:count]))
        )


class ThoughtBudget:
    """Ends a thought that has had its tokens: budget forcing (s1, arXiv 2501.19393).

    A thought that is not closed after `settings.think` tokens, or whose model would end its reply
    inside it, is closed by the tokens of `settings.thought_end`, and the answer follows. Which
    tokens those are is no choice of the model: they are fed to it one a step, like any other.
    """

    def __init__(self, tokenizer: Any, settings: GenerationSettings, *, opened: str = "") -> None:
        assert settings.think is not None
        self._tokenizer, self._settings, self._think = tokenizer, settings, settings.think
        self._due: deque[int] = deque()
        self._in_thought: bool | None = True if opened else None
        self._heading = ""  # of an answer, where one heads the thought
        self._answer_begins: int | None = None
        self.forced = False
        self._look([])

    @property
    def is_closing(self) -> bool:
        """Whether some of what closes the thought is still to come."""
        return bool(self._due)

    def due(self) -> int | None:
        """The next token of what closes the thought, if it is being closed."""
        return self._due.popleft() if self._due else None

    def take(self, ids: Sequence[int]) -> None:
        """A token was added to the text, which is now `ids`."""
        if self._due:
            return
        if self.forced and self._answer_begins is None:
            self._answer_begins = len(ids)
        self._look(ids)

    def ends_instead(self, ids: Sequence[int]) -> bool:
        """Whether a reply that its model would end now has its thought closed instead."""
        if not self._in_thought or self.forced or self._answer_begins is not None:
            return False
        self._close(ids)
        return True

    def excess(self, ids: Sequence[int]) -> int | None:
        """How many tokens the answer has beyond its own; None: it has some left.

        More than none where it took a few tokens to see that a reply begins with no thought.
        """
        if self._answer_begins is None:
            return None
        beyond = len(ids) - self._answer_begins - self._settings.max_new_tokens
        return beyond if beyond >= 0 else None

    def _look(self, ids: Sequence[int]) -> None:
        if self._answer_begins is not None:
            return
        if self._in_thought is None and ids:
            text = self._tokenizer.decode(ids)
            self._in_thought = begins_thought(text)
            self._heading = heading_behind(text)
            if self._in_thought is None and len(ids) > _TAIL_OF_A_TAG:  # nothing but blanks
                self._in_thought = False
            if self._in_thought is False:
                self._answer_begins = 0
                return
        if ids and self._in_thought:
            tail = self._tokenizer.decode(ids[-_TAIL_OF_A_TAG:])
            if closes_thought(tail, headed=bool(self._heading)):
                self._answer_begins = len(ids)
                return
        if len(ids) >= self._think and self._in_thought:
            self._close(ids)

    def _close(self, ids: Sequence[int]) -> None:
        end = self._heading or self._settings.thought_end
        if not ids or self._tokenizer.decode(ids[-1:]).endswith("\n"):
            end = end.lstrip("\n")
        self._due.extend(self._tokenizer(end, add_special_tokens=False)["input_ids"])
        self.forced = True


class _PenaltyOfNewTokens(LogitsProcessor):  # type: ignore[misc]  # transformers ships no types
    """OpenAI's two penalties, as its API states them: over what was generated, not the prompt.

    Each token's logit falls by the presence penalty if it stands there, and by the frequency
    penalty for every time.
    """

    def __init__(self, settings: GenerationSettings, prompt_tokens: int) -> None:
        self._presence, self._frequency = settings.presence_penalty, settings.frequency_penalty
        self._first = prompt_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        times = torch.bincount(input_ids[0, self._first :], minlength=scores.shape[-1])
        return scores - self._frequency * times - self._presence * (times > 0)


def logits_processors(settings: GenerationSettings, prompt_tokens: int) -> LogitsProcessorList:
    """In the order of `model.generate`: penalties first, then what shapes the draw."""
    chosen = LogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        chosen.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.presence_penalty or settings.frequency_penalty:
        chosen.append(_PenaltyOfNewTokens(settings, prompt_tokens))
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


def seed_of(seed: int, prompt: Tokens, repeat: int) -> int:
    """The seed of one text: of the run's, the prompt, and which draw for that prompt it is."""
    digest = hashlib.blake2b(prompt.tobytes(), digest_size=8)
    digest.update(f"{seed}/{repeat}".encode())
    return int.from_bytes(digest.digest(), "big") >> 1
