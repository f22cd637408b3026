"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.standin import Standin
from tests.terminal import Terminal

settings.register_profile("tierwise", deadline=None)  # no test is about time
settings.load_profile("tierwise")


@pytest.fixture
def standin() -> Iterator[Standin]:
    """A provider on a real socket, fresh for each test."""
    with Standin() as server:
        yield server


@pytest.fixture
def terminal() -> Terminal:
    """The command line."""
    return Terminal()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A real Prefect server with a database of its own, one for all tests. Gives its address."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(get_current_settings().api.url)
