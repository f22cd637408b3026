"""`tierwise run`: run a flow of the project, with progress, and show what it did."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import AsJson, Detach, Fresh, Transport, Verbose, Within
from tierwise.cli.output import print_json
from tierwise.errors import Misuse, unknown_name
from tierwise.text.variables import is_on

if TYPE_CHECKING:
    from tierwise.cascade.known_outcomes import Retry
    from tierwise.engine import RunOptions
    from tierwise.orchestrate.temporary_server import TemporaryServer
    from tierwise.report import RunSummary


def run(
    context: typer.Context,
    flow: Annotated[
        str | None, typer.Argument(help="A flow in flows/, such as support_inbox.")
    ] = None,
    within: Within = None,
    transport: Transport = None,
    detach: Detach = False,
    fresh: Fresh = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 when any document waits, for whatever reason."
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    # An option of ours in place of Typer's: the answer depends on the flow that is named.
    wants_help: Annotated[
        bool,
        typer.Option("--help", "-h", help="Show this message and the flow's options."),
    ] = False,
) -> None:
    """Run a flow over documents, and show its results and cost.

    `tierwise run support_inbox --source examples/inbox --budget-usd 1`: the flow's own parameters
    are options, and `tierwise run FLOW --help` lists them. Paid answers are reused, so an
    interrupted run continues where it stopped when it is run again.

    With `--within 6h`, calls go in provider batches, at half the price, where the time allows it.
    With `--detach`, the run ends once its calls are in batches.

    Exit code 0: done. 1: the run failed, or more documents wait than `fail_when_waiting` in
    pyproject.toml allows. 2: the command or a project file is wrong, or the source is missing.
    3: documents wait for provider batches; `tierwise resume` goes on. 130: stopped.
    """
    from tierwise.cli.progress import status
    from tierwise.cli.run_options import given_options
    from tierwise.orchestrate.environment import show_prefect_log
    from tierwise.orchestrate.temporary_server import start_temporary_server
    from tierwise.project import Project

    if wants_help:
        print_flow_help(context, flow)
        raise typer.Exit
    # Help comes first, since it is also given outside of a project.
    project = Project.find()
    if flow is None:
        print_flow_help(context, None)
        raise typer.Exit(2)
    options = given_options(within, transport, detach=detach)
    if verbose:
        show_prefect_log()
    # Before the flow is loaded, which imports Prefect: the server starts up meanwhile.
    server = start_temporary_server(project.root)
    with status("setting up: loading the flow and its rules"):
        function = project.load_flow(flow)
        parameters = flow_parameters(function, context.args, options)
        project.rules  # noqa: B018 - a wrong project file is an error before anything starts
    summary = run_flow(
        function, parameters, server=server, fresh=fresh, options=options
    )
    show_summary(summary, as_json=as_json)
    # A few deferrals are a normal end, unless a script asks to be strict.
    if summary.failed or (strict and summary.run.deferred):
        raise typer.Exit(1)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def print_flow_help(context: typer.Context, flow: str | None) -> None:
    """Print a command's help, and the flow's own options; outside a project, where they are."""
    from tierwise.project import Project

    typer.echo(context.get_help())
    try:
        project = Project.find()
    except Misuse as error:
        typer.echo(f"Flows and their options are listed inside a project; {error}")
        return
    if flow is None:
        typer.echo(f"Flows here: {', '.join(project.flow_names()) or 'none'}")
    else:
        typer.echo(describe_options(project.load_flow(flow)))


def run_flow(
    function: Any,
    parameters: Mapping[str, Any],
    *,
    server: TemporaryServer | None,
    fresh: bool,
    retry: Retry | None = None,
    options: RunOptions | None = None,
) -> RunSummary:
    """Run a flow with progress.

    Raises Misuse when it gives no summary, and TierwiseError for what its own code raises.
    """
    from tierwise.cli.progress import StepBars
    from tierwise.cli.run_options import batches_left
    from tierwise.engine import RunOptions
    from tierwise.orchestrate.failures import failures_described
    from tierwise.orchestrate.process_state import engine
    from tierwise.orchestrate.server import require_server
    from tierwise.report import RunSummary, summarize_run

    # The steps of a flow find this engine by themselves, so it is set up before the flow begins.
    engine().fresh = fresh or is_on(os.environ, "TIERWISE_FRESH")
    engine().retry = retry
    engine().options = options or RunOptions()
    described = failures_described(function.name, engine().project.root)
    with StepBars(engine()) as bars, engine().on_outcome(bars):
        # None: another server is configured, or Prefect chooses one.
        if server:
            server.wait_until_ready()
        else:
            require_server()
        with described, batches_left():
            result = function(**parameters)
    # Without its summary, nothing could be shown of the run.
    if not isinstance(result, RunSummary):
        raise Misuse(
            f"the flow {function.name} returns {type(result).__name__}; "
            "end it with `return run.summary()`"
        )
    if result.run.finished_at is None:
        # Taken inside of `with recorded_run()`, before the run's end was known.
        ended = summarize_run(engine().records, result.run.id)
        return replace(ended, settled=result.settled)
    return result


def show_summary(summary: RunSummary, *, as_json: bool) -> None:
    """Print what a run did, why, and what to type next."""
    from tierwise.cli.render.last_screen import print_last_screen
    from tierwise.cli.render.run_report import print_summary
    from tierwise.orchestrate.process_state import engine
    from tierwise.orchestrate.temporary_server import temporary_server

    if as_json:
        print_json(summary.data())
        return
    print_summary(summary)
    print_last_screen(summary, engine())
    server = os.environ.get("PREFECT_API_URL")
    if server and temporary_server() is None:
        # PREFECT_API_URL names the API; the pages are one level above.
        address = server.removesuffix("/api")
        typer.echo(
            f"In Prefect's UI: {address}/runs/flow-run/{summary.run.flow_run_id}"
        )
    else:
        # A temporary server has ended by then, so the pages need one that is started by hand.
        typer.echo("In Prefect's UI: make ui, then " + summary.ui_path())


def flow_parameters(
    function: Any, arguments: list[str], options: RunOptions | None = None
) -> dict[str, Any]:
    """Return `--budget-usd 2 --flag=x` as the flow's parameters, checked. Raises Misuse.

    Options of the command go to the parameters of these names, too, where the flow has them.
    """
    known = inspect.signature(function.fn).parameters
    parameters: dict[str, Any] = {}
    if options is not None:
        from tierwise.cli.run_options import with_options

        parameters = with_options(known, options)
    # An iterator, so that an option can take the next word as its value.
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            raise Misuse(f"'{word}' does not belong to an option; write --name value")
        option, has_value, value = word[2:].partition("=")
        name = option.replace("-", "_")
        if name not in known:
            names = [f"--{_dashed(parameter)}" for parameter in known]
            raise Misuse(unknown_name("option", f"--{option}", names))
        parameters[name] = _value(value if has_value else next(words, None), option)
    # Checked here, and not by Prefect within the run: a wrong option must leave no failed run.
    check_parameters(function, parameters)
    return parameters


def _value(text: str | None, option: str) -> Any:
    if text is None:
        raise Misuse(f"--{option} needs a value")
    # Other values stay text: Prefect converts them to the type that the flow declares.
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise Misuse(f"--{option} is not valid JSON: {error}") from None
    return text


def check_parameters(function: Any, parameters: Mapping[str, Any]) -> None:
    """Raise Misuse where a required parameter of a flow is missing, or one has a wrong type."""
    from prefect.exceptions import ParameterBindError, ParameterTypeError

    declared = inspect.signature(function.fn).parameters
    defaults: dict[str, Any] = {}
    for name, parameter in declared.items():
        # *args and **kwargs have no option.
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is not parameter.empty:
            defaults[name] = parameter.default
        elif name not in parameters:
            raise Misuse(f"--{_dashed(name)} is required: {_meaning(function, name)}")
    try:
        function.validate_parameters({**defaults, **parameters})
    except (ParameterTypeError, ParameterBindError) as error:
        # Pydantic's message has several lines, and a link to its documentation.
        lines = [
            line.strip()
            for line in str(error).splitlines()
            if line.strip() and "For further" not in line
        ]
        raise Misuse(" ".join(lines)) from None


def describe_options(function: Any) -> str:
    """Return the flow's own options, from its signature and docstring.

    Without those of the command itself, which come to the flow's parameters by themselves.
    """
    from tierwise.cli.run_options import OF_THE_COMMAND

    description = function.description or ""
    first_line = description.partition("\n")[0]
    lines = [f" Options of {function.name}: {first_line}"]
    notes = _notes(function)
    for name, parameter in inspect.signature(function.fn).parameters.items():
        if name in OF_THE_COMMAND:
            continue
        default = f" [default: {parameter.default}]"
        if parameter.default is parameter.empty:
            default = " [required]"
        lines.append(f"   --{_dashed(name):<16}{notes.get(name, '')}{default}")
    return "\n".join(lines)


def _notes(function: Any) -> dict[str, str]:
    """Return what a flow's docstring says of its parameters, a line each: `name: meaning`."""
    notes: dict[str, str] = {}
    for line in (inspect.getdoc(function.fn) or "").splitlines():
        name, colon, note = line.strip().partition(": ")
        if colon:
            notes[name] = note
    return notes


def _meaning(function: Any, name: str) -> str:
    """Return what a flow's parameter is, by its docstring, else by its type."""
    note = _notes(function).get(name)
    if note:
        return note
    annotation = inspect.signature(function.fn).parameters[name].annotation
    if annotation is inspect.Parameter.empty:
        return f"the flow {function.name} has no default for it"
    # With `from __future__ import annotations`, an annotation is text.
    if isinstance(annotation, str):
        return annotation
    return inspect.formatannotation(annotation)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
