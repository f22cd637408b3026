"""`tierwise reprice`: costs that were unknown when a call was made, filled in later."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.errors import Misuse, UnknownName
from tierwise.text.amounts import plural, usd

if TYPE_CHECKING:
    from tierwise.ledger.people.repricing import NewCost
    from tierwise.policy.catalog import Catalog
    from tierwise.policy.prices import BandPrice, PriceBand
    from tierwise.records import Attempt

_PRICE = "USD per million tokens"


@dataclass
class _ModelChange:
    """What would change for one model. USD."""

    model: str
    price: str
    calls: int = 0
    before: Decimal = Decimal(0)  # of the calls of known cost
    before_unknown: int = 0
    after: Decimal = Decimal(0)
    left: int = 0  # calls that stay as they are
    reason: str = ""  # why they do
    changes: list[NewCost] = field(default_factory=list)


def reprice(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Only calls of this model."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Only this run: an id, or `latest`."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="DATE", help="Only runs from this date or time on."
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            "--price",
            metavar="IN/OUT",
            help=f"A price of your own, {_PRICE}: 0.4/1.6, 0.4/1.6/0.1 with cached prompts, or "
            "0.4/1.6/0.1/0.5 with prompts written to the cache.",
        ),
    ] = None,
    usd_each: Annotated[
        str | None,
        typer.Option(
            "--usd-each",
            metavar="USD",
            help="The cost of each call whose tokens are unknown.",
        ),
    ] = None,
    all_of: Annotated[
        str | None,
        typer.Option(
            "--all-of",
            metavar="MODEL",
            help="Change the known costs of this model's calls too.",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Record the new costs.")
    ] = False,
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="NAME", help="Who decides; default: your user name."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fill in the cost of recorded calls whose price was unknown.

    Prices come from the catalog as it is now, or from `--price`. Calls that were sent in batches, or
    answered by the flex tier, cost what the catalog says for those. Only shows what would change;
    `--apply` records it, and corrects budgets and sums. Known costs never change without `--all-of`.

    Calls whose tokens are unknown, such as lost ones, keep the amount that budgets reserved for
    them, unless `--usd-each` says what the provider's invoice has for each.

    Example: write the price into `routing_rules/catalog.yaml`, then `tierwise reprice --model
    new-model`, and the same with `--apply`. With an invoice: `tierwise reprice --run latest
    --usd-each 0.002 --note "invoice 4711" --apply`.
    """
    from tierwise.cli.person import user_name
    from tierwise.ledger.people.repricing import CallScope, Origin

    if all_of is not None and model not in (None, all_of):
        raise Misuse("--all-of names the model already; leave out --model")
    if price is not None and not (model or all_of):
        raise Misuse("--price is that of one model; name it with --model or --all-of")
    given_price = None if price is None else _price(price)
    each = None if usd_each is None else _usd(usd_each, "--usd-each")
    if each is not None and all_of is not None:
        raise Misuse("--usd-each is for calls of unknown cost; leave out --all-of")
    if each is not None and not (model or run or since):
        raise Misuse("--usd-each needs --model, --run or --since: say which calls")
    catalog = find_project().catalog
    named = all_of or model
    with open_ledger() as ledger:
        scope = CallScope(
            model=named,
            run=ledger.runs.resolve(run).id if run else None,
            since=_seconds(since),
            with_known_costs=all_of is not None,
        )
        calls = ledger.repricing.calls(scope)
        if named is not None and not calls and named not in catalog.models:
            raise UnknownName("model", named, catalog.models)
        rows = _changes(calls, catalog, given_price, each)
        unknown = [
            attempt.id
            for attempt in calls
            if attempt.cost is None and attempt.usage is None and each is None
        ]
        counted = ledger.repricing.reserved(unknown)
        changes = [change for row in rows for change in row.changes]
        changed = 0
        if apply and changes:
            origin = Origin(
                scope=scope,
                price=_price_data(rows, each),
                catalog_hash=None if given_price else catalog.hash,
                by=by or user_name(),
                note=note,
            )
            changed = ledger.repricing.apply(changes, origin)
    if as_json:
        print_json(
            {
                "applied": apply,
                "changed": changed,
                "models": [_data(row) for row in rows],
                "tokens_unknown": len(unknown),
                "tokens_unknown_counted_usd": counted,
            }
        )
        return
    _print(rows, len(unknown), counted)
    _print_end(len(changes), changed, apply=apply)


def _changes(
    calls: Sequence[Attempt],
    catalog: Catalog,
    given: BandPrice | None,
    each: Decimal | None,
) -> list[_ModelChange]:
    """Return the new costs of calls by model."""
    from tierwise.ledger.people.repricing import NewCost

    rows: dict[str, _ModelChange] = {}
    for attempt in calls:
        row = rows.get(attempt.model)
        if row is None:
            words = _price_words(attempt.model, catalog, given)
            row = rows[attempt.model] = _ModelChange(attempt.model, words)
        new, reason = _new_cost(attempt, catalog, given, each)
        if new is None or new == attempt.cost:
            row.left += 1
            row.reason = reason or row.reason
            continue
        row.calls += 1
        row.after += new
        if attempt.cost is None:
            row.before_unknown += 1
        else:
            row.before += attempt.cost
        row.changes.append(NewCost(attempt.id, attempt.cost, new))
    return list(rows.values())


def _new_cost(
    attempt: Attempt, catalog: Catalog, given: BandPrice | None, each: Decimal | None
) -> tuple[Decimal | None, str]:
    """Return the new cost of a call, or None and the reason."""
    from tierwise.ledger.tables import in_units
    from tierwise.policy.prices import billed_band

    usage = attempt.usage
    if usage is None:
        if attempt.cost is not None:
            return None, "not billed"
        return each, "" if each is not None else "tokens unknown"
    model = catalog.models.get(attempt.model)
    band = billed_band(attempt.transport, attempt.service_tier)
    if given is not None:
        # The given price is that of an online call; the catalog has the reductions.
        if band == "online" or band is None:
            return in_units(given.cost(usage)), ""
        if model is None:
            return None, f"not in the catalog: no price of {band} calls"
        return in_units(model.reduced(given, band).cost(usage)), ""
    if model is None:
        return None, "not in the catalog: name a --price"
    cost = model.billed(usage, attempt.transport, attempt.service_tier)
    if cost is None and band is None:
        return None, f"no price of the {attempt.service_tier} tier: name a --price"
    if cost is None:
        return None, "no price in the catalog"
    return in_units(cost), ""


def _price_words(name: str, catalog: Catalog, given: BandPrice | None) -> str:
    if given is not None:
        return f"{_band(given)}, given"
    model = catalog.models.get(name)
    if model is None or model.price == "unknown":
        return "unknown"
    return f"{_band(model.price)}, {model.price.date}"


def _band(price: PriceBand) -> str:
    words = f"{price.input}/{price.output}"
    # Where a later price is known, an unknown one before it is that of the plain prompt.
    cached = price.cached_input
    if cached is None and price.cache_write is not None:
        cached = price.input
    for further in (cached, price.cache_write):
        if further is not None:
            words += f"/{further}"
    return words


def _price_data(rows: Sequence[_ModelChange], each: Decimal | None) -> dict[str, Any]:
    """Return the prices that were used, for the record."""
    data: dict[str, Any] = {row.model: row.price for row in rows if row.calls}
    if each is not None:
        data["usd_each_where_tokens_are_unknown"] = str(each)
    return data


def _data(row: _ModelChange) -> dict[str, Any]:
    data = asdict(row)
    del data["changes"]
    return data


def _print(rows: Sequence[_ModelChange], unknown: int, counted: Decimal) -> None:
    cells = [
        {
            "model": row.model,
            "calls": row.calls,
            "cost now": usd(row.before, row.before_unknown),
            "new cost": usd(row.after),
            f"price, {_PRICE}": row.price,
            "stay as they are": f"{row.left} ({row.reason})" if row.left else "",
        }
        for row in rows
    ]
    print_table(cells, empty="no call in scope is of unknown cost")
    if unknown:
        typer.echo(
            f"{plural(unknown, 'call')} without known tokens: budgets count {usd(counted)} for "
            "them, the most that they may have cost. --usd-each says it where the invoice is known."
        )


def _print_end(meant: int, changed: int, *, apply: bool) -> None:
    if not meant:
        typer.echo("Nothing to change.")
    elif not apply:
        typer.echo(f"{plural(meant, 'call')} would change. Record it with --apply.")
    else:
        typer.echo(f"{plural(changed, 'call')} repriced, on record.")
        if changed < meant:
            others = plural(meant - changed, "call")
            typer.echo(f"{others} had been changed by another process meanwhile.")


def _price(text: str) -> BandPrice:
    """Return a price such as 0.4/1.6. Raises Misuse."""
    from tierwise.policy.prices import BandPrice

    parts = text.split("/")
    if len(parts) not in (2, 3, 4):
        raise Misuse(
            f"--price '{text}' is no price; write prompt/answer, such as 0.4/1.6"
        )
    numbers = [_usd(part, "--price") for part in parts]
    names = ("input", "output", "cached_input", "cache_write")
    return BandPrice(**dict(zip(names, numbers, strict=False)))


def _usd(text: str, option: str) -> Decimal:
    """Return an amount of at least 0. Raises Misuse."""
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise Misuse(f"{option} '{text}' is no amount of USD, such as 0.002")
    return amount


def _seconds(day: str | None) -> float | None:
    """Return a date or time in local time as seconds since the epoch. Raises Misuse."""
    if day is None:
        return None
    try:
        return datetime.datetime.fromisoformat(day).astimezone().timestamp()
    except ValueError:
        raise Misuse(
            f"--since '{day}' is not a date; write 2026-11-01 or 2026-11-01T08:00"
        ) from None
