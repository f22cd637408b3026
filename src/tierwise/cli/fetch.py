"""`tierwise fetch`: the weights of embedded models, and the files of embedders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.cli.opening import find_project
from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.policy.catalog import Catalog
    from tierwise.policy.embedders import EmbedderEntry
    from tierwise.policy.weights import Weights


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Embedded models and embedders; default: all that can be fetched.",
        ),
    ] = None,
) -> None:
    """Download the weights of embedded models and embedders.

    Verifies them and keeps them for all projects. Tries the sources of the catalog in order, and
    says which one had the file. Continues an interrupted download. Installs and executes nothing:
    weights are data.
    """
    catalog = find_project().catalog
    for name in names or _fetchable(catalog):
        if name in catalog.embedders:
            _fetch_embedder(catalog.embedder(name))
            continue
        if name not in catalog.models:
            raise UnknownName("model or embedder", name, _fetchable(catalog))
        model = catalog.model(name)
        if model.weights is None:
            raise Misuse(f"{model.name} is not embedded: it has no weights to fetch")
        _fetch_file(model.name, model.weights)


def _fetchable(catalog: Catalog) -> list[str]:
    """Return the entries with files to download, in the order of the catalog.

    A file of the user's own has no source, so there is nothing to download.
    """
    models = [
        name
        for name, model in catalog.models.items()
        if model.weights and model.weights.places
    ]
    embedders = [
        name
        for name, entry in catalog.embedders.items()
        if any(file.places for file in entry.files())
    ]
    return models + embedders


def _fetch_embedder(entry: EmbedderEntry) -> None:
    from tierwise.cli.progress import status
    from tierwise.gateway.embedders import fetch_embedder, is_converted

    files = entry.files()
    if not files:
        raise Misuse(f"{entry.name} is on a server: it has no weights to fetch")
    for file in files:
        label = entry.name if len(files) == 1 else f"{entry.name} ({file.what})"
        _fetch_file(label, file)
    # The files are here, so that only the conversion may be left.
    if not is_converted(entry, os.environ):
        with status(f"converting {entry.name} to ONNX, once"):
            fetch_embedder(entry, os.environ)
        typer.echo(f"{entry.name}: converted to ONNX")


def _fetch_file(label: str, weights: Weights) -> None:
    from tierwise.cli.progress import DownloadBar
    from tierwise.gateway.local import fetch_weights, weights_present

    if weights_present(weights, os.environ):
        typer.echo(f"{label}: already here")
        return
    taken = ""
    with DownloadBar(label, weights.size) as bar:

        def on_source(place: str, fault: str | None) -> None:
            nonlocal taken
            if fault is None:
                taken = f"from {place}, "
            else:
                bar.say(f"{label}: {place}: {fault}; trying the next source")

        path = fetch_weights(weights, os.environ, bar, on_source)
    typer.echo(f"{label}: {taken}verified, {path}")
