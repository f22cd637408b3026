"""Whether a desk of this project answers at an address, asked without telling it a token."""

from __future__ import annotations

import secrets
import ssl
from contextlib import suppress
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from tierwise.desk.access import Access

PROOF_HEADER = "x-tierwise-desk"
CHALLENGE = "challenge"
_WAIT_S = 5.0


def is_served(access: Access, url: str) -> bool:
    """Return True if a desk with the same key answers at an address of this machine.

    Another program at that port would otherwise get the link's token from the person who opens it.
    """
    challenge = secrets.token_hex(16)
    # The challenge proves who answers; the desk's own certificate need not be known here.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=unverified))
    proof = ""
    with suppress(URLError, OSError, HTTPException, ValueError):
        address = f"{url}/healthz?{CHALLENGE}={challenge}"
        with opener.open(address, timeout=_WAIT_S) as answer:
            proof = answer.headers.get(PROOF_HEADER) or ""
    return access.is_proof(challenge, proof)
