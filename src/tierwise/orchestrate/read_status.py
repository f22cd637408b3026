"""Read everything that `tierwise status` and `tierwise doctor` say of the services."""

from __future__ import annotations

import os
from dataclasses import replace

from tierwise.errors import ConfigError, LedgerError, TierwiseError
from tierwise.ledger import Ledger
from tierwise.orchestrate.api_password import (
    ADDRESS,
    CLIENT,
    Access,
    access,
    password_file,
)
from tierwise.orchestrate.environment import database_problem
from tierwise.orchestrate.services import remembered_address, server_of
from tierwise.orchestrate.status import (
    Problem,
    ProjectStatus,
    RunInBatches,
    Server,
    SuspendedCertificate,
    runs_in_batches,
    service_statuses,
    waiting_flows,
)
from tierwise.project import Project


def read_status(project: Project) -> ProjectStatus:
    """Return the state of a project; a server or ledger that is away is a fault in it."""
    status = read_services(project)
    try:
        with Ledger.open(project.ledger_url, root=project.root) as ledger:
            status = replace(
                status,
                waiting=waiting_flows(ledger),
                suspended=_suspended(project, ledger),
                in_batches=_in_batches(project, ledger),
            )
            if status.deployments:
                from tierwise.orchestrate.server_status import with_ledger

                deployments = with_ledger(status.deployments, ledger)
                status = replace(status, deployments=deployments)
    except LedgerError as error:
        status = replace(status, ledger_fault=str(error))
    return status


def _suspended(project: Project, ledger: Ledger) -> tuple[SuspendedCertificate, ...]:
    """Return the suspended certificates; none where a file is wrong, as `check` says that."""
    try:
        certificates = project.certificates.certificates
        catalog = project.catalog
    except ConfigError:
        return ()
    suspensions = ledger.served.suspensions(certificates, catalog)
    return tuple(
        SuspendedCertificate(
            step, " > ".join(models), suspension.change, suspension.is_open
        )
        for (step, models), suspension in suspensions.items()
    )


def _in_batches(project: Project, ledger: Ledger) -> tuple[RunInBatches, ...]:
    """Return the runs in batches; none where a file is wrong, as `check` says that."""
    try:
        catalog = project.catalog
    except ConfigError:
        return ()
    return runs_in_batches(ledger, catalog)


def read_services(project: Project) -> ProjectStatus:
    """Return the state of a project without what the ledger knows."""
    server = find_server(project)
    status = ProjectStatus(services=service_statuses(project.root), server=server)
    if server.url and not server.fault:
        return _with_server(status)
    return status


def find_server(project: Project) -> Server:
    """Return the Prefect server in use, with what is wrong with it."""
    root = project.root
    own = remembered_address(root)
    url = os.environ.get(ADDRESS)
    if url is None and server_of(root).pid() is None:
        # A profile or a file of Prefect's may name one; only Prefect can tell.
        from tierwise.orchestrate.server_status import configured_server

        url = configured_server()
    if url is None and own and server_of(root).pid() is not None:
        url = f"{own}/api"
    if url is None:
        return Server(None, is_own=True, fault=_no_server(project))
    is_own = own is not None and url == f"{own}/api"
    return Server(url, is_own, _server_fault(project, url, is_own=is_own))


def _with_server(status: ProjectStatus) -> ProjectStatus:
    # This imports Prefect, which takes seconds.
    from httpx import HTTPError
    from prefect.exceptions import PrefectException

    from tierwise.orchestrate.server_status import read_server_status

    try:
        deployments, pools = read_server_status()
    except (HTTPError, PrefectException, TierwiseError) as error:
        what = f"the server at {status.server.url} fails: {type(error).__name__}"
        fault = Problem(what, "see .tierwise/services/server.log")
        return replace(status, server=replace(status.server, fault=fault))
    return replace(status, deployments=deployments, pools=pools)


def _no_server(project: Project) -> Problem:
    problem = database_problem(project.root)
    if problem:
        return Problem(problem, "then: tierwise up")
    return Problem("no server runs, so nothing is scheduled", "tierwise up")


def _server_fault(project: Project, url: str, *, is_own: bool) -> Problem | None:
    answer = access(url, os.environ.get(CLIENT))
    if answer is Access.REFUSED:
        what = f"the server at {url} does not take the password"
        if is_own:
            file = password_file(project.root)
            what = f"{what} in {file}"
            return Problem(what, "tierwise down --now, then: tierwise up")
        return Problem(what, f"set {CLIENT}=NAME:PASSWORD")
    if answer is None:
        what = f"no Prefect server answers at {url}"
        if is_own:
            return Problem(what, "see .tierwise/services/server.log; tierwise up")
        return Problem(what, f"start it, or: unset {ADDRESS}")
    return None
