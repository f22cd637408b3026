"""Two reviewers and a run at once, each killed at random: every decision is there once.

`make desk-test` makes 1,000 decisions; the suite a few.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.kit.deciding import FORMS
from tests.kit.ledgers import DATABASES, migrated_url
from tests.test_queue import deferred, record
from tierwise.audit.verify import verify_ledger
from tierwise.ledger import Ledger
from tierwise.review.queue import find_item

REPOSITORY = Path(__file__).parent.parent
DECISIONS = int(os.environ.get("TIERWISE_DESK_DECISIONS", "24"))
KILLS = max(3, DECISIONS // 40)
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
}


def begin(what: str, url: str, root: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.kit.deciding", what, url, str(root), name]
    return subprocess.Popen(command, cwd=REPOSITORY)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("database", DATABASES)
def test_every_decision_is_recorded_once_though_processes_are_killed(
    database: str, tmp_path: Path
) -> None:
    url = migrated_url(database, tmp_path)
    with Ledger.open(url, root=tmp_path) as ledger:
        ledger.reviews.ask("q-classify", "classify", SCHEMA)
        names = [f"{number:04}" for number in range(DECISIONS)]
        record(ledger, 1, {name: deferred() for name in names})
        forms = [
            (name, find_item(ledger, "run-1", name).version.text) for name in names
        ]
        (tmp_path / FORMS).write_text(json.dumps(forms), encoding="utf-8")

        kinds = {"ada": "review", "bob": "review", "runner": "run"}
        chance = random.Random(database)
        living = {name: begin(kinds[name], url, tmp_path, name) for name in kinds}
        kills = 0
        try:
            while any(living[name].poll() != 0 for name in ("ada", "bob")):
                # Also while one starts, reads, or waits for the lock.
                time.sleep(chance.uniform(0.2, 1.5))
                for name, process in living.items():
                    if process.poll() == 0:
                        continue
                    assert process.poll() is None, f"{name} ended by itself"
                    if kills < KILLS and chance.random() < 0.4:
                        process.kill()
                        process.wait()
                        kills += 1
                        living[name] = begin(kinds[name], url, tmp_path, name)
        finally:
            for process in living.values():
                process.kill()
                process.wait()

        decisions = [
            each
            for name in names
            for each in ledger.reviews.history("run-1", name, "classify")
        ]
        made = [each for each in decisions if each.decision != "commented"]
        seen = [each for each in decisions if each.decision == "commented"]
        # One of the two decided about each item, and the other one has seen that.
        assert Counter(each.document_id for each in made) == Counter(names)
        assert Counter(each.document_id for each in seen) == Counter(names)
        whose = {each.document_id: each.reviewer for each in made}
        assert all(whose[each.document_id] != each.reviewer for each in seen)
        trail = [
            record["request"]
            for block in ledger.seals.blocks()
            if block.kind == "decision"
            for record in block.records
        ]
        assert sorted(trail) == sorted(str(each.request) for each in decisions)
        assert len(set(trail)) == 2 * DECISIONS
        result = verify_ledger(ledger.seals)
        assert not result.faults
        if DECISIONS >= 1000:
            sys.stdout.write(
                f"{database}: {len(made)} decisions, {kills} kills, "
                f"{result.records} records verified\n"
            )
