"""The rooms and bands of the engine."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


ENGINE = ROOT / "src" / "tierwise"


# Six bands, lowest first. A room may import rooms of lower bands and those before it in its own band.
BANDS = {
    "values": ["errors", "records", "text"],
    "decide": ["steps", "policy"],
    "edges": ["documents", "ledger", "gateway"],
    "act": ["cascade", "project", "identity", "engine"],
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
    "surfaces": [
        "starter",
        "orchestrate",
        "testing",
        "checks",
        "correctness",
        "desk",
        "cli",
    ],
}


ROOMS = [room for band in BANDS.values() for room in band]


# The rooms that may import a third party. One that is not listed here may be imported nowhere.
DOORS = {
    "aiohttp": {"gateway"},
    "alembic": {"ledger"},
    "PIL": {"documents"},
    "anyio": {"cascade", "engine"},
    "bs4": {"documents"},
    "certifi": {"gateway"},
    "dateutil": {"steps"},
    "fastapi": {"desk"},
    "filelock": {"cli", "desk", "documents", "gateway", "orchestrate"},
    "httpx": {"gateway", "orchestrate"},
    "jinja2": {"desk", "report", "steps"},
    "jsonschema": {"export", "review"},
    "litellm": {"gateway"},
    "lxml": {"documents"},
    "markitdown": {"documents"},
    "pdfminer": {"documents"},
    "markupsafe": {"desk", "report"},
    "numpy": {"documents", "evidence", "gateway", "plan", "text"},
    "olefile": {"documents"},
    "onnxruntime": {"gateway"},
    "openpyxl": {"documents"},
    "opentelemetry": {"desk"},
    "orjson": {"documents", "gateway", "records"},
    "phonenumbers": {"documents"},
    "platformdirs": {"gateway"},
    "pptx": {"documents"},
    "prefect": {"cli", "orchestrate"},
    "prometheus_client": {"desk"},
    "prefect_dask": {"orchestrate"},
    "prefect_ray": {"orchestrate"},
    "py3langid": {"text"},
    "pypdfium2": {"documents"},
    "pydantic": {
        *("cascade", "cli", "evidence", "explain", "gateway", "lint"),
        *("orchestrate", "policy", "project", "steps", "text"),
    },
    "pydantic_core": {"policy", "text"},
    "rapidocr": {"documents"},
    "rapidfuzz": {"export", "steps"},
    "regex": {"steps"},
    "ray": {"orchestrate"},
    "rich": {"cli"},
    "ruamel": {"text"},
    "scipy": {"evidence", "gateway", "policy"},
    "semantic_text_splitter": {"cascade"},
    "sklearn": {"evidence", "text"},
    "skops": {"gateway"},
    "sqlalchemy": {"ledger"},
    "starlette": {"desk"},
    "threadpoolctl": {"evidence"},
    "tiktoken": {"text"},
    "tiktoken_ext": {"text"},
    "tokenizers": {"gateway"},
    "typer": {"cli"},
    "uvicorn": {"desk", "orchestrate"},
    "xllamacpp": {"gateway"},
}


class WithoutTypes(ast.NodeTransformer):
    """Takes `if TYPE_CHECKING:` out: what is imported for annotations alone is no arrow."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return (
            node.orelse
            if ast.unparse(node.test) == "TYPE_CHECKING"
            else self.generic_visit(node)
        )


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    tree: ast.AST = ast.parse(path.read_text())
    for node in ast.walk(tree if for_types else WithoutTypes().visit(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {
                f"{node.module}.{alias.name}" for alias in node.names
            }
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
