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
# Rounds of commands. Each begins without the project's modules, after a change of some files.
SCRIPT = """
import json, sys
from pathlib import Path
from tierwise.cli import main

found = []
for files, commands in json.loads(sys.argv[1]):
    for path, text in files.items():
        Path(path).write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tasks"]:
        del sys.modules[name]
    for command in commands:
        sys.argv = ["tierwise", *command.split()]
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, command
    found.append([name for name in json.loads(sys.stdin.readline()) if name in sys.modules])
print(json.dumps(found))
"""
SHOW = (f"show {RUN}",)
Round = tuple[dict[str, str], tuple[str, ...]]  # files to write first, commands


def heavy_imports(project: Path, *rounds: Round) -> list[list[str]]:
    """Run commands in a process of their own; return the heavy modules there after each round."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(rounds)],
        input=f"{json.dumps(HEAVY)}\n" * len(rounds),
        cwd=project,
        env={**os.environ, "TIERWISE_PROJECT": str(project)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return restore(tmp_path_factory.mktemp("old") / "project")


def test_reading_commands_import_nothing_heavy(project: Path) -> None:
    """The first one may import the steps, to learn what their certificates depend on."""
    [first] = heavy_imports(project, ({}, COMMANDS))
    assert "tasks" in first
    assert heavy_imports(project, ({}, COMMANDS)) == [[]]


def test_a_changed_step_is_imported_again(project: Path) -> None:
    """A certificate of yesterday's step must not look valid today."""
    rounds: list[Round] = [({}, SHOW)]
    changed = (project / "tasks/classify.py").read_text() + "\n"
    for files in ({"tasks/classify.py": changed}, {"tasks/labels.txt": "\n"}):
        rounds += [(files, SHOW), ({}, SHOW)]
    _, *found = heavy_imports(project, *rounds)
    assert ["tasks" in modules for modules in found] == [True, False, True, False]
    assert heavy_imports(project, ({}, SHOW)) == [[]]


def test_a_damaged_cache_is_computed_again(project: Path) -> None:
    contents = ("", "[]", '{"classify": {}}', '{"classify": 3}')
    rounds = [({".tierwise/steps.json": content}, SHOW) for content in contents]
    found = heavy_imports(project, *rounds)
    assert all("tasks" in modules for modules in found)
