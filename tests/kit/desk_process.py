"""A desk as a process of its own, which a test kills at any moment.

`python -m tests.kit.desk_process URL ROOT PORT` serves the project in ROOT with the ledger at URL.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tierwise.desk.app import build_app
from tierwise.desk.server import access_for, listen, make_server
from tierwise.ledger import Ledger
from tierwise.project import Project


def main() -> None:
    """Serve until killed."""
    url, folder, port = sys.argv[1:]
    project = Project(Path(folder))
    access = access_for(project.root, project.settings.desk, "127.0.0.1", int(port))
    listener = listen("127.0.0.1", int(port))
    with Ledger.open(url, root=project.root, patience_s=30) as ledger:
        app = build_app(project, ledger, access)
        make_server(app).run(sockets=[listener])


if __name__ == "__main__":
    main()
