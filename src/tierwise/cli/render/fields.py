"""What a look at the labels shows by field: as data, as two tables, and what is missing in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from tierwise.cli.output import print_table
from tierwise.policy.by_field import words_of
from tierwise.policy.certificates import shortened
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.evidence.certify import (
        ByField,
        ChainResult,
        Evaluation,
        FieldResult,
    )


def by_field_data(found: ByField) -> dict[str, Any]:
    """Return everything that was measured by field, as plain data."""
    return {
        "fields": [_field_data(each) for each in found.fields],
        "chains": [_chain_data(each) for each in found.chains],
    }


def _field_data(result: FieldResult) -> dict[str, Any]:
    measured = result.measurement
    return {
        "model": result.model,
        "field": result.field,
        "floor": result.floor,
        "threshold": measured.threshold,
        "items": measured.items,
        "kept": measured.n,
        "right": measured.n - measured.errors,
        "bound": result.bound,
        "compared": result.level.compared,
        "alpha": result.level.alpha,
        "certified": result.shows_floor,
        "written": result.certificate is not None,
    }


def _chain_data(result: ChainResult) -> dict[str, Any]:
    measured = result.measurement
    data: dict[str, Any] = {
        "models": list(result.chain),
        "keeps": {model: dict(kept) for model, kept in result.keeps.items()},
        "floor": result.floor,
        "measured": measured is not None,
    }
    if measured is None:
        return data
    usage = measured.mean_usage or {}
    return {
        **data,
        "n": measured.n,
        "right": measured.n - measured.errors,
        "no_answer": measured.deferred,
        "bound": result.bound,
        "compared": result.level.compared,
        "alpha": result.level.alpha,
        "coverage": result.coverage,
        "cost_a_document_usd": measured.mean_cost,
        "mean_usage": {name: tokens.model_dump() for name, tokens in usage.items()},
        "wrong": [answer.id for answer in measured.wrong],
        "certified": result.certificate is not None,
    }


def print_by_field(evaluation: Evaluation, found: ByField) -> None:
    """Print a table of fields and one of chains, and a line for each field below its floor."""
    size = len(evaluation.golden.examples)
    name = evaluation.golden.path.name
    title = f"{evaluation.step.name} by field on {name}: {size} examples"
    print_table([_field_cells(each) for each in found.fields], title=title)
    for result in found.fields:
        if result.stays is not None:
            typer.echo(
                f"{result.model}, {result.field}: the certificate of {result.stays.date} stays, "
                "as it shows more; --replace writes this one all the same"
            )
        elif not result.shows_floor:
            typer.echo(f"{result.model}, {result.field}: {result.missing_labels}")
    measured = [each for each in found.chains if each.measurement is not None]
    if measured:
        print_table(
            [_chain_cells(each) for each in measured],
            title="Whole documents: all fields right together, with these fields kept",
        )
    for chain in found.chains:
        _print_chain(chain)


def _field_cells(result: FieldResult) -> dict[str, Any]:
    measured = result.measurement
    wanted = "all"
    if measured.threshold is not None:
        wanted = f"from {measured.threshold:g} on"
    return {
        "model": result.model,
        "field": result.field,
        "floor": "none" if result.floor is None else f"{result.floor:g}",
        "keeps": wanted,
        "kept": f"{measured.n} of {measured.items}",
        "right": f"{measured.n - measured.errors} of {measured.n}",
        "proves": shortened(result.bound),
        "certified": "yes" if result.shows_floor else "no",
    }


def _chain_cells(result: ChainResult) -> dict[str, Any]:
    measured = result.measurement
    if measured is None:
        return {}
    certified = "no floor"
    if result.floor is not None:
        certified = "yes" if result.bound >= result.floor else "no"
    cost = measured.mean_cost
    return {
        "chain": " > ".join(result.chain),
        "whole from the first": f"{result.coverage:.0%}",
        "right": f"{measured.n - measured.errors} of {measured.n}",
        "proves": shortened(result.bound),
        "certified": certified,
        "cost a document": "unknown" if cost is None else usd(cost),
    }


def _print_chain(result: ChainResult) -> None:
    """Print which fields are kept of which model."""
    chain = " > ".join(result.chain)
    if result.measurement is None:
        typer.echo(
            f"{chain}: no field of {result.chain[0]} is certified, so every document goes on"
        )
        return
    for model, kept in result.keeps.items():
        typer.echo(f"{chain}: kept of {model}: {words_of(kept)}")
    if result.floor is not None and result.bound < result.floor:
        typer.echo(
            f"{chain}: the floor of {result.floor:g} for whole documents is not shown, "
            "so no route keeps fields; more labels, or higher floors by field, may show it"
        )
