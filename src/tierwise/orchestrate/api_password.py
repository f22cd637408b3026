"""The password of a project's own Prefect server: made once, and used by every process of it.

Whoever reaches the API of a Prefect server may run code as the user of its worker, so a server of
ours answers nobody without a password. It is in a file that only its owner can read, and goes from
process to process in variables, never in arguments, which every user of the machine can list.
"""

from __future__ import annotations

import base64
import os
import shlex
import sys
import urllib.request
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from tierwise.orchestrate.services import FOLDER
from tierwise.text.files import write_atomically
from tierwise.text.private import FILE_MODE, private_folder

ADDRESS = "PREFECT_API_URL"
CLIENT = "PREFECT_API_AUTH_STRING"
SERVER = "PREFECT_SERVER_API_AUTH_STRING"
ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
# No page can come from there; Prefect's default allows pages from everywhere.
NO_ORIGIN = "https://no-page.invalid"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_FILE = "api-password"
_SHELL_FILE = "prefect.env"
_USER = "tierwise"  # the API takes a name with each password, as `curl --user` does
_ANSWERS_IN_S = 10.0
# Files in which Prefect looks for the address of a server, and the words that begin its settings.
_CONFIGURED = {
    ".env": "PREFECT_",
    "prefect.toml": "[",
    "pyproject.toml": "[tool.prefect",
}


class Access(Enum):
    """The answer of a server to the project's password."""

    GRANTED = "it accepts the password, and asks for one"
    OPEN = "it asks for no password"
    REFUSED = "it asks for another password"


def password_file(root: Path) -> Path:
    """Return the file with the password of a project's own server."""
    return root / FOLDER / _FILE


def shell_file(root: Path) -> Path:
    """Return the file that gives a shell the address and the password: `. FILE`."""
    return root / FOLDER / _SHELL_FILE


def read_password(root: Path) -> str | None:
    """Return the password of a project's own server; None before the first `tierwise up`."""
    try:
        return password_file(root).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def ensure_password(root: Path) -> str:
    """Return the password of a project's own server, and make one where there is none.

    A person may choose it by writing the file.
    """
    from filelock import FileLock

    folder = private_folder(root / FOLDER)
    # `tierwise ui` and `tierwise up` may both be the first.
    with FileLock(folder / f"{_FILE}.lock", mode=FILE_MODE):
        password = read_password(root)
        if password is None:
            password = _new_password()
            write_atomically(password_file(root), password + "\n", private=True)
    return password


def server_environment(root: Path, url: str) -> dict[str, str]:
    """Return the variables for a server of ours at an address, on top of this process's.

    Only its own pages may use the API from a browser.
    """
    port = urlsplit(url).port
    # The pages ask the first of these, whichever the browser has come by.
    own = f"{url},http://localhost:{port}"
    origins = os.environ.get(ORIGINS, NO_ORIGIN)
    if origins == NO_ORIGIN:
        origins = own
    return {
        SERVER: ensure_password(root),
        ORIGINS: origins,
        # The pages ask port 4200 by default, and stay empty on another port.
        "PREFECT_UI_API_URL": f"{url}/api",
    }


def use_server(root: Path, url: str) -> None:
    """Have this process and its children use the project's own server, which is at `url`."""
    os.environ[ADDRESS] = f"{url}/api"
    os.environ[CLIENT] = ensure_password(root)
    # That of a temporary server, which is not needed.
    os.environ.pop(SERVER, None)
    lines = [
        f"export {name}={shlex.quote(os.environ[name])}" for name in (ADDRESS, CLIENT)
    ]
    write_atomically(shell_file(root), "\n".join(lines) + "\n", private=True)
    if _is_prefect_loaded():
        # It has read its variables, and would start a temporary server on the same database.
        _read_variables_again()


def prepare_password(root: Path, url: str | None) -> None:
    """Set the variables of the password, given the address of the project's own server if it runs.

    Call it before Prefect is imported. A server of somebody else keeps the password that is set for
    it, and never gets ours.
    """
    os.environ.setdefault(ORIGINS, NO_ORIGIN)
    address = os.environ.get(ADDRESS)
    if url is not None and (address is None or _is_same(address, f"{url}/api")):
        password = read_password(root)
        if password:
            os.environ[CLIENT] = password
    elif address is None and not (_is_prefect_loaded() or _may_be_configured(root)):
        _protect_temporary()


def protect_temporary_server(root: Path) -> bool:
    """Give a server that this process may start a password; return False where none will be.

    Needed where a file might name a server, so that only Prefect's own settings can tell.
    """
    if os.environ.get(ADDRESS):
        return False
    if not _is_prefect_loaded() and not _may_be_configured(root):
        return True
    # This leaves out most of Prefect, which reads its variables when it is imported as a whole.
    from prefect.settings import get_current_settings
    from prefect.settings.models.root import Settings

    is_loaded = _is_prefect_loaded()
    settings = get_current_settings() if is_loaded else Settings()
    if settings.api.url is not None:
        return False
    if is_loaded and settings.server.api.auth_string is not None:
        return True
    _protect_temporary()
    if is_loaded:
        _read_variables_again()
    return True


def access(api: str, password: str | None) -> Access | None:
    """Return what a server answers with and without the password; None if it does not answer."""
    # A server without a password answers any caller, also one that sends some password.
    if _status(api, None) == HTTPStatus.OK:
        return Access.OPEN
    status = _status(api, password)
    if status == HTTPStatus.OK:
        return Access.GRANTED
    if status == HTTPStatus.UNAUTHORIZED:
        return Access.REFUSED
    return None


def sign_in_note(root: Path) -> str:
    """Return how a browser and Prefect's own command get the password."""
    password = _nearest(password_file(root))
    variables = shlex.quote(_nearest(shell_file(root)))
    return (
        f"Password of the UI: in {password}   (Prefect's own commands: . {variables})"
    )


def _nearest(path: Path) -> str:
    """Return a path as the current folder sees it, where that is not longer."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _status(api: str, password: str | None) -> int | None:
    """Return the status of a harmless question to an API; None without an answer."""
    request = urllib.request.Request(f"{api.rstrip('/')}/version")  # noqa: S310 - as configured
    if password:
        token = base64.b64encode(password.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=_ANSWERS_IN_S) as reply:  # noqa: S310 - as above
            status: int = reply.status
            return status
    except HTTPError as error:
        return error.code
    except OSError:
        return None


def _protect_temporary() -> None:
    """Give a server that this process starts a password, which ends with the process."""
    password = _new_password()
    os.environ[SERVER] = password
    os.environ[CLIENT] = password


def _new_password() -> str:
    from secrets import token_urlsafe

    return f"{_USER}:{token_urlsafe(32)}"


def _is_prefect_loaded() -> bool:
    """Return True if Prefect has read its variables."""
    return "prefect.context" in sys.modules


def _read_variables_again() -> None:
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def _is_same(address: str, own: str) -> bool:
    """Return True if two addresses are of one server on this machine."""
    asked = urlsplit(address)
    ours = urlsplit(own)
    is_local = asked.hostname in LOOPBACK and ours.hostname in LOOPBACK
    is_same_host = is_local or asked.hostname == ours.hostname
    return is_same_host and asked.port == ours.port and asked.scheme == ours.scheme


def _may_be_configured(root: Path) -> bool:
    """Return True if a file may name a Prefect server; only Prefect itself could tell for sure."""
    files = {root / name: word for name, word in _CONFIGURED.items()}
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml"
    files[Path(profiles)] = ADDRESS
    for path, word in files.items():
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if word in text:
            return True
    return False
