"""A week of two tenants' folders in 20 minutes: `make oncall-week`."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.oncall.bed import Bed, deployments, make_bed, supplier, until
from tests.oncall.table import SEED, Row, keep, keep_lines, ledger_money
from tests.oncall.week import GARBLED, TENANTS, Week

SECONDS = float(os.environ.get("TIERWISE_ONCALL_WEEK_S", "1200"))
EVERY_S = 15
SETTLES_WITHIN_S = 400.0

pytestmark = [pytest.mark.oncall, pytest.mark.timeout(int(SECONDS) + 1200)]


def test_a_week(tmp_path: Path) -> None:
    """Each document is delivered once, to its own folder, and the queue has what waits for a person."""
    with supplier(tmp_path, latency_s=0.1) as provider:
        bed = make_bed(tmp_path, provider, settings=ALERTS)
        provider.garble(GARBLED)
        week = Week(bed, random.Random(int(os.environ[SEED])), SECONDS)
        for tenant in TENANTS:
            week.folder(tenant)
        tenants = {
            tenant: {"source": f"drop/{tenant}", "out": f"out/{tenant}"}
            for tenant in TENANTS
        }
        bed.begun = time.time()
        with bed.up(deployments(tenants, every_s=EVERY_S)):
            week.play()
            until(
                lambda: not week.missing(),
                SETTLES_WITHIN_S,
                lambda: f"{week.missing()}\n{bed.story()}",
            )
            keep_lines("the week", week.log)
            row = week_row(bed, week)
            keep(row)
            assert week.strangers() == []
            assert week.pages() == []
            assert half_read(bed) == []
            assert row.paid_twice == 0
            assert queue(bed) == week.waiting
            assert alerts(bed) == expected_alerts()


def week_row(bed: Bed, week: Week) -> Row:
    """The week's line in the table."""
    billed = [line for line in bed.provider.invoice() if line.is_billed]
    questions = Counter(line.question for line in billed)
    cost, unknown = ledger_money(bed.json("runs", "--limit", "1000"))
    runs = Counter(run["state"]["name"] for run in bed.flow_runs())
    return Row(
        case="a week",
        documents=len(week.expected),
        done=len(week.expected) - len(week.missing()),
        paid=len(billed),
        paid_twice=sum(number - 1 for number in questions.values()),
        unknown_cost=unknown,
        cost_usd=cost,
        seconds=time.time() - bed.begun,
        note=f"{len(week.waiting)} wait for a person; runs: {dict(runs)}",
    )


def half_read(bed: Bed) -> list[str]:
    """Letters that were sent to the provider before they were complete."""
    return [
        line.document
        for line in bed.provider.invoice()
        if not line.last_line.endswith("answered her letter.")
    ]


def queue(bed: Bed) -> set[tuple[str, str]]:
    """What `tierwise review` lists, as tenant and file."""
    return {
        (Path(entry["source"]).name, entry["document"]) for entry in bed.json("review")
    }


# ---- alerts, as soon as `up` makes them from the settings: they go to the provider's own address

ALERTS = ""


def alerts(bed: Bed) -> list[str]:
    """The alerts that came, in order."""
    return [alert["kind"] for alert in bed.provider.state()["alerts"]]


def expected_alerts() -> list[str]:
    """One for each outage that is longer than the setting, and one when it is over."""
    return []
