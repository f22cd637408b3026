"""A week of two tenants' folders in 20 minutes: `make oncall-week`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.oncall.bed import Bed, deployments, make_bed, supplier, until
from tests.oncall.provider import ALERTS
from tests.oncall.table import SEED, Row, keep, keep_lines, ledger_money
from tests.oncall.week import GARBLED, LONG_OUTAGE_S, TENANTS, Week

SECONDS = float(os.environ.get("TIERWISE_ONCALL_WEEK_S", "1200"))
EVERY_S = 15
# A slow copy writes for 12 s.
SETTINGS = """
minimum_age = "20 s"
alerts.webhook = "ONCALL_WEBHOOK"
alerts.on = ["failed", "outage", "worker"]
alerts.outage = "35 s"
alerts.worker = "30 s"
"""
SETTLES_WITHIN_S = 400.0
ALERTS_END_WITHIN_S = 120.0

pytestmark = [pytest.mark.oncall, pytest.mark.timeout(int(SECONDS) + 1200)]


def test_a_week(tmp_path: Path) -> None:
    """Each document is delivered once, to its own folder, and the queue has what waits for a person."""
    with supplier(tmp_path, latency_s=0.1) as provider:
        webhook = {"ONCALL_WEBHOOK": provider.url + ALERTS}
        bed = make_bed(tmp_path, provider, settings=SETTINGS, variables=webhook)
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
            listed = queue(bed)
            row = week_row(bed, week, listed)
            keep(row)
            assert week.strangers() == []
            assert week.pages() == []
            assert half_read(bed) == []
            assert row.paid_twice == 0
            assert listed == {name for _, name in week.waiting}
            until(
                lambda: not still_on(bed), ALERTS_END_WITHIN_S, lambda: f"{alerts(bed)}"
            )
            assert told_twice(bed) == []
            reported = sum(is_begun(alert, "outage") for alert in alerts(bed))
            long_ones = [each for each in week.outages if each > LONG_OUTAGE_S]
            assert len(long_ones) <= reported <= len(week.outages), alerts(bed)


def week_row(bed: Bed, week: Week, listed: set[str]) -> Row:
    """The week's line in the table."""
    billed = [line for line in bed.provider.invoice() if line.is_billed]
    questions = Counter(line.question for line in billed)
    cost, unknown = ledger_money(bed.json("runs", "--limit", "1000"))
    runs = Counter(run["state"]["name"] for run in bed.flow_runs(begun=True))
    return Row(
        case="a week",
        documents=len(week.expected),
        done=len(week.expected) - len(week.missing()),
        paid=len(billed),
        paid_twice=sum(number - 1 for number in questions.values()),
        unknown_cost=unknown,
        cost_usd=cost,
        seconds=time.time() - bed.begun,
        note=f"{len(week.waiting)} wait for a person, {len(listed)} in the queue; "
        f"runs: {dict(runs)}",
    )


def half_read(bed: Bed) -> list[str]:
    """Letters that were sent to the provider before they were complete."""
    return [
        line.document
        for line in bed.provider.invoice()
        if not line.last_line.endswith("answered her letter.")
    ]


# ---- what is told to people


def queue(bed: Bed) -> set[str]:
    """The documents that `tierwise review` lists; none where it says that nothing waits."""
    review = bed.start("review", "--json", stdout=subprocess.PIPE, text=True)
    out, _ = review.communicate()
    if review.returncode != 0 or not out.strip():
        return set()
    return {item["document"] for item in json.loads(out)}


def alerts(bed: Bed) -> list[dict[str, Any]]:
    """The alerts that the webhook got, in order."""
    return list(bed.provider.state()["alerts"])


def is_begun(alert: Mapping[str, Any], kind: str) -> bool:
    return bool(alert["alert"] == kind and not alert["over"])


def still_on(bed: Bed) -> list[str]:
    """The kinds that were reported and are not over."""
    last = {alert["alert"]: alert["over"] for alert in alerts(bed)}
    return [kind for kind, is_over in last.items() if not is_over]


def told_twice(bed: Bed) -> list[dict[str, Any]]:
    """Alerts that came again before they were over, or whose end came twice."""
    last: dict[str, bool] = {}
    again = []
    for alert in alerts(bed):
        kind = alert["alert"]
        is_over = alert["over"]
        if last.get(kind, True) == is_over:
            again.append(alert)
        last[kind] = is_over
    return again
