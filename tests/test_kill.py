"""Paid once, nothing lost: a job that is killed again and again, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kill import job, killed
from tests.kit.ledgers import DATABASES


@pytest.mark.parametrize("database", DATABASES)
def test_a_killed_job_pays_again_only_what_was_under_way_and_loses_nothing(
    database: str, tmp_path: Path
) -> None:
    """SIGKILL at random moments, and started again each time: the same files as of an undisturbed job."""
    report = killed(job, database, tmp_path, documents=40, kills=4)
    assert report.kills == 4
    assert report.again <= report.in_flight
    assert report.same_bytes
    assert report.complete
