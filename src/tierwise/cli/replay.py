"""`tierwise replay`: routing simulated on recorded outcomes, floor by floor, without a call."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import AsJson
from tierwise.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierwise.evidence.replay import CurveMeasures, Replay, Strategy


def replay(
    fit: Annotated[
        Path,
        typer.Option(
            metavar="OUTCOMES", help="Recorded outcomes to learn from: .csv or .csv.gz."
        ),
    ],
    on: Annotated[
        Path,
        typer.Option(
            metavar="OUTCOMES", help="Recorded outcomes to run the router over."
        ),
    ],
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use the items' texts too: .csv, .csv.gz (item,text) or .jsonl.",
        ),
    ] = None,
    labels: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Learn from N random items of --fit; default: all.",
        ),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.csv",
            help="Write the curve: floor, strong_share, quality, cost_usd.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="The seed that draws the labels.")
    ] = 0,
    per_usd: Annotated[
        bool,
        typer.Option(
            "--per-usd",
            help="Minimize the cost, instead of the number of strong calls.",
        ),
    ] = False,
    estimates: Annotated[
        bool,
        typer.Option(
            "--estimates",
            help="Show the estimates of each step, observed and shrunken.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Simulate routing on recorded outcomes.

    No model is called. An outcomes file has a row for each item and model, with the columns
    `item, step, prompt_tokens, model, tier, score (0 to 1), cost_usd`. Every item needs every
    model. A label is the scores of all models on one item.

    From the labels of `--fit`, the router estimates each model's quality by step and prompt length,
    relative to the strongest model: 1 is as good, 0.9 loses one in ten. A **floor** on this
    estimate sends an item to the cheapest model that reaches it. The sweep goes from always the
    cheapest to always the strongest. Scores and costs of `--on` are used for measuring only.
    Labelled items are left out there, so both options may name the same file.

    With a column `confidence` (0 to 1, of the model in its answer), the router is a cascade: it
    asks a model, and decides by its confidence whether the answer is good enough or the next model
    is asked. All calls are paid. A column `answer` lets a confidence mean something else for each
    frequent answer. Models and floors are fixed on the labels. With `--texts`, latent terms of the
    texts (TF-IDF, SVD) help to estimate the quality.

    CPT50 and CPT80 are the shares of strong calls that recover 50 % and 80 % of the quality gap.
    APGR is the mean gap recovered. USD50 is the share of the extra cost that recovers 50 %. The
    random router spends what the router above it spends. The oracle knows every outcome.

    Example: `tierwise replay --fit past.csv.gz --labels 1500 --on new.csv.gz --curve curve.csv`
    """
    from tierwise.evidence.replay import (
        read_outcomes,
        read_texts,
        replay,
        with_terms,
        write_curve,
    )

    # On stderr, so that stdout has the result alone.
    with console(err=True).status("reading"):
        fitted = read_outcomes(fit)
        # Both files must name the same models: an estimate routes to a model of the other file.
        measured = read_outcomes(on, models=fitted.models)
    if texts is not None:
        with console(err=True).status("reading texts"):
            found = read_texts(texts)
            fitted, measured = with_terms(texts, found, fitted, measured)
    with console(err=True).status("learning and sweeping the floor"):
        result = replay(fitted, measured, labels=labels, seed=seed, per_usd=per_usd)
    if curve:
        write_curve(curve, result.points)
    if as_json:
        print_json(_data(result))
        return
    if estimates:
        print_table(
            result.estimate.cells(),
            title="Quality compared with the strongest by step, at the usual prompt length",
        )
    _print_result(result)
    if curve:
        typer.echo(f"Curve: {curve} ({len(result.points)} floors)")


def _print_result(result: Replay) -> None:
    """Print the strategies, and how much of the quality gap each policy recovers."""
    title = f"{result.items} items, learned from {result.labels} labels"
    if result.left_out:
        title += f"; {result.left_out} labelled items left out"
    print_table([_cells(strategy) for strategy in result.strategies], title=title)
    for line in _at_strongest_lines(result):
        typer.echo(line)
    # Without a quality gap, each share of it would be a division by zero.
    if result.router.apgr is None:
        typer.echo(
            "The strongest model by the labels is no better here than the cheapest: "
            "nothing is to be recovered."
        )
        return
    rows = [
        {"policy": name, **_measure_cells(policy)}
        for name, policy in _measures(result).items()
    ]
    print_table(rows)


def _measures(result: Replay) -> dict[str, CurveMeasures]:
    """Return the measures by policy."""
    measures = {"router": result.router}
    if result.before_call is not None:
        measures["router without confidence"] = result.before_call
    return measures | {"random": result.random, "oracle": result.oracle}


def _at_strongest_lines(result: Replay) -> Iterator[str]:
    """Yield what the router costs at the strongest model's quality."""
    at_strongest = result.at_strongest
    if result.uses_confidence:
        chain = " > ".join(at_strongest.models)
        yield f"Asked in turn, by confidence: {chain}"
    name = at_strongest.models[-1]
    point = at_strongest.point
    strongest = at_strongest.strongest
    if point.strong_share == 1 or at_strongest.saved is None:
        yield f"On the labels, no floor reached the quality of {name} for less."
        return
    compared = "less" if at_strongest.saved >= 0 else "more"
    yield (
        f"The floor that reached the quality of {name} on the labels ({point.floor:.3f}) "
        f"costs here {abs(at_strongest.saved):.1%} {compared} than {name} alone:"
    )
    yield (
        f"{point.cost_usd:.4f} instead of {strongest.cost_usd:.4f} USD, "
        f"quality {point.quality:.4f} instead of {strongest.quality:.4f}"
    )


def _cells(strategy: Strategy) -> dict[str, Any]:
    point = strategy.point
    # The baselines, such as always the cheapest model, have no floor.
    floor = ""
    if point.floor is not None:
        floor = f"{point.floor:.3f}"
    return {
        "policy": strategy.name,
        "floor": floor,
        "strong share": f"{point.strong_share:.1%}",
        "quality": f"{point.quality:.4f}",
        "gap recovered": _percent(strategy.recovered),
        "cost": f"{point.cost_usd:.4f} USD",
    }


def _measure_cells(measures: CurveMeasures) -> dict[str, str]:
    cells = {}
    # The fields are named like the measures, in small letters.
    for field, value in asdict(measures).items():
        name = field.upper()
        # APGR is a mean between 0 and 1 in the literature, the others are shares.
        if name == "APGR" and value is not None:
            cells[name] = f"{value:.3f}"
        else:
            cells[name] = _percent(value)
    return cells


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.1%}"


def _data(result: Replay) -> dict[str, Any]:
    policies = []
    for strategy in result.strategies:
        point = asdict(strategy.point)
        policies.append(
            {"policy": strategy.name, **point, "gap_recovered": strategy.recovered},
        )
    measures = {name: asdict(policy) for name, policy in _measures(result).items()}
    at_strongest = result.at_strongest
    return {
        "items": result.items,
        "labels": result.labels,
        "left_out": result.left_out,
        "models": list(result.estimate.candidates),
        "policies": policies,
        "measures": measures,
        "at_strongest": {**asdict(at_strongest), "saved": at_strongest.saved},
        "uses_confidence": result.uses_confidence,
        "uses_texts": result.uses_texts,
        "estimates": result.estimate.cells(),
    }
