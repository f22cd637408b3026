"""`tierwise calibrate`: the price of a million tokens on a server of your own."""

from __future__ import annotations

import asyncio
import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.opening import find_project
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierwise.gateway.calibrate import Calibration, LoadLevel
    from tierwise.project import Project
    from tierwise.records import Document
    from tierwise.steps.step import Step


def calibrate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model of the catalog on your own machine."
        ),
    ],
    gpu_hour_usd: Annotated[
        float,
        typer.Option(metavar="USD", min=0, help="The price of an hour of the machine."),
    ],
    documents: Annotated[
        Path,
        typer.Option(metavar="PATH", help="A folder or file with documents of yours."),
    ] = Path("examples/inbox"),
    sensitivity: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="The level of documents that name none: public, internal, confidential or "
            "restricted.",
        ),
    ] = "restricted",
    step: Annotated[
        str, typer.Option(metavar="STEP", help="The step of the prompt.")
    ] = "classify",
    seconds: Annotated[
        float, typer.Option(min=1, help="The time to measure at each concurrency.")
    ] = 15,
    most: Annotated[
        int, typer.Option(min=1, help="The highest concurrency to try.")
    ] = 256,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure without changing the catalog.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the token price of your server.

    Sends your documents at rising concurrency until throughput stops improving, then divides the
    hourly price by that throughput, and writes the price into the catalog. The price is that of a
    busy machine: a machine that idles half of the time costs twice as much per token.
    """
    from tierwise.cli.progress import status
    from tierwise.gateway.calibrate import LEVELS
    from tierwise.project import CATALOG
    from tierwise.text.yaml import replace_value

    project = find_project()
    _check_model(project, model)
    spec = project.load_step(step)
    spec.require_model("calibrate")
    texts = _documents(project, model, spec, documents, sensitivity)
    # Rising, since measuring stops where more concurrency brings nothing.
    levels = [level for level in LEVELS if level <= most]
    with status(f"measuring {model}, {seconds:g} s at each concurrency"):
        measured = asyncio.run(
            _measure(
                project, model, texts, spec, Decimal(str(gpu_hour_usd)), seconds, levels
            )
        )
    price = {
        "input": float(measured.input),
        "output": float(measured.output),
        "source": f"{gpu_hour_usd:g} USD an hour at {measured.knee.concurrency} at once, "
        f"{measured.knee.per_second:.3g} {step} a second on {documents}",
        "date": date.today(),
    }
    _print(measured, price, as_json=as_json)
    # Only this entry is replaced: comments and layout of the catalog stay.
    if not dry_run:
        replace_value(project.root / CATALOG, ("models", model, "price"), price)
        typer.echo(
            f"Written to {CATALOG}. Certificates stay valid; their order follows the new price.",
            err=True,
        )


def _check_model(project: Project, name: str) -> None:
    """Raise Misuse for a model that is not on a machine of the user, or is unavailable."""
    model = project.catalog.model(name)
    # A learned model has no server: it runs in this process, at price 0.
    if not project.catalog.tiers[model.tier].stays_in_house or model.learned:
        raise Misuse(
            f"{name} is not served by a machine of yours; its price is what its provider asks for"
        )
    reason = project.policy(os.environ).unavailable.get(name)
    if reason:
        raise Misuse(f"{name} is unavailable: {reason}")


def _documents(
    project: Project, name: str, step: Step, folder: Path, sensitivity: str
) -> list[Document]:
    """Return the readable documents. Raises Misuse where a guard forbids the model to see one."""
    from tierwise.documents import read_documents
    from tierwise.policy.rules import features
    from tierwise.records import SENSITIVITIES
    from tierwise.text.tokens import count_tokens

    if sensitivity not in SENSITIVITIES:
        raise UnknownName("sensitivity", sensitivity, SENSITIVITIES)
    documents = []
    batches = read_documents(
        project.root / folder,
        sensitivity=sensitivity,
        incomplete=project.settings.incomplete,
        settings=project.reading,
    )
    for batch in batches:
        documents += [document for document in batch.load() if document.text]
    if not documents:
        raise Misuse(f"{folder} has no document that can be read")
    # Measuring sends real documents, so guards apply as in a run.
    tier = project.catalog.model(name).tier
    for document in documents:
        known = features(
            step,
            document,
            tokens=count_tokens(document.text),
            prompt_tokens=0,
            budget_used=0,
        )
        reason = project.rules.forbidden(tier, known)
        if reason:
            raise Misuse(
                f"{name} may not see {document.id}: {reason}; "
                "give --documents that it may, or --sensitivity"
            )
    return documents


async def _measure(
    project: Project,
    model: str,
    documents: Sequence[Document],
    step: Step,
    hour_usd: Decimal,
    seconds: float,
    levels: list[int],
) -> Calibration:
    """Measure the model's server at each concurrency."""
    from tierwise.gateway import Gateway
    from tierwise.gateway.calibrate import calibrate, calls_of
    from tierwise.gateway.local import LocalServers
    from tierwise.steps.golden_settings import load_settings

    parameters = load_settings(project.root / "golden" / f"{step.name}.yaml").parameters
    prompt = project.prompts[step.prompt]
    # Servers of embedded models, which start with their first call.
    servers = LocalServers()
    gateway = Gateway(project.catalog, os.environ, servers)
    try:
        return await calibrate(
            gateway,
            calls_of(step, prompt, documents, parameters, project.catalog.model(model)),
            hour_usd=hour_usd,
            seconds=seconds,
            levels=levels,
            on_level=_print_level,
        )
    finally:
        # Connections first, then the servers behind them; also after Ctrl-C.
        await gateway.aclose()
        servers.close()


def _print_level(level: LoadLevel) -> None:
    """Print one line on stderr when a concurrency has been measured."""
    line = f"{level.concurrency} at once: {level.per_second:.2f} a second, {level.failed} failed"
    if level.uncounted:
        line += f", {level.uncounted} without usage"
    # On stderr, since --json prints the result on stdout.
    typer.echo(line, err=True)


def _print(measured: Calibration, price: dict[str, Any], *, as_json: bool) -> None:
    levels = [_cells(level) for level in measured.levels]
    if as_json:
        print_json({"levels": levels, "knee": _cells(measured.knee), "price": price})
        return
    print_table(levels)
    typer.echo(
        f"Knee: {measured.knee.concurrency} at once. A million tokens cost "
        f"{measured.input:f} USD in, {measured.output:f} USD out."
    )


def _cells(level: LoadLevel) -> dict[str, Any]:
    return {
        "at once": level.concurrency,
        "a second": f"{level.per_second:.2f}",
        "tokens in a second": f"{level.prompt_tokens_each * level.per_second:.0f}",
        "tokens out a second": f"{level.completion_tokens_each * level.per_second:.0f}",
        "p50": _latency(level.latency_p50_s),
        "p95": _latency(level.latency_p95_s),
        "failed": level.failed,
        "without usage": level.uncounted,
    }


def _latency(seconds: float | None) -> str:
    # None where every call failed at this concurrency.
    if seconds is None:
        return ""
    return f"{seconds:.2f} s"
