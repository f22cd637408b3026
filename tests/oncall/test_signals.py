"""Stops at random moments: no new call, a quick end, nothing left, and an audit trail that is clean."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.oncall.bed import (
    DOCUMENTS,
    STEPS,
    Bed,
    make_bed,
    one_deployment,
    supplier,
    until,
)
from tests.oncall.stops import (
    ENDS_WITHIN_S,
    Ending,
    draws,
    ending,
    faults,
    lines,
    seconds_until_gone,
    stop_command,
)
from tests.oncall.table import SEED, keep, keep_lines

pytestmark = [pytest.mark.oncall, pytest.mark.timeout(1500)]
CHAINS = 6
STOPS = 5  # a chain: 30 in all
LONGEST_S = 20.0  # of a deployment's run
LATENCY_S = 0.4
RUN = ("run", "inbox", "--source", "letters.jsonl", "--budget-usd", "100")


def seed() -> int:
    return int(os.environ[SEED])


@pytest.mark.parametrize("chain", range(CHAINS))
def test_signals_at_random_moments_then_to_the_end(tmp_path: Path, chain: int) -> None:
    """Five stops of the same work, one after the other, and a last run that is left alone."""
    drawn = draws(seed(), CHAINS * STOPS)[chain::CHAINS]
    with supplier(tmp_path, latency_s=LATENCY_S) as provider:
        bed = make_bed(tmp_path, provider)
        bed.begun = time.time()
        endings = [stop_command(bed, stop, *RUN) for stop in drawn]
        ended = [end for end in endings if end]
        keep_lines(f"stops of a command {chain + 1}", lines(ended))
        bed.kill_all()
        bed.tierwise(*RUN)
        bed.notes.append(f"{len(ended)} stops, then to the end")
        row = bed.row(f"stopped at random, {chain + 1}")
        keep(row)
        assert_no_faults(f"command {chain + 1}", ended)
        assert row.done == DOCUMENTS
        assert row.paid_twice == 0
        assert row.paid == DOCUMENTS * STEPS


def test_cancels_in_the_ui_and_down_now(tmp_path: Path) -> None:
    """Three cancels and one `down --now` at random moments, and a last run that is left alone."""
    chance = random.Random(seed() + 1)
    with supplier(tmp_path, latency_s=LATENCY_S) as provider:
        bed = make_bed(tmp_path, provider)
        bed.begun = time.time()
        endings: list[Ending] = []
        with bed.up(one_deployment(schedule=False)):
            for way in (cancel, cancel, cancel, down_now):
                services = bed.processes()
                run = bed.start_deployment()
                until(lambda run=run: not bed.is_waiting(run), 120, bed.story)
                after_s = chance.uniform(0, LONGEST_S)
                time.sleep(after_s)
                after = f"{after_s:.1f} s after the start"
                endings.append(way(bed, run, services, after))
        keep_lines("stops of a deployment's run", lines(endings))
        with bed.up(one_deployment(schedule=False)):
            bed.run_deployment()
            bed.wait_until_done()
            bed.notes.append("3 cancels, 1 down --now, then to the end")
            row = bed.row("cancelled at random")
        keep(row)
        assert_no_faults("deployment", endings)
        assert row.done == DOCUMENTS
        assert row.paid_twice == 0


def assert_no_faults(what: str, endings: Sequence[Ending]) -> None:
    """Keep the faults whole, as an assertion shows only the first words."""
    found = [fault for end in endings for fault in faults(end)]
    if found:
        keep_lines(f"faults of stops of a {what}", found)
    assert found == []


def cancel(bed: Bed, run: str, services: Mapping[int, str], after: str) -> Ending:
    """Cancel a run as the UI does, and wait until its process has ended."""
    at = time.time()
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    bed.request("POST", f"/flow_runs/{run}/set_state", cancelling)
    seconds = seconds_until_gone(bed, services, ENDS_WITHIN_S)
    # Prefect's worker says so later.
    until(lambda: bed.has_ended(run), ENDS_WITHIN_S, bed.story)
    # It starts a short process of its own, for hooks of a cancel.
    seconds_until_gone(bed, services, ENDS_WITHIN_S)
    return ending(
        bed,
        "cancel in the UI",
        at=at,
        after=after,
        seconds=seconds,
        code=None,
        but=services,
    )


def down_now(bed: Bed, _run: str, _services: Mapping[int, str], after: str) -> Ending:
    """Take everything down; the time counts from when the command says that it cancels."""
    down = bed.start("down", "--now", stderr=subprocess.PIPE, text=True)
    assert down.stderr
    for line in down.stderr:
        if "cancelling" in line:
            break
    at = time.time()
    down.stderr.read()
    down.wait(120)
    return ending(
        bed,
        "down --now",
        at=at,
        after=after,
        seconds=time.time() - at,
        code=down.returncode,
    )
