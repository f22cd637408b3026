"""`tierwise certify`: measure models on a step's golden set and write down what that proves."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tierwise.cli.output import console, print_json, print_table
from tierwise.errors import Misuse

if TYPE_CHECKING:
    from tierwise.certify import Measurement
    from tierwise.engine import Engine
    from tierwise.golden import GoldenSet
    from tierwise.steps import Step


def certify(
    step: Annotated[str, typer.Argument(help="A step in tasks/, such as classify.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--models", "-m", help="A model, or a chain such as 'qwen-0.5b > qwen-1.5b'; may be repeated."),
    ] = None,
    golden: Annotated[Path | None, typer.Option(help="Labelled examples; default golden/STEP.jsonl.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many examples.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask again for answers that were paid before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure models on a step's golden set and write certificates: the proof that lets cheap models be chosen.

    Runs through the same prompts, checks and gateway as production, and pays for each call once. Without
    `--models`, all that are available and have a price are compared, each alone.
    """
    from tierwise.certificates import save_certificates
    from tierwise.certify import certificate, measure
    from tierwise.engine import Engine
    from tierwise.environment import prepare_prefect
    from tierwise.project import CERTIFICATES, Project

    project = Project.find()
    prepare_prefect(project.root)
    with Engine(project) as engine:
        spec = project.load_step(step)
        examples, parameters = _golden(project.root, step, golden, limit)
        candidates = [tuple(p.strip() for p in chain.split(">")) for chain in models or _available(engine)]
        _ask(engine, spec, examples, parameters, candidates, yes=yes)
        with _bar(len(candidates) * len(examples.examples)) as told:
            measured = [
                measure(engine, spec, examples, parameters, candidate, fresh=fresh, told=told)
                for candidate in candidates
            ]
        compared = len(candidates)
        proofs = [certificate(engine, spec, examples, parameters, m, compared) for m in measured]
        path = project.root / CERTIFICATES
        save_certificates(path, [*project.certificates.certificates, *proofs])
        rows = [_cells(m, project.rules.floors.get(step), compared) for m in measured]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, title=f"{step} on {examples.path.name}: {len(examples.examples)} examples")
        typer.echo(f"Written to {CERTIFICATES}")


def _golden(root: Path, step: str, path: Path | None, limit: int | None) -> tuple[GoldenSet, dict[str, Any]]:
    from tierwise.golden import GoldenSet, load_golden, load_parameters

    golden = load_golden(path or root / "golden" / f"{step}.jsonl")
    parameters = load_parameters(golden.path.with_suffix(".yaml"))
    return GoldenSet(golden.path, golden.examples[:limit]), parameters


def _available(engine: Engine) -> list[str]:
    """Every model that can be used here and has a price."""
    models = engine.policy.catalog.models.values()
    return [m.name for m in models if m.name not in engine.policy.unavailable and m.price != "unknown"]


def _ask(
    engine: Engine,
    step: Step,
    golden: GoldenSet,
    parameters: dict[str, Any],
    candidates: list[tuple[str, ...]],
    *,
    yes: bool,
) -> None:
    from tierwise.certify import worst_cost
    from tierwise.report import usd

    if not candidates:
        raise Misuse("no model is available and has a price; `tierwise models` says what to set")
    names = dict.fromkeys(name for chain in candidates for name in chain)
    costs = [worst_cost(engine, step, golden, parameters, name) for name in names]
    total = usd(sum((c for c in costs if c is not None), Decimal(0)))
    unknown = sum(cost is None for cost in costs)
    typer.echo(f"{len(names)} models x {len(golden.examples)} examples, at most {total}", err=True, nl=False)
    typer.echo(f", and {unknown} models of unknown price" if unknown else "", err=True)
    if not (yes or os.environ.get("TIERWISE_YES") == "1"):
        typer.confirm("Go on?", abort=True, err=True)


def _cells(measured: Measurement, floor: float | None, compared: int) -> dict[str, Any]:
    from tierwise.report import usd

    short = measured.shortfall(floor, compared) if floor is not None else None
    return {
        "model": measured.name,
        "right": f"{measured.n - measured.errors} of {measured.n}",
        "no answer": measured.deferred,
        "pass rate": f"{1 - measured.errors / measured.n:.1%}",
        "proves": f"{measured.bound(compared):.3f}",
        "floor": "" if floor is None else f"{floor:g}",
        "cost a document": "unknown" if measured.mean_cost is None else usd(measured.mean_cost),
        "p50": "" if measured.latency_p50_s is None else f"{measured.latency_p50_s:.2f} s",
        "verdict": short.sentence if short else "no floor is set for this step",
    }


class _bar:  # noqa: N801 - reads as a function
    """A progress bar on stderr, told how many more are done."""

    def __init__(self, total: int) -> None:
        from rich.progress import Progress

        self._progress = Progress(console=console(err=True), transient=True)
        self._task = self._progress.add_task("measuring", total=total)

    def __enter__(self) -> _bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, more: int) -> None:
        self._progress.advance(self._task, more)
