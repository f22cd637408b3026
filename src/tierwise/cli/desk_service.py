"""The desk of `tierwise up`, as a process of its own: `python -m tierwise.cli.desk_service PORT`.

It prints no link, as its output is its log.
"""

from __future__ import annotations

import logging
import os
import sys


def main() -> None:
    """Serve the desk of the project around the current folder on a port of this machine."""
    from tierwise.desk.server import Place, listen, serve
    from tierwise.ledger import Ledger
    from tierwise.orchestrate.api_password import use_server
    from tierwise.orchestrate.environment import ADDRESS, prepare_process
    from tierwise.orchestrate.services import address, remembered_address
    from tierwise.project import Project

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    named = os.environ.get(ADDRESS)
    prepare_process("ERROR")
    project = Project.find()
    root = project.root
    own = remembered_address(root)
    # Its alerts are events of this server, which may be down at this moment.
    if own and named in (None, f"{own}/api"):
        use_server(root, own)
    place = Place(host="127.0.0.1", port=int(sys.argv[1]))
    access = place.access(root, project.settings.desk)
    listener = listen(place.host, place.port)
    with Ledger.open(project.ledger_url, root=root) as ledger:
        serve(project, ledger, access, place, listener, lambda: address(root))


if __name__ == "__main__":
    main()
