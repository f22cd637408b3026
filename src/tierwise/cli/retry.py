"""`tierwise retry`: a run repeated for its deferred documents."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson, OnlyCause, OnlyFlow, Verbose, WaitingLonger
from tierwise.errors import Misuse, TierwiseError, UnknownName
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.engine import RunOptions
    from tierwise.ledger import Ledger, RunRow
    from tierwise.project import Project
    from tierwise.review.backlog import QueueFilter
    from tierwise.review.queue import PlannedRetry


def retry(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run's id, the beginning of an id, or `latest`; default: the latest run with "
            "documents that wait.",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Ask again for all documents that wait, in any run."
        ),
    ] = False,
    flow: OnlyFlow = None,
    cause: OnlyCause = None,
    older_than: WaitingLonger = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step", metavar="STEP", help="Only documents deferred at this step."
        ),
    ] = None,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", help="Only documents with this in their reason."
        ),
    ] = "",
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Call again for these documents, even for paid answers."
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a flow again for the documents it deferred.

    Takes the same parameters and makes a new run. All other documents keep their outcomes, without
    a call, so the results are complete again. Paid answers are reused and reviewers' decisions
    apply: after a review, it continues with the later steps.

    Exit codes are those of `tierwise run`: 1 where more documents wait than `fail_when_waiting` in
    pyproject.toml allows, 3 while documents wait for provider batches.
    """
    from tierwise.cli.run import run_flow, show_summary
    from tierwise.cli.waiting import queue_filter
    from tierwise.orchestrate.environment import show_prefect_log
    from tierwise.orchestrate.temporary_server import start_temporary_server

    project = find_project()
    if every:
        if run is not None:
            raise Misuse("name a run or give --all, not both")
        wanted = queue_filter(flow, cause, older_than, step, reason)
        _retry_all(project, wanted, fresh=fresh, as_json=as_json, verbose=verbose)
        return
    if flow or cause or older_than:
        raise Misuse("--flow, --cause and --older-than go with --all")
    with open_ledger(project) as ledger:
        before, plan = _choose_run(ledger, run, step, reason)
    if verbose:
        show_prefect_log()
    # Before the flow is loaded, which imports Prefect: the server starts up meanwhile.
    server = start_temporary_server(project.root)
    function = _load_flow(project, before)
    parameters, options = _parameters(function, before)
    typer.echo(
        f"{len(plan.waiting)} of {len(plan.retry.documents)} documents of run {before.id} "
        "are asked again",
        err=True,
    )
    summary = run_flow(
        function,
        parameters,
        server=server,
        fresh=fresh,
        retry=plan.retry,
        options=options,
    )
    show_summary(summary, as_json=as_json)
    _print_result(project, summary.run.id, plan.waiting)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _retry_all(
    project: Project, wanted: QueueFilter, *, fresh: bool, as_json: bool, verbose: bool
) -> None:
    """Repeat each run in which documents wait, for these documents."""
    from tierwise.cli.output import print_json
    from tierwise.cli.run import run_flow
    from tierwise.cli.waiting import nothing_waits
    from tierwise.orchestrate.environment import show_prefect_log
    from tierwise.orchestrate.temporary_server import start_temporary_server
    from tierwise.review.backlog import plan_retries, read_backlog

    with open_ledger(project) as ledger:
        backlog = read_backlog(ledger, project, wanted)
        plans = plan_retries(ledger, backlog)
        runs = [ledger.runs.resolve(plan.retry.run_id) for plan in plans]
        nothing = nothing_waits(ledger)
        if backlog.total:
            documents = plural(backlog.total, "document")
            nothing = f"nothing that fits these options; over all runs: {documents}"
    if not plans:
        if as_json:
            print_json([])
        typer.echo(nothing, err=True)
        return
    if verbose:
        show_prefect_log()
    asked = sum(len(plan.waiting) for plan in plans)
    typer.echo(
        f"{plural(asked, 'document')} of {plural(len(plans), 'run')} "
        f"{'is' if asked == 1 else 'are'} asked again",
        err=True,
    )
    server = start_temporary_server(project.root)
    results: list[dict[str, Any]] = []
    failures = 0
    for before, plan in zip(runs, plans, strict=True):
        typer.echo(f"run {before.id} of {before.flow}:", err=True)
        try:
            function = _load_flow(project, before)
            parameters, options = _parameters(function, before)
            summary = run_flow(
                function,
                parameters,
                server=server,
                fresh=fresh,
                retry=plan.retry,
                options=options,
            )
        except TierwiseError as error:
            # Such as a source or a flow that is gone: the other runs are repeated all the same.
            failures += 1
            count = plural(len(plan.waiting), "document")
            still = "still waits" if len(plan.waiting) == 1 else "still wait"
            typer.echo(f"not asked again: {error}; {count} {still}", err=True)
            failed = {"run": before.id, "new_run": None, "error": str(error)}
            results.append(failed | {"waited": sorted(plan.waiting)})
            continue
        if not as_json:
            typer.echo(f"run {summary.run.id}: {summary.headline()}")
        _print_result(project, summary.run.id, plan.waiting)
        failures += summary.failed
        done = {"run": before.id, "new_run": summary.run.id, "error": None}
        results.append(done | {"waited": sorted(plan.waiting)})
    if as_json:
        print_json(results)
    if failures:
        raise typer.Exit(1)


def _choose_run(
    ledger: Ledger, name: str | None, step: str | None, reason: str
) -> tuple[RunRow, PlannedRetry]:
    """Return the run to repeat with its documents.

    Raises Misuse when it has none that wait; the message names the latest run that has.
    """
    from tierwise.review.queue import find_retry, plan_retry

    # Looked for even where a run is named, as the error below names it.
    waiting = find_retry(ledger, step, reason)
    # `latest` by name is the newest run; no name is the newest with documents that wait.
    if name is None and waiting:
        return ledger.runs.resolve(waiting.retry.run_id), waiting
    before = ledger.runs.resolve(name or "latest")
    try:
        return before, plan_retry(ledger, before.id, step, reason)
    except Misuse as error:
        # There is no better run to name.
        if waiting is None or waiting.retry.run_id == before.id:
            raise
        count = len(waiting.waiting)
        run_id = waiting.retry.run_id
        raise Misuse(
            f"{error}; {plural(count, 'document')} of run {run_id} wait: "
            f"tierwise retry {run_id}"
        ) from None


def _load_flow(project: Project, run: RunRow) -> Any:
    """Load the flow of a run. Raises Misuse when it is not in this project."""
    try:
        return project.load_flow(run.flow)
    except UnknownName as error:
        raise Misuse(
            f"run {run.id} ran a flow that this project does not have, so it cannot be "
            f"retried: {error}"
        ) from None


def _parameters(function: Any, run: RunRow) -> tuple[dict[str, Any], RunOptions]:
    """Return the run's parameters, and the options of its command that are no parameters.

    Raises Misuse when the flow no longer takes these.
    """
    from tierwise.cli.run import check_parameters
    from tierwise.orchestrate.run_options import split_options

    accepted = inspect.signature(function.fn).parameters
    parameters, options = split_options(run.parameters, accepted)
    # The flow may have been changed since that run.
    removed = sorted(set(parameters) - set(accepted))
    if removed:
        raise Misuse(
            f"the flow {run.flow} no longer has the parameter {', '.join(removed)}; "
            "start it with `tierwise run`"
        )
    check_parameters(function, parameters)
    return parameters, options


def _print_result(project: Project, run_id: str, waited: frozenset[str]) -> None:
    """Print how many of the deferred documents are done."""
    with open_ledger(project) as ledger:
        # A document may have been removed from the source since, so it was not asked again.
        seen = ledger.reviews.documents(run_id) & waited
        # Of those asked again alone: others may be deferred as before.
        deferred = {row.document_id for row in ledger.runs.deferred(run_id)} & seen
    typer.echo(
        f"Of {len(waited)} that waited, {len(seen - deferred)} are done "
        f"and {len(deferred)} still wait.",
        err=True,
    )
    missing = sorted(waited - seen)
    if missing:
        typer.echo(f"No longer in the source: {', '.join(missing)}", err=True)
