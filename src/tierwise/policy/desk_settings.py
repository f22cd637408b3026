"""The desk: `[tool.tierwise.desk]`, its port, its names, its proxy and what each role may see."""

from __future__ import annotations

import ipaddress
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from tierwise.records import Sensitivity, rank
from tierwise.text.settings import Settings

# Each role may do what the roles before it may.
Role = Literal["viewer", "reviewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
PORT = 4280


def role_rank(role: Role) -> int:
    """Return the position in viewer < reviewer < admin."""
    return ROLES.index(role)


class Sees(Settings):
    """`[tool.tierwise.desk.sees]`: the highest sensitivity whose texts a role may read."""

    viewer: Sensitivity = Field("internal", description="What viewers may read.")
    reviewer: Sensitivity = Field(
        "confidential", description="What reviewers may read."
    )
    admin: Sensitivity = Field("restricted", description="What admins may read.")

    def may_see(self, role: Role, sensitivity: Sensitivity) -> bool:
        """Return True if a role may read texts of this sensitivity."""
        highest: Sensitivity = getattr(self, role)
        return rank(sensitivity) <= rank(highest)

    @model_validator(mode="after")
    def _in_order(self) -> Sees:
        """Refuse a role that may read less than a lesser one: it may do all that one may."""
        levels = [rank(getattr(self, role)) for role in ROLES]
        if levels != sorted(levels):
            raise ValueError(
                "a reviewer must be allowed what a viewer is, and an admin what a reviewer is"
            )
        return self


class ProxySettings(Settings):
    """`[tool.tierwise.desk.proxy]`: a reverse proxy that signs people in."""

    header: str = Field(
        description="The header with the person's name, such as `X-Forwarded-User`.",
        pattern="^[A-Za-z0-9-]+$",
    )
    addresses: tuple[str, ...] = Field(
        description="The proxy's IP addresses. From others, the header is ignored.",
        min_length=1,
    )
    role: Role | None = Field(
        None,
        description="The role of a person that is not in the password file. Left out, such a "
        "person is refused.",
    )

    @field_validator("addresses")
    @classmethod
    def _addresses_alone(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Return the addresses in their usual form: a name could be pointed elsewhere."""
        return tuple(str(ipaddress.ip_address(address)) for address in addresses)


class DeskSettings(Settings):
    """`[tool.tierwise.desk]`: the web application of `tierwise desk`."""

    port: int = Field(PORT, ge=1, le=65535, description="The port of the desk.")
    labellers: Literal[1, 2] = Field(
        1,
        description="The number of people who label each sampled answer independently. With 2, a "
        "third person labels those on which the two differ.",
    )
    names: tuple[str, ...] = Field(
        (),
        description="Names under which browsers reach the desk, such as `desk.example.com` or "
        "`desk.example.com:8443`. Requests for other names are refused.",
    )
    proxy: ProxySettings | None = Field(
        None, description="A reverse proxy that signs people in."
    )
    sees: Sees = Field(
        Sees(), description="The highest sensitivity whose texts a role may read."
    )
