"""Hashes as numbers: draws by chance that come out the same on every machine."""

from __future__ import annotations

import hashlib
from fractions import Fraction


def hash_share(*parts: str) -> Fraction:
    """Return a hash of these texts as a number from 0 up to, not including, 1.

    It is uniform over different texts: `hash_share(seed, id) < 0.2` picks a fifth of the ids. An
    exact fraction, since a float would round the 64 bits, and move a few texts across the limit.
    """
    text = "\0".join(parts)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return Fraction(int.from_bytes(digest[:8], "big"), 2**64)
