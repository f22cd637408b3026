"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.standin import Standin


@pytest.fixture
def standin() -> Iterator[Standin]:
    """A provider on a real socket, fresh for each test."""
    with Standin() as server:
        yield server
