"""`tierwise status`: what runs, what is late and why, and what waits for people."""

from __future__ import annotations

from dataclasses import asdict

import typer

from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json


def status(as_json: AsJson = False) -> None:
    """Show what runs, what is late and why, and what waits.

    Server and worker, the last and the next run of each deployment, late runs with their cause, and
    documents that wait for a person or for money. Exit code 1 when something needs a hand.
    """
    from tierwise.cli.render.status import print_status
    from tierwise.orchestrate.read_status import read_status

    found = read_status(find_project())
    problems = found.problems()
    if as_json:
        data = asdict(found)
        data["problems"] = [asdict(problem) for problem in problems]
        print_json(data)
    else:
        print_status(found)
    if problems:
        raise typer.Exit(1)
