"""The same questions to two engines, whose answers must be equal."""

import numpy as np
import pytest

from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.engine.tokenisation import EncodedPair


def questions(rng):
    """Letters, options of several tokens, and options whose beginnings are whole cache blocks."""
    pairs = []
    for count in range(6):
        context = rng.integers(5, 380, rng.integers(3, 150))
        for _ in range(4):
            own = rng.integers(5, 380, 1 if count < 3 else int(rng.integers(1, 12)))
            pairs.append(EncodedPair(np.array([*context, *own], np.int32), len(own)))
    shared = rng.integers(5, 380, 70)
    for last in range(3):
        pairs.append(EncodedPair(np.array([7, 8, 9, *shared, last + 10], np.int32), 71))
    return pairs


def answers(given):
    return {index: answer for some in given for index, answer in some}


def hold_equal(local, engine, allowed, *, share=0.0):
    """`allowed`: how far a log-likelihood may be apart, or this share of it."""
    rng = np.random.default_rng(0)
    pairs = questions(rng)
    wanted, found = answers(local.score(pairs, None)), answers(engine.score(pairs, None))
    assert wanted.keys() == found.keys()
    for index, one in wanted.items():
        assert found[index].log_likelihood == pytest.approx(
            one.log_likelihood, abs=allowed, rel=share
        )
        assert found[index].greedy == one.greedy
    settings = GenerationSettings(max_new_tokens=24, end_ids=(0,))
    prompts = [Prompt(rng.integers(5, 380, n).astype(np.int32), settings) for n in (5, 40, 100)]
    assert answers(engine.generate(prompts, None)) == answers(local.generate(prompts, None))
