"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Start a Prefect server with a database of its own, for tests that call a flow.

    It takes a while to start.
    """
    with prefect_test_harness(server_startup_timeout=120):
        yield
