"""The public names of tierwise: shown to people and tools, loaded at first use, typed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from pydantic import BaseModel

from tierwise import Document, Outcome, StepTask, step
from tierwise.errors import Misuse


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_dir_shows_the_public_names_without_loading_them() -> None:
    code = """
import sys, tierwise
assert set(tierwise.__all__) <= set(dir(tierwise))
print("prefect" in sys.modules, "pydantic" in sys.modules)
"""
    assert run_python(code).split() == ["False", "False"]


def test_help_shows_them_with_their_docstrings() -> None:
    text = run_python(
        "import pydoc, tierwise; print(pydoc.plain(pydoc.render_doc(tierwise)))"
    )
    for name in ("documents_from(", "class StepTask(", "recorded_run("):
        assert name in text
    assert "Return the documents of a folder or file in batches." in text


def test_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'reed_documents'"):
        from tierwise import reed_documents  # type: ignore[attr-defined] # noqa: F401


class Tone(BaseModel):
    label: str
    sure: bool = True


class Other(BaseModel):
    words: int


def accepted(value: dict[str, object]) -> Outcome:
    return Outcome(step="tone", status="accepted", value=value)


@pytest.fixture
def tone() -> StepTask[Tone]:
    return step("tone", returns=Tone)


def test_a_steps_output_is_read_as_its_model(tone: StepTask[Tone]) -> None:
    document = Document(id="a.txt", text="Hello")
    assert tone.of(document) is None
    done = document.with_outcome(accepted({"label": "kind"}))
    assert tone.of(done) == Tone(label="kind")


def test_another_output_model_of_a_call_is_named(tone: StepTask[Tone]) -> None:
    outcome = accepted({"words": 7})
    document = Document(id="a.txt", text="Hello").with_outcome(outcome)
    assert tone.of(document, Other) == Other(words=7)
    with pytest.raises(
        Misuse, match=r"does not fit Tone.*write tone\.of\(document, Model\)"
    ):
        tone.of(document)


@pytest.mark.parametrize("name", ["checks", "correctness"])
def test_modules_of_version_0_1_still_import(name: str) -> None:
    """A team's flows import their checks and measures by these names."""
    old = import_module(f"tierwise.{name}")
    new = import_module(f"tierwise.steps.{name}")
    functions = {
        function
        for function, value in vars(new).items()
        if callable(value) and value.__module__ == new.__name__ and function[0] != "_"
    }
    assert functions
    assert all(
        getattr(old, function) is getattr(new, function) for function in functions
    )
