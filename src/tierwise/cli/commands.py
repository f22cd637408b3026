"""The command line. Exit code 0: done; 1: something failed; 2: the command or a project file is wrong."""

from __future__ import annotations

import logging
import sys

import typer

from tierwise import __version__
from tierwise.cli.audit import audit
from tierwise.cli.budgets import budgets
from tierwise.cli.calibrate import calibrate
from tierwise.cli.certify import certify
from tierwise.cli.check import check
from tierwise.cli.diff import diff
from tierwise.cli.doctor import doctor
from tierwise.cli.down import down
from tierwise.cli.explain import explain
from tierwise.cli.export import export
from tierwise.cli.golden import golden
from tierwise.cli.init import init
from tierwise.cli.label import label
from tierwise.cli.models import fetch, models
from tierwise.cli.new import new
from tierwise.cli.output import plain_output
from tierwise.cli.plan import plan
from tierwise.cli.replay import replay
from tierwise.cli.report import report
from tierwise.cli.retention import retention
from tierwise.cli.retry import retry
from tierwise.cli.review import review
from tierwise.cli.run import run
from tierwise.cli.runs import runs, show
from tierwise.cli.train import train
from tierwise.cli.ui import ui
from tierwise.cli.up import up
from tierwise.errors import Misuse, TierwiseError
from tierwise.text.escape import escape_control

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Run document workflows whose steps each go to the **cheapest model shown capable**.\n\n"
    "Start a project with `tierwise init DIR`. In one: `tierwise doctor`, then `tierwise run`, then `tierwise show`.",
)
for command in (
    init,
    plan,
    run,
    show,
    runs,
    report,
    explain,
    review,
    retry,
    budgets,
    label,
    models,
    fetch,
    train,
    certify,
    check,
    diff,
    replay,
    calibrate,
    export,
    doctor,
    up,
    down,
    ui,
    retention,
):
    own_help = command in (plan, run)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
        if own_help
        else {},
        add_help_option=not own_help,
    )(command)
for name, group in (("new", new), ("golden", golden), ("audit", audit)):
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        typer.echo(f"tierwise {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; our errors become one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with plain_output():
            app()
    except Misuse as error:
        _fail(error, 2)
    except TierwiseError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        typer.echo(
            "stopped; everything that was paid is on record, run it again to go on", err=True
        )
        sys.exit(130)


def _fail(error: TierwiseError, code: int) -> None:
    typer.echo(escape_control(f"tierwise: {error}"), err=True)
    sys.exit(code)
