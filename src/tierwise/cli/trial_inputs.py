"""The document and the parameters that `tierwise try` asks a step about."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.errors import Misuse, UnknownName

if TYPE_CHECKING:
    from tierwise.documents.readers.settings import ReadingSettings
    from tierwise.lint.call_parameters import StepCall
    from tierwise.project import Project
    from tierwise.records import Document, Incomplete, Sensitivity
    from tierwise.steps.examples import Example
    from tierwise.steps.step import Step

STDIN = "-"


@dataclass(frozen=True, slots=True)
class StepInput:
    """A step with its parameters, and the file that they come from ("" without any)."""

    step: Step
    parameters: Mapping[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class DocumentInput:
    """A document, and the fields of the right answer where it is a labelled example."""

    document: Document
    expected: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """The way in which a flow would read the document."""

    sensitivity: Sensitivity
    text_column: str
    incomplete: Incomplete
    reading: ReadingSettings


# ---- parameters ---------------------------------------------------------------------------------


def find_parameters(
    project: Project, name: str, flow: str | None, given: Mapping[str, Any]
) -> StepInput:
    """Return a step with the parameters of golden/STEP.yaml, or else of the flow that calls it.

    `flow` names the flow to take; `given` replaces single parameters. Raises UnknownName, and
    Misuse where flows differ or a value is known only while the flow runs.
    """
    from tierwise.explain.decisions import step_of
    from tierwise.lint.call_parameters import Unknown

    step, measured = step_of(project, name)
    if step is None:
        step = project.load_step(name)  # raises
    step.require_model("try: run its flow")
    # The golden set wins over flows: a prompt is tried as it is measured.
    settings_path = Path("golden") / f"{step.name}.yaml"
    if flow is None and (project.root / settings_path).exists():
        return StepInput(step, {**measured, **given}, str(settings_path))
    calls = list(_calls_of(project, step, [flow] if flow else project.flow_names()))
    if not calls:
        if flow:
            raise Misuse(f"flows/{flow}.py does not call {step.name}")
        # No flow calls it yet, as with a new step: the given parameters are all there are.
        return StepInput(step, dict(given), "")
    # With --flow, the first of its calls will do; without, several that differ are refused.
    place, call = _one_call(step, calls, any_of_them=flow is not None)
    known = {
        name: value for name, value in call.parameters.items() if value is not Unknown
    }
    # Raises for the first in the alphabet: one message at a time, and always the same.
    for missing in sorted(call.parameters.keys() - known.keys() - given.keys()):
        raise Misuse(
            f"{place}: {missing} is known only while the flow runs; "
            f"give it with --parameter {missing}=VALUE"
        )
    # A flow may ask the step for another output model.
    if call.returns is not None:
        step = replace(step, returns=call.returns)
    return StepInput(step, {**known, **given}, place)


def _calls_of(
    project: Project, step: Step, flows: list[str]
) -> Iterator[tuple[str, StepCall]]:
    """Yield the calls of a step in some flows, with their places. Imports the flows."""
    from tierwise.lint.call_parameters import step_calls

    for flow in flows:
        project.load_flow(flow)
        # A flow is named with dashes in Prefect, and with underscores as a module.
        module_name = flow.replace("-", "_")
        file = Path("flows") / f"{module_name}.py"
        module = sys.modules[f"flows.{module_name}"]
        for call in step_calls(module, project.root / file):
            if call.step.name == step.name:
                yield f"{file}:{call.line}", call


def _one_call(
    step: Step, calls: list[tuple[str, StepCall]], *, any_of_them: bool
) -> tuple[str, StepCall]:
    """Return the first call. Raises Misuse where others have other parameters."""
    from tierwise.records import canonical_hash

    kinds: dict[str, tuple[str, StepCall]] = {}
    for place, call in calls:
        # Equal parameters are one kind, from however many places.
        kinds.setdefault(canonical_hash(call.parameters), (place, call))
    first, *others = kinds.values()
    if others and not any_of_them:
        places = ", ".join(place for place, _ in kinds.values())
        raise Misuse(
            f"flows call {step.name} with different parameters ({places}); "
            "name one with --flow, or write golden/"
            f"{step.name}.yaml"
        )
    return first


# ---- the document -------------------------------------------------------------------------------


def find_document(
    project: Project, step: str, name: str, options: ReadingOptions
) -> DocumentInput:
    """Return a document by its path, by `file.csv#3` or `mail.eml/scan.pdf`, by a golden row's id, or from stdin (`-`).

    Files are read as flows read them. Raises Misuse.
    """
    if name == STDIN:
        with _standard_input() as file:
            return DocumentInput(_only_document(file, options))
    # The whole name first, since a file's own name may contain a #.
    path = _path(project, name)
    if path is not None:
        return DocumentInput(_only_document(path, options))
    file_name, mark, row = name.rpartition("#")
    path = _path(project, file_name) if mark else None
    if path is not None:
        return DocumentInput(_row_of(path, row, options))
    member = _member_of(project, name, options)
    if member is not None:
        return DocumentInput(member)
    examples = _examples(project, step)
    if name not in examples:
        place = f"file, and no id in golden/{step}.jsonl"
        raise UnknownName(place, name, examples)
    example = examples[name]
    return DocumentInput(example.document(), example.expected)


@contextmanager
def _standard_input() -> Iterator[Path]:
    """Write what comes in on stdin to a file, so that the reader for files reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin.txt"
        path.write_bytes(sys.stdin.buffer.read())
        yield path


def _path(project: Project, name: str) -> Path | None:
    """Return a path below the current folder, or below the project, as flows take it."""
    for path in (Path(name), project.root / name):
        if name and path.exists():
            return path
    return None


def _only_document(path: Path, options: ReadingOptions) -> Document:
    if path.is_dir():
        raise Misuse(f"{path} is a folder; name one document in it")
    # Two are read at most: a table may have millions of rows.
    first, *others = islice(_read(path, options), 2)
    # The files attached to an e-mail are documents behind it.
    if others and first.id != path.name:
        raise Misuse(f"{path} has more than one document; name one, such as {first.id}")
    return _readable(first)


def _member_of(project: Project, name: str, options: ReadingOptions) -> Document | None:
    """Return a document inside of a file, such as `mail.eml/invoice.pdf`; None without such a file.

    Raises UnknownName for a file that has no document of this name.
    """
    for parent in Path(name).parents:
        path = _path(project, str(parent))
        if path is None or not path.is_file():
            continue
        wanted = f"{path.name}/{Path(name).relative_to(parent)}"
        ids = []
        for document in _read(path, options):
            if document.id == wanted:
                return _readable(document)
            ids.append(document.id)
        raise UnknownName(f"document in {path}", wanted, ids[:20])
    return None


def _row_of(path: Path, row: str, options: ReadingOptions) -> Document:
    """Return the row with this id, or else the one at this place, counted from 1."""
    ids = []
    at_place = None
    for number, document in enumerate(_read(path, options), 1):
        if document.id == f"{path.name}#{row}":
            return _readable(document)
        # Not returned yet, as a later row may have this number as its id.
        if str(number) == row:
            at_place = document
        ids.append(document.id.rpartition("#")[2])
    if at_place is None:
        # A few ids are enough for a suggestion.
        raise UnknownName(f"row of {path}", row, ids[:20])
    return _readable(at_place)


def _read(path: Path, options: ReadingOptions) -> Iterator[Document]:
    from tierwise.documents import iter_documents

    return iter_documents(
        path,
        sensitivity=options.sensitivity,
        text_column=options.text_column,
        incomplete=options.incomplete,
        settings=options.reading,
    )


def _readable(document: Document) -> Document:
    # A flow would defer it with this reason, and ask no model.
    if document.stopped:
        raise Misuse(f"{document.id}: {document.stopped.reason}")
    return document


def _examples(project: Project, step: str) -> dict[str, Example]:
    """Return the labelled examples of a step by id, those of its prompts last."""
    from tierwise.steps.examples import read_golden

    examples: dict[str, Example] = {}
    for name in (f"{step}.jsonl", f"{step}-examples.jsonl"):
        path = project.root / "golden" / name
        if path.exists():
            # A faulty row is no reason not to try another one.
            rows, _ = read_golden(path, at_least=0)
            for example in rows.values():
                examples.setdefault(example.id, example)
    return examples
