"""Documents as the readers return them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierwise.documents import iter_documents
from tierwise.records import Document, Sensitivity


def read(
    source: Path, sensitivity: Sensitivity = "internal", **options: object
) -> dict[str, Document]:
    documents = list(
        iter_documents(source, sensitivity=sensitivity, **options)  # type: ignore[arg-type]
    )
    assert len({document.id for document in documents}) == len(documents)
    return {document.id: document for document in documents}


def reason(document: Document) -> str:
    """Why a document was deferred, after checking that it was deferred properly."""
    assert document.text == ""
    outcome = document.outcomes["read"]
    assert (outcome.step, outcome.status, outcome.sensitivity) == (
        "read",
        "deferred",
        document.sensitivity,
    )
    return outcome.reason


_HIDING = """\
import importlib.util

found = importlib.util.find_spec


def find_spec(name, *package):
    return None if name == "rapidocr" else found(name, *package)


importlib.util.find_spec = find_spec
"""


def hide_text_recognition(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sandboxes be without the extra `ocr`; `folder` is a new one on Python's path."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HIDING)
    monkeypatch.setenv("PYTHONPATH", str(folder))
