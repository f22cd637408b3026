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
    from tierwise.orchestrate.services import address
    from tierwise.project import Project

    root = Project.find().root
    running = address(root)
    if running:
        # The server of `tierwise up` has the same pages.
        typer.echo(f"Prefect's UI: {running}/runs   (`tierwise down` ends it)")
        return
    url = f"http://127.0.0.1:{port}"
    # The pages ask port 4200 by default, and stay empty on another port.
    os.environ["PREFECT_UI_API_URL"] = f"{url}/api"
    typer.echo(f"Prefect's UI: {url}/runs   (Ctrl-C stops it)")
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
    exit_code = subprocess.call(command)  # noqa: S603 - our own interpreter, fixed arguments
    raise typer.Exit(exit_code)
