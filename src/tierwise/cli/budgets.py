"""`tierwise budgets`: limits on spending, what is left of them, and top-ups."""

from __future__ import annotations

import time
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.errors import Misuse, UnknownName
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.ledger import BudgetChange, Ledger
    from tierwise.policy.budget import BudgetState

_MOST_OTHERS = 20  # budgets in the list, in addition to the current ones of the rules


def budgets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="BUDGET", help="Show every change of this budget."),
    ] = None,
    add: Annotated[
        float | None,
        typer.Option(
            "--add", metavar="USD", min=0, help="Raise the limit by this amount."
        ),
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show budgets, and add money to one.

    Lists the current budgets of the rules, such as today's and this month's, then earlier ones and
    those of single runs. `reserved` is the worst case of calls that are running; most of it is
    released when they end. `tierwise budgets "day 2026-11-05"` shows every change of one budget,
    and `--add 5` raises its limit for all processes that spend from it.
    """
    with open_ledger() as ledger:
        states = _states(ledger)
        if name is not None:
            changes = _changes(ledger, name, states, add, note)
    if name is None and add is not None:
        raise Misuse(
            'name the budget to add to, such as: tierwise budgets "day 2026-11-05" --add 5'
        )
    if name is None:
        _print_states(states, as_json=as_json)
    else:
        _print_changes(name, changes, as_json=as_json)


def _states(ledger: Ledger) -> list[BudgetState]:
    """Return the current budgets of the rules, then the newest of all others."""
    from tierwise.policy.budget import current_states

    # The ledger has the budgets that were spent from; the rules may have more.
    recorded = ledger.budgets.states()
    limits = [limit.limit for limit in find_project().rules.budget.limits]
    current = current_states(limits, recorded)
    current_names = {state.name for state in current}
    others = [state for state in recorded if state.name not in current_names]
    others.sort(key=lambda state: state.name, reverse=True)
    return [*current, *others[:_MOST_OTHERS]]


def _changes(
    ledger: Ledger, name: str, states: list[BudgetState], add: float | None, note: str
) -> list[BudgetChange]:
    """Raise a budget's limit if asked to, and return all its changes. Raises UnknownName."""
    # The list is cut off, so the named budget is looked for by itself, too.
    names = {state.name for state in [*states, *ledger.budgets.states([name])]}
    if name not in names:
        raise UnknownName("budget", name, names)
    if add is not None:
        # By way of text: Decimal(0.1) would be 0.1000000000000000055…
        ledger.budgets.top_up(name, Decimal(str(add)), note)
    return list(ledger.budgets.history(name))


def _print_states(states: list[BudgetState], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(state) for state in states])
        return
    rows = [
        {
            "budget": state.name,
            "limit": usd(state.limit),
            "spent": usd(state.spent),
            "reserved": usd(state.reserved),
            "left": usd(state.left),
        }
        for state in states
    ]
    print_table(rows, empty="no budget was used yet, and the rules have none")


def _print_changes(name: str, changes: list[BudgetChange], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(change) for change in changes])
        return
    rows = [_change_cells(change) for change in changes]
    print_table(rows, title=name, empty="nothing was spent from it yet")


def _change_cells(change: BudgetChange) -> dict[str, Any]:
    return {
        # The heading names the time zone, as other lists show local time.
        "at (UTC)": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(change.at)),
        "change": change.kind,
        "amount": usd(change.usd),
        "limit": usd(change.limit),
        "spent": usd(change.spent),
        "reserved": usd(change.reserved),
        "attempt": change.reservation,
        "note": change.note,
    }
