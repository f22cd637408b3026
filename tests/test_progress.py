"""Progress outside a terminal: plain lines on stderr, the first at once."""

from __future__ import annotations

import time

import pytest

from tests.kit.ledgers import DOCUMENT
from tierwise.cli import progress
from tierwise.cli.progress import CountBar, DownloadBar, StepBars, status
from tierwise.records import Outcome


class Runner:
    expected_documents = 0
    batches_text = ""
    loading: str | None = None


def test_an_activity_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with status("setting up"):
        assert "setting up" in capsys.readouterr().err


def test_a_line_follows_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.02)
    with status("setting up"):
        time.sleep(0.3)
    assert capsys.readouterr().err.count("setting up") > 2


def test_a_run_says_how_far_each_step_is() -> None:
    runner = Runner()
    with StepBars(runner) as bars:
        assert bars.describe() == "starting Prefect"
        runner.expected_documents = 12
        assert bars.describe().startswith("12 documents read")
        assert "qwen-0.5b" not in bars.describe()
        runner.loading = "qwen-0.5b"
        assert "qwen-0.5b" in bars.describe()
        bars(DOCUMENT, Outcome(step="classify", status="accepted"))
        bars(DOCUMENT, Outcome(step="classify", status="accepted"))
        bars(DOCUMENT, Outcome(step="summarize", status="deferred"))
        assert bars.describe() == "classify 2 of 12, summarize 1 of 12; 0.000000 USD"
        runner.batches_text = "2 batches: 3 of 9 items done"
        assert bars.describe().endswith("; 2 batches: 3 of 9 items done")


def test_a_measurement_says_nothing_before_its_first_call(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A question may come first."""
    with CountBar() as bar:
        assert capsys.readouterr().err == ""
        bar("qwen-1.5b", 0, 185)
        assert "qwen-1.5b: 0 of 185" in capsys.readouterr().err


def test_a_download_says_what_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    with DownloadBar("qwen-0.5b") as bar:
        bar(1_000_000, 491_000_000)
    assert "fetching qwen-0.5b" in capsys.readouterr().err
