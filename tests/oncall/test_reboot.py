"""Server, worker and flow killed together, as by a reboot; and a run beside them that lives."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.oncall.bed import (
    DOCUMENTS,
    MARK,
    Bed,
    make_bed,
    one_deployment,
    supplier,
    until,
    write_letters,
)
from tests.oncall.stops import Command
from tests.oncall.table import FULL, keep

pytestmark = [pytest.mark.oncall, pytest.mark.timeout(1800)]
GOES_ON_WITHIN_S = 120.0
SLOW_S = 12.0  # a call of the run beside
BESIDE_S = 600 if os.environ.get(FULL) else 180
AFTER = 200
BESIDE = Path("out/beside")


def test_kill_9_of_everything_then_up(tmp_path: Path) -> None:
    """A plain `up` is all that a person does; the deployment takes one run at a time."""
    with supplier(tmp_path) as provider:
        bed = make_bed(tmp_path, provider)
        # 8 calls at once and two steps: N letters take N * 2 / 8 * SLOW_S seconds.
        number = round(BESIDE_S / SLOW_S * 8 / 2)
        write_letters(bed.root / "slow.jsonl", number, word="Slow")
        provider.slow("Slow", SLOW_S)
        beside_bed = replace(bed, mark=bed.mark + "-beside", env=dict(bed.env))
        beside_bed.env[MARK] = beside_bed.mark
        with bed.up(one_deployment()):
            beside_bed.port = bed.port
            beside = Command(
                beside_bed,
                *("run", "inbox", "--source", "slow.jsonl", "--out", str(BESIDE)),
                *("--budget-usd", "100"),
                on_terminal=False,
            )
            try:
                until(lambda: provider.arrived() > 0, 120, beside.text)
                [beside_run] = [run["id"] for run in running(bed)]
                bed.start_deployment()
                until(lambda: provider.billed() >= AFTER, 300, bed.story)
                bed.kill_all()
                # What was on its way to the provider arrives within a second.
                time.sleep(1)
                killed_at = time.time()
                port = bed.port
                bed.tierwise("up")
                until(lambda: went_on(bed, killed_at), GOES_ON_WITHIN_S, bed.story)
                bed.notes.append(f"went on after {first_call(bed, killed_at):.0f} s")
                assert bed.port == port
                bed.wait_until_done()
                row = bed.row("kill -9 of all, then up")
                beside_code = beside.process.wait(BESIDE_S + 300)
            finally:
                beside.process.kill()
                beside_bed.kill_all()
            state = bed.state_of(beside_run)
        bed.notes.append(f"a run of {BESIDE_S} s beside it: {state['name']}")
        keep(replace(row, note="; ".join(bed.notes)))
        assert row.done == DOCUMENTS
        assert beside_code == 0, beside.text
        assert state["type"] == "COMPLETED"


def running(bed: Bed) -> list[dict[str, object]]:
    return [run for run in bed.flow_runs() if run["state_type"] == "RUNNING"]


def went_on(bed: Bed, since: float) -> bool:
    """Whether the deployment called for a letter again."""
    return any(
        line.came > since and not line.document.startswith("Slow")
        for line in bed.provider.invoice()
    )


def first_call(bed: Bed, since: float) -> float:
    """Seconds from the kill to the first call of the deployment."""
    return min(
        line.came - since
        for line in bed.provider.invoice()
        if line.came > since and not line.document.startswith("Slow")
    )
