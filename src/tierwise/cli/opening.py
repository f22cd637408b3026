"""The one way in which commands open the project and its ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.project import Project


def find_project() -> Project:
    """Return the project around the current folder. Raises Misuse."""
    from tierwise.project import Project

    return Project.find()


def open_ledger(project: Project | None = None) -> Ledger:
    """Open the ledger of a project (default: the one around the current folder).

    Use it in a `with` statement. Raises Misuse, LedgerError.
    """
    from tierwise.ledger import Ledger

    project = project or find_project()
    return Ledger.open(project.ledger_url, root=project.root)
