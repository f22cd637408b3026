"""`tierwise doctor`: the machine and the project checked for what a run needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tierwise.cli.opening import find_project, open_ledger
from tierwise.cli.options import AsJson
from tierwise.cli.output import print_json, print_table
from tierwise.errors import TierwiseError
from tierwise.text.amounts import plural

if TYPE_CHECKING:
    from tierwise.project import Project

_WORDS = {True: "ok", False: "PROBLEM", None: "-"}


class Diagnostic(NamedTuple):
    """One thing that was checked. `ok` is None for a plain note."""

    what: str
    ok: bool | None
    detail: str


def doctor(
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="Also ask the models' servers: by a free request, or by a call of a few "
            "tokens where there is none.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that this machine can run the project.

    Checks Python, the project's files, the ledger, the models, their keys, the certificates, and
    the server, worker, work pool and schedules of `tierwise up`.
    Exit code 1 when a run would fail.
    """
    findings = list(_diagnostics(ask=ask))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(
            [
                {
                    "check": finding.what,
                    "": _WORDS[finding.ok],
                    "detail": finding.detail,
                }
                for finding in findings
            ]
        )
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def _diagnostics(*, ask: bool) -> Iterator[Diagnostic]:
    yield Diagnostic("Python", sys.version_info >= (3, 11), sys.version.split()[0])
    # Without a project nothing else can be checked, so this one may raise.
    project = find_project()
    yield Diagnostic("project", True, str(project.root))
    # Lambdas, so that `_tried` catches what reading the file raises.
    catalog = _tried("catalog", lambda: _catalog(project))
    rules = Diagnostic("rules", None, "looked at once the catalog is right")
    if catalog.ok:
        rules = _tried("rules", lambda: _rules(project))
    files = [
        catalog,
        _tried(
            "prompts", lambda: ", ".join(prompt.label for prompt in project.prompts)
        ),
        rules,
    ]
    yield from files
    yield _tried("flows", lambda: ", ".join(project.flow_names()) or "none")
    ledger = _tried("ledger", lambda: _ledger(project))
    yield ledger
    # With a wrong file, the rest would only repeat its fault.
    if all(finding.ok for finding in files):
        yield from _models(project)
        yield from _embedders(project)
        if ask:
            yield from _asked(project)
        if ledger.ok:
            yield from _demoted_certificates(project)
    yield _prefect(project)
    yield from _services(project)


def _prefect(project: Project) -> Diagnostic:
    """Return the server that runs report to, or what keeps them from it."""
    from tierwise.orchestrate.environment import (
        ADDRESS,
        answers,
        database_problem,
        no_server_at,
    )

    server = os.environ.get(ADDRESS)
    if server:
        # A server that answers is named alone; else the detail is the fault with its remedy.
        is_up = answers(server)
        detail = server if is_up else no_server_at(server)
        return Diagnostic("Prefect", is_up, detail)
    problem = database_problem(project.root)
    if problem:
        return Diagnostic("Prefect", False, problem)
    # None: neither good nor bad, as a run starts a server by itself.
    without = "no server set; each run starts a temporary one and keeps its record"
    return Diagnostic("Prefect", None, without)


def _services(project: Project) -> Iterator[Diagnostic]:
    """Yield what is wrong with the server, the worker and the pools, and the schedules."""
    from tierwise.orchestrate.environment import ADDRESS
    from tierwise.orchestrate.services import server_of
    from tierwise.orchestrate.supervision import wanted

    root = project.root
    is_up = bool(wanted(root)) or server_of(root).pid() is not None
    if not is_up and ADDRESS not in os.environ:
        return
    from tierwise.orchestrate.read_status import read_services

    status = read_services(project)
    problems = status.service_problems()
    for problem in problems:
        yield Diagnostic("services", False, f"{problem.what}; {problem.remedy}")
    if not problems:
        names = [service.name for service in status.services if service.pid]
        pools = [f"work pool {pool.name}" for pool in status.pools]
        yield Diagnostic("services", True, ", ".join([*names, *pools]) or "the server")
    if status.deployments:
        active = [each.name for each in status.deployments if each.is_scheduled]
        # No problem by itself: they start paused, and a person resumes them.
        inactive = "none is active; resume one in the UI"
        yield Diagnostic(
            "schedules", bool(active) or None, ", ".join(active) or inactive
        )


def _tried(what: str, check: Callable[[], str]) -> Diagnostic:
    """Return what a check says, or its error as a problem."""
    try:
        return Diagnostic(what, True, check())
    except TierwiseError as error:
        return Diagnostic(what, False, str(error))


def _catalog(project: Project) -> str:
    models = plural(len(project.catalog.models), "model")
    embedders = len(project.catalog.embedders)
    return f"{models}, {plural(embedders, 'embedder')}" if embedders else models


def _rules(project: Project) -> str:
    return f"{len(project.rules.routes)} routes, {len(project.rules.guards)} guards"


def _ledger(project: Project) -> str:
    with open_ledger(project) as ledger:
        number = len(ledger.runs.newest(1000))
    return f"{number} runs in {project.ledger_url or '.tierwise/ledger.db'}"


def _demoted_certificates(project: Project) -> Iterator[Diagnostic]:
    """Yield the certificates that labels or a server have taken out of use."""
    from tierwise.ledger.people.demotions import not_counting

    with open_ledger(project) as ledger:
        reasons = not_counting(
            ledger, project.certificates, project.rules, project.catalog
        )
    for (step, models), reason in reasons.items():
        chain = " > ".join(models)
        detail = f"the certificate of {chain} for {step} no longer counts: {reason}"
        yield Diagnostic("certificate", None, detail)


def _models(project: Project) -> Iterator[Diagnostic]:
    """Yield each tier with its available models, or with what to do about the others."""
    unavailable = project.policy(project.env_with_secrets(os.environ)).unavailable
    for tier in project.catalog.tiers:
        names = [
            name for name, model in project.catalog.models.items() if model.tier == tier
        ]
        available = [
            _with_key(project, name) for name in names if name not in unavailable
        ]
        # A dict drops repetitions: most models of a tier miss the same key.
        remedies = dict.fromkeys(
            unavailable[name] for name in names if name in unavailable
        )
        if available:
            yield Diagnostic(f"tier {tier}", True, ", ".join(available))
        else:
            # No problem by itself: a project need not have keys for every tier.
            yield Diagnostic(f"tier {tier}", None, "; ".join(remedies))
    # Without any model, every document would be deferred.
    if len(unavailable) == len(project.catalog.models):
        yield Diagnostic(
            "models",
            False,
            "none is available; run `tierwise fetch` for the embedded ones",
        )


def _embedders(project: Project) -> Iterator[Diagnostic]:
    """Yield the embedders that can be used, or what to do about the others."""
    from tierwise.gateway.embedders import what_is_missing

    environment = project.env_with_secrets(os.environ)
    usable = []
    # A dict drops repetitions, as with the models.
    remedies: dict[str, None] = {}
    for name, entry in project.catalog.embedders.items():
        missing = what_is_missing(project.catalog, entry, environment)
        if missing is None:
            usable.append(name)
        else:
            remedies[f"{name}: {missing}"] = None
    if usable:
        yield Diagnostic("embedders", True, ", ".join(usable))
    elif remedies:
        # No problem by itself: a project need not use any.
        yield Diagnostic("embedders", None, "; ".join(remedies))


def _asked(project: Project) -> Iterator[Diagnostic]:
    """Yield what the server of each available model says."""
    from tierwise.cli.ask_models import ask_models

    for asked in ask_models(project, project.env_with_secrets(os.environ)):
        yield Diagnostic(f"ask {asked.model}", asked.ok, asked.detail)


def _with_key(project: Project, name: str) -> str:
    """Return a model's name, with the secret block that its key comes from in a flow run."""
    blocks = project.secret_blocks(project.catalog.model(name), os.environ)
    if not blocks:
        return name
    return f"{name} (from the Prefect secret block {' and '.join(blocks)})"
