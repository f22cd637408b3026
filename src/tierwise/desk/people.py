"""The password file of the desk: names, roles and hashed passwords, for its owner alone."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, Misuse, UnknownName
from tierwise.policy.desk_settings import ROLES, Role
from tierwise.text.files import write_atomically
from tierwise.text.private import FILE_MODE, private_folder

FOLDER = Path(".tierwise/desk")  # below the project's root
SHORTEST_PASSWORD = 12
_LONGEST_NAME = 100
_LONGEST_PASSWORD = 1024  # bytes; more would only make the hash slow
# About 60 ms and 32 MiB for a try, as OWASP recommends for scrypt.
_N = 2**15
_R = 8
_P = 1
_MEMORY = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Account:
    """One person of the password file. `salt` and `digest` are hex, of scrypt."""

    name: str
    role: Role
    salt: str
    digest: str

    @property
    def stamp(self) -> str:
        """A value that changes with the password, so that old sessions end with it."""
        return hashlib.sha256(f"{self.salt}{self.digest}".encode()).hexdigest()[:16]


# Checked where the name is unknown, so that the time says nothing about which names there are.
_NO_ACCOUNT = Account("", "viewer", "00" * 16, "00" * 32)


class People:
    """The people of a project's desk, read again for each request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, root: Path) -> People:
        """Return the people of a project."""
        return cls(root / FOLDER / "people.json")

    def accounts(self) -> Mapping[str, Account]:
        """Return everyone by name. Raises ConfigError for a damaged file."""
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            accounts = [_account(row) for row in rows]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"cannot be read: {error}; add people again with `tierwise desk add`",
                path=self.path,
            ) from None
        return {account.name: account for account in accounts}

    def add(self, name: str, role: Role, password: str) -> None:
        """Add a person, or give one a new role and password. Raises Misuse."""
        refuse_name(name)
        if len(password) < SHORTEST_PASSWORD:
            raise Misuse(f"a password has at least {SHORTEST_PASSWORD} characters")
        if len(password.encode()) > _LONGEST_PASSWORD:
            raise Misuse(f"a password has at most {_LONGEST_PASSWORD} bytes")
        salt = secrets.token_bytes(16)
        digest = _digest(password, salt)
        account = Account(name, role, salt.hex(), digest.hex())
        with self._locked():
            self._write({**self.accounts(), name: account})

    def remove(self, name: str) -> None:
        """Remove a person; their sessions end at once. Raises UnknownName."""
        with self._locked():
            accounts = dict(self.accounts())
            if accounts.pop(name, None) is None:
                raise UnknownName("person", name, accounts)
            self._write(accounts)

    def check(self, name: str, password: str) -> Account | None:
        """Return a person whose password this is; None for a wrong name or password."""
        if len(password.encode(errors="replace")) > _LONGEST_PASSWORD:
            return None
        account = self.accounts().get(name, _NO_ACCOUNT)
        digest = _digest(password, bytes.fromhex(account.salt))
        is_right = hmac.compare_digest(digest, bytes.fromhex(account.digest))
        return account if is_right and account is not _NO_ACCOUNT else None

    def _locked(self) -> Any:
        from filelock import FileLock

        private_folder(self.path.parent)
        return FileLock(self.path.with_suffix(".lock"), mode=FILE_MODE)

    def _write(self, accounts: Mapping[str, Account]) -> None:
        rows = [asdict(account) for account in accounts.values()]
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path, text, private=True)


def is_name(name: str) -> bool:
    """Return True for a name that can be told apart on a page and on record."""
    is_plain = name.isprintable() and name == name.strip()
    return bool(name) and is_plain and len(name) <= _LONGEST_NAME


def refuse_name(name: str) -> None:
    """Raise Misuse for a name that cannot be told apart on a page or on record."""
    if not is_name(name):
        raise Misuse(
            f"a person's name has 1 to {_LONGEST_NAME} printable characters, "
            "without spaces around it"
        )


def _account(row: Any) -> Account:
    account = Account(row["name"], row["role"], row["salt"], row["digest"])
    if account.role not in ROLES:
        raise ValueError(f"'{account.role}' is no role; take {', '.join(ROLES)}")
    # A damaged hash must not become a traceback at the first sign-in.
    bytes.fromhex(account.salt)
    bytes.fromhex(account.digest)
    return account


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode(errors="replace"),
        salt=salt,
        n=_N,
        r=_R,
        p=_P,
        maxmem=_MEMORY,
        dklen=32,
    )
