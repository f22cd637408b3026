"""`tierwise desk`: the web application for reviewers and operators, and its people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import typer_with_our_style
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.desk.people import People

# Not a plain group: without a command of its own, `tierwise desk` serves the pages.
desk = typer_with_our_style(help="Serve the desk: pages for reviewers and operators.")
_LOOPBACK = "127.0.0.1"


@desk.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen at. Any but this machine's own needs people who may sign "
            "in, or a proxy."
        ),
    ] = _LOOPBACK,
    port: Annotated[
        int | None,
        typer.Option(help="The port; default: `port` in [tool.tierwise.desk], 4280."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Speak TLS with this certificate (PEM); needs --key."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate's private key (PEM)."),
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="Print the link of a desk that runs here, and exit."
        ),
    ] = False,
    metrics_token: Annotated[
        bool,
        typer.Option(
            "--metrics-token", help="Print the bearer token for /metrics, and exit."
        ),
    ] = False,
    open_it: Annotated[
        bool, typer.Option("--open", help="Open the link in the browser.")
    ] = False,
) -> None:
    """Serve the desk: pages for reviewers and operators.

    On this machine's own address, the link that it prints signs you in as admin. On any other
    address, people sign in with a password (`tierwise desk add NAME`) or through a proxy.
    """
    if context.invoked_subcommand is not None:
        return
    from tierwise.desk.probe import is_served
    from tierwise.desk.server import Place, link_of, listen
    from tierwise.desk.server import serve as serve_desk
    from tierwise.orchestrate.services import address, desk_address

    if (certificate is None) != (key is None):
        raise Misuse("--certificate and --key belong together")
    project = find_project()
    settings = project.settings.desk
    root = project.root
    if metrics_token:
        place = Place(host=_LOOPBACK, port=port or settings.port)
        typer.echo(place.access(root, settings).metrics_token)
        return
    running = desk_address(root)
    is_usual = host == _LOOPBACK and port is None and certificate is None
    if running is not None and is_usual:
        # The desk of `tierwise up` has the same pages.
        place = Place(host=host, port=int(running.rpartition(":")[2]))
        link_there = link_of(place.access(root, settings), running)
        if link:
            typer.echo(link_there)
            return
        typer.echo(f"desk: {link_there}   (`tierwise down` ends it)")
        if open_it:
            typer.launch(link_there)
        return
    number = port or settings.port
    place = Place(host=host, port=number, certificate=certificate, key=key)
    access = place.access(root, settings)
    first_page = link_of(access, place.url)
    if link:
        if access.link_user is None:
            raise Misuse(f"at {host} there is no link; people sign in at {place.url}")
        if not is_served(access, place.url):
            raise Misuse(
                f"no desk of this project runs at {place.url}; `tierwise desk` starts one, and "
                "`tierwise up` one in the background"
            )
        typer.echo(first_page)
        return
    listener = listen(host, number)
    with open_ledger(project) as ledger:
        typer.echo(f"desk: {first_page}   (Ctrl-C stops it)")
        is_plain = certificate is None and settings.proxy is None
        if access.link_user is None and is_plain:
            typer.echo(
                "passwords cross the network unencrypted; give --certificate and --key, "
                "or put a proxy with TLS in front",
                err=True,
            )
        if open_it:
            typer.launch(first_page)
        serve_desk(project, ledger, access, place, listener, lambda: address(root))


@desk.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The person's name, as on record.")],
    role: Annotated[str, typer.Option(help="viewer, reviewer or admin.")] = "reviewer",
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from standard input."),
    ] = False,
) -> None:
    """Add a person to the password file, or give one a new role and password.

    Viewers read. Reviewers also decide, label, compare and acknowledge alerts. Admins also read
    texts of every sensitivity.
    """
    from tierwise.desk.people import SHORTEST_PASSWORD, refuse_name
    from tierwise.policy.desk_settings import ROLES

    if role not in ROLES:
        raise Misuse(f"--role takes {', '.join(ROLES)}; not '{role}'")
    refuse_name(name)
    people = _people()
    if password_stdin:
        password = typer.get_text_stream("stdin").readline().rstrip("\r\n")
    else:
        if not sys.stdin.isatty():
            raise Misuse(
                "a password is asked at a terminal; in a script, give --password-stdin"
            )
        password = typer.prompt(
            f"Password (at least {SHORTEST_PASSWORD} characters)",
            hide_input=True,
            confirmation_prompt=True,
        )
    people.add(name, role, password)
    typer.echo(f"{name} may sign in as {role}")


@desk.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The person's name.")]) -> None:
    """Remove a person from the password file; their sessions end at once."""
    _people().remove(name)
    typer.echo(f"{name} may no longer sign in")


@desk.command("people")
def people() -> None:
    """List the people who may sign in, with their roles."""
    found = _people()
    accounts = found.accounts()
    if not accounts:
        typer.echo("nobody may sign in with a password; see `tierwise desk add`")
    for account in sorted(accounts.values(), key=lambda account: account.name):
        typer.echo(f"{account.name}: {account.role}")


def _people() -> People:
    from tierwise.desk.people import People

    return People.of(find_project().root)
