"""Files of a run's sources that move to a done folder once their documents are on record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.documents.done_folder import (
    ReadFile,
    check_done_folder,
    make_done_folder,
    move_done_files,
)
from tierwise.documents.places import place_of
from tierwise.errors import LedgerError, Misuse
from tierwise.orchestrate.folders import flow_name, flow_parameters, same_folders
from tierwise.orchestrate.prefect_ui import log_to_run
from tierwise.orchestrate.process_state import STATE

if TYPE_CHECKING:
    from tierwise.orchestrate.runs import Run

_NO_FLOW = "script"  # the name on record of a run without a flow


@dataclass
class DoneFolder:
    """A done folder of one source. `files` are those that could move, once they are read."""

    source: str  # its name on record
    base: Path  # the folder that the files lie in
    folder: Path  # as the flow names it, below the project's root
    files: list[ReadFile] = field(default_factory=list)


def begin_done_folder(
    run: Run, source: str, path: Path, folder: Path | str
) -> DoneFolder:
    """Return the done folder of a source that the run reads, and make it, but in a dry run.

    Raises Misuse for a folder that cannot be one.
    """
    root = run.engine.project.root
    full = root / folder
    if root.resolve().is_relative_to(full.resolve()):
        raise Misuse(
            f"the done folder is empty, or the project's own folder ({full.resolve()}); "
            "name a folder for the files that are done"
        )
    done = DoneFolder(source, path if path.is_dir() else path.parent, full)
    run.done_folders.append(done)
    out = flow_parameters().get("out")
    outputs = [root / out] if isinstance(out, str | Path) else []
    check_done_folders(run, outputs)
    if run.engine.spool and STATE.dry_run is None:
        make_done_folder(full)
    return done


def check_done_folders(run: Run, outputs: list[Path]) -> None:
    """Raise Misuse where a done folder touches a source of the run or a folder of results."""
    results = [output.resolve() for output in outputs]
    for done in run.done_folders:
        check_done_folder(done.folder.resolve(), run.sources, results)


def move_files_of_run(run: Run) -> None:
    """Move the files whose documents are all done, and say so. Never fails a run, which is over.

    What is left is moved by the next run: the ledger knows that it is done.
    """
    root = run.engine.project.root
    for done in run.done_folders:
        if not done.files:
            continue
        is_here = same_folders(run, done.source)
        try:
            delivered = run.engine.ledger.runs.delivered(
                flow_name() or _NO_FLOW, is_here
            )
        except LedgerError as error:
            lines = [f"no file moved to {done.folder}: {error}; the next run does"]
        else:
            moves = move_done_files(done.files, delivered, done.base, done.folder)
            lines = moves.describe(place_of(done.folder, root))
        for line in lines:
            run.engine.moved.append(line)
            log_to_run("%s", line)
