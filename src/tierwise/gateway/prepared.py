"""A call's request as a lane would send it, and the answer to one that was sent elsewhere.

A provider batch sends the same requests and gets the same answers as calls that go online, only
together and later. So the lanes write the requests of a batch and read its answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """One request: its address, its headers in lower case, and its body as JSON."""

    url: str = field(repr=False)  # some providers have the key in it
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
