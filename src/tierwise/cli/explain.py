"""`tierwise explain`: a past routing decision from the ledger, or one that would be made now."""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.assignments import name_and_value, outcome_values
from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.explain.decisions import Explanation
    from tierwise.policy.rules import Features
    from tierwise.project import Project

_NOW = "Without a document"  # the panel of the options that describe one


def explain(
    document: Annotated[
        str | None,
        typer.Argument(
            metavar="DOCUMENT", help="A document's id, or a unique part of it."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Argument(metavar="STEP", help="Only this step.")
    ] = None,
    run: Annotated[
        str,
        typer.Option(
            metavar="RUN", help="A run's id, the beginning of an id, or `latest`."
        ),
    ] = "latest",
    as_json: AsJson = False,
    step: Annotated[
        str | None,
        typer.Option(
            metavar="STEP", help="The step to route now.", rich_help_panel=_NOW
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of its text.", rich_help_panel=_NOW)
    ] = 500,
    sensitivity: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="public, internal, confidential or restricted.",
            rich_help_panel=_NOW,
        ),
    ] = "restricted",
    language: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Such as de.", rich_help_panel=_NOW),
    ] = None,
    stakes: Annotated[
        str,
        typer.Option(
            metavar="LEVEL", help="low, normal or high.", rich_help_panel=_NOW
        ),
    ] = "normal",
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A tag; may be repeated.", rich_help_panel=_NOW
        ),
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP.FIELD=VALUE",
            help="An earlier step's value; may be repeated.",
            rich_help_panel=_NOW,
        ),
    ] = None,
    budget_left: Annotated[
        str | None,
        typer.Option(metavar="USD", help="The remaining budget.", rich_help_panel=_NOW),
    ] = None,
    budget_used: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="The used share of the budget.", rich_help_panel=_NOW
        ),
    ] = 0.0,
    minutes_left: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes until the deadline.", rich_help_panel=_NOW),
    ] = None,
) -> None:
    """Explain why a document went to a model.

    `tierwise explain mail-07` reads the ledger and shows what happened in that run: the document's
    features, the guards and the route that applied, the candidates and the rejected models with the
    reasons, then each call with its cost and checks, and the outcome.

    Without a document, it routes one that you describe, with the rules of now. No model is called:
    `tierwise explain --step classify --tokens 500 --sensitivity confidential`.
    """
    from tierwise.cli.render.explanation import explanation_lines

    # Exactly one of the two.
    if (document is None) == (step is None):
        raise Misuse(
            "name a document, such as `tierwise explain mail-07`, or describe one with --step "
            "and the rest"
        )
    project = find_project()
    if step is None:
        explanations = _past(project, run, str(document), only)
    else:
        features = {
            "step": step,
            "tokens": tokens,
            "sensitivity": sensitivity,
            "language": language,
            "stakes": stakes,
            "tags": dict(name_and_value(text, "--tag") for text in tag or ()),
            "outcomes": outcome_values(outcome or ()),
            "budget_used": budget_used,
            "minutes_left": minutes_left,
        }
        explanations = [_now(project, features, budget_left)]
    hosts = [_hosts(project, explanation) for explanation in explanations]
    if as_json:
        rows = []
        for explanation, its_hosts in zip(explanations, hosts, strict=True):
            rows.append({**explanation.data(), "hosts": its_hosts})
        print_json(rows)
        return
    for number, explanation in enumerate(explanations):
        # An empty line between two steps of a document, none before the first.
        if number:
            typer.echo("")
        for line in explanation_lines(explanation, hosts[number]):
            typer.echo(line)


def _hosts(project: Project, explanation: Explanation) -> dict[str, str]:
    """Return the host that calls to each model of the explanation go to now.

    The ledger records no addresses.
    """
    environment = project.env_with_secrets(os.environ)
    attempts = (*explanation.used, *explanation.shadow)
    names = [*explanation.route.models, *(attempt.model for attempt in attempts)]
    models = project.catalog.models
    hosts = {}
    # In the order of the route, then of the calls, each model once.
    for name in dict.fromkeys(names):
        # A past run may have called a model that is no longer in the catalog.
        if name in models:
            hosts[name] = project.catalog.host(models[name], environment)
    return hosts


def _past(
    project: Project, run: str, document: str, only: str | None
) -> list[Explanation]:
    """Return what happened to a document in a run, by step."""
    from tierwise.explain import decisions

    with open_ledger(project) as ledger:
        row = ledger.runs.resolve(run)
        explanations = decisions.explain(ledger, row, document, only)
        moved_to = [project.root / name for name in ledger.folders.done_folders(row.id)]
    # After the ledger is closed: the words come from the classifier's file.
    return [
        decisions.with_words(project, explanation, moved_to)
        for explanation in explanations
    ]


def _now(
    project: Project, values: dict[str, Any], budget_left: str | None
) -> Explanation:
    """Return the decision that the router would make now about a described document."""
    from tierwise.engine import Engine
    from tierwise.explain.decisions import decide

    left = None
    # An amount of money is no float option, as 0.10 has no exact binary form.
    try:
        if budget_left is not None:
            left = Decimal(budget_left)
    except InvalidOperation:
        raise Misuse(
            f"--budget-left takes an amount of USD, such as 0.10; not '{budget_left}'"
        ) from None
    features = _features(values)
    # An engine and not the rules alone: budgets, certificates and demotions decide as well.
    with Engine(project, project.env_with_secrets(os.environ)) as engine:
        return decide(engine, features, budget_left=left)


def _features(values: dict[str, Any]) -> Features:
    """Return the options as features of a document. Raises Misuse that names the wrong option."""
    from pydantic import TypeAdapter, ValidationError

    from tierwise.policy.rules import Features

    try:
        return TypeAdapter(Features).validate_python(values)
    except ValidationError as error:
        # One at a time, as with Typer's own errors.
        first = error.errors(include_url=False)[0]
        # Each option is called like its feature, apart from the dashes.
        name = str(first["loc"][0]).replace("_", "-")
        raise Misuse(f"--{name}: {first['msg']}; not '{first['input']}'") from None
