"""The question before money is spent."""

from __future__ import annotations

import os

import typer

from tierwise.text.variables import is_on


def confirm_spending(*, yes: bool) -> None:
    """Ask whether to go on, unless `--yes` or TIERWISE_YES has answered.

    The question is on stderr, so that the output of `--json` stays JSON.
    """
    if yes or is_on(os.environ, "TIERWISE_YES"):
        return
    typer.confirm("Continue? (--yes does not ask)", abort=True, err=True)
