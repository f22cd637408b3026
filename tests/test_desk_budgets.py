"""The desk's budgets are those of `tierwise budgets`: on the overview, in metrics and alerts."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.projects import make_project, model
from tests.kit.terminal import Terminal
from tierwise.desk.alert_facts import current_alerts
from tierwise.ledger import Ledger

LIMITS = """
budget:
  limits:
    - {usd: %s, per: day}
    - {usd: 40, per: month, tags: {team: claims}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a day's budget that a person has added to, and one of a day long over."""
    models = (model(name, "http://127.0.0.1:1") for name in ("small", "large"))
    root = make_project(tmp_path / "project", *models)
    with Ledger.open(root=root) as ledger:
        day = time.strftime("day %Y-%m-%d", time.gmtime())
        ledger.budgets.top_up(day, Decimal(2), "for the desk")
        ledger.budgets.top_up("day 2020-01-01", Decimal(1), "over")
    return root


def limits_of_metrics(desk: ServedDesk) -> dict[str, Decimal]:
    token = {"authorization": f"Bearer {desk.access.metrics_token}"}
    answer = desk.browser().get("/metrics", headers=token)
    limits = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == "tierwise_budget_limit_usd":
                limits[sample.labels["budget"]] = Decimal(str(sample.value))
    return limits


def limits_of_command(root: Path, terminal: Terminal) -> dict[str, Decimal]:
    done = terminal("budgets", "--json", cwd=root)
    assert done.code == 0, done.err
    return {row["name"]: Decimal(row["limit"]) for row in json.loads(done.out)}


def card(html: str) -> str:
    found = re.search(
        '<section aria-labelledby="h-budgets".*?</section>', html, re.DOTALL
    )
    assert found
    return found[0]


def alerted(desk: ServedDesk) -> set[str]:
    alerts = current_alerts(desk.app.state.desk, time.time())
    return {alert.subject for alert in alerts if alert.kind == "budget"}


def test_a_changed_limit_counts_before_the_next_call(
    root: Path, terminal: Terminal
) -> None:
    rules = root / "routing_rules" / "rules.yaml"
    before = rules.read_text()
    day = time.strftime("day %Y-%m-%d", time.gmtime())
    month = time.strftime("month %Y-%m team=claims", time.gmtime())
    rules.write_text(before + LIMITS % "10")
    with desk_at(root) as desk:
        browser = desk.signed_in()
        # With the 2 USD that a person added, which no change of the rules takes away.
        assert limits_of_metrics(desk) == {day: 12, month: 40}
        rules.write_text(before + LIMITS % "123")
        assert day in card(browser.get("/").text)
        assert "125" in card(browser.get("/").text)
        assert limits_of_metrics(desk) == {day: 125, month: 40}
        shown = limits_of_command(root, terminal)
        assert limits_of_metrics(desk).items() <= shown.items()
        assert alerted(desk) == set()
        # A limit of nothing is spent from the start, and one that is gone is no budget.
        rules.write_text(before + "\nbudget: {limits: [{usd: 0, per: month}]}\n")
        browser.get("/")
        [spent] = limits_of_metrics(desk)
        assert alerted(desk) == {spent}
        rules.write_text(before)
        assert limits_of_metrics(desk) == {}


def test_rules_that_never_loaded_leave_the_budgets_on_record(root: Path) -> None:
    (root / "routing_rules" / "rules.yaml").write_text(": [")
    with desk_at(root) as desk:
        [name] = limits_of_metrics(desk)
        assert name in card(desk.signed_in().get("/").text)
