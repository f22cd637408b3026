"""`tierwise plan`: what a run would do and cost, before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import AsJson, Fresh, Yes
from tierwise.cli.output import console, print_json, print_table
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.plan import Plan, Planner
    from tierwise.project import Project


def plan(
    context: typer.Context,
    flow: Annotated[
        str | None, typer.Argument(help="A flow in flows/, such as support_inbox.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Run N documents for real, and estimate from their cost."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed that draws the sample.")] = 0,
    yes: Yes = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
    wants_help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this message and the flow's options.")
    ] = False,
) -> None:
    """Estimate what a run will do and cost, without a call.

    `tierwise plan support_inbox --source examples/inbox --budget-usd 1` reads the documents and
    runs the flow in rehearsal. It reports each document's route, the deferrals with their reasons,
    the expected cost and the highest possible cost. The flow's own parameters are options, as for
    `tierwise run`. The next run with the same options compares its result with the plan.

    `--sample 20` runs 20 random documents for real, and estimates the cost of the whole batch from
    them: half of all batches cost at most P50, and 19 of 20 at most P95. A later run reuses their
    answers.
    """
    from tierwise.cli.progress import status
    from tierwise.cli.run import describe_options, flow_parameters
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.plan import save_plan
    from tierwise.project import Project

    project = Project.find()
    if flow is None:
        typer.echo(context.get_help())
        typer.echo(f"Flows here: {', '.join(project.flow_names()) or 'none'}")
        raise typer.Exit(0 if wants_help else 2)
    prepare_prefect(project.root, log_level="CRITICAL")
    if wants_help:
        typer.echo(context.get_help())
        typer.echo(describe_options(project.load_flow(flow)))
        raise typer.Exit
    with status("setting up: loading the flow and its rules"):
        function = project.load_flow(flow)
        parameters = function.validate_parameters(
            _with_defaults(function, flow_parameters(function, context.args))
        )
    _tell_what_runs(function)
    made, planner = _planned(project, function, parameters, fresh=fresh)
    if sample:
        made = _sampled(project, function, parameters, planner, sample, seed, yes=yes)
    save_plan(project.root, made)
    if as_json:
        print_json(made.data())
    else:
        _show(made)


def _tell_what_runs(function: Any) -> None:
    """Warn of plain tasks: planning runs the flow itself, and only steps know about it."""
    from tierwise.orchestrate.dry_run import tasks_run_for_real

    if names := tasks_run_for_real(function):
        typer.echo(
            f"Runs for real while planning, as only steps are planned: {', '.join(names)}", err=True
        )


def _with_defaults(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    import inspect

    return {
        name: p.default for name, p in inspect.signature(function.fn).parameters.items()
    } | given


def _planned(
    project: Project, function: Any, parameters: dict[str, Any], *, fresh: bool
) -> tuple[Plan, Planner]:
    from tierwise.plan import Planner

    with closing(Planner(project, project.env_with_secrets(os.environ))) as planner:
        planner.fresh = fresh or os.environ.get("TIERWISE_FRESH") == "1"
        _rehearse(function, parameters, planner)
        return planner.plan(
            function.name, {name: str(value) for name, value in parameters.items()}
        ), planner


def _rehearse(function: Any, parameters: dict[str, Any], engine: Any) -> None:
    from tierwise.cli.progress import StepBars
    from tierwise.orchestrate.dry_run import dry_run

    with StepBars(engine) as bars, engine.on_outcome(bars):
        dry_run(function, parameters, engine)


def _sampled(
    project: Project,
    function: Any,
    parameters: dict[str, Any],
    planner: Planner,
    number: int,
    seed: int,
    *,
    yes: bool,
) -> Plan:
    """Run some documents for real, and plan again with their figures."""
    from tierwise.orchestrate.secrets import variables
    from tierwise.plan import Sampler, choose

    ids = planner.totals.readable
    if not ids:
        raise Misuse("no document can be read, so there is nothing to sample")
    chosen = choose(ids, number, seed)
    _ask(planner, chosen, yes=yes)
    with closing(Sampler(project, function.name, chosen, variables(project))) as sampler:
        sampler.fresh = planner.fresh
        _rehearse(function, parameters, sampler)
        found = sampler.sample(of=len(ids))
    again, _ = _planned(project, function, parameters, fresh=planner.fresh)
    return replace(again, sample=found)


def _ask(planner: Planner, chosen: frozenset[str], *, yes: bool) -> None:
    from tierwise.plan.plan import amount
    from tierwise.text.amounts import usd

    expected, most, unknown = planner.totals.cost_of_documents(chosen)
    text = (
        f"{len(chosen)} documents for real: about {amount(expected, unknown)}, at most {usd(most)}"
    )
    typer.echo(text, err=True)
    if not (yes or os.environ.get("TIERWISE_YES") == "1"):
        typer.confirm("Continue?", abort=True, err=True)


def _show(made: Plan) -> None:
    from tierwise.text.amounts import rounded

    title = f"{made.flow} · plan for {made.documents} documents"
    print_table(
        [row.cells() for row in made.routes], title=title, empty="no document would reach a model"
    )
    if made.rows:
        print_table([row.cells() for row in made.rows], title="Cost by step, tier and model")
    if made.waiting:
        rows = [
            {
                "step": w.step,
                "documents": w.documents,
                "such as": ", ".join(w.first),
                "reason": w.reason,
            }
            for w in made.waiting
        ]
        print_table(rows, title=f"Deferred: {sum(w.documents for w in made.waiting)}")
    say = _say()
    for step, number in made.skipped.items():
        say(f"Skipped by {step}: {number} documents")
    for what, number in made.assumed.items():
        say(f"Assumed for {number} documents: {what}")
    for proof in made.missing:
        say(f"Proof is missing: {proof}")
    for reference in made.references:
        say(reference.sentence)
    if made.shadow:
        say(f"Shadows may spend up to {made.shadow:.0%} on top (rules.yaml: shadow)")
    if made.expected_deferred >= 0.05:
        say(
            "Expected to be deferred because no answer passes: "
            f"{rounded(made.expected_deferred)} documents"
        )
    say(_time(made))
    if made.sample:
        say(made.sample.sentence)
    say(made.headline())


def _say() -> Callable[[str], None]:
    out = console()
    return lambda text: out.print(text, markup=False, soft_wrap=True)


def _time(made: Plan) -> str:
    if made.seconds_least is None or made.seconds_most is None:
        untimed = ", ".join(made.untimed)
        return f"Time: unknown, since there is no earlier call of {untimed}; --sample makes some"
    least = _duration(made.seconds_least)
    longest = _duration(made.seconds_most)
    span = least if least == longest else f"{least} to {longest}"
    return f"Time: about {span} of waiting for models"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
