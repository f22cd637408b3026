"""The house's rules, read off the code: imports point one way, and each third party has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "src" / "tierwise"

# Six bands, lowest first. A room may import rooms of lower bands and those before it in its own band.
BANDS = {
    "values": ["errors", "records", "text"],
    "decide": ["steps", "policy"],
    "edges": ["documents", "ledger", "gateway"],
    "act": ["cascade", "project", "engine"],
    "prove and show": [
        "report",
        "evidence",
        "plan",
        "review",
        "explain",
        "audit",
        "export",
        "lint",
    ],
    "surfaces": ["starter", "orchestrate", "testing", "cli"],
}
ROOMS = [room for band in BANDS.values() for room in band]
# The rooms that may import a third party. One that is not listed here may be imported nowhere.
DOORS = {
    "aiohttp": {"gateway"},
    "alembic": {"ledger"},
    "anyio": {"cascade", "engine"},
    "certifi": {"gateway"},
    "charset_normalizer": {"documents"},
    "dateutil": {"steps"},
    "filelock": {"cli", "documents", "gateway"},
    "httpx": {"gateway", "orchestrate"},
    "jinja2": {"report", "steps"},
    "jsonschema": {"export", "review"},
    "litellm": {"gateway"},
    "markitdown": {"documents"},
    "markupsafe": {"report"},
    "numpy": {"evidence", "gateway", "plan", "text"},
    "orjson": {"documents", "gateway", "records"},
    "phonenumbers": {"documents"},
    "platformdirs": {"gateway"},
    "prefect": {"cli", "orchestrate"},
    "prefect_dask": {"orchestrate"},
    "prefect_ray": {"orchestrate"},
    "py3langid": {"text"},
    "pydantic": {
        *("cascade", "cli", "evidence", "explain", "gateway", "lint"),
        *("orchestrate", "policy", "project", "steps", "text"),
    },
    "pydantic_core": {"policy", "text"},
    "rapidfuzz": {"export", "steps"},
    "ray": {"orchestrate"},
    "rich": {"cli"},
    "ruamel": {"text"},
    "scipy": {"evidence", "gateway", "policy"},
    "semantic_text_splitter": {"cascade"},
    "sklearn": {"evidence", "text"},
    "skops": {"gateway"},
    "sqlalchemy": {"ledger"},
    "tenacity": {"cascade"},
    "threadpoolctl": {"evidence"},
    "tiktoken": {"text"},
    "typer": {"cli"},
    "xllamacpp": {"gateway"},
}


class WithoutTypes(ast.NodeTransformer):
    """Takes `if TYPE_CHECKING:` out: what is imported for annotations alone is no arrow."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return (
            node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)
        )


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    tree: ast.AST = ast.parse(path.read_text())
    for node in ast.walk(tree if for_types else WithoutTypes().visit(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path: Path) -> str:
    """The engine's noun that a file belongs to: `ledger` for ledger/writer.py."""
    return path.relative_to(ENGINE).parts[0].removesuffix(".py")


def is_copied(path: Path) -> bool:
    """Whether a file is one that `tierwise init` or `tierwise new` copies: no part of the engine."""
    return module_of(path) == "starter" and path.parent != ENGINE / "starter"


FILES = [
    p
    for p in sorted(ENGINE.rglob("*.py"))
    if not module_of(p).startswith("__") and not is_copied(p)
]


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
        assert module_of(path) in DOORS[package], f"{package} is imported outside of its door"


def test_the_engine_knows_no_flow_and_no_step() -> None:
    """flows import tasks, tasks import tierwise, never back."""
    for path in FILES:
        assert not {"flows", "tasks"} & {name.partition(".")[0] for name in imports(path)}, path
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_public_names_are_these() -> None:
    """A name in `__all__` is a promise."""
    import tierwise

    assert sorted(tierwise.__all__) == [
        "Batch",
        "Check",
        "Document",
        "Outcome",
        "RunSummary",
        "Sensitivity",
        "TierwiseError",
        "Verdict",
        "check",
        "read_documents",
        "recorded_run",
        "redact",
        "step",
        "task_runner",
        "write_documents",
    ]
    assert all(getattr(tierwise, name) is not None for name in tierwise.__all__)
