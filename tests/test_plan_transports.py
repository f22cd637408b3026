"""`tierwise plan` compares the bills and the durations online and in provider batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.batched import batched_project
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal

pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    with Standin() as provider:
        yield batched_project(tmp_path, provider)


def planned(terminal: Terminal, project: Path, *options: str) -> dict[str, Any]:
    done = terminal("plan", "two_steps", *options, "--json", cwd=project)
    assert done.code == 0, done.err
    plan: dict[str, Any] = json.loads(done.out)
    return plan


def goes(plan: dict[str, Any]) -> list[str]:
    return [row["transport"] for row in plan["rows"]]


def test_both_bills_and_durations(terminal: Terminal, project: Path) -> None:
    plan = planned(terminal, project)
    online = Decimal(plan["online"])
    assert online > 0
    assert Decimal(plan["in_batches"]) == online / 2
    assert Decimal(plan["expected"]) == online
    assert plan["batch_seconds"] == 2 * 3600
    assert [row["batch_s"] for row in plan["rows"]] == [3600, 3600]
    assert goes(plan) == ["online", "online"]

    shown = terminal("plan", "two_steps", cwd=project).out
    assert "in batches" in shown
    assert "2.0 h" in shown


@pytest.mark.parametrize(
    ("options", "transports"),
    [
        (["--within", "6h"], ["batch", "batch"]),
        (["--within", "90min"], ["online", "batch"]),
        (["--within", "45min"], ["online", "online"]),
        (["--transport", "batch"], ["batch", "batch"]),
        (["--within", "6h", "--transport", "online"], ["online", "online"]),
    ],
)
def test_the_cost_is_that_of_the_transport_that_the_time_allows(
    terminal: Terminal, project: Path, options: list[str], transports: list[str]
) -> None:
    plan = planned(terminal, project, *options)
    assert goes(plan) == transports
    rows = {
        "online": [Decimal(row["online"]) for row in plan["rows"]],
        "batch": [Decimal(row["online"]) / 2 for row in plan["rows"]],
    }
    expected = [rows[transport][place] for place, transport in enumerate(transports)]
    assert [Decimal(row["expected"]) for row in plan["rows"]] == expected


def test_what_a_guard_keeps_out_of_batches_is_in_neither_bill_at_half_price(
    terminal: Terminal, project: Path
) -> None:
    for document in (project / "inbox").iterdir():
        document.write_text(f"---\nsensitivity: confidential\n---\n{document.name}")
    plan = planned(terminal, project, "--transport", "batch")
    assert plan["in_batches"] is None
    assert goes(plan) == ["online", "online"]


def test_wrong_options_are_refused(terminal: Terminal, project: Path) -> None:
    for options in (["--within", "6"], ["--transport", "post"]):
        assert terminal("plan", "two_steps", *options, cwd=project).code == 2
