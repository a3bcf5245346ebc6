"""The marks of significance that stand beside numbers, one meaning everywhere."""

_BOUNDS = (0.05, 0.01, 0.001)

LEGEND = ", ".join(f"{'*' * (n + 1)} p < {bound}" for n, bound in enumerate(_BOUNDS))
"""What the marks mean, for a caption."""


def significance_marks(p_value: float) -> str:
    """One star for each bound that the p-value is below; none for NaN."""
    return "*" * sum(p_value < bound for bound in _BOUNDS)
