"""`tierwise canaries`: golden items asked again, where a server reports another model."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import typer

from tierwise.cli.confirming import confirm_spending
from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson, Yes
from tierwise.cli.output import print_json
from tierwise.text.amounts import plural, usd


def canaries(
    step: Annotated[
        str | None,
        typer.Argument(metavar="[STEP]", help="Only certificates of this step."),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Ask N golden items again; default: the setting, 30.",
        ),
    ] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(
            metavar="USD", min=0, help="The most to spend on each certificate."
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Restore or void suspended certificates.

    A certificate is suspended when a server reports another model than the certified one. This asks
    golden items again and compares the answers with those on record. The certificate is restored
    for the new model if it is shown to be at most 10 points worse (95 %), and is void otherwise.
    Confidential golden items go to models of in-house tiers alone. Without a budget, so do all.
    """
    from tierwise.engine import Engine
    from tierwise.evidence.canaries import ask_all
    from tierwise.orchestrate.secrets import variables

    project = find_project()
    settings = project.settings.canaries
    number = items or settings.items or 30
    budget = settings.budget_usd
    if budget_usd is not None:
        budget = Decimal(str(budget_usd))
    with Engine(project, variables(project)) as engine:
        found = [
            each
            for each in engine.suspended.values()
            if step is None or each.certificate.step == step
        ]
        if not found:
            if as_json:
                print_json([])
            else:
                typer.echo("no certificate is suspended")
            return
        for each in found:
            chain = " > ".join(each.certificate.models)
            what = f"the certificate of {chain} for {each.certificate.step}"
            typer.echo(f"{what}: {each.reason}", err=True)
        most = "free models of in-house tiers alone"
        if budget is not None:
            most = f"at most {usd(budget)} each"
        certificates = plural(sum(each.is_open for each in found), "certificate")
        typer.echo(f"{certificates} x {number} golden items: {most}", err=True)
        confirm_spending(yes=yes)
        results = ask_all(
            engine,
            items=number,
            budget_usd=budget,
            step=step,
            only_free=budget is None,
        )
    if as_json:
        print_json([_data(result) for result in results])
        return
    for result in results:
        typer.echo(result.sentence)


def _data(result: Any) -> dict[str, Any]:
    certificate = result.suspension.certificate
    verdict = result.verdict
    return {
        "step": certificate.step,
        "models": list(certificate.models),
        "model": result.suspension.model,
        "certified": result.suspension.certified,
        "served": result.suspension.served,
        "restored": verdict.is_restored if verdict else None,
        "asked": verdict.asked if verdict else 0,
        "lost": verdict.lost if verdict else None,
        "gained": verdict.gained if verdict else None,
        "says": result.sentence,
    }
