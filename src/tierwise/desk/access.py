"""Who asks, and what they may do: sessions, the link, the proxy's header, CSRF tokens and roles."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, HTTPException, Request

from tierwise.desk.ended_sessions import EndedSessions
from tierwise.desk.people import FOLDER, People, is_name
from tierwise.policy.desk_settings import ProxySettings, Role, Sees, role_rank
from tierwise.records import Sensitivity
from tierwise.text.files import write_atomically
from tierwise.text.private import private_folder

SESSION_S = 12 * 3600.0
_BEARER = "bearer "
# By what a person is known.
By = Literal["link", "password", "proxy", "metrics"]


@dataclass(frozen=True, slots=True)
class Person:
    """The person behind a request. `name` goes on record with a decision."""

    name: str
    role: Role
    by: By = "link"
    session: str = ""  # the CSRF token is made from it

    def is_at_least(self, role: Role) -> bool:
        """Return True if this person may do what a role may."""
        return role_rank(self.role) >= role_rank(role)


@dataclass(frozen=True, kw_only=True)
class Access:
    """How people get in. `hosts` are the values of the Host header that are answered.

    `link_user` is the name of the person with the link, who is an admin; None where there is no
    link, as on an address that others reach.
    """

    key: bytes
    hosts: frozenset[str]
    cookie: str
    people: People
    ended: EndedSessions
    link_user: str | None = None
    proxy: ProxySettings | None = None
    sees: Sees = field(default_factory=Sees)
    is_secure: bool = False  # the desk itself speaks TLS
    clock: Callable[[], float] = time.time

    @property
    def link_token(self) -> str:
        """The token of the link; it is valid as long as the key."""
        return self._signature("link")

    @property
    def metrics_token(self) -> str:
        """The bearer token for /metrics, and for nothing else."""
        return self._signature("metrics")

    def person_of(self, request: Request) -> Person | None:
        """Return the person behind a request; None for a stranger."""
        if request.scope["path"] == "/metrics":
            scraper = self._scraper(request.headers.get("authorization", ""))
            if scraper is not None:
                return scraper
        if self.proxy is not None:
            person = self._from_proxy(request, self.proxy)
            if person is not None:
                return person
        return self._from_cookie(request.cookies.get(self.cookie, ""))

    def may_see(self, person: Person, sensitivity: Sensitivity) -> bool:
        """Return True if a person may read texts of this sensitivity."""
        return self.sees.may_see(person.role, sensitivity)

    def new_session(self, name: str, by: By, stamp: str = "") -> str:
        """Return the value of a cookie for a person who has just signed in."""
        data = {
            "name": name,
            "by": by,
            "stamp": stamp,
            "id": secrets.token_hex(16),
            "until": self.clock() + SESSION_S,
        }
        text = json.dumps(data, separators=(",", ":"))
        payload = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{payload}.{self._signature(f'session {payload}')}"

    def end_session(self, person: Person) -> None:
        """End a person's session for good: copies of its cookie count no more."""
        if person.session:
            now = self.clock()
            self.ended.add(person.session, now, now + SESSION_S)

    def csrf_token(self, person: Person) -> str:
        """Return the token that each form of a person must send back."""
        return self._signature(f"csrf {person.by} {person.name} {person.session}")

    def proof(self, challenge: str) -> str:
        """Return what only a desk with this key can answer to a challenge."""
        return self._signature(f"challenge {challenge}")

    def is_proof(self, challenge: str, proof: str) -> bool:
        """Return True for the answer of a desk with this key."""
        return _is_same(proof, self.proof(challenge))

    def is_link_token(self, token: str) -> bool:
        """Return True for the link's token, where there is a link."""
        return self.link_user is not None and _is_same(token, self.link_token)

    def is_csrf_token(self, person: Person, token: str) -> bool:
        """Return True for the token of this person's session."""
        return _is_same(token, self.csrf_token(person))

    def _scraper(self, authorization: str) -> Person | None:
        if not authorization.lower().startswith(_BEARER):
            return None
        token = authorization[len(_BEARER) :].strip()
        if not _is_same(token, self.metrics_token):
            return None
        return Person("metrics", "viewer", "metrics")

    def _from_proxy(self, request: Request, proxy: ProxySettings) -> Person | None:
        """Return the person whom the proxy has signed in; None for another sender's header."""
        if request.client is None:
            return None
        if not is_from(request.client.host, proxy.addresses):
            return None
        names = request.headers.getlist(proxy.header)
        # Two values: one of them may be the browser's own.
        if len(names) != 1:
            return None
        name = _as_utf8(names[0]).strip()
        if not is_name(name):
            return None
        account = self.people.accounts().get(name)
        role = proxy.role if account is None else account.role
        if role is None:
            return None
        return Person(name, role, "proxy")

    def _from_cookie(self, value: str) -> Person | None:
        payload, _, signature = value.rpartition(".")
        if not _is_same(signature, self._signature(f"session {payload}")):
            return None
        padding = "=" * (-len(payload) % 4)
        data = json.loads(base64.urlsafe_b64decode(payload + padding))
        if data["until"] < self.clock() or self.ended.has(data["id"]):
            return None
        name = data["name"]
        if data["by"] == "link":
            if self.link_user is None:
                return None
            return Person(name, "admin", "link", data["id"])
        account = self.people.accounts().get(name)
        # The role is today's, and a new password ends the sessions of the old one.
        if account is None or account.stamp != data["stamp"]:
            return None
        return Person(name, account.role, "password", data["id"])

    def _signature(self, text: str) -> str:
        digest = hmac.new(self.key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def ensure_key(root: Path) -> bytes:
    """Return the key that signs links and sessions, and make one where there is none.

    Whoever removes the file ends all sessions, and the links.
    """
    from filelock import FileLock

    path = root / FOLDER / "key"
    private_folder(path.parent)
    with FileLock(path.with_suffix(".lock"), mode=0o600):
        try:
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except (FileNotFoundError, ValueError):
            key = b""
        if len(key) < 32:
            key = secrets.token_bytes(32)
            write_atomically(path, key.hex() + "\n", private=True)
    return key


def is_from(host: str, addresses: tuple[str, ...]) -> bool:
    """Return True if a connection comes from one of these addresses."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    # A socket for both families shows an IPv4 address as ::ffff:127.0.0.1.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address) in addresses


def current_person(request: Request) -> Person:
    """Return the person behind a request that the guard let through."""
    person = request.state.person
    if not isinstance(person, Person):
        raise HTTPException(401)
    return person


def require(role: Role) -> Any:
    """Return a dependency: the person, if the role is at least this one; else status 403.

    `person: Annotated[Person, require("reviewer")]`.
    """

    def person_with_role(request: Request) -> Person:
        person = current_person(request)
        if not person.is_at_least(role):
            raise HTTPException(
                403, f"this needs the role {role}; yours is {person.role}"
            )
        return person

    return Depends(person_with_role)


Viewer = Annotated[Person, require("viewer")]
Reviewer = Annotated[Person, require("reviewer")]
Admin = Annotated[Person, require("admin")]


def _as_utf8(header: str) -> str:
    """Return a header's value as UTF-8, as proxies send names; others stay as they came."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def _is_same(one: str, other: str) -> bool:
    """Compare in a time that says nothing about where they differ."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())
