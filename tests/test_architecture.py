"""The house's rules, read off the code: imports point one way, and each third party has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.rooms import DOORS, ENGINE, FILES, ROOMS, ROOT, imports, module_of


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ENGINE)))
def test_an_engine_module_imports_only_what_stands_before_it(path: Path) -> None:
    """The arrows point one way: errors and records know nobody, the command line knows all."""
    own = module_of(path)
    assert own in ROOMS, f"{own} has no band; give it one in BANDS"
    for name in imports(path, for_types=False):
        head, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if head == "tierwise" and other in ROOMS and other != own:
            assert ROOMS.index(other) < ROOMS.index(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ENGINE)))
def test_each_third_party_has_one_door(path: Path) -> None:
    """A dependency is imported behind its door and nowhere else."""
    for name in imports(path):
        package = name.partition(".")[0]
        if package == "tierwise" or package in sys.stdlib_module_names:
            continue
        assert package in DOORS, (
            f"{package} has no door; list the rooms that may import it in DOORS"
        )
        assert module_of(path) in DOORS[package], (
            f"{package} is imported outside of its door"
        )


def test_the_ledgers_private_attributes_stay_in_the_ledger() -> None:
    """Other rooms, tests and benchmarks ask the ledger by its public facets."""
    room = ENGINE / "ledger"
    outside = [path for path in FILES if not path.is_relative_to(room)]
    outside += [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for path in outside:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            owner = ast.unparse(node.value).rpartition(".")[2]
            assert owner not in ("ledger", "_ledger"), (
                f"{path}:{node.lineno} uses {node.attr}"
            )


def test_the_engine_knows_no_flow_and_no_step() -> None:
    """flows import tasks, tasks import tierwise, never back."""
    for path in FILES:
        assert not {"flows", "tasks"} & {
            name.partition(".")[0] for name in imports(path)
        }, path
    for path in (ROOT / "tasks").glob("*.py"):
        assert "flows" not in {name.partition(".")[0] for name in imports(path)}, path


def test_importing_tierwise_imports_nothing_heavy() -> None:
    """LiteLLM, Prefect and the rest are loaded when they are used."""
    heavy = [
        "litellm",
        "prefect",
        "sqlalchemy",
        "xllamacpp",
        "jinja2",
        "pydantic",
        "tiktoken",
        "markitdown",
    ]
    code = f"import sys, tierwise; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_command_lines_help_imports_neither_litellm_nor_prefect() -> None:
    """`tierwise --help` answers at once."""
    code = (
        "import sys; sys.argv = ['tierwise', '--help']\n"
        "from tierwise.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('litellm', 'prefect', 'sqlalchemy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_public_names_are_these() -> None:
    """A name in `__all__` is a promise."""
    import tierwise

    assert sorted(tierwise.__all__) == [
        "Batch",
        "Check",
        "Document",
        "Member",
        "Outcome",
        "RunSummary",
        "Sensitivity",
        "StepTask",
        "TierwiseError",
        "TryAgain",
        "Verdict",
        "check",
        "documents_from",
        "function_step",
        "group_by",
        "http_step",
        "join",
        "read_documents",
        "recorded_run",
        "redact",
        "step",
        "task_runner",
        "write_documents",
    ]
    assert all(getattr(tierwise, name) is not None for name in tierwise.__all__)
