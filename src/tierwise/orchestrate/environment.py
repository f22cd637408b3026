"""Variables that Prefect reads when it is imported: quiet, private to the project, and fast.

The command line sets them before it imports a command, so no command has to think of it. Variables
that are set already stay. A Prefect server that is already there (PREFECT_API_URL, else the one
that `tierwise up` started, else a profile's address) is used as it is.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
import urllib.request
import warnings
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tierwise.orchestrate.api_password import LOOPBACK, prepare_password
from tierwise.orchestrate.services import address
from tierwise.text.files import folder_with
from tierwise.text.private import narrow_folder

ADDRESS = "PREFECT_API_URL"
_LOG_LEVEL = "PREFECT_LOGGING_LEVEL"
# A flow waits for a server that is away: 2 + 4 + 8 … seconds, some four minutes a request.
RETRIES = "PREFECT_CLIENT_MAX_RETRIES"
FLOW_RETRIES = "7"
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_WRAP_LINES": "false",
    # Recovery counts missed heartbeats; Prefect sends one every 180 s by default.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
# A temporary server starts slowly on a busy machine, and records task runs one by one by default.
_SERVER = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # Whole seconds: Prefect cuts off the fraction, and with 0 its server never sleeps.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
}
_ANSWERS_IN_S = 1.0  # a server on this machine
_REMOTE_ANSWERS_IN_S = 5.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_NO_PROXY = ("127.0.0.1", "localhost", "::1")


def prepare_process(log_level: str) -> str | None:
    """Set Prefect's variables for the project around the current folder.

    Without a project, only those that keep Prefect quiet. A PREFECT_API_URL that names this
    machine, where no server listens, is forgotten and returned: `tierwise down` leaves it behind in
    a shell that has exported it.
    """
    _bypass_proxy()
    dead = _drop_dead_server()
    root = _root()
    _set_home(root)
    if root is None:
        _set({**_QUIET, _LOG_LEVEL: log_level})
    else:
        prepare_prefect(root, log_level=log_level)
    return dead


def narrow_project() -> str | None:
    """Take the rights of other users from the project's `.tierwise`; return what to say of it."""
    root = _root()
    if root is None:
        return None
    folder = root / ".tierwise"
    narrowed = narrow_folder(folder)
    if not narrowed:
        return None
    names = sorted(
        {path.relative_to(folder).parts[0] for path in narrowed if path != folder}
    )
    listed = f" ({', '.join(names)})" if names else ""
    return f"other users had access to {folder}{listed}; now only its owner has"


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
    _bypass_proxy()
    url = address(root)
    if url:
        settings[ADDRESS] = f"{url}/api"
        settings[RETRIES] = FLOW_RETRIES
    _set(settings)
    prepare_password(root, url)
    # Nothing is written into a project that no run has used yet, and Prefect's home is in it.
    warnings.filterwarnings("ignore", message="Failed to create the Prefect home")


def show_prefect_log() -> None:
    """Have Prefect print its log. Call it before Prefect is imported."""
    os.environ[_LOG_LEVEL] = "INFO"


def _drop_dead_server() -> str | None:
    """Forget PREFECT_API_URL, and return it, if no server listens at that port of this machine."""
    url = os.environ.get(ADDRESS)
    if not url:
        return None
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
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


def answers(url: str) -> bool:
    """Return True if a Prefect server answers at an API's address, or asks for a password."""
    health = f"{url.rstrip('/')}/health"
    try:
        with urllib.request.urlopen(health, timeout=_REMOTE_ANSWERS_IN_S):  # noqa: S310 - as configured
            return True
    except HTTPError as error:
        return error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    except URLError as error:
        # A certificate that only Prefect's settings accept comes from a server that is there.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, HTTPException):
        return False


def no_server_at(url: str) -> str:
    """Return what to say of an address at which no Prefect server answers."""
    return f"no Prefect server answers at {url}; start it, or `unset {ADDRESS}`"


def database_problem(root: Path) -> str | None:
    """Return why Prefect's database cannot be used, with the remedy; None where it can."""
    path = prefect_database(root)
    if not path.exists():
        return None
    remedy = "no result depends on it: move it away, and the next run makes a new one"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            says = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        says = str(error)
    if says != "ok":
        return f"Prefect's database {path} is damaged ({says}); {remedy}"
    if not os.access(path, os.W_OK):
        return f"Prefect's database {path} may not be written; {remedy}"
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


def _root() -> Path | None:
    """Return the project's folder; None outside of a project."""
    folder = Path(os.environ.get("TIERWISE_PROJECT", ".")).resolve()
    return folder_with("routing_rules", folder)


def _set_home(root: Path | None) -> None:
    """Set HOME for a user who has none, such as a container's without an entry in /etc/passwd.

    Prefect's profiles and the folder for downloads are looked up from there. A folder that others
    may write to, such as /tmp, would let them choose both.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(root / ".tierwise") if root else os.devnull


def _bypass_proxy() -> None:
    """Let no request to this machine go through a proxy that the environment names."""
    names = [*_PROXIES, *(name.lower() for name in _PROXIES)]
    if not any(os.environ.get(name) for name in names):
        return
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in named.split(",") if host.strip()]
    missing = [host for host in _NO_PROXY if host not in hosts]
    direct = ",".join([*hosts, *missing])
    os.environ["NO_PROXY"] = direct
    os.environ["no_proxy"] = direct


def _set(variables: dict[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)
