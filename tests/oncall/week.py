"""What happens in the week: files that come, change and are half written, outages, and one reboot."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.oncall.bed import Bed, letter

TENANTS = ("acme", "birch")
DAYS = 7
GARBLED = "Garbled"  # a letter that no answer fits: it waits for a person
_HALF_WRITTEN_S = 12.0
_LAST_DROP = 0.85  # of the week; then what is there is finished
# With the settings of the test, an outage as long as this is reported for certain.
LONG_OUTAGE_S = 55.0


@dataclass
class Week:
    """The plan of a week, and what must have come of it."""

    bed: Bed
    chance: random.Random
    seconds: float
    begun: float = 0.0
    number: int = 0
    expected: dict[tuple[str, str], str] = field(default_factory=dict)
    waiting: set[tuple[str, str]] = field(default_factory=set)
    writers: list[threading.Thread] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    outages: list[float] = field(
        default_factory=list
    )  # how long each lasted, in seconds

    def play(self) -> None:
        """Let the week go by."""
        self.begun = time.monotonic()
        day = self.seconds / DAYS
        trouble: list[tuple[float, Callable[[], None]]] = [
            (1.5 * day, lambda: self.order("500s", status=500, seconds=day / 3)),
            (2.5 * day, lambda: self.order("429s", status=429, seconds=day / 3)),
            (3.2 * day, lambda: self.order("429", status=429, retry_after=40, calls=1)),
            (3.7 * day, self.reboot),
            (4.6 * day, lambda: self.order("500s", status=503, seconds=day / 4)),
        ]
        while self.elapsed() < self.seconds * _LAST_DROP:
            if trouble and trouble[0][0] < self.elapsed():
                trouble.pop(0)[1]()
            self.drop()
            time.sleep(self.chance.uniform(2, 10))
        for writer in self.writers:
            writer.join()

    def elapsed(self) -> float:
        return time.monotonic() - self.begun

    def order(self, words: str, **order: Any) -> None:
        """Order an outage of the provider."""
        self.note(words)
        self.outages.append(order.get("seconds") or order["retry_after"])
        self.bed.provider.order(fault="status", **order)

    def reboot(self) -> None:
        """Kill everything, and bring it up again as a person or systemd would."""
        self.note("kill -9 of everything, then up")
        self.bed.kill_all()
        time.sleep(5)
        self.bed.tierwise("up")

    def note(self, words: str) -> None:
        day = 1 + int(self.elapsed() / (self.seconds / DAYS))
        self.log.append(f"day {day}, {self.elapsed():.0f} s: {words}")

    # ---- files

    def drop(self) -> None:
        """One thing that happens to a folder."""
        kind = self.chance.choices(
            ["new", "same for both", "changed", "half written", "garbled"],
            weights=[8, 3, 3, 3, 1],
        )[0]
        tenant = self.chance.choice(TENANTS)
        delivered = sorted(
            key for key in self.expected if key[0] == tenant and key not in self.waiting
        )
        if kind == "changed" and delivered:
            _, name = self.chance.choice(delivered)
            self.write(tenant, name, letter(self.next_number()))
        elif kind == "same for both":
            number = self.next_number()
            for each in TENANTS:
                self.write(each, f"mail-{number:04}.txt", letter(number))
        elif kind == "half written":
            self.write_slowly(tenant)
        elif kind == "garbled":
            number = self.next_number()
            name = f"mail-{number:04}.txt"
            self.write(tenant, name, letter(number, GARBLED))
            self.waiting.add((tenant, name))
        else:
            # The name of a letter that the other tenant may have, with another text.
            number = self.next_number()
            name = f"letter-{self.chance.randrange(10**6)}.txt"
            for each in TENANTS:
                self.write(each, name, letter(number))
                number = self.next_number()

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def write(self, tenant: str, name: str, text: str) -> None:
        """Put a file into a tenant's folder in one move."""
        path = self.folder(tenant) / name
        hidden = path.with_name(f".{name}.part")
        hidden.write_text(text)
        hidden.rename(path)
        self.expected[tenant, name] = text

    def write_slowly(self, tenant: str) -> None:
        """Copy a file into the folder as a slow program does, half of it first."""
        number = self.next_number()
        text = letter(number)
        name = f"slow-{number:04}.txt"
        path = self.folder(tenant) / name
        self.expected[tenant, name] = text

        def copy() -> None:
            with path.open("w") as file:
                file.write(text[: len(text) // 2])
                file.flush()
                time.sleep(_HALF_WRITTEN_S)
                file.write(text[len(text) // 2 :])

        writer = threading.Thread(target=copy)
        writer.start()
        self.writers.append(writer)

    def folder(self, tenant: str) -> Path:
        folder = self.bed.root / "drop" / tenant
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # ---- what came out

    def missing(self) -> list[str]:
        """What is not yet delivered as it should be, in words; empty at the end."""
        found = []
        rows = {tenant: self.rows(tenant) for tenant in TENANTS}
        for (tenant, name), text in sorted(self.expected.items()):
            own = [row for row in rows[tenant] if row["id"] == name]
            if len(own) != 1:
                found.append(f"{tenant}/{name}: {len(own)} lines")
                continue
            outcomes = own[0]["outcomes"]
            if (tenant, name) in self.waiting:
                if outcomes["classify"]["status"] != "deferred":
                    found.append(f"{tenant}/{name}: does not wait")
                continue
            summary = (outcomes.get("summarize") or {}).get("value") or {}
            said = summary.get("summary", "")
            if not said or not text.startswith(said):
                found.append(f"{tenant}/{name}: {said!r} is not of {text[:20]!r}")
        return found

    def strangers(self) -> list[str]:
        """Lines in a tenant's results that are of no file of its own."""
        return [
            f"{tenant}/{row['id']}"
            for tenant in TENANTS
            for row in self.rows(tenant)
            if (tenant, row["id"]) not in self.expected
        ]

    def rows(self, tenant: str) -> list[dict[str, object]]:
        path = self.bed.root / "out" / tenant / "outcomes.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def pages(self) -> list[str]:
        """Pages that are missing, or of another text, in words."""
        found = []
        for (tenant, name), text in sorted(self.expected.items()):
            if (tenant, name) in self.waiting:
                continue
            folder = self.bed.root / "out" / tenant
            first_words = " ".join(text.split()[:2])
            own = list(folder.glob(f"{name}*.md"))
            if len(own) != 1 or first_words not in own[0].read_text():
                found.append(f"{tenant}/{name}: {[page.name for page in own]}")
        return found
