"""`tierwise doctor`: is everything here that a run needs, and what to do about what is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tierwise.cli.output import print_json, print_table

if TYPE_CHECKING:
    from tierwise.project import Project


class Finding(NamedTuple):
    """One thing that was looked at. `ok` is None for what is only worth knowing."""

    what: str
    ok: bool | None
    detail: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that this machine can run the project."""
    findings = list(_findings())
    rows = [
        {"check": f.what, "": {True: "ok", False: "PROBLEM", None: "-"}[f.ok], "detail": f.detail}
        for f in findings
    ]
    if as_json:
        print_json([f._asdict() for f in findings])
    else:
        print_table(rows)
    if any(f.ok is False for f in findings):
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    from tierwise.project import Project

    yield Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0])
    project = Project.find()
    yield Finding("project", True, str(project.root))
    files = [
        _tried("catalog", lambda: f"{len(project.catalog.models)} models"),
        _tried("prompts", lambda: ", ".join(prompt.label for prompt in project.prompts)),
        _tried(
            "rules",
            lambda: f"{len(project.rules.routes)} routes, {len(project.rules.guards)} guards",
        ),
    ]
    yield from files
    yield _tried("flows", lambda: ", ".join(project.flow_names()) or "none")
    yield (ledger := _tried("ledger", lambda: _ledger(project)))
    if all(finding.ok for finding in files):
        yield from _models(project)
        yield from _demotions(project) if ledger.ok else ()
    address = os.environ.get("PREFECT_API_URL")
    yield Finding(
        "Prefect",
        None,
        address or "no server set; runs start a temporary one and keep what it recorded",
    )


def _tried(what: str, look: Callable[[], str]) -> Finding:
    from tierwise.errors import TierwiseError

    try:
        return Finding(what, True, look())
    except TierwiseError as error:
        return Finding(what, False, str(error))


def _ledger(project: Project) -> str:
    from tierwise.ledger import Ledger

    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        return f"{len(ledger.runs(1000))} runs in {project.ledger_url or '.tierwise/ledger.db'}"


def _demotions(project: Project) -> Iterator[Finding]:
    from tierwise.ledger import Ledger
    from tierwise.ledger.people.samples import demoted

    with Ledger.open(project.ledger_url, root=project.root) as ledger:
        for (step, models), why in demoted(
            ledger.audits, project.certificates, project.rules.floors
        ).items():
            yield Finding(
                "certificate", None, f"{' > '.join(models)} for {step} no longer counts: {why}"
            )


def _models(project: Project) -> Iterator[Finding]:
    unavailable = project.policy(project.env_with_secrets(os.environ)).unavailable
    for tier in project.catalog.tiers:
        names = [name for name, model in project.catalog.models.items() if model.tier == tier]
        ready = [_ready(project, name) for name in names if name not in unavailable]
        remedies = dict.fromkeys(unavailable[name] for name in names if name in unavailable)
        detail = ", ".join(ready) or "; ".join(remedies)
        yield Finding(f"tier {tier}", True if ready else None, detail)
    if len(unavailable) == len(project.catalog.models):
        yield Finding(
            "models", False, "none is available; run `tierwise fetch` for the embedded ones"
        )


def _ready(project: Project, name: str) -> str:
    """A model that can be used, with where its key comes from in a flow run if it is no variable."""
    blocks = project.secret_blocks(project.catalog.model(name), os.environ)
    return f"{name} (from the Prefect secret block {' and '.join(blocks)})" if blocks else name
