"""Fixtures that several test files share."""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.kit.ledgers import RUN, migrated_url, stop_postgresql
from tests.kit.modules import modules_apart
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.ledger import Ledger

# Fixtures so costly that all tests with one of them run in one process; each has one name.
SHARED = ("prefect_server", "checked_letters", "witnessed", "site")

# Tests order faults, and none waits for a model to come back unless it is about that.
os.environ.setdefault("TIERWISE_PATIENCE", "0")
settings.register_profile("tierwise", deadline=None)  # no test is about time
settings.load_profile("tierwise")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n` each test goes to a free process, but tests that share a costly fixture to the same.

    Otherwise several processes would each start Prefect's server, or build the same project.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, name = nodeid.partition("[")[0].partition("::")
            for fixture in SHARED:
                if name in _tests_with(fixture, config.rootpath / path):
                    return _group(fixture, path)
            return nodeid

    return Scheduling(config, log)


def _group(fixture: str, path: str) -> str:
    """The name of a group of tests that share a fixture and run in one process.

    The tests with Prefect's server are two groups of the same size: as one, they would still run
    when all others have ended. A second server takes ten seconds.
    """
    if fixture != "prefect_server":
        return fixture
    first_half = Path(path).name < "test_m"
    return f"{fixture} {1 if first_half else 2}"


def pytest_sessionfinish() -> None:
    """A process of pytest-xdist may be killed at its exit, before it has cleaned up."""
    stop_postgresql()


@functools.cache
def _tests_with(fixture: str, path: Path) -> set[str]:
    """The functions of a file that take a fixture, perhaps through other fixtures of that file."""
    arguments = {
        node.name: {argument.arg for argument in node.args.args}
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    users: set[str] = set()
    newest = {fixture}
    while newest:
        users |= newest
        newest = {name for name, taken in arguments.items() if taken & newest} - users
    return users


@pytest.fixture
def standin() -> Iterator[Standin]:
    """A provider on a real socket, fresh for each test."""
    with Standin() as server:
        yield server


@pytest.fixture(params=("sqlite", "postgresql"))
def database(request: pytest.FixtureRequest) -> str:
    """Both kinds of database."""
    return str(request.param)


@pytest.fixture
def url(database: str, tmp_path: Path) -> str:
    """The address of a ledger that nobody has used."""
    return migrated_url(database, tmp_path)


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger with one run."""
    with Ledger.open(url, root=tmp_path) as opened:
        opened.start_run(RUN)
        yield opened


@pytest.fixture
def other(url: str, ledger: Ledger, tmp_path: Path) -> Iterator[Ledger]:
    """A second ledger on the same database: another owner, as far as budgets go another process."""
    with Ledger.open(url, root=tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def path_as_before() -> Iterator[None]:
    """Put Python's path back: Prefect leaves a flow's folder on it when it loads the flow.

    A later test whose own flow has the same name would find it "installed" there.
    """
    path = list(sys.path)
    yield
    sys.path[:] = path


@pytest.fixture
def own_modules() -> Iterator[None]:
    """Let the test's project import its own flows and steps."""
    with modules_apart():
        yield


@pytest.fixture
def terminal() -> Terminal:
    """The command line."""
    return Terminal()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A real Prefect server with a database of its own, one for all tests. Gives its address."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=240):
        yield str(get_current_settings().api.url)
