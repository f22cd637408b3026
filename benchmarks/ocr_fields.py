"""The fields that the embedded models find in recognized texts, beside those from the original ones."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.capability import EMBEDDED, PROMPTS, RECEIPT, Task, catalog
from tierwise.engine import Engine
from tierwise.project import CATALOG, RULES, Project
from tierwise.records import Batch, Document
from tierwise.steps.correctness import same_fields
from tierwise.text.yaml import write_yaml

FIELDS = ("company", "date", "address", "total")
IS_RIGHT = {field: same_fields(field) for field in FIELDS}


def compare(
    texts: Mapping[str, str],
    read: Mapping[str, str],
    gold: Mapping[str, Mapping[str, Any]],
) -> None:
    """Print the share of right fields, by model and text; a gold field that is missing counts not."""
    print(
        "\n| model | fields right from the original text | from the recognized text |"
    )
    print("|---|---|---|")
    for model in EMBEDDED:
        with tempfile.TemporaryDirectory() as folder:
            root = _project(Path(folder), model)
            with Engine(Project(root), env={}) as engine:
                cells = [_right(engine, source, gold) for source in (texts, read)]
        total = sum(len(fields) for fields in gold.values())
        shares = [f"{right} of {total} ({right / total:.0%})" for right in cells]
        print(f"| {model} | {' | '.join(shares)} |", flush=True)


def _right(
    engine: Engine, texts: Mapping[str, str], gold: Mapping[str, Mapping[str, Any]]
) -> int:
    documents = tuple(
        Document(id=id_, text=text, sensitivity="public") for id_, text in texts.items()
    )
    run = engine.start_run("ocr")
    done: Sequence[Document] = engine.run_batch(
        run, RECEIPT, Batch(documents), {}
    ).load()
    right = 0
    for document in done:
        value = document.value("receipt") or {}
        for field, expected in gold[document.id].items():
            right += IS_RIGHT[field](value, {field: expected})
    return right


def _project(root: Path, model: str) -> Path:
    for folder in ("routing_rules", "prompts"):
        (root / folder).mkdir()
    (root / "prompts" / "receipt.md.j2").write_text(PROMPTS["receipt"])
    task = Task("sroie", RECEIPT, 2, ())
    write_yaml(root / CATALOG, catalog(task, {}), header="")
    routes = [{"name": "one", "try": [model]}]
    write_yaml(root / RULES, {"version": 1, "routes": routes}, header="")
    return root
