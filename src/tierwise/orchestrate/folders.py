"""The folders of a run: what it reads and writes, and which earlier runs had the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.runtime import flow_run

from tierwise.documents import Origin
from tierwise.documents.places import names_place, place_of
from tierwise.ledger import RunFolders
from tierwise.orchestrate.process_state import STATE

if TYPE_CHECKING:
    from tierwise.orchestrate.runs import Run


def flow_name() -> str | None:
    """Return the name of the flow that runs, perhaps dry; None in a script."""
    name = flow_run.get_flow_name()
    if name is None and STATE.dry_run:
        return STATE.dry_run.flow
    return name


def flow_parameters() -> Mapping[str, Any]:
    """Return the parameters of the flow that runs, perhaps dry."""
    if STATE.dry_run:
        return STATE.dry_run.parameters
    return flow_run.get_parameters() or {}


def begin_source(run: Run, source: str) -> Origin:
    """Return where documents of a source are from, and remember that the run reads it.

    The ids of a run are unique: from the second source on they begin with the source.
    """
    for origin in run.origins:
        if origin.source == source:
            return origin
    origin = Origin(source, is_further=bool(run.origins))
    run.origins.append(origin)
    return origin


def folders_of(run: Run) -> list[RunFolders]:
    """Return each source that a run read with each folder that it wrote, for the ledger.

    None for a run without documents: a schedule makes many of these.
    """
    if not run.documents:
        return []
    outputs: list[str | None] = list(dict.fromkeys(run.outputs))
    root = run.engine.project.root
    done = {each.source: place_of(each.folder, root) for each in run.done_folders}
    folders: list[RunFolders] = []
    for output in outputs or [None]:
        naming = _naming(run, output)
        folders += [
            RunFolders(
                source=origin.source,
                output=output,
                naming=naming,
                is_further=origin.is_further,
                done=done.get(origin.source),
            )
            for origin in run.origins
        ]
    return folders


def _naming(run: Run, output: str | None) -> dict[str, str]:
    """Return the parameters that named the output."""
    if output is None:
        return {}
    root = run.engine.project.root
    naming: dict[str, str] = {}
    for name, value in flow_parameters().items():
        if isinstance(value, str | Path) and names_place(str(value), output, root):
            naming[name] = place_of(value, root)
    return naming


def same_folders(run: Run, source: str) -> Callable[[RunFolders], bool]:
    """Return a function that says whether an earlier run had this run's folders.

    This run's output is not known before it is written. So its parameters decide that named the
    output of the earlier run: `out` in the shipped flows. Where none did, the flow's code names it.
    """
    root = run.engine.project.root
    parameters = flow_parameters()

    def is_same(folders: RunFolders) -> bool:
        if folders.source not in (None, source):
            return False
        for name, value in folders.naming.items():
            # a flow that has lost the parameter: its code names the folder now
            if name not in parameters:
                continue
            if place_of(str(parameters[name]), root) != place_of(value, root):
                return False
        return True

    return is_same
