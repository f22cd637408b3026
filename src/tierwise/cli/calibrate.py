"""`tierwise calibrate`: what a million tokens cost on a server of one's own."""

from __future__ import annotations

import asyncio
import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
        str, typer.Argument(help="A model of the catalog that is served by your own machine.")
    ],
    gpu_hour_usd: Annotated[
        float, typer.Option(min=0, help="What an hour of the machine costs, idle or busy, in USD.")
    ],
    documents: Annotated[Path, typer.Option(help="Your own documents: a folder or a file.")] = Path(
        "examples/inbox"
    ),
    sensitivity: Annotated[
        str,
        typer.Option(
            help="Of documents that do not say it themselves: public, internal, confidential or restricted."
        ),
    ] = "restricted",
    step: Annotated[str, typer.Option(help="The step whose prompt is used.")] = "classify",
    seconds: Annotated[float, typer.Option(min=1, help="How long each concurrency is held.")] = 15,
    most: Annotated[int, typer.Option(min=1, help="The highest concurrency that is tried.")] = 256,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the catalog as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the token price of your server.

    Loads the server with your documents at rising concurrency until more at once is no more in all, and divides
    what an hour costs by what an hour gets done there. A price for a machine that is busy: one that idles half of
    the time costs twice as much a token.
    """
    from tierwise.gateway.calibrate import LEVELS
    from tierwise.orchestrate.environment import prepare_prefect
    from tierwise.project import CATALOG, Project
    from tierwise.text.yaml import replace_value

    project = Project.find()
    prepare_prefect(project.root)
    _check(project, model)
    spec = project.load_step(step)
    texts = _texts(project, model, spec, documents, sensitivity)
    levels = [level for level in LEVELS if level <= most]
    found = asyncio.run(
        _measure(project, model, texts, spec, Decimal(str(gpu_hour_usd)), seconds, levels)
    )
    price = {
        "input": float(found.input),
        "output": float(found.output),
        "source": f"{gpu_hour_usd:g} USD an hour at {found.knee.concurrency} at once, "
        f"{found.knee.per_second:.3g} {step} a second on {documents}",
        "date": date.today(),
    }
    if as_json:
        print_json(
            {
                "levels": [_cells(level) for level in found.levels],
                "knee": _cells(found.knee),
                "price": price,
            }
        )
    else:
        print_table([_cells(level) for level in found.levels])
        typer.echo(
            f"Knee: {found.knee.concurrency} at once. A million tokens cost "
            f"{found.input:f} USD in, {found.output:f} USD out."
        )
    if not dry_run:
        replace_value(project.root / CATALOG, ("models", model, "price"), price)
        typer.echo(
            f"Written to {CATALOG}; certificates stay valid, their order is worked out anew.",
            err=True,
        )


def _check(project: Project, name: str) -> None:
    model = project.catalog.model(name)
    if not project.catalog.tiers[model.tier].stays_in_house or model.learned:
        raise Misuse(
            f"{name} is not served by a machine of yours; its price is what its provider asks for"
        )
    if reason := project.policy(os.environ).unavailable.get(name):
        raise Misuse(f"{name} is unavailable: {reason}")


def _texts(
    project: Project, name: str, step: Step, folder: Path, sensitivity: str
) -> list[Document]:
    """The documents that can be read. Raises Misuse where a guard keeps any of them from the model."""
    from tierwise.documents import read_documents
    from tierwise.policy.rules import features
    from tierwise.records import SENSITIVITIES
    from tierwise.text.tokens import count_tokens

    if sensitivity not in SENSITIVITIES:
        raise UnknownName("sensitivity", sensitivity, SENSITIVITIES)
    batches = read_documents(project.root / folder, sensitivity=sensitivity)
    texts = [document for batch in batches for document in batch.load() if document.text]
    if not texts:
        raise Misuse(f"{folder} has no document that can be read")
    tier = project.catalog.model(name).tier
    for document in texts:
        f = features(
            step, document, tokens=count_tokens(document.text), prompt_tokens=0, budget_used=0
        )
        if reason := project.rules.forbidden(tier, f):
            raise Misuse(
                f"{name} may not see {document.id}: {reason}; give --documents that it may, or --sensitivity"
            )
    return texts


async def _measure(
    project: Project,
    model: str,
    texts: Sequence[Document],
    step: Step,
    hour_usd: Decimal,
    seconds: float,
    levels: list[int],
) -> Calibration:
    from tierwise.evidence.golden import load_settings
    from tierwise.gateway import Gateway
    from tierwise.gateway.calibrate import calibrate, calls_of
    from tierwise.gateway.local import LocalServers

    parameters = load_settings(project.root / "golden" / f"{step.name}.yaml").parameters
    prompt = project.prompts[step.prompt]
    servers = LocalServers()
    gateway = Gateway(project.catalog, os.environ, servers)
    try:
        return await calibrate(
            gateway,
            calls_of(step, prompt, texts, parameters, model),
            hour_usd=hour_usd,
            seconds=seconds,
            levels=levels,
            on_level=_show_level,
        )
    finally:
        await gateway.aclose()
        servers.close()


def _show_level(level: LoadLevel) -> None:
    """One line a level, on stderr."""
    uncounted = f", {level.uncounted} without usage" if level.uncounted else ""
    line = f"{level.concurrency} at once: {level.per_second:.2f} a second, {level.failed} failed{uncounted}"
    typer.echo(line, err=True)


def _cells(level: LoadLevel) -> dict[str, Any]:
    return {
        "at once": level.concurrency,
        "a second": f"{level.per_second:.2f}",
        "tokens in a second": f"{level.prompt_tokens_each * level.per_second:.0f}",
        "tokens out a second": f"{level.completion_tokens_each * level.per_second:.0f}",
        "p50": "" if level.latency_p50_s is None else f"{level.latency_p50_s:.2f} s",
        "p95": "" if level.latency_p95_s is None else f"{level.latency_p95_s:.2f} s",
        "failed": level.failed,
        "without usage": level.uncounted,
    }
