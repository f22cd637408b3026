"""`tierwise models`: the catalog, with availability and prices."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tierwise.policy.catalog import Model


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
    if as_json:
        print_json(rows)
    else:
        print_table(rows, title="USD per million tokens; unknown is not free")


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
    available = "yes"
    if reason is not None:
        available = f"no: {reason}"
    elif secret_blocks:
        available = f"from the Prefect secret block {' and '.join(secret_blocks)}"
    note = model.description
    if not model.verified:
        note = f"address not verified; {note}"
    return {
        "model": model.name,
        "tier": model.tier,
        "calls go to": host,
        "available": available,
        "input": input_price,
        "output": output_price,
        "price of": price_date,
        "window": model.context_tokens,
        "note": note,
    }


def _amount(value: Decimal) -> str:
    # Without trailing zeros, and never as 1E+1.
    return f"{value.normalize():f}"
