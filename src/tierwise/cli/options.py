"""Options that several commands share, and the one way to make a group of commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Call again for answers already paid for.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log.")]
Within = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="The time until the results are needed, such as 6h: with it, calls go in provider "
        "batches, at half the price, where there is time enough.",
    ),
]
Transport = Annotated[
    str | None,
    typer.Option(
        metavar="TRANSPORT",
        help="online, batch or auto, for all calls of the run; default: as the routes say.",
    ),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        help="End once all calls are in provider batches; `tierwise resume` goes on.",
    ),
]
DecidedBy = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who decides; default: your user name."),
]
OnlyStep = Annotated[
    str | None, typer.Option("--step", metavar="STEP", help="Only this step.")
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's id, the beginning of an id, or `latest`."
    ),
]
OnlyFlow = Annotated[
    str | None, typer.Option("--flow", metavar="FLOW", help="Only this flow.")
]
OnlyCause = Annotated[
    str | None,
    typer.Option(
        "--cause",
        metavar="CAUSE",
        help="Only documents that wait for this cause, such as `review` or `budget`.",
    ),
]
WaitingLonger = Annotated[
    str | None,
    typer.Option(
        "--older-than",
        metavar="SPAN",
        help="Only documents that wait longer than 30m, 12h, 2d or 1w.",
    ),
]
OptionalRunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run's id, the beginning of an id, or `latest` (the default).",
    ),
]


def typer_with_our_style(**settings: Any) -> typer.Typer:
    """Return a Typer program: Markdown in help, no completion, errors left to `main`."""
    return typer.Typer(
        # No --install-completion, which would write into the user's shell files.
        add_completion=False,
        rich_markup_mode="markdown",
        # Rich's tracebacks may print local variables, and so documents.
        pretty_exceptions_enable=False,
        **settings,
    )


def command_group(help_line: str) -> typer.Typer:
    """Return an empty group of commands, such as `tierwise audit`."""
    return typer_with_our_style(no_args_is_help=True, help=help_line)
