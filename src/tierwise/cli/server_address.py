"""The address at which the project's server is to start: its last one, unless another is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tierwise.ledger import RunProcess

_PORT = 4200
_RUNS_NAMED = 3


def address_for(root: Path, port: int | None, *, force: bool) -> str:
    """Return the address for a server that is to start.

    Raises Misuse where its port is taken; and unless `force`, where it is not the last port and
    runs are under way, since they report to that one.
    """
    from tierwise.errors import Misuse
    from tierwise.orchestrate.ports import is_taken, listener
    from tierwise.orchestrate.services import remembered_address

    remembered = remembered_address(root)
    url = remembered or f"http://127.0.0.1:{_PORT}"
    if port and not url.endswith(f":{port}"):
        # This machine only: whoever has the password may run programs here.
        url = f"http://127.0.0.1:{port}"
        if remembered and not force:
            _refuse_to_leave(root, remembered, port)
    wanted = int(url.rpartition(":")[2])
    # The server itself would report this only in its log.
    if is_taken(wanted):
        raise Misuse(
            f"port {wanted} is taken by {listener(wanted)}; end it, or choose another port: "
            f"tierwise up --port {wanted + 1}"
        )
    return url


def _refuse_to_leave(root: Path, remembered: str, port: int) -> None:
    """Raise Misuse where runs are under way: they would never find the server at another port."""
    from tierwise.errors import Misuse

    runs = _runs_under_way(root)
    if not runs:
        return
    named = [f"{run.run_id} ({run.process})" for run in runs[:_RUNS_NAMED]]
    if len(runs) > _RUNS_NAMED:
        named.append(f"{len(runs) - _RUNS_NAMED} more")
    raise Misuse(
        f"runs that report to {remembered} are under way: {', '.join(named)}; let them end, or "
        "start the server there, with `tierwise up`. On another port Prefect never hears of "
        f"them again: tierwise up --port {port} --force"
    )


def _runs_under_way(root: Path) -> list[RunProcess]:
    """Return the runs whose process is alive; none where the ledger cannot say."""
    from tierwise.errors import LedgerError
    from tierwise.ledger import Ledger
    from tierwise.project import Project

    try:
        with Ledger.open(Project(root).ledger_url, root=root) as ledger:
            return ledger.runs.under_way()
    except LedgerError:
        return []
