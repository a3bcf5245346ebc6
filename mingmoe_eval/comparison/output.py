"""A comparison as JSON and as Markdown."""

import re
from collections.abc import Iterable, Sequence

from mingmoe_eval.comparison.comparability import Difference
from mingmoe_eval.comparison.pairwise import Comparison, Flip, GroupComparison, TaskComparison
from mingmoe_eval.comparison.verdict import OverallVerdict, Together, overall_verdict
from mingmoe_eval.metrics.showing import LESS_IS_BETTER, shown
from mingmoe_eval.records import Better, JsonDict, Unit


def comparison_json(comparison: Comparison) -> JsonDict:
    """Everything that a comparison says, for machines; fractions at full precision."""
    return {
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "alpha": comparison.alpha,
        "marks": list(comparison.marks),
        "allowed": allowed_json(comparison.allowed),
        "verdict": verdict_json(overall_verdict(comparison)),
        "left_out": dict(comparison.left_out),
        "tasks": {name: task_json(task) for name, task in comparison.tasks.items()},
        "groups": {
            name: {
                "members": list(group.members),
                "unit": group.unit,
                "better": group.better,
                "baseline": group.baseline,
                "candidate": group.candidate,
                "difference": group.candidate - group.baseline,
                "interval": group.interval and list(group.interval),
                "p_value": group.paired and group.paired.tails.two_sided,
                "p_adjusted": group.p_adjusted if group.paired else None,
                "test": group.paired and group.paired.test,
            }
            for name, group in comparison.groups.items()
        },
    }


def verdict_json(verdict: OverallVerdict) -> JsonDict:
    """What two runs prove, in one word, one sentence and their numbers."""
    together, largest, hiding = verdict.together, verdict.largest, verdict.hiding
    return {
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
        "margin": verdict.margin,
        "alpha": verdict.alpha,
        "together": together and together_json(together),
        "tasks": {name: one.outcome for name, one in verdict.tasks.items()},
        "largest": largest
        and {"task": largest.task, "difference": largest.comparison.paired.difference},
        "hiding": hiding and {"task": hiding.task, "loss": hiding.hidden_loss},
        "not_compared": dict(verdict.not_compared),
    }


def together_json(together: Together) -> JsonDict:
    """Several tasks taken together."""
    return {
        "outcome": together.outcome,
        "difference": together.paired.difference,
        "interval": list(together.paired.interval),
        "level": together.paired.level,
        "margin": together.margin,
        "p_worse_adjusted": together.p_worse,
        "p_better_adjusted": together.p_better,
        "test": together.paired.test,
        "docs": together.docs,
        "tasks": list(together.tasks),
        "identical": together.identical,
        "not_worse": together.not_worse,
    }


def allowed_json(allowed: Iterable[Difference]) -> list[JsonDict]:
    """The overridden differences."""
    return [{"kind": d.kind, "task": d.task, "difference": d.text} for d in allowed]


def task_json(task: TaskComparison) -> JsonDict:
    """One task's comparison."""
    paired = task.paired
    return {
        "unit": task.unit,
        "better": task.better,
        "docs": task.docs,
        "clusters": task.clusters,
        "failed": task.failed,
        "baseline": paired.baseline,
        "candidate": paired.candidate,
        "difference": paired.difference,
        "standard_error": paired.standard_error,
        "interval": list(paired.interval),
        "level": paired.level,
        "interval_method": paired.interval_method,
        "test": paired.test,
        "p_value": task.p_value,
        "p_worse": task.p_worse,
        "p_better": task.p_better,
        "p_adjusted": task.p_adjusted,
        "alpha_left": task.alpha_left,
        "minimum_detectable": task.minimum_detectable,
        "gained": [_flip_json(flip) for flip in task.gained],
        "lost": [_flip_json(flip) for flip in task.lost],
        "notes": list(task.notes),
    }


def comparison_markdown(comparison: Comparison) -> str:
    """A page with the table and every remark, for a merge request."""
    lines = [
        f"## {plain(comparison.candidate)} against {plain(comparison.baseline)}",
        "",
        f"{plain(overall_verdict(comparison).sentence)}.",
        "",
        *markdown_table(headings(comparison), rows(comparison)),
        "",
        *(f"- {plain(remark)}" for remark in remarks(comparison)),
    ]
    return "\n".join(lines) + "\n"


def headings(comparison: Comparison) -> tuple[str, ...]:
    """What the columns of `rows` are."""
    level = 100 * (1 - comparison.alpha)
    return (
        "task",
        "docs",
        "baseline",
        "candidate",
        f"difference ({level:g} % interval)",
        "p (Holm)",
        "smallest visible",
        "gained / lost",
    )


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row a task, then one a group; shares in points (hundredths), the rest as it is."""
    tasks = [_task_row(task, comparison.alpha) for task in comparison.tasks.values()]
    groups = [_group_row(group, comparison.alpha) for group in comparison.groups.values()]
    return tasks + groups


def remarks(comparison: Comparison) -> list[str]:
    """What the table must not be read without."""
    found = (
        f"Differences are in points, paired doc by doc; * marks those that Holm's procedure over "
        f"the leaf tasks, and over the groups among themselves, finds at {comparison.alpha:g}. "
        "Smallest visible: the difference that the docs show with a power of 80 %."
    )
    others = [task.task for task in comparison.tasks.values() if task.unit != "share"]
    if others:
        found += f" Not in points but as they are: {', '.join(others)}."
    return [
        *mark_remarks(comparison.marks),
        found,
        *allowed_remarks(comparison.allowed),
        *(f"{name}: not compared, {why}" for name, why in comparison.left_out.items()),
        *(f"{name}: {note}" for name, task in comparison.tasks.items() for note in task.notes),
    ]


def mark_remarks(marks: Sequence[str]) -> list[str]:
    """The warning over numbers that are not the benchmark's."""
    return [f"NOT the benchmark: {', '.join(marks)}"] if marks else []


def allowed_remarks(allowed: Iterable[Difference]) -> list[str]:
    """What was overridden, so that nobody takes the comparison for a clean one."""
    return [f"overridden: {difference}" for difference in allowed]


def _task_row(task: TaskComparison, alpha: float) -> tuple[str, ...]:
    clusters = "" if task.clusters is None else f" in {task.clusters} clusters"
    return (
        task.task,
        f"{task.docs}{clusters}",
        *sides_shown(task.paired.baseline, task.paired.candidate, task.unit, task.better),
        difference_shown(task.paired.difference, task.paired.interval, task.unit),
        _adjusted_shown(task.p_adjusted, alpha),
        shown(task.minimum_detectable, task.unit),
        f"{len(task.gained)} / {len(task.lost)}",
    )


def _group_row(group: GroupComparison, alpha: float) -> tuple[str, ...]:
    change = difference_shown(group.candidate - group.baseline, group.interval, group.unit)
    sides = sides_shown(group.baseline, group.candidate, group.unit, group.better)
    p_value = _adjusted_shown(group.p_adjusted, alpha) if group.paired else ""
    return (f"{group.task} (group)", "", *sides, change, p_value, "", "")


def _adjusted_shown(p_adjusted: float, alpha: float) -> str:
    return f"{p_adjusted:.3g}" + (" *" if p_adjusted <= alpha else "")


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, the first column to the left and the rest to the right."""
    ruler = [":---", *["---:"] * (len(headings) - 1)]
    cells = [headings, ruler, *([plain(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def plain(text: str) -> str:
    """Text from outside, so that Markdown shows it as it is, keeps its cells, and tells nobody.

    In a comment GitHub and GitLab turn @names into mentions, #1, !1, GH-1 and their like into
    references that show up elsewhere, and addresses into links, entities and backslashes
    notwithstanding: they look at the rendered text. A zero-width space between the sign and its
    name is what keeps them from it.
    """
    one_line = "".join(char if char.isprintable() else " " for char in text)
    return _ALIVE.sub("\\g<0>\u200b", one_line).translate(_ESCAPED)


_ALIVE = re.compile(r"[@#!%$&~](?=\w)|:(?=//)|\bwww(?=\.)|\bGH-(?=\d)|\bmailto(?=:)", re.IGNORECASE)
_ESCAPED = str.maketrans(
    {"<": "&lt;", ">": "&gt;", "&": "&amp;", **{char: f"\\{char}" for char in "\\`*[]|~"}}
)


def sides_shown(baseline: float, candidate: float, unit: Unit, better: Better) -> tuple[str, str]:
    """`61.34` and `62.10`, with a mark where less is better."""
    mark = f" {LESS_IS_BETTER}" if better == "lower" else ""
    before, after = (shown(value, unit, decimals=2) for value in (baseline, candidate))
    return before + mark, after + mark


def difference_shown(difference: float, interval: tuple[float, float] | None, unit: Unit) -> str:
    """`-1.74 (-2.11 to -1.37)`: a difference with its interval."""
    text = shown(difference, unit, decimals=2, signed=True)
    if interval is not None:
        low, high = (shown(end, unit, decimals=2, signed=True) for end in interval)
        text += f" ({low} to {high})"
    return text


def _flip_json(flip: Flip) -> JsonDict:
    return {
        "doc_id": flip.doc_id,
        "baseline_position": flip.baseline_position,
        "candidate_position": flip.candidate_position,
        "change": flip.change,
    }
