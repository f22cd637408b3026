"""`tierwise plan`: a forecast of a run, with its routes, its deferrals and its cost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.confirming import confirm_spending
from tierwise.cli.options import AsJson, Fresh, Transport, Within, Yes
from tierwise.cli.output import console, print_json, print_table
from tierwise.errors import Misuse
from tierwise.records import is_own
from tierwise.text.variables import is_on

if TYPE_CHECKING:
    from tierwise.engine import RunOptions
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
            metavar="N",
            min=1,
            help="Run N documents for real, and estimate from their cost.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed that draws the sample.")] = 0,
    within: Within = None,
    transport: Transport = None,
    yes: Yes = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
    wants_help: Annotated[
        bool,
        typer.Option("--help", "-h", help="Show this message and the flow's options."),
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

    Where models have provider batches, it compares both bills and both durations: all calls online,
    and all calls in batches. `--within 6h` says how much time there is for them.
    """
    from tierwise.cli.progress import status
    from tierwise.cli.run import flow_parameters, print_flow_help
    from tierwise.cli.run_options import given_options
    from tierwise.plan import save_plan
    from tierwise.project import Project

    if wants_help:
        print_flow_help(context, flow)
        raise typer.Exit
    project = Project.find()
    if flow is None:
        print_flow_help(context, None)
        raise typer.Exit(2)
    options = given_options(within, transport)
    with status("setting up: loading the flow and its rules"):
        function = project.load_flow(flow)
        given = flow_parameters(function, context.args, options)
        parameters = function.validate_parameters(with_defaults(function, given))
    # Before the rehearsal, in which they run.
    warn_of_plain_tasks(function)
    result, planner = _make_plan(project, function, parameters, options, fresh=fresh)
    if sample:
        result = _plan_with_sample(
            project, function, parameters, planner, sample, seed, yes=yes
        )
    save_plan(project.root, result)
    hosts = _hosts(project, result)
    if as_json:
        print_json({**result.data(), "hosts": hosts})
    else:
        _print_plan(result, hosts)


def _hosts(project: Project, plan: Plan) -> dict[str, str]:
    """Return the host of each model that the plan expects calls to."""
    environment = project.env_with_secrets(os.environ)
    # A route's first model may need no call, as its answers are paid; it is in no row then.
    names = [row.model for row in plan.routes] + [row.model for row in plan.rows]
    hosts = {}
    for name in dict.fromkeys(names):
        if is_own(name):
            kind = name.partition(":")[0]
            hosts[name] = "this process" if kind == "function" else "the step's `url`"
            continue
        model = project.catalog.model(name)
        hosts[name] = project.catalog.host(model, environment)
    return hosts


def warn_of_plain_tasks(function: Any) -> None:
    """Warn of plain tasks: planning runs the flow itself, and only steps are rehearsed."""
    from tierwise.orchestrate.dry_run import tasks_run_for_real

    # A plain task may send a mail or write a file, so a person has to know.
    names = tasks_run_for_real(function)
    if names:
        typer.echo(
            f"Runs for real while planning, as only steps are planned: {', '.join(names)}",
            err=True,
        )


def with_defaults(function: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the given parameters, and the flow's defaults for the others."""
    import inspect

    declared = inspect.signature(function.fn).parameters
    # A parameter without a default is in `given`, or was refused before.
    defaults = {name: parameter.default for name, parameter in declared.items()}
    return {**defaults, **given}


def _make_plan(
    project: Project,
    function: Any,
    parameters: dict[str, Any],
    options: RunOptions,
    *,
    fresh: bool,
) -> tuple[Plan, Planner]:
    """Run the flow in rehearsal; return its plan, and the planner with its totals."""
    from tierwise.plan import Planner

    environment = project.env_with_secrets(os.environ)
    with closing(Planner(project, environment)) as planner:
        planner.fresh = fresh or is_on(os.environ, "TIERWISE_FRESH")
        planner.options = options
        rehearse(function, parameters, planner)
        # As text, since a later run is matched with this plan by these values.
        texts = {name: str(value) for name, value in parameters.items()}
        result = planner.plan(function.name, texts)
        return result, planner


def rehearse(function: Any, parameters: dict[str, Any], engine: Any) -> None:
    """Run the flow with an engine in place of the real one, and show the progress."""
    from tierwise.cli.progress import StepBars
    from tierwise.orchestrate.dry_run import dry_run

    # A planner counts documents and reports outcomes as the engine does.
    with StepBars(engine) as bars, engine.on_outcome(bars):
        dry_run(function, parameters, engine)


def _plan_with_sample(
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

    # A document that cannot be read never comes to a model, so it says nothing of the cost.
    readable = planner.totals.readable
    if not readable:
        raise Misuse("no document can be read, so there is nothing to sample")
    # Drawn by the seed, so that the same command samples the same documents again.
    chosen = choose(readable, number, seed)
    _ask(planner, chosen, yes=yes)
    with closing(
        Sampler(project, function.name, chosen, variables(project))
    ) as sampler:
        sampler.fresh = planner.fresh
        rehearse(function, parameters, sampler)
        measured = sampler.sample(of=len(readable))
    # The sample's calls are in the ledger now, so a new plan knows their cost and latency.
    result, _ = _make_plan(
        project, function, parameters, planner.options, fresh=planner.fresh
    )
    return replace(result, sample=measured)


def _ask(planner: Planner, chosen: frozenset[str], *, yes: bool) -> None:
    """Print the cost of the sample, and ask whether to spend it."""
    from tierwise.plan.plan import amount
    from tierwise.text.amounts import usd

    expected, most, unknown = planner.totals.cost_of_documents(chosen)
    cost = f"about {amount(expected, unknown)}, at most {usd(most)}"
    # On stderr, so that the output of --json stays JSON.
    typer.echo(f"{len(chosen)} documents for real: {cost}", err=True)
    confirm_spending(yes=yes)


def _print_plan(plan: Plan, hosts: dict[str, str]) -> None:
    """Print the plan's tables, then its notes as sentences."""
    print_table(
        [row.cells() for row in plan.routes],
        title=f"{plan.flow} · plan for {plan.documents} documents",
        empty="no document would reach a model",
    )
    if plan.rows:
        print_table(
            [row.cells() for row in plan.rows], title="Cost by step, tier and model"
        )
    if plan.has_batches:
        print_table(
            [row.transport_cells() for row in plan.rows], title="Online and in batches"
        )
    if hosts:
        print_table(
            [{"model": name, "calls go to": host} for name, host in hosts.items()],
            title="Hosts",
        )
    if plan.waiting:
        _print_deferred(plan)
    out = console()
    for sentence in _sentences(plan):
        # A terminal breaks these lines itself, so that they can be copied whole.
        out.print(sentence, markup=False, soft_wrap=True)


def _print_deferred(plan: Plan) -> None:
    """Print the expected deferrals by step and reason, each with some of its documents."""
    rows = []
    for group in plan.waiting:
        row = {
            "step": group.step,
            "documents": group.documents,
            "such as": ", ".join(group.first),
            "reason": group.reason,
        }
        rows.append(row)
    documents = sum(group.documents for group in plan.waiting)
    print_table(rows, title=f"Deferred: {documents}")


def _sentences(plan: Plan) -> Iterator[str]:
    """Yield the plan's assumptions, its references, its time, and last its cost."""
    from tierwise.text.amounts import rounded

    for step, number in plan.skipped.items():
        yield f"Skipped by {step}: {number} documents"
    for assumption, number in plan.assumed.items():
        yield f"Assumed for {number} documents: {assumption}"
    for proof in plan.missing:
        yield f"Proof is missing: {proof}"
    for reference in plan.references:
        yield reference.sentence
    if plan.shadow:
        yield f"Shadows may spend up to {plan.shadow:.0%} on top (rules.yaml: shadow)"
    # The number is a sum of probabilities; less than this would be printed as 0.
    if plan.expected_deferred >= 0.05:
        documents = rounded(plan.expected_deferred)
        yield f"Expected to be deferred because no answer passes: {documents} documents"
    yield _time_text(plan)
    if plan.has_batches:
        yield _both_bills(plan)
    if plan.sample:
        yield plan.sample.sentence
    yield plan.headline()


def _both_bills(plan: Plan) -> str:
    """Return the bills and durations with all calls online, and with all in batches that may."""
    from tierwise.text.amounts import duration, usd

    online_time = "unknown time"
    if plan.seconds_most is not None:
        online_time = f"at most {duration(plan.seconds_most)}"
    online = f"all calls online: {usd(plan.online)}, {online_time}"
    batch_time = f"about {duration(plan.batch_seconds)}"
    return f"{online[0].upper()}{online[1:]}; in batches: {usd(plan.in_batches)}, {batch_time}"


def _time_text(plan: Plan) -> str:
    """Return the expected time, from the latencies of earlier calls."""
    from tierwise.text.amounts import duration

    if plan.seconds_least is None or plan.seconds_most is None:
        untimed = ", ".join(plan.untimed)
        return f"Time: unknown, since there is no earlier call of {untimed}; --sample makes some"
    span = duration(plan.seconds_least)
    longest = duration(plan.seconds_most)
    # The two are compared as printed: "2 min to 2 min" would say nothing.
    if longest != span:
        span += f" to {longest}"
    return f"Time: about {span} of waiting for models"
