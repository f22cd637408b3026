"""`tierwise resume`: go on with a run whose calls are in provider batches."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson, Verbose
from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow


def resume(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run's id, the beginning of an id, or `latest`; default: the only run that "
            "waits for batches.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait for the batches, as a run without --detach does."
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Continue a run whose calls are in provider batches.

    Collects the answers that are there, takes their documents through the next steps, and submits
    what these ask: under the run's own id, budget and deadline. Ends as a detached run does, unless
    `--wait` is given. A run that was stopped, failed or crashed has ended, and its records are
    sealed: a new run with its parameters continues its work. Nothing that was paid or sent is sent
    again.

    Exit codes are those of `tierwise run`: 3 while documents wait for batches.
    """
    from tierwise.cli.run import check_parameters, run_flow, show_summary
    from tierwise.orchestrate.environment import show_prefect_log
    from tierwise.orchestrate.run_options import split_options
    from tierwise.orchestrate.temporary_server import start_temporary_server

    project = find_project()
    with open_ledger(project) as ledger:
        before = _choose_run(ledger, run)
    if verbose:
        show_prefect_log()
    # Before the flow is loaded, which imports Prefect: the server starts up meanwhile.
    server = start_temporary_server(project.root)
    try:
        function = project.load_flow(before.flow)
    except UnknownName as error:
        raise Misuse(f"run {before.id} cannot be resumed: {error}") from None
    known = inspect.signature(function.fn).parameters
    parameters, options = split_options(before.parameters, known)
    removed = sorted(set(parameters) - set(known))
    if removed:
        raise Misuse(
            f"the flow {before.flow} no longer has the parameter {', '.join(removed)}, so "
            f"run {before.id} cannot be resumed"
        )
    # How it was begun does not say how it goes on: a person may wait now.
    if "detach" in known:
        parameters["detach"] = not wait
    # A run that has ended is sealed, so that it takes no further records.
    is_over = before.state not in ("detached", "running")
    continues = None if is_over else before.id
    options = replace(options, detach=not wait, continues=continues)
    check_parameters(function, parameters)
    how = ", which has ended, in a new run" if is_over else ""
    typer.echo(f"continuing run {before.id} of {before.flow}{how}", err=True)
    summary = run_flow(
        function, parameters, server=server, fresh=False, options=options
    )
    show_summary(summary, as_json=as_json)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _choose_run(ledger: Ledger, name: str | None) -> RunRow:
    """Return the run to resume. Raises Misuse where it is not clear which, or where it is over."""
    if name is None:
        waiting = ledger.detached.ids()
        if not waiting:
            raise Misuse(
                "no run waits for provider batches; `tierwise batches --all` lists past ones, "
                "and `tierwise resume RUN` goes on with a run that was stopped"
            )
        if len(waiting) > 1:
            raise Misuse(
                f"{len(waiting)} runs wait for batches, so name one: {', '.join(waiting)}"
            )
        name = waiting[0]
    row = ledger.runs.resolve(name)
    if row.state in ("completed", "waiting"):
        raise Misuse(f"run {row.id} is {row.state}: no call of it is left to resume")
    return row
