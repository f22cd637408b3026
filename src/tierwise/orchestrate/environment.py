"""Variables that Prefect reads when it is imported: quiet, private to the project, and fast.

Variables that are set already stay. A Prefect server that is already there (PREFECT_API_URL, else
the one that `tierwise up` started, else a profile's address) is used as it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from tierwise.orchestrate.services import address

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_WRAP_LINES": "false",
}
# A temporary server starts slowly on a busy machine, and records task runs one by one by default.
_SERVER = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
}


def prepare_prefect(root: Path, *, log_level: str = "ERROR") -> None:
    """Set the variables that Prefect reads. Call it before Prefect is imported."""
    database = root / ".tierwise" / "prefect.db"
    database.parent.mkdir(exist_ok=True)
    settings = {
        **_QUIET,
        **_SERVER,
        "PREFECT_LOGGING_LEVEL": log_level,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
    }
    url = address(root)
    if url:
        settings["PREFECT_API_URL"] = f"{url}/api"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
