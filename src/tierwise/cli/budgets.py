"""`tierwise budgets`: how much may still be spent, what was, and more of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tierwise.ledger import BudgetChange, Ledger
    from tierwise.policy.budget import BudgetState

_SHOWN = 20  # besides those of now


def budgets(
    name: Annotated[str | None, typer.Argument(help="Show every change of this one.")] = None,
    add: Annotated[
        float | None,
        typer.Option("--add", min=0, help="USD to add to its limit, for all under it."),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show budgets, and add money to one.

    What is reserved is the worst case of calls under way; most of it comes back. `tierwise budgets "day 2026-11-05"`
    shows every change of one budget; with `--add 5` there is more in it, for every process that draws on it.
    """
    from tierwise.cli.runs import open_ledger
    from tierwise.errors import Misuse

    with open_ledger() as ledger:
        states = _states(ledger)
        if name is None:
            if add is not None:
                raise Misuse(
                    'name the budget to add to, such as: tierwise budgets "day 2026-11-05" --add 5'
                )
            data: list[Any] = states
        else:
            data = _changes(ledger, name, states, add, note)
    if as_json:
        print_json([asdict(item) for item in data])
    elif name is None:
        print_table(
            [_state_cells(state) for state in data],
            empty="no budget was drawn on yet, and the rules have none",
        )
    else:
        print_table(
            [_change_cells(change) for change in data],
            title=name,
            empty="nothing was drawn on it yet",
        )


def _states(ledger: Ledger) -> list[BudgetState]:
    """The limits of the rules now, then what else there is, the newest first."""
    from tierwise.policy.budget import RunBudget
    from tierwise.project import Project

    known = {state.name: state for state in ledger.budgets.states()}
    current = RunBudget(
        (limit.limit for limit in Project.find().rules.budget.limits), known
    ).states()
    others = (
        state for name, state in known.items() if name not in {state.name for state in current}
    )
    return [*current, *sorted(others, key=lambda state: state.name, reverse=True)[:_SHOWN]]


def _changes(
    ledger: Ledger, name: str, states: list[BudgetState], add: float | None, note: str
) -> list[BudgetChange]:
    from decimal import Decimal

    from tierwise.errors import UnknownName

    known = {state.name for state in [*states, *ledger.budgets.states([name])]}
    if name not in known:
        raise UnknownName("budget", name, known)
    if add is not None:
        ledger.budgets.grant(name, Decimal(str(add)), note)
    return list(ledger.budgets.history(name))


def _state_cells(state: BudgetState) -> dict[str, Any]:
    from tierwise.text.amounts import usd

    return {
        "budget": state.name,
        "limit": usd(state.limit),
        "spent": usd(state.spent),
        "reserved": usd(state.reserved),
        "left": usd(state.left),
    }


def _change_cells(change: BudgetChange) -> dict[str, Any]:
    from tierwise.text.amounts import usd

    return {
        "at (UTC)": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(change.at)),
        "change": change.kind,
        "amount": usd(change.usd),
        "limit": usd(change.limit),
        "spent": usd(change.spent),
        "reserved": usd(change.reserved),
        "attempt": change.reservation,
        "note": change.note,
    }
