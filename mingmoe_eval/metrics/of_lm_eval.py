"""Metrics of lm-eval's own tasks, as far as lm-eval says what they are.

lm-eval tells in which direction a metric is better, and not its unit. The names that it registers
itself are known (lm_eval/api/metrics.py, 0.4.13); of any other a mean of rights and wrongs is a
share, and whatever else stays of unknown unit: shown as it is, never in %.
"""

import math

from mingmoe_eval.metrics.metric import ClassMean, Counted, Metric, Scored, mean_of_sums
from mingmoe_eval.metrics.resampling import Mean
from mingmoe_eval.records import Better, Unit

_SHARES = frozenset(
    ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match", "f1")
)
_NUMBERS: dict[str, Better] = {
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"), "lower"),
    **dict.fromkeys(("brier_score", "ter"), "lower"),
    **dict.fromkeys(("mcc", "bleu", "chrf", "chrf++", "likelihood"), "higher"),
}

_RANGES = {
    "mcc": (-1.0, 1.0),
    "brier_score": (0.0, 2.0),
    **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity", "ter"), (0.0, math.inf)),
    **dict.fromkeys(("bleu", "chrf", "chrf++"), (0.0, 100.0)),
}


def is_mean_of_docs(name: str) -> bool:
    """Whether lm-eval makes a metric's number as the mean of what each doc earned."""
    return name in _SHARES - {"f1"}  # of a whole corpus


def foreign_metric(
    name: str, *, higher_is_better: bool | None = None, rights_and_wrongs: bool = False
) -> Metric:
    """What is known of a metric by the name that lm-eval gives it.

    Args:
        name: Its name, without the filter's.
        higher_is_better: As lm-eval's results say; None where they do not.
        rights_and_wrongs: Whether it is the mean of zeros and ones over docs.
    """
    is_share = name in _SHARES or (rights_and_wrongs and name not in _NUMBERS)
    unit: Unit = "share" if is_share else "number" if name in _NUMBERS else "unknown"
    known = _NUMBERS.get(name, "higher" if name in _SHARES else "unknown")
    stated: dict[bool | None, Better] = {True: "higher", False: "lower", None: known}

    def count(scored: Scored) -> Counted:
        return {"": (scored.counts[name], 1.0)}

    return Metric(
        name=name,
        title=name,
        count=count,
        value=ClassMean(mean_of_sums),
        resampling=Mean(),
        unit=unit,
        better=stated[higher_is_better],
        range=(0.0, 1.0) if is_share else _RANGES.get(name, (-math.inf, math.inf)),
    )
