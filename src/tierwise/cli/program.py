"""The program: finds a command in the table, loads it, and turns errors into exit codes.

Exit code 0: done. 1: something failed, or too many documents of a run wait. 2: the command or a
project file is wrong. 130: Ctrl-C.
"""

from __future__ import annotations

import gc
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tierwise import __version__
from tierwise.cli import loaded
from tierwise.cli.commands import COMMANDS, Command
from tierwise.cli.options import typer_with_our_style
from tierwise.cli.output import plain_output
from tierwise.cli.stopping import EXIT_CODE, STOPPED, stoppable
from tierwise.errors import Misuse, TierwiseError
from tierwise.text.escape import escape_control

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

_ROWS = {row.name: row for row in COMMANDS}
# Typer does not know a flow's parameters, so it hands on what it cannot read.
_FLOW_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}


class LazyGroup(TyperGroup):
    """A group whose commands are imported at their first use."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Rows without a body: Typer lists them, and suggests one for a misspelt name.
        self.commands = {row.name: _listed(row) for row in COMMANDS}

    def get_command(self, ctx: Context, cmd_name: str) -> Any:  # noqa: ARG002 - Typer's signature
        """Prepare Prefect's variables, and import the command."""
        from tierwise.orchestrate.environment import (
            ADDRESS,
            narrow_project,
            prepare_process,
        )

        row = _ROWS.get(cmd_name)
        if row is None:
            return None  # Typer then reports the unknown command
        # Before the import below: Prefect reads its variables once, when it is imported.
        narrowed = narrow_project()
        if narrowed:
            typer.echo(narrowed, err=True)
        dead = prepare_process(row.prefect_log)
        if dead and row.uses_server:
            note = f"no server answers at {ADDRESS}={dead}, so it is ignored"
            remedy = f"`unset {ADDRESS}` ends this note, `tierwise up` starts a server"
            typer.echo(f"{note}; {remedy}", err=True)
        command = load(row)
        loaded()
        return command

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Print the list of commands from the table, without importing any of them."""
        # A plain group, as `get_command` of this one would import every command.
        listing = TyperGroup(
            name=self.name,
            commands=dict(self.commands),
            params=self.params,
            help=self.help,
            rich_markup_mode=self.rich_markup_mode,
        )
        _hide_types_of_flags(listing)
        listing.format_help(ctx, formatter)


def load(row: Command) -> Any:
    """Import a command's module and return the command as Typer runs it."""
    module, _, name = row.place.partition(":")
    # A function is one command; a Typer program is a group with commands of its own.
    body = getattr(import_module(f"tierwise.cli.{module}"), name)
    if row.makes_calls:
        body = stoppable()(body)
    if isinstance(body, typer.Typer):
        program = body
    else:
        program = typer_with_our_style()
        program.command(
            context_settings=_FLOW_OPTIONS if row.takes_flow_options else {},
            # `run` and `plan` print the flow's options as well, so they answer --help themselves.
            add_help_option=not row.takes_flow_options,
        )(body)
    command = typer.main.get_command(program)
    command.name = row.name
    _hide_types_of_flags(command)
    return command


def _hide_types_of_flags(command: Any) -> None:
    """Leave out the type in a flag's help, which Typer shows as `<bool>`."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_bool_flag", False):
            parameter.metavar = ""
    # A group's commands, and theirs.
    for inner in getattr(command, "commands", {}).values():
        _hide_types_of_flags(inner)


def _listed(row: Command) -> TyperCommand:
    return TyperCommand(row.name, help=row.help, rich_help_panel=row.panel)


app = typer_with_our_style(
    cls=LazyGroup,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Run documents through steps, each on the **cheapest model proven capable**.\n\n"
    "Start a project with `tierwise init DIR`. "
    "In a project, begin with `tierwise doctor`, `tierwise run` and `tierwise show`.",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit."
    ),
) -> None:
    if version:
        typer.echo(f"tierwise {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line. An error of ours becomes one line on stderr and an exit code."""
    # Most of a short command is imports, which leave no garbage to look for so often.
    gc.set_threshold(50_000)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        # Around everything that prints, also the help and Typer's own errors.
        with plain_output():
            app()
    # Before TierwiseError, of which it is a kind.
    except Misuse as error:
        _fail(error, 2)
    except TierwiseError as error:
        _fail(error, 1)
    except OSError as error:
        # Not about a file, so no remedy is known: a traceback helps more than a sentence.
        if error.filename is None:
            raise
        _fail(TierwiseError(_describe_file_error(error)), 1)
    except KeyboardInterrupt:
        typer.echo(STOPPED, err=True)
        sys.exit(EXIT_CODE)


def _describe_file_error(error: OSError) -> str:
    """Return what went wrong with a file or folder of this machine, and what to look at."""
    remedy = "check that its folder exists and may be written"
    return f"{error.filename}: {error.strerror}; {remedy}"


def _fail(error: TierwiseError, code: int) -> None:
    # Escaped here, as `plain_output` has ended.
    typer.echo(escape_control(f"tierwise: {error}"), err=True)
    sys.exit(code)
