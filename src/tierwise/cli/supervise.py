"""The supervisor of `tierwise up`, as a process of its own: `python -m tierwise.cli.supervise`.

It starts the server and the worker again when they die, and ends the flow runs whose process is
dead. With `--only-runs` it does the second alone, and ends with the process that started it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierwise.project import Project


def main() -> None:
    """Supervise the project around the current folder until nothing is wanted any more."""
    from tierwise.orchestrate.api_password import use_server
    from tierwise.orchestrate.environment import ADDRESS, prepare_process
    from tierwise.orchestrate.services import remembered_address

    only_runs = "--only-runs" in sys.argv[1:]
    parent = os.getppid()
    named = os.environ.get(ADDRESS)
    prepare_process("ERROR")
    from tierwise.orchestrate.supervision import Supervisor, restart_functions, wanted
    from tierwise.project import Project

    project = Project.find()
    own = remembered_address(project.root)
    # The server may be down at this moment; its address counts all the same.
    if own and named in (None, f"{own}/api"):
        use_server(project.root, own)
    elif named:
        os.environ[ADDRESS] = named

    def is_wanted() -> bool:
        if only_runs:
            return os.getppid() == parent
        return bool(wanted(project.root))

    starts = {} if only_runs else restart_functions(project.root)
    Supervisor(project.root, _look(project), starts, _say).run(is_wanted)


def _look(project: Project) -> Callable[[], None]:
    """Return a function that ends dead runs and resumes those whose batches are over.

    A failure is said once until it is over.
    """
    from tierwise.orchestrate.recovery import Recovery
    from tierwise.orchestrate.resuming import Resuming

    recovery = Recovery(project)
    resuming = Resuming(project, _say)
    said: set[str] = set()

    def look() -> None:
        try:
            for recovered in recovery.look():
                _say(recovered.line)
            resuming.look()
            said.clear()
        except Exception as error:  # noqa: BLE001 - the server or the ledger may be away
            problem = (
                f"the runs cannot be looked after: {type(error).__name__}: {error}"
            )
            if problem not in said:
                _say(problem)
            said.add(problem)

    return look


def _say(line: str) -> None:
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    print(f"{now} {line}", flush=True)  # noqa: T201 - its output is its log


if __name__ == "__main__":
    main()
