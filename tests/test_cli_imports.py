"""Commands that only read the ledger start quickly: they import no heavy library and no step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.old_project import restore

RUN = "20261128-045248-fb48"  # ten letters, with answers of every kind
HEAVY = ("litellm", "prefect", "scipy", "sklearn", "tasks")
RULES = "routing_rules/rules.yaml"
COMMANDS = (
    f"show {RUN}",
    f"show {RUN} --json --documents",
    "runs",
    f"explain 02-wardrobe.txt --run {RUN}",
    f"report {RUN} --out report.html",
    f"review {RUN}",
    f"review {RUN} 10-table.txt --step reply",
    "budgets",
    "label --list",
    "audit export --output trail.jsonl",
    "audit verify",
    "retention --older-than 9w --dry-run --by eve",
    f"diff {RULES} {RULES} --run {RUN}",
)
SCRIPT = """
import json, sys
from tierwise.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["tierwise", *command.split()]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, command
print(json.dumps([name for name in json.loads(sys.stdin.read()) if name in sys.modules]))
"""


def heavy_imports(project: Path, *commands: str) -> list[str]:
    """Run commands in a process of their own, and return the heavy modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        input=json.dumps(HEAVY),
        cwd=project,
        env={**os.environ, "TIERWISE_PROJECT": str(project)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return restore(tmp_path_factory.mktemp("old") / "project")


def test_reading_commands_import_nothing_heavy(project: Path) -> None:
    """The first one may import the steps, to learn what their certificates depend on."""
    assert "tasks" in heavy_imports(project, *COMMANDS)
    assert heavy_imports(project, *COMMANDS) == []


@pytest.mark.parametrize("changed", ["tasks/classify.py", "tasks/labels.txt"])
def test_a_changed_step_is_imported_again(project: Path, changed: str) -> None:
    """A certificate of yesterday's step must not look valid today."""
    heavy_imports(project, f"show {RUN}")
    with (project / changed).open("a") as file:
        file.write("\n")
    assert "tasks" in heavy_imports(project, f"show {RUN}")
    assert heavy_imports(project, f"show {RUN}") == []


def test_a_damaged_cache_is_computed_again(project: Path) -> None:
    for content in ("", "[]", '{"classify": {}}', '{"classify": 3}'):
        (project / ".tierwise" / "steps.json").write_text(content)
        assert "tasks" in heavy_imports(project, f"show {RUN}")
