"""Variables that Prefect reads when it is imported: quiet, private to the project, and fast.

The command line sets them before it imports a command, so no command has to think of it. Variables
that are set already stay. A Prefect server that is already there (PREFECT_API_URL, else the one
that `tierwise up` started, else a profile's address) is used as it is.
"""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from urllib.parse import urlsplit

from tierwise.orchestrate.services import address
from tierwise.text.files import folder_with

ADDRESS = "PREFECT_API_URL"
_LOG_LEVEL = "PREFECT_LOGGING_LEVEL"
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
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "0.2",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_ANSWERS_IN_S = 1.0  # a server on this machine


def prepare_process(log_level: str) -> str | None:
    """Set Prefect's variables for the project around the current folder.

    Without a project, only those that keep Prefect quiet. A PREFECT_API_URL that names this
    machine, where no server listens, is forgotten and returned: `tierwise down` leaves it behind in
    a shell that has exported it.
    """
    dead = _drop_dead_server()
    folder = Path(os.environ.get("TIERWISE_PROJECT", ".")).resolve()
    root = folder_with("routing_rules", folder)
    if root is None:
        _set({**_QUIET, _LOG_LEVEL: log_level})
    else:
        prepare_prefect(root, log_level=log_level)
    return dead


def prepare_prefect(root: Path, *, log_level: str = "ERROR") -> None:
    """Set the variables that Prefect reads. Call it before Prefect is imported."""
    home = prefect_home(root)
    settings = {
        **_QUIET,
        **_SERVER,
        _LOG_LEVEL: log_level,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(root),
    }
    if "PREFECT_HOME" not in os.environ:
        # A person's profiles still apply; results and settings that Prefect writes stay here.
        profiles = Path.home() / ".prefect" / "profiles.toml"
        if profiles.exists():
            settings["PREFECT_PROFILES_PATH"] = str(profiles)
        settings["PREFECT_HOME"] = str(home)
    url = address(root)
    if url:
        settings[ADDRESS] = f"{url}/api"
    _set(settings)
    # Nothing is written into a project that no run has used yet, and Prefect's home is in it.
    warnings.filterwarnings("ignore", message="Failed to create the Prefect home")


def show_prefect_log() -> None:
    """Have Prefect print its log. Call it before Prefect is imported."""
    os.environ[_LOG_LEVEL] = "INFO"


def _drop_dead_server() -> str | None:
    """Forget PREFECT_API_URL, and return it, where no server listens at that port of this machine."""
    url = os.environ.get(ADDRESS)
    if not url:
        return None
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_ANSWERS_IN_S):
            return None
    except ConnectionRefusedError:
        del os.environ[ADDRESS]
        return url
    except OSError:  # busy, or not reachable: Prefect reports it
        return None


def prefect_home(root: Path) -> Path:
    """Return the folder in which Prefect keeps what it writes besides its database."""
    return root / ".tierwise" / "prefect"


def prefect_database(root: Path) -> Path:
    """Return the file of a project's Prefect database."""
    return root / ".tierwise" / "prefect.db"


def database_url(root: Path) -> str:
    """Return the address of a project's Prefect database."""
    return f"sqlite+aiosqlite:///{prefect_database(root)}"


def _set(variables: dict[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)
