"""`tierwise retry`: a run once more, for the documents that waited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.cascade.known_outcomes import Retry
    from tierwise.ledger import RunRow


def retry(
    run: Annotated[
        str, typer.Argument(help="A run's id, the beginning of one, or `latest`.")
    ] = "latest",
    step: Annotated[
        str | None, typer.Option("--step", help="Only documents that waited at this step.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Only documents whose reason has this in it.")
    ] = "",
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Ask these documents again, even where an answer is paid."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")] = False,
) -> None:
    """Run a flow again for the documents it deferred.

    All other documents take what they got before, without a call, so that the results are complete again. Answers
    that were paid are reused and persons' decisions count: after a review, this goes on with the later steps.
    """
    from tierwise.cli.run import run_flow, show_summary
    from tierwise.ledger import Ledger
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.project import Project
    from tierwise.review.queue import plan_retry

    project = Project.find()
    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        before = ledger.resolve_run(run)
        plan = plan_retry(ledger, before.id, step, reason)
    prepare_prefect(project.root, log_level="INFO" if verbose else "CRITICAL")
    function = _flow(project, before)
    typer.echo(
        f"{len(plan.again)} of {len(plan.documents)} documents of run {before.id} are asked again",
        err=True,
    )
    summary = run_flow(function, _parameters(function, before), fresh=fresh, retry=plan)
    show_summary(summary, as_json=as_json)
    _tell(project, summary.run.id, plan)
    if summary.failed:
        raise typer.Exit(1)


def _flow(project: Any, run: RunRow) -> Any:
    from tierwise.errors import UnknownName

    try:
        return project.load_flow(run.flow)
    except UnknownName as error:
        raise Misuse(
            f"run {run.id} was no flow of this project, so it cannot be tried again: {error}"
        ) from None


def _parameters(function: Any, run: RunRow) -> dict[str, Any]:
    """The run's parameters, as far as the flow still has them."""
    import inspect

    known = inspect.signature(function.fn).parameters
    if gone := sorted(set(run.parameters) - set(known)):
        raise Misuse(
            f"the flow {run.flow} no longer has the parameter {', '.join(gone)}; start it with `tierwise run`"
        )
    return run.parameters


def _tell(project: Any, run_id: str, plan: Retry) -> None:
    """What became of those that waited."""
    from tierwise.ledger import Ledger

    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        there = ledger.reviews.documents(run_id) & plan.again
        waits = {row.document_id for row in ledger.deferred(run_id)} & there
    typer.echo(
        f"Of {len(plan.again)} that waited, {len(there - waits)} are done and {len(waits)} still wait.",
        err=True,
    )
    if gone := sorted(plan.again - there):
        typer.echo(f"No longer in the source: {', '.join(gone)}", err=True)
