"""The effect of a change of rules as lines and a table, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_table
from tierwise.cli.render.lines import counts_text
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.explain.diff import Difference, Past
    from tierwise.policy.floors import FloorSetting


def print_difference(difference: Difference, past: Past) -> None:
    """Print the alarms, the documents that move, the floors and the cost."""
    typer.echo(
        f"{difference.decisions} decisions about {difference.documents} documents, "
        "replayed with both rules."
    )
    if past.without:
        typer.echo(
            f"{past.without} older ones are left out: they have no features on record."
        )
    if past.unavailable:
        names = ", ".join(sorted(past.unavailable))
        typer.echo(f"Not available then, so not used here: {names}.")
    _print_alarms(difference)
    print_table(
        [_cells(*move) for move in difference.moves],
        title=f"{difference.moved_documents} documents move",
        empty="\nNo document moves to another model.",
    )
    changed = [("floor", floor) for floor in difference.floors]
    changed += [("agreement floor", floor) for floor in difference.agreement_floors]
    for kind, floor in changed:
        typer.echo(
            f"The {kind} of {floor.step}: {_floor(floor.before)} -> {_floor(floor.after)}, "
            f"{floor.decisions} decisions."
        )
    typer.echo(_cost_sentence(difference))


def _print_alarms(difference: Difference) -> None:
    """Print the effects that must not be overlooked, the worst first."""
    if difference.leaves:
        number = sum(move.decisions for move in difference.leaves)
        typer.echo(f"\nLEAVES THE HOUSE: {number} decisions that stayed before:")
        for move in difference.leaves:
            before = move.before or "deferred"
            typer.echo(f"  {move.step}: {before} -> {move.after}, {move.decisions}")
    # Worst first: what may leave the house, then quality, then documents without an answer.
    alarms = (
        ("COULD LEAVE THE HOUSE when the first model fails", difference.may_leave),
        (
            "BELOW THE FLOOR: the first choice is no longer certified for it",
            difference.below,
        ),
        ("DEFERRED: no acceptable model is left", difference.deferred),
    )
    for title, counts in alarms:
        if counts:
            typer.echo(f"\n{title}: {counts_text(dict(counts))}")


def _cells(
    step: str, before: str | None, after: str | None, decisions: int
) -> dict[str, Any]:
    return {
        "step": step,
        "from": before or "(deferred)",
        "to": after or "(deferred)",
        "decisions": decisions,
    }


def _floor(floor: FloorSetting | None) -> str:
    return "none" if floor is None else f"{floor:g}"


def _cost_sentence(difference: Difference) -> str:
    before = difference.cost_before
    after = difference.cost_after
    # Prices of today for both, so that only the change of rules shows.
    if before == after:
        sentence = f"First choices cost the same: {usd(after)}"
    else:
        verb = "saves" if before > after else "costs"
        change = f"{verb} {usd(abs(before - after))}"
        sentence = f"First choices: {usd(before)} -> {usd(after)}, which {change}"
    if difference.unpriced:
        sentence += f"; {difference.unpriced} more, of unknown price or tokens"
    return f"{sentence}."
