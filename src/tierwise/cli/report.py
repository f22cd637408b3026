"""`tierwise report`: one HTML page with everything about a run, that loads nothing and can be sent around."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tierwise.errors import ConfigError, LedgerError, Misuse, TierwiseError

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.policy.certificates import Current
    from tierwise.project import Project
    from tierwise.report.build import RunReport
    from tierwise.report.figures import CertificateState, ProjectFacts

_SPAN = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def report(
    run: Annotated[
        str | None, typer.Argument(help="A run's id, the beginning of one, or `latest`.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="All runs of the last 12h, 7d or 4w, in place of one."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file; default: .tierwise/reports/RUN.html."),
    ] = None,
    with_answers: Annotated[
        bool,
        typer.Option(
            "--with-answers", help="Show the answers for confidential and restricted documents too."
        ),
    ] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write an HTML report about one run or a period.

    It has cost, savings and the quality they cost, checks with their intervals, certificates, latencies, errors,
    the plan, trends, what needs attention with the command to type, and a receipt for every document. The page is
    one file: it loads nothing and sends nothing, so it can be mailed or printed.

    Of confidential and restricted documents it shows the id, the route and which checks passed, but no answer and no
    reason that may quote them, unless you ask for `--with-answers`. The file's path is printed.
    """
    if run and since:
        raise Misuse("name a run or give --since, not both")
    from tierwise.ledger import Ledger
    from tierwise.project import Project
    from tierwise.report.document_rows import document_rows
    from tierwise.report.page import render_page

    project = Project.find()
    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        runs = _since(ledger, since) if since else [ledger.resolve_run(run or "latest")]
        found = read(ledger, runs, project)
        html = render_page(found, document_rows(ledger, runs, with_answers=with_answers))
    name = f"since-{since}" if since else runs[0].id
    path = _written(out or project.root / ".tierwise" / "reports" / f"{name}.html", html)
    typer.echo(path)
    if open_it:
        typer.launch(path.resolve().as_uri())


def read(ledger: Ledger, runs: Sequence[RunRow], project: Project) -> RunReport:
    """The figures of some runs, on the ground of the project's files as they are today."""
    from tierwise.report.build import build_report

    steps = {row.step for run in runs for row in ledger.summary(run.id)}
    return build_report(ledger, runs, ground(project, ledger, steps), datetime.date.today())


def ground(project: Project, ledger: Ledger, steps: set[str]) -> ProjectFacts:
    """What the project's files say of these steps; nothing where they are wrong, since the past is still readable."""
    from tierwise.report.figures import ProjectFacts

    try:
        catalog = project.catalog
        floors = project.rules.floors
        certificates = project.certificates.certificates
    except ConfigError as error:
        typer.echo(f"without savings and certificates: {error}", err=True)
        return ProjectFacts()
    mine = [certificate for certificate in certificates if certificate.step in steps]
    return ProjectFacts(
        catalog=catalog,
        floors=floors,
        certificates=[
            proof
            for step in sorted({c.step for c in mine})
            for proof in _proofs(project, ledger, step)
        ],
        labels_wanted=len(ledger.audits.queue()),
    )


def _proofs(project: Project, ledger: Ledger, step: str) -> list[CertificateState]:
    """The certificates of a step, each with what voids it."""
    from tierwise.report.figures import CertificateState

    mine = [
        certificate for certificate in project.certificates.certificates if certificate.step == step
    ]
    try:
        current = _current(project, ledger, step)
    except (TierwiseError, ImportError) as error:  # the step or its golden set is not what it was
        return [
            CertificateState(certificate, f"it cannot be checked: {error}") for certificate in mine
        ]
    return [
        CertificateState(certificate, certificate.void_reasons(current)) for certificate in mine
    ]


def _current(project: Project, ledger: Ledger, name: str) -> Current:
    """Return what a step's certificates must agree with today. Raises Misuse for an unknown step."""
    from dataclasses import replace

    from tierwise.explain.step_facts import current_step
    from tierwise.ledger.people.samples import demoted
    from tierwise.orchestrate.environment import prepare_prefect

    prepare_prefect(project.root)
    current = current_step(project, name)
    if current is None:
        raise Misuse(f"there is no tasks/{name}.py")
    reasons = demoted(ledger.audits, project.certificates, project.rules.floors)
    return replace(
        current, demoted={models: why for (step, models), why in reasons.items() if step == name}
    )


def _since(ledger: Ledger, span: str) -> list[RunRow]:
    from tierwise.ledger.views.summary import runs_since

    match = _SPAN.fullmatch(span)
    if match is None:
        raise Misuse(f"--since takes a span such as 12h, 7d or 4w; not '{span}'")
    runs = runs_since(ledger, time.time() - 3600 * int(match[1]) * _HOURS[match[2]])
    if not runs:
        raise Misuse(f"no run started in the last {span}; `tierwise runs` lists them all")
    return runs


def _written(path: Path, html: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise LedgerError(f"the report cannot be written: {error}") from None
    return path
