"""`tierwise ui`: Prefect's UI on what `tierwise run` recorded."""

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
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.orchestrate.services import address
    from tierwise.project import Project

    root = Project.find().root
    if running := address(root):
        typer.echo(f"Prefect's UI: {running}/runs   (`tierwise down` ends it)")
        return
    prepare_prefect(root, log_level="WARNING")
    url = f"http://127.0.0.1:{port}"
    os.environ["PREFECT_UI_API_URL"] = f"{url}/api"  # else the pages are empty on another port
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
    raise typer.Exit(subprocess.call(command))  # noqa: S603 - our own interpreter and fixed arguments
