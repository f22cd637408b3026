"""The options of `tierwise run` and `tierwise plan` that every flow has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

import typer

from tierwise.errors import LedgerError, Misuse, unknown_name
from tierwise.text.durations import duration

if TYPE_CHECKING:
    from tierwise.engine import RunOptions


def given_options(
    within: str | None, transport: str | None, *, detach: bool = False
) -> RunOptions:
    """Return a command's options. Raises Misuse for a time or a transport that is none."""
    from tierwise.engine import RunOptions
    from tierwise.policy.transport import TransportSetting

    settings = get_args(TransportSetting)
    if transport is not None and transport not in settings:
        raise Misuse(unknown_name("transport", transport, settings))
    return RunOptions(
        within=None if within is None else _time(within),
        transport=transport,  # type: ignore[arg-type] # one of the settings
        detach=detach,
    )


# The options of `tierwise run` that a flow may have as parameters.
OF_THE_COMMAND = ("within", "transport", "detach")


def with_options(known: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    """Return the options that a flow has parameters for."""
    given: dict[str, Any] = {}
    if options.within is not None:
        given["within"] = options.within
    if options.transport is not None:
        given["transport"] = options.transport
    if options.detach:
        given["detach"] = True
    return {name: value for name, value in given.items() if name in known}


@contextmanager
def batches_left() -> Iterator[None]:
    """Say what goes on at providers, and what to type, where a person stops a run."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(LedgerError):
            for line in _lines_about_batches():
                typer.echo(line, err=True)
        raise


def _lines_about_batches() -> Iterator[str]:
    """Yield lines about the open batches that this process has sent."""
    from tierwise.orchestrate.process_state import engine

    batches = engine().ledger.batches
    rows = [row for row in batches.open_batches() if row.owner == batches.owner]
    if not rows:
        return
    number = "1 batch goes" if len(rows) == 1 else f"{len(rows)} batches go"
    yield f"{number} on at the provider, and its answers are paid all the same:"
    for run_id in dict.fromkeys(row.run_id for row in rows):
        yield f"  tierwise resume {run_id} collects the answers, and goes on"
    for row in rows:
        yield f"  tierwise batches --cancel {row.id} ends it ({row.items} items)"


def _time(text: str) -> timedelta:
    seconds = duration(text)
    if not seconds:
        raise Misuse(
            f"--within takes a time with its unit, such as 6h or 90min, not '{text}'"
        )
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise Misuse(f"--within {text}: too long; write some days at most") from None
