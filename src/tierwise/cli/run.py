"""`tierwise run`: run a flow of the project, with progress, and show what it did."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import AsJson, Fresh, Verbose
from tierwise.cli.output import print_json
from tierwise.errors import Misuse, unknown_name

if TYPE_CHECKING:
    from tierwise.cascade.known_outcomes import Retry
    from tierwise.report import RunSummary


def run(
    context: typer.Context,
    flow: Annotated[
        str | None, typer.Argument(help="A flow in flows/, such as support_inbox.")
    ] = None,
    fresh: Fresh = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when a document was deferred.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    wants_help: Annotated[
        bool,
        typer.Option("--help", "-h", help="Show this message and the flow's options."),
    ] = False,
) -> None:
    """Run a flow over documents, and show its results and cost.

    `tierwise run support_inbox --source examples/inbox --budget-usd 1`: the flow's own parameters
    are options, and `tierwise run FLOW --help` lists them. Paid answers are reused, so an
    interrupted run continues where it stopped when it is run again.
    """
    from tierwise.cli.progress import status
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.project import Project

    project = Project.find()
    if flow is None:
        typer.echo(context.get_help())
        typer.echo(f"Flows here: {', '.join(project.flow_names()) or 'none'}")
        raise typer.Exit(0 if wants_help else 2)
    prepare_prefect(project.root, log_level="INFO" if verbose else "CRITICAL")
    if wants_help:
        typer.echo(context.get_help())
        typer.echo(describe_options(project.load_flow(flow)))
        raise typer.Exit
    with status("setting up: loading the flow and its rules"):
        function = project.load_flow(flow)
        parameters = flow_parameters(function, context.args)
        project.rules  # noqa: B018 - a wrong project file is an error before anything starts
    try:
        summary = run_flow(function, parameters, fresh=fresh)
    except KeyboardInterrupt:  # typer would end without a word
        typer.echo(
            "stopped; everything that was paid is on record, run it again to continue",
            err=True,
        )
        raise typer.Exit(130) from None
    show_summary(summary, as_json=as_json)
    if summary.failed or (strict and summary.run.deferred):
        raise typer.Exit(1)


def run_flow(
    function: Any,
    parameters: Mapping[str, Any],
    *,
    fresh: bool,
    retry: Retry | None = None,
) -> RunSummary:
    """Run a flow with progress.

    Raises Misuse when it gives no summary, and TierwiseError for what its own code raises.
    """
    from tierwise.cli.progress import StepBars
    from tierwise.orchestrate.failures import failures_described
    from tierwise.orchestrate.process_state import engine
    from tierwise.report import RunSummary

    engine().fresh = fresh or os.environ.get("TIERWISE_FRESH") == "1"
    engine().retry = retry
    described = failures_described(function.name, engine().project.root)
    with described, StepBars(engine()) as bars, engine().on_outcome(bars):
        result = function(**parameters)
    if not isinstance(result, RunSummary):
        raise Misuse(
            f"the flow {function.name} returns {type(result).__name__}; end it with `return run.summary()`"
        )
    return result


def show_summary(summary: RunSummary, *, as_json: bool) -> None:
    """Print what a run did, why, and what to type next."""
    from tierwise.cli.render.last_screen import print_last_screen
    from tierwise.cli.render.run_report import print_summary
    from tierwise.orchestrate.process_state import engine

    if as_json:
        print_json(summary.data())
        return
    print_summary(summary)
    print_last_screen(summary, engine())
    if server := os.environ.get("PREFECT_API_URL"):
        address = server.removesuffix("/api")
        typer.echo(
            f"In Prefect's UI: {address}/runs/flow-run/{summary.run.flow_run_id}"
        )
    else:
        typer.echo("In Prefect's UI: make ui, then " + summary.ui_path())


def flow_parameters(function: Any, arguments: list[str]) -> dict[str, Any]:
    """`--budget-usd 2 --flag=x` as the flow's parameters. Raises Misuse; Prefect checks the types."""
    known = inspect.signature(function.fn).parameters
    parameters: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            raise Misuse(f"'{word}' does not belong to an option; write --name value")
        option, has_value, value = word[2:].partition("=")
        name = option.replace("-", "_")
        if name not in known:
            raise Misuse(
                unknown_name(
                    "option", f"--{option}", [f"--{k.replace('_', '-')}" for k in known]
                )
            )
        parameters[name] = _value(value if has_value else next(words, None), option)
    _check_types(function, parameters)
    return parameters


def _value(text: str | None, option: str) -> Any:
    if text is None:
        raise Misuse(f"--{option} needs a value")
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise Misuse(f"--{option} is not valid JSON: {error}") from None
    return text


def _check_types(function: Any, parameters: Mapping[str, Any]) -> None:
    from prefect.exceptions import ParameterBindError, ParameterTypeError

    try:
        defaults = {
            n: p.default for n, p in inspect.signature(function.fn).parameters.items()
        }
        function.validate_parameters({**defaults, **parameters})
    except (ParameterTypeError, ParameterBindError) as error:
        lines = [
            line.strip()
            for line in str(error).splitlines()
            if line.strip() and "For further" not in line
        ]
        raise Misuse(" ".join(lines)) from None


def describe_options(function: Any) -> str:
    """The flow's own options, from its signature and docstring."""
    lines = [
        f" Options of {function.name}: {function.description.splitlines()[0] if function.description else ''}"
    ]
    notes = dict(
        line.strip().split(": ", 1)
        for line in (inspect.getdoc(function.fn) or "").splitlines()
        if ": " in line
    )
    for name, parameter in inspect.signature(function.fn).parameters.items():
        default = (
            ""
            if parameter.default is parameter.empty
            else f" [default: {parameter.default}]"
        )
        lines.append(f"   --{name.replace('_', '-'):<16}{notes.get(name, '')}{default}")
    return "\n".join(lines)
