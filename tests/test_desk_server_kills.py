"""The desk's web server killed at random under two reviewers and a run: nothing is lost or doubled.

Both reviewers post over HTTP, and post again what got no answer, with the same key, as browsers
do. `make desk-test` makes 1,000 decisions; the suite a few.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.kit.desk import PASSWORD, Browser
from tests.kit.ledgers import DATABASES, migrated_url
from tests.kit.projects import make_project, model
from tests.test_desk_kills import REPOSITORY, SCHEMA, begin
from tests.test_desk_service import free_port
from tests.test_queue import deferred, record
from tierwise.audit.verify import verify_ledger
from tierwise.desk.people import People
from tierwise.ledger import Ledger
from tierwise.review.queue import find_item

DECISIONS = int(os.environ.get("TIERWISE_DESK_DECISIONS", "6"))
KILLS = max(2, DECISIONS // 40)
PATIENCE_S = 120
ANSWERED = (303, 409)
_FAR = replace(deferred(), sensitivity="internal")


class Reviewer:
    """A person at a browser, who posts again whatever got no answer."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.client = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self.browser = Browser(self.client, url)
        self.answered: set[str] = (
            set()
        )  # the keys for which an answer said that it is recorded
        self.posts = 0

    def post(self, path: str, form: dict[str, str]) -> int:
        """Send a form until there is an answer; return its status."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.posts += 1
                if path != "/sign-in" and not self.browser.csrf:
                    self.browser.get("/review")
                status = self.browser.post(path, form).status_code
            except httpx.TransportError:
                status = 0
            if status in ANSWERED:
                return status
            assert status in (0, 500, 503), (self.name, path, status)
            assert time.monotonic() < deadline, f"{self.name} got no answer"
            time.sleep(0.05)

    def decide(self, items: list[tuple[str, str]], others: set[str]) -> None:
        """Decide about all items, in an order of this person's own."""
        self.post("/sign-in", {"name": self.name, "password": PASSWORD})
        chance = random.Random(self.name)
        chance.shuffle(items)
        for document, seen in items:
            item = {"run": "run-1", "document": document, "at": "classify"}
            form = {**item, "seen": seen, "request": f"{self.name} {document}"}
            form |= {"word": "reject", "note": f"by {self.name}"}
            if self.name == "ada":
                form |= {"word": "edit", "field.label": "x", "although": "1"}
            status = self.post("/review/decide", form)
            if status == 303:
                self.answered.add(form["request"])
                if chance.random() < 0.2:
                    # A second click on the same form.
                    assert self.post("/review/decide", form) == 303
                continue
            others.add(document)
            told = {**item, "word": "comment", "note": "I see"}
            told["request"] = f"{self.name} saw {document}"
            assert self.post("/review/decide", told) == 303
            self.answered.add(told["request"])


def serve(url: str, root: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.kit.desk_process", url, str(root)]
    return subprocess.Popen([*command, str(port)], cwd=REPOSITORY)


def kill_at_random(
    processes: dict[str, subprocess.Popen[bytes]],
    again: dict[str, tuple[str, ...]],
    at_work: list[Future[None]],
    chance: random.Random,
) -> Counter[str]:
    """Kill server and run now and then, and start each again, until the reviewers are done."""
    kills: Counter[str] = Counter()
    while not all(each.done() for each in at_work):
        # Also while one starts, or in the middle of an answer.
        time.sleep(chance.uniform(0.2, 1.0 if not kills else 3.0))
        for name, process in processes.items():
            assert process.poll() is None, f"{name} ended by itself"
            is_due = name == "desk" and not kills[name]
            if kills[name] < KILLS and (is_due or chance.random() < 0.5):
                process.kill()
                process.wait()
                kills[name] += 1
                what, *arguments = again[name]
                if what == "run":
                    url, root = arguments
                    processes[name] = begin("run", url, Path(root), "runner")
                else:
                    url, root, port = arguments
                    processes[name] = serve(url, Path(root), int(port))
    return kills


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("database", DATABASES)
def test_every_answered_decision_is_recorded_once_though_the_server_is_killed(
    database: str, tmp_path: Path
) -> None:
    root = make_project(tmp_path / "project", model("large", "http://127.0.0.1:1"))
    url = migrated_url(database, tmp_path)
    port = free_port()
    with Ledger.open(url, root=root) as ledger:
        ledger.reviews.ask("q-classify", "classify", SCHEMA)
        names = [f"{number:04}" for number in range(DECISIONS)]
        record(ledger, 1, dict.fromkeys(names, _FAR))
        items = [
            (name, find_item(ledger, "run-1", name).version.text) for name in names
        ]
        reviewers = [
            Reviewer(name, f"http://127.0.0.1:{port}") for name in ("ada", "bob")
        ]
        for reviewer in reviewers:
            People.of(root).add(reviewer.name, "reviewer", PASSWORD)
        again = {
            "desk": ("desk", url, str(root), str(port)),
            "runner": ("run", url, str(root)),
        }
        processes = {
            "desk": serve(url, root, port),
            "runner": begin("run", url, root, "runner"),
        }
        seen_of: dict[str, set[str]] = {"ada": set(), "bob": set()}
        try:
            with ThreadPoolExecutor(len(reviewers)) as pool:
                at_work = [
                    pool.submit(each.decide, list(items), seen_of[each.name])
                    for each in reviewers
                ]
                kills = kill_at_random(
                    processes, again, at_work, random.Random(database)
                )
                for each in at_work:
                    each.result()
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
            for reviewer in reviewers:
                reviewer.client.close()

        trail = [
            str(record["request"])
            for block in ledger.seals.blocks()
            if block.kind == "decision"
            for record in block.records
        ]
        answered = [key for each in reviewers for key in each.answered]
        # Each answer is kept, and nothing else is: neither lost nor counted twice.
        assert sorted(trail) == sorted(answered)
        decided = [key for key in trail if " saw " not in key]
        assert Counter(key.split()[1] for key in decided) == Counter(names)
        assert seen_of["ada"] | seen_of["bob"] == set(names)
        assert not seen_of["ada"] & seen_of["bob"]
        result = verify_ledger(ledger.seals)
        assert not result.faults
        assert kills["desk"]
        if DECISIONS >= 1000:
            posts = sum(each.posts for each in reviewers)
            sys.stdout.write(
                f"{database}: {len(decided)} decisions in {posts} posts, "
                f"{kills['desk']} kills of the server, {kills['runner']} of the run, "
                f"{result.records} records verified\n"
            )
