"""`tierwise replay`: routing simulated on recorded outcomes, floor by floor, without a call."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.options import AsJson
from tierwise.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from tierwise.evidence.replay import CurveMeasures, Replay, Strategy


def replay(
    fit: Annotated[
        Path,
        typer.Option(metavar="OUTCOMES", help="Recorded outcomes to learn from: .csv or .csv.gz."),
    ],
    on: Annotated[
        Path, typer.Option(metavar="OUTCOMES", help="Recorded outcomes to run the router over.")
    ],
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
            metavar="OUT.csv", help="Write the curve: floor, strong_share, quality, cost_usd."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed that draws the labels.")] = 0,
    per_usd: Annotated[
        bool,
        typer.Option(
            "--per-usd",
            help="Minimize the cost, instead of the number of strong calls.",
        ),
    ] = False,
    estimates: Annotated[
        bool,
        typer.Option("--estimates", help="Show the estimates of each step, observed and shrunken."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Simulate routing on recorded outcomes.

    No model is called. An outcomes file has a row for each item and model, with the columns
    `item, step, prompt_tokens, model, tier, score (0 to 1), cost_usd`. Every item needs every
    model. A label is the scores of all models on one item.

    From the labels of `--fit`, the router estimates each model's quality by step and prompt length,
    relative to the strongest model: 1 is as good, 0.9 loses one in ten. A **floor** on this estimate
    sends an item to the cheapest model that reaches it. The sweep goes from always the cheapest to
    always the strongest. Scores and costs of `--on` are used for measuring only. Labelled items are
    left out there, so both options may name the same file.

    CPT50 and CPT80 are the shares of strong calls that recover 50 % and 80 % of the quality gap.
    APGR is the mean gap recovered. USD50 is the share of the extra cost that recovers 50 %. The
    random router spends what the router above it spends. The oracle knows every outcome.

    Example: `tierwise replay --fit past.csv.gz --labels 1500 --on new.csv.gz --curve curve.csv`
    """
    from tierwise.evidence.replay import read_outcomes, replay, write_curve

    with console(err=True).status("reading"):
        fitted = read_outcomes(fit)
        measured = read_outcomes(on, models=fitted.models)
    with console(err=True).status("learning and sweeping the floor"):
        done = replay(fitted, measured, labels=labels, seed=seed, per_usd=per_usd)
    if curve:
        write_curve(curve, done.points)
    if as_json:
        print_json(_data(done))
        return
    if estimates:
        print_table(
            done.estimate.cells(),
            title="Quality beside the strongest by step, at the usual prompt length",
        )
    _show(done)
    if curve:
        typer.echo(f"Curve: {curve} ({len(done.points)} floors)")


def _show(done: Replay) -> None:
    title = f"{done.items} items, learned from {done.labels} labels"
    if done.left_out:
        title += f"; {done.left_out} labelled items left out"
    print_table([_cells(strategy) for strategy in done.strategies], title=title)
    if done.router.apgr is None:
        typer.echo(
            "The strongest model by the labels is no better here than the cheapest: nothing is to be recovered."
        )
        return
    rows = {"router": done.router, "random": done.random, "oracle": done.oracle}
    print_table([{"policy": name, **_measures(measures)} for name, measures in rows.items()])


def _cells(strategy: Strategy) -> dict[str, Any]:
    at = strategy.point
    return {
        "policy": strategy.name,
        "floor": "" if at.floor is None else f"{at.floor:.3f}",
        "strong share": f"{at.strong_share:.1%}",
        "quality": f"{at.quality:.4f}",
        "gap recovered": "" if strategy.recovered is None else f"{strategy.recovered:.1%}",
        "cost": f"{at.cost_usd:.4f} USD",
    }


def _measures(measures: CurveMeasures) -> dict[str, str]:
    shares = {name.upper(): value for name, value in asdict(measures).items()}
    return {
        name: "" if x is None else f"{x:.3f}" if name == "APGR" else f"{x:.1%}"
        for name, x in shares.items()
    }


def _data(done: Replay) -> dict[str, Any]:
    return {
        "items": done.items,
        "labels": done.labels,
        "left_out": done.left_out,
        "models": list(done.estimate.candidates),
        "policies": [
            {"policy": p.name, **asdict(p.point), "gap_recovered": p.recovered}
            for p in done.strategies
        ],
        "measures": {name: asdict(getattr(done, name)) for name in ("router", "random", "oracle")},
        "estimates": done.estimate.cells(),
    }
