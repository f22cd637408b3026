"""An inbox whose run has something of everything: accepted, escalated, deferred for every reason, and a plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin

DOCUMENTS = 120
MESSAGES = (
    "The parcel with my desk has not arrived, and the tracking page says nothing since Monday.",
    "The invoice of March is still open in your portal, although my bank says that it was paid.",
    "The lamp came without its bulb, so I am sitting in the dark and cannot read your manual.",
    "Can the shelf be put up on a wall of plaster, and which screws does it need?",
)
RULES = """
    version: 1
    guards:
      - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
    routes:
      - {name: sorting, when: {step: classify}, try: [qwen-1.5b, ministral-3-14b]}
      - {name: confidential-reply, when: {step: draft, sensitivity_min: confidential}, try: [qwen-1.5b], review: human}
      - {name: reply, when: {step: draft}, try: [claude-haiku, qwen-1.5b]}
      - {name: default, try: [ministral-3-14b, qwen-1.5b]}
"""
FREE, HOSTED, DEAR = (
    f"{{input: {i}, output: {o}, source: test, date: 2026-11-01}}"
    for i, o in ((0, 0), (0.2, 0.2), (1, 5))
)


@dataclass(frozen=True)
class House:
    """A project with a Prefect server of its own at `url`."""

    root: Path
    url: str

    def tierwise(self, *arguments: str) -> str:
        """Run a command as a user would, in a process of its own; gives what it printed."""
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT_")
        }
        command = [sys.executable, "-m", "tierwise", *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def made(root: Path, provider: Standin) -> Path:
    """The project, its messages and its models at the stand-in."""
    provider.answer(answered)
    make_project(
        root,
        model("qwen-1.5b", provider.url, price=FREE),
        model(
            "ministral-3-14b", provider.url, tier="clarifai", strength=30, price=HOSTED
        ),
        model(
            "claude-haiku", provider.url, tier="proprietary", strength=50, price=DEAR
        ),
        rules=RULES,
    )
    (root / "inbox").mkdir()
    for number in range(1, DOCUMENTS + 1):
        head = "---\nsensitivity: confidential\n---\n" if number % 40 == 7 else ""
        text = f"{head}{MESSAGES[number % len(MESSAGES)]} My order has the number {number}."
        (root / "inbox" / f"mail-{number:03}.md").write_text(text)
    (root / "inbox" / "mail-121.txt").write_text("")
    (root / "inbox" / "<b>[x](javascript:alert(1)).txt").write_text("")
    return root


def answered(request: Request) -> str:
    """The small model sorts every ninth message badly, and nobody can sort every fiftieth."""
    number = int(request.document.split()[-1].rstrip("."))
    words = " ".join(request.document.split()[:6])
    bad = (request.model == "qwen-1.5b" and number % 9 == 0) or number % 50 == 0
    told = {"label": "delivery", "evidence": "words of its own" if bad else words}
    return json.dumps(
        {name: told.get(name, words) for name in request.schema["properties"]}
    )
