"""`tierwise batches`: the provider batches on record, how far they are, and the end of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.errors import CallError, Misuse, TierwiseError, UnknownName
from tierwise.report.batch_progress import expected_end, moment
from tierwise.text.amounts import duration
from tierwise.text.escape import escape_control

if TYPE_CHECKING:
    from tierwise.gateway.batch import BatchDoor, ProviderBatch
    from tierwise.ledger import Ledger
    from tierwise.ledger.batches import BatchRow
    from tierwise.project import Project

_NEWEST = 50  # batches that --all lists
_PATIENCE_S = 10.0  # with a provider that is asked how far a batch is
_OVER = ("ended", "failed", "expired", "cancelled")


def batches(
    every: Annotated[
        bool, typer.Option("--all", help="List past batches too, the newest first.")
    ] = False,
    cancel: Annotated[
        str | None,
        typer.Option(
            "--cancel",
            metavar="ID",
            help="Ask the provider to end a batch: its id, or the beginning of an id.",
        ),
    ] = None,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask/--no-ask",
            help="Ask the providers how far open batches are, or list what is on record.",
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """List provider batches, and cancel one.

    Asks the providers, and lists the batches whose answers may still come, with the items that are
    done, their age and their expected end. What a cancelled batch answered before is paid and used; the money that was
    reserved for the rest comes back when `tierwise resume` collects it.
    """
    project = find_project()
    with open_ledger(project) as ledger:
        if cancel is not None:
            if every:
                raise Misuse("give --all or --cancel ID, not both")
            _cancel(project, ledger, cancel, as_json=as_json)
            return
        if ask:
            asyncio.run(_ask(project, ledger, ledger.batches.open_batches()))
        rows = ledger.batches.open_batches()
        if every:
            rows = ledger.batches.newest(_NEWEST)
        lines = [_Line(row, _end(project, ledger, row)) for row in rows]
    if as_json:
        print_json([line.data() for line in lines])
        return
    empty = "no batch is open; `tierwise batches --all` lists past ones"
    if every:
        empty = "no batch was sent yet"
    print_table([line.cells() for line in lines], empty=empty)


class _Line:
    """A batch with the time at which it is expected to end; None where that is not known."""

    def __init__(self, row: BatchRow, expected_end: float | None) -> None:
        self._row = row
        self._expected_end = expected_end

    def data(self) -> dict[str, Any]:
        """Return the batch as plain data."""
        return {**asdict(self._row), "expected_end": self._expected_end}

    def cells(self) -> dict[str, Any]:
        """Return the batch as it is displayed."""
        row = self._row
        now = time.time()
        end = "" if self._expected_end is None else moment(self._expected_end, now)
        done = f"{row.succeeded + row.failed} of {row.items}"
        if row.failed:
            done += f", {row.failed} failed"
        return {
            "batch": row.id,
            "run": row.run_id,
            "model": row.model,
            "state": _state(row),
            "items done": done,
            "age": duration(max(0.0, (row.ended_at or now) - row.created_at)),
            "expected end": end,
            "provider's id": row.provider_id or "",
        }


def _state(row: BatchRow) -> str:
    """Return the state of a batch in words."""
    state = row.state.replace("_", " ")
    if row.fault:
        state += f": {row.fault}"
    if row.ended_at is not None and row.is_open:
        state += ", not collected"
    return state


def _end(project: Project, ledger: Ledger, row: BatchRow) -> float | None:
    return expected_end(row, project.catalog, ledger.batches.seconds_taken)


def _cancel(project: Project, ledger: Ledger, name: str, *, as_json: bool) -> None:
    """Ask a provider to end a batch, and record what it says."""
    row = _named(ledger, name)
    if row.provider_id is None:
        raise Misuse(
            f"batch {row.id} is not known to be at its provider; "
            f"`tierwise resume {row.run_id}` looks for it"
        )
    batch = asyncio.run(_cancelled(project, ledger, row))
    if as_json:
        print_json({"batch": row.id, "state": batch.state})
        return
    state = batch.state.replace("_", " ")
    answered = f"{batch.succeeded} of {row.items} items answered"
    typer.echo(f"batch {row.id}: {state}, {answered}")
    collects = f"`tierwise resume {row.run_id}` collects"
    if batch.state == "ended":
        typer.echo(f"it was over before it could be cancelled; {collects} its answers")
        return
    typer.echo(
        f"{collects} these answers and asks the others again; "
        "until then, the money for them stays reserved"
    )


def _named(ledger: Ledger, name: str) -> BatchRow:
    """Return the open batch with this id, or the beginning of it. Raises Misuse, UnknownName."""
    rows = ledger.batches.open_batches()
    found = [row for row in rows if row.id.startswith(name)]
    exact = [row for row in found if row.id == name]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if not found:
        raise UnknownName("open batch", name, [row.id for row in rows])
    ids = ", ".join(row.id for row in found)
    raise Misuse(f"'{name}' fits several batches: {ids}; give more of the id")


async def _cancelled(project: Project, ledger: Ledger, row: BatchRow) -> ProviderBatch:
    """Ask for the end of a batch, unless it is over; return it as it is then."""
    async with _providers(project) as door:
        provider_id = row.provider_id or ""
        batch = await door.status(row.model, provider_id)
        if batch.ended_at is None and batch.state not in _OVER:
            try:
                batch = await door.cancel(row.model, provider_id)
            except CallError:
                # It may have ended meanwhile, and then there is nothing to cancel.
                batch = await door.status(row.model, provider_id)
                if batch.state not in _OVER:
                    raise
        await _note(ledger, row, batch)
        return batch


async def _ask(project: Project, ledger: Ledger, rows: Sequence[BatchRow]) -> None:
    """Record how far batches are at their providers; say which could not be asked."""
    known = [row for row in rows if row.provider_id is not None]
    if not known:
        return
    async with _providers(project) as door:

        async def ask(row: BatchRow) -> None:
            try:
                batch = await asyncio.wait_for(
                    door.status(row.model, row.provider_id or ""), _PATIENCE_S
                )
            except (TierwiseError, TimeoutError) as error:
                why = f"no answer within {_PATIENCE_S:g} s"
                if isinstance(error, TierwiseError):
                    why = escape_control(str(error))
                typer.echo(f"batch {row.id} is listed as it was last: {why}", err=True)
                return
            await _note(ledger, row, batch)

        await asyncio.gather(*(ask(row) for row in known))


async def _note(ledger: Ledger, row: BatchRow, batch: ProviderBatch) -> None:
    """Record the state of a batch."""
    from tierwise.ledger.batches import BatchStatus

    status = BatchStatus(
        state=batch.state,
        succeeded=batch.succeeded,
        failed=batch.failed,
        ended_at=batch.ended_at,
        expires_at=batch.expires_at,
        fault=type(batch.fault).__name__ if batch.fault else None,
    )
    await ledger.batches.noted(row.id, status)


@asynccontextmanager
async def _providers(project: Project) -> AsyncIterator[BatchDoor]:
    """Open the batch APIs of a project's models."""
    from tierwise.gateway import Gateway
    from tierwise.gateway.local import LocalServers
    from tierwise.orchestrate.secrets import variables

    servers = LocalServers()
    gateway = Gateway(project.catalog, variables(project), servers, root=project.root)
    try:
        yield gateway.batches
    finally:
        await gateway.aclose()
        servers.close()
