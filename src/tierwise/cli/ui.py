"""`tierwise ui`: Prefect's UI for the recorded runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 4200,
) -> None:
    """Open Prefect's UI on this project's runs."""
    from tierwise.orchestrate.api_password import (
        server_environment,
        sign_in_note,
        use_server,
    )
    from tierwise.orchestrate.services import address
    from tierwise.project import Project
    from tierwise.text.private import PRIVATE_UMASK

    root = Project.find().root
    running = address(root)
    if running:
        # The server of `tierwise up` has the same pages.
        typer.echo(f"Prefect's UI: {running}/runs   (`tierwise down` ends it)")
        typer.echo(sign_in_note(root))
        return
    url = f"http://127.0.0.1:{port}"
    use_server(root, url)
    typer.echo(f"Prefect's UI: {url}/runs   (Ctrl-C stops it)")
    typer.echo(sign_in_note(root))
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # In the foreground, so that Ctrl-C ends it.
    env = {**os.environ, **server_environment(root, url)}
    exit_code = subprocess.call(command, env=env, umask=PRIVATE_UMASK)  # noqa: S603 - our own interpreter
    raise typer.Exit(exit_code)
