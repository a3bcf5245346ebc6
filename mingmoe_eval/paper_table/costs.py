"""Columns of a table that say what a run's answers cost, for each right answer."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mingmoe_eval.cost import Cost, price_of, task_costs, total_cost
from mingmoe_eval.errors import UsageError
from mingmoe_eval.paper_table.layouts import Cell, Column
from mingmoe_eval.records import Run

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "tokens": "tokens a right answer",
        "seconds": "seconds a right answer",
        "money": "cost a right answer",
        "parameters": "active parameters (B)",
    }
)
"""What a column can show, and its heading."""


def cost_columns(
    runs: Sequence[Run], tasks: Iterable[str], kinds: Sequence[str], price: str | None
) -> tuple[list[Column], list[list[Cell]]]:
    """The columns, and each run's cells in them, over the leaf tasks behind a table's tasks.

    Tokens are the generated ones. A cell is empty where nobody knows: without a price, without
    counts, or for seconds where answers came out of the store.

    Raises:
        UsageError: no such kind, or runs whose prices are in several currencies.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"--cost {', '.join(unknown)}: it takes {', '.join(KINDS)}")
    wanted = list(tasks)
    costs = [_cost(run, wanted, price) for run in runs]
    currencies = {cost.currency for cost in costs if cost is not None and cost.money is not None}
    if "money" in kinds and len(currencies) > 1:
        raise UsageError(
            f"--cost money: the runs' prices are in {', '.join(sorted(currencies))}; state one for "
            "all of them with --price"
        )
    currency = f" ({currencies.pop()})" if len(currencies) == 1 and currencies != {""} else ""
    columns = [
        Column(key=f"cost/{kind}", heading=KINDS[kind] + (currency if kind == "money" else ""))
        for kind in kinds
    ]
    cells = [
        [Cell(amount=_amount(kind, run, cost), unit="number", better="lower") for kind in kinds]
        for run, cost in zip(runs, costs, strict=True)
    ]
    return columns, cells


def _cost(run: Run, tasks: Iterable[str], price: str | None) -> Cost | None:
    costs = task_costs(run, price_of(run, price))
    leaves = dict.fromkeys(leaf for task in tasks for leaf in _leaves(run, task))
    return total_cost(costs[leaf] for leaf in leaves if leaf in costs)


def _leaves(run: Run, task: str) -> list[str]:
    result = run.results.get(task)
    if result is None:
        return []
    return [leaf for member in result.members for leaf in _leaves(run, member)] or [task]


def _amount(kind: str, run: Run, cost: Cost | None) -> float | None:
    if kind == "parameters":
        model = run.provenance.get("model")
        sizes: Any = model.get("parameters") if isinstance(model, Mapping) else None
        count = (sizes.get("active") or sizes.get("total")) if isinstance(sizes, Mapping) else None
        return count / 1e9 if isinstance(count, int | float) else None
    if cost is None or not cost.has_tokens:
        return None
    return cost.a_right_answer()[kind] or None
