"""`tierwise models`: the catalog, with availability and prices."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierwise.policy.catalog import Model
    from tierwise.project import Project


def models(
    as_json: AsJson = False,
) -> None:
    """List all models, their host, availability and price.

    Prices are in USD per million tokens. An unavailable model shows what to set or to install.
    """
    project = find_project()
    # As in a flow run, where keys may come from Prefect's secret blocks.
    environment = project.env_with_secrets(os.environ)
    unavailable = project.policy(environment).unavailable
    rows = []
    for name, model in project.catalog.models.items():
        blocks = project.secret_blocks(model, os.environ)
        host = project.catalog.host(model, environment)
        rows.append(_cells(model, host, unavailable.get(name), blocks))
    rows += _embedder_rows(project, environment)
    if as_json:
        print_json(rows)
    else:
        print_table(rows, title="USD per million tokens; unknown is not free")


def _embedder_rows(
    project: Project, environment: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the rows of the embedders, which are no candidates of routes."""
    from tierwise.gateway.embedders import what_is_missing
    from tierwise.policy.catalog import host_of_embedder

    rows = []
    for entry in project.catalog.embedders.values():
        price = "0" if entry.is_embedded else "unknown"
        kind = f"embedder, {entry.dimensions} numbers"
        note = f"{kind}; {entry.description}" if entry.description else kind
        if not entry.verified:
            note = f"address not verified; {note}"
        missing = what_is_missing(project.catalog, entry, environment)
        blocks = project.secret_blocks(entry, os.environ)
        rows.append(
            {
                "model": entry.name,
                "tier": entry.tier,
                "calls go to": host_of_embedder(entry, environment),
                "available": _availability(missing, blocks),
                "input": price,
                "output": "",
                "in batches": "",
                "price of": "",
                "window": entry.window_tokens,
                "note": note,
            }
        )
    return rows


def _availability(reason: str | None, secret_blocks: tuple[str, ...]) -> str:
    """Return whether a model can be used; `reason` is why it cannot."""
    if reason is not None:
        return f"no: {reason}"
    if secret_blocks:
        return f"from the Prefect secret block {' and '.join(secret_blocks)}"
    return "yes"


def _cells(
    model: Model, host: str, reason: str | None, secret_blocks: tuple[str, ...]
) -> dict[str, Any]:
    """Return a model's row; `reason` is why it is unavailable."""
    # Unknown is written out, because an empty cell would look like a free model.
    input_price = "unknown"
    output_price = "unknown"
    price_date = ""
    if model.price != "unknown":
        input_price = _amount(model.price.input)
        output_price = _amount(model.price.output)
        price_date = model.price.date.isoformat()
    note = model.description
    if not model.verified:
        note = f"address not verified; {note}"
    return {
        "model": model.name,
        "tier": model.tier,
        "calls go to": host,
        "available": _availability(reason, secret_blocks),
        "input": input_price,
        "output": output_price,
        "in batches": _batch_prices(model),
        "price of": price_date,
        "window": model.context_tokens,
        "note": note,
    }


def _batch_prices(model: Model) -> str:
    """Return a model's prices in batches, prompt and answer; empty where it has no batches."""
    if model.batch is None:
        return ""
    price = model.price_in("batch")
    if price is None:
        return "unknown"
    return f"{_amount(price.input)}/{_amount(price.output)}"


def _amount(value: Decimal) -> str:
    # Without trailing zeros, and never as 1E+1.
    return f"{value.normalize():f}"
