"""Sums over docs drawn with replacement: what every corpus metric's interval is made from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_CELLS = 4_000_000
"""Numbers in one chunk of draws: bounds the memory whatever the number of docs."""


def draws(
    docs: int, rng: "np.random.Generator", *, resamples: int
) -> "Iterator[NDArray[np.float32]]":
    """How often each doc comes up, [draws, docs], in chunks that add up to `resamples` draws."""
    import numpy as np

    size = max(1, min(resamples, _MOST_CELLS // docs))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        cells = rng.integers(docs, size=(rows, docs)) + docs * np.arange(rows)[:, None]
        counted = np.bincount(cells.ravel(), minlength=rows * docs)
        yield counted.reshape(rows, docs).astype(np.float32)


def resampled_sums(
    columns: "NDArray[np.float64]", rng: "np.random.Generator", *, resamples: int
) -> "NDArray[np.float64]":
    """Column sums of docs drawn with replacement.

    Args:
        columns: What each doc adds, [docs, columns].
        rng: Where the draws come from.
        resamples: How many times len(columns) docs are drawn.

    Returns:
        The sums, [resamples, columns].
    """
    import numpy as np

    drawn = draws(len(columns), rng, resamples=resamples)
    return np.concatenate([chunk.astype(np.float64) @ columns for chunk in drawn])


def percentile_interval(values: "NDArray[np.float64]", level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of resampled values (Efron's percentile interval)."""
    import numpy as np

    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
