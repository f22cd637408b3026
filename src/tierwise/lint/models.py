"""Models: old and unknown prices, models that retire or think, variables, and addresses."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping

from tierwise.lint.findings import Finding, finding_at
from tierwise.policy.addresses import NOT_AN_ADDRESS, host_and_port
from tierwise.policy.catalog import Catalog, Model, called_as
from tierwise.policy.rules import Rules
from tierwise.text.yaml import Location, YamlData

PRICE_DAYS = 90  # older prices are worth a look
NOTICE_DAYS = 30  # before a model retires
# Names of models that think before they answer, and of those that say that they do not.
_THINKS = re.compile(
    r"(?i)reasoning|reasoner|thinking|magistral|\bqwq\b|\bdeepseek-r\d|\bgpt-oss\b"
)
_THINKS_NOT = re.compile(r"(?i)(?:non|no|not|without|nothing)[-_ ]?(?:reason|think)")


def catalog_findings(
    source: YamlData, catalog: Catalog, today: datetime.date
) -> Iterator[Finding]:
    """Yield old prices, models that retire, and thinking models without room for it, each once.

    An entry that is `like` another inherits its price and date, so only the original is reported.
    """
    for name, model in catalog.models.items():
        # Only what the entry itself says: a value from `like` is reported where it is written.
        written = source.data["models"][name]
        if "price" in written:
            yield from _old_price_findings(source, model, today)
        if "retires" in written:
            yield from _retirement_findings(source, model, today)
        if "litellm_params" in written:
            yield from _thinking_findings(source, model)


def same_model_findings(
    source: YamlData, catalog: Catalog, identities: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield entries that differ from an earlier one in nothing that an answer depends on.

    An entry that says `same_as` is meant to be the same.
    """
    first: dict[tuple[str, int, int, int], str] = {}
    for name, identity in identities.items():
        model = catalog.models[name]
        if model.learned or model.same_as:
            continue
        key = (
            identity,
            model.examples,
            model.fixed_examples,
            model.thinking_tokens,
        )
        other = first.setdefault(key, name)  # the entry itself, where none has this key
        if other != name:
            message = (
                f"{name} is the same model as {other}: same address, parameters and examples; "
                "take one of them out, or write `same_as` in one if that is meant"
            )
            yield finding_at(source, ("models", name), "error", "same model", message)


def _old_price_findings(
    source: YamlData, model: Model, today: datetime.date
) -> Iterator[Finding]:
    if model.price == "unknown":
        return
    read_on = model.price.date
    age = (today - read_on).days
    if age > PRICE_DAYS:
        message = (
            f"the price of {model.name} is {age} days old ({read_on}); "
            "look it up and write today's date"
        )
        yield finding_at(
            source, ("models", model.name, "price"), "warning", "old price", message
        )


def _retirement_findings(
    source: YamlData, model: Model, today: datetime.date
) -> Iterator[Finding]:
    if model.retires is None:
        return
    place = ("models", model.name, "retires")
    if model.retires <= today:
        message = f"{model.name} retired on {model.retires}; take it out, or name its successor"
        yield finding_at(source, place, "error", "retired", message)
    elif model.retires - today <= datetime.timedelta(days=NOTICE_DAYS):
        message = f"{model.name} retires on {model.retires}; certify its successor before then"
        yield finding_at(source, place, "warning", "retiring", message)


def _thinking_findings(source: YamlData, model: Model) -> Iterator[Finding]:
    """Yield a model that thinks before it answers, where the catalog leaves no tokens for that."""
    if model.thinking_tokens or model.learned or not _says_that_it_thinks(model):
        return
    message = (
        f"{model.name} thinks before it answers, and its thoughts count against the answer's "
        "limit, so that answers are cut off; set `thinking_tokens`, such as 4096"
    )
    place = ("models", model.name)
    yield finding_at(source, place, "warning", "thinking", message)


def _says_that_it_thinks(model: Model) -> bool:
    """Return True where a model's name, or its `reasoning_effort`, says that it thinks."""
    params = model.litellm_params
    effort = params.get("reasoning_effort")
    if effort is not None:
        return str(effort).lower() not in ("none", "disable")
    # either name may say it: an entry is often named after its use, not after its model
    names = f"{model.name} {params.get('model')}"
    return bool(_THINKS.search(names)) and not _THINKS_NOT.search(names)


def address_findings(
    source: YamlData, catalog: Catalog, env: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield the variables that are set and hold no address, or that move calls elsewhere.

    Addresses that are written in the catalog itself are checked when it is read.
    """
    servers = {
        name: called_as(entry)
        for name, entry in catalog.embedders.items()
        if not entry.is_embedded
    }
    for name, model in {**catalog.models, **servers}.items():
        if model.learned or model.weights:
            continue
        written = source.data["models"][name]
        # An entry that is `like` another inherits its address, which is reported once.
        if "litellm_params" in written:
            yield from _address_findings(source, model, env)


def _address_findings(
    source: YamlData, model: Model, env: Mapping[str, str]
) -> Iterator[Finding]:
    place = ("models", model.name, "litellm_params")
    variables = model.address_variables()
    address = model.address(env)
    if address is None:
        return
    if variables and host_and_port(address) is None:
        names = " and ".join(variables).replace("|", " or ")
        message = (
            f"the address of {model.name} comes from {names}, and {NOT_AN_ADDRESS}"
        )
        yield finding_at(source, (*place, "api_base"), "error", "address", message)
    variable = model.moving_variable(env)
    if variable is not None:
        message = (
            f"{variable} is set, so the calls of {model.name} go to {model.host(env)}; "
            f'write `api_base: "${{{variable}}}"` if that is meant, or unset it'
        )
        yield finding_at(source, (*place, "model"), "warning", "address", message)


def routed_findings(
    source: YamlData, rules: Rules, catalog: Catalog, unavailable: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield models in routes that cannot be used here, once for each remedy; and unpriced ones."""
    # each model with the first place that names it
    places: dict[str, Location] = {}
    for route_number, route in enumerate(rules.routes):
        for position, name in enumerate(route.candidates):
            places.setdefault(name, ("routes", route_number, "try", position))

    by_remedy: dict[str, list[str]] = {}
    for name in places:
        if name in unavailable:
            by_remedy.setdefault(unavailable[name], []).append(name)
    # one missing key may be the reason for many models
    for remedy, names in by_remedy.items():
        are = "is" if len(names) == 1 else "are"
        message = f"{', '.join(names)} cannot be used here and {are} left out; {remedy}"
        yield finding_at(source, places[names[0]], "warning", "unavailable", message)

    for name, place in places.items():
        unpriced = catalog.models[name].price == "unknown"
        if unpriced and name not in rules.budget.allow_unpriced:
            message = (
                f"the price of {name} is unknown, so it is left out of every run with a budget; "
                "write its price in the catalog, or name it in budget.allow_unpriced"
            )
            yield finding_at(source, place, "warning", "unpriced", message)
