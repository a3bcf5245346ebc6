"""Which test questions stand in training data, and what a run scores without them."""

from mingmoe_eval.overlap.findings import (
    Overlap,
    TaskOverlap,
    by_id,
    find_overlap,
    scores_with_and_without,
)
from mingmoe_eval.overlap.search import Match, SearchRules, search
from mingmoe_eval.overlap.texts import Item, TrainingText, item_of, read_training

__all__ = [
    "Item",
    "Match",
    "Overlap",
    "SearchRules",
    "TaskOverlap",
    "TrainingText",
    "by_id",
    "find_overlap",
    "item_of",
    "read_training",
    "scores_with_and_without",
    "search",
]
