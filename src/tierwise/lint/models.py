"""Models: prices that are old or unknown, models that retire, and variables that are not set."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from tierwise.lint.findings import Finding, at
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.rules import Rules
from tierwise.text.yaml import YamlData

PRICE_DAYS = 90  # older prices are worth a look
NOTICE_DAYS = 30  # before a model retires


def catalog_findings(source: YamlData, catalog: Catalog, today: datetime.date) -> Iterator[Finding]:
    """Old prices and models that retire, each where it is written: an entry `like` it says nothing new."""
    for name, model in catalog.models.items():
        written = source.data["models"][name]
        if (
            model.price != "unknown"
            and "price" in written
            and (age := (today - model.price.date).days) > PRICE_DAYS
        ):
            message = f"the price of {name} is {age} days old ({model.price.date}); look it up and write today's date"
            yield at(source, ("models", name, "price"), "warning", "old price", message)
        if model.retires and "retires" in written:
            yield from _retiring(source, model, today)


def _retiring(source: YamlData, model: Model, today: datetime.date) -> Iterator[Finding]:
    place = ("models", model.name, "retires")
    if model.retires and model.retires <= today:
        message = f"{model.name} retired on {model.retires}; take it out, or name its successor"
        yield at(source, place, "error", "retired", message)
    elif model.retires and model.retires - today <= datetime.timedelta(days=NOTICE_DAYS):
        message = f"{model.name} retires on {model.retires}; certify its successor before then"
        yield at(source, place, "warning", "retiring", message)


def routed_findings(
    source: YamlData, rules: Rules, catalog: Catalog, unavailable: Mapping[str, str]
) -> Iterator[Finding]:
    """Models that routes name and that cannot be used here, told once for each remedy; and unpriced ones."""
    named: dict[str, tuple[int | str, ...]] = {}
    for i, route in enumerate(rules.routes):
        for j, name in enumerate(route.candidates):
            named.setdefault(name, ("routes", i, "try", j))
    for remedy in dict.fromkeys(unavailable[name] for name in named if name in unavailable):
        names = [name for name in named if unavailable.get(name) == remedy]
        message = f"{', '.join(names)} cannot be used here and {'is' if len(names) == 1 else 'are'} left out; {remedy}"
        yield at(source, named[names[0]], "warning", "unavailable", message)
    for name, place in named.items():
        if catalog.models[name].price == "unknown" and name not in rules.budget.allow_unpriced:
            message = (
                f"the price of {name} is unknown, so it is left out of every run with a budget; write its price in the "
                "catalog, or name it in budget.allow_unpriced"
            )
            yield at(source, place, "warning", "unpriced", message)
